use super::*;
use crate::forward::via::Egress;

fn servers(strategy: Strategy) -> Upstreams {
    let mut upstreams = Upstreams::new();
    let config = |port, group| UpstreamConfig {
        to: SocketAddr::from(([192, 0, 2, 1], port)).into(),
        group,
        trusted: false,
        edns: true,
        strategy,
    };
    upstreams
        .configure(&[config(1, 0), config(2, 0), config(3, 1)])
        .expect("fits");
    upstreams
}

const NOW: Instant = Instant::from_millis(5_000);

/// One address by two ways: each is measured by itself, and keeps its state while it stays configured.
#[test]
fn a_server_by_another_way_is_another_server() {
    let mut upstreams = servers(Strategy::Ordered);
    let by = |interface, source: Option<[u8; 4]>| {
        let mut config = upstreams.get(0).expect("is there").config;
        config.to.egress = Egress {
            interface,
            source: source.map(Into::into),
        };
        config
    };
    let ways = [
        by(7, None),
        by(8, None),
        by(0, Some([192, 0, 2, 7])),
        by(0, Some([192, 0, 2, 8])),
    ];
    upstreams.configure(&ways).expect("fits");
    for (index, rtt) in [(0, 10), (1, 20), (2, 30), (3, 40)] {
        assert_eq!(upstreams.get(index).expect("is there").srtt_ms(), None);
        upstreams.answered(index, rtt, NOW);
    }
    let [first, second, third, fourth] = ways;
    let turned = [fourth, third, second, first];
    upstreams.configure(&turned).expect("fits");
    let rtt = |upstream: &Upstream| upstream.srtt_ms();
    let rtts: Vec<_, UPSTREAMS> = upstreams.as_slice().iter().map(rtt).collect();
    assert_eq!(rtts, [Some(40), Some(30), Some(20), Some(10)]);
}

#[test]
fn ordered_asks_in_order_and_repeats_when_all_were_asked() {
    let upstreams = servers(Strategy::Ordered);
    assert_eq!(upstreams.pick(0, 0), Some(0));
    assert_eq!(upstreams.pick(0, 0b01), Some(1));
    assert_eq!(upstreams.pick(0, 0b11), Some(0));
    assert_eq!(upstreams.pick(1, 0), Some(2));
    assert_eq!(upstreams.pick(2, 0), None);
}

/// It is for display, and does not affect the choice of servers.
#[test]
fn the_last_failure_is_kept_through_answers_and_a_new_configuration() {
    let mut upstreams = servers(Strategy::Ordered);
    let failure = |upstreams: &Upstreams| upstreams.get(0).and_then(Upstream::failure);
    assert_eq!(failure(&upstreams), None);
    for number in 0..10 {
        upstreams.failed(0, FailureKind::Malformed, NOW);
        upstreams.failed(0, FailureKind::Unreachable, NOW + number);
    }
    let last = Some((FailureKind::Unreachable, NOW + 9));
    assert_eq!(failure(&upstreams), last);
    assert_eq!(upstreams.pick(0, 0), Some(0));
    upstreams.answered(0, 50, NOW + 10);
    let same: Vec<UpstreamConfig, UPSTREAMS> = upstreams
        .as_slice()
        .iter()
        .map(|upstream| upstream.config)
        .collect();
    upstreams.configure(&same).expect("as many as before");
    assert_eq!(failure(&upstreams), last);
    let counts = upstreams.get(0).map(Upstream::counts);
    let expected = ServerCounts {
        asked: 0,
        answered: 1,
        failed: 20,
    };
    assert_eq!(counts, Some(expected));
    let answered = upstreams.get(0).and_then(Upstream::answered_at);
    assert_eq!(answered, Some(NOW + 10));
    assert_eq!(upstreams.get(1).and_then(Upstream::failure), None);
}

#[test]
fn a_silent_server_is_left_out_and_probed_beside_another() {
    let mut upstreams = servers(Strategy::Ordered);
    for question in 0..u64::from(FAULTS) {
        assert_eq!(upstreams.pick(0, 0), Some(0));
        upstreams.timed_out(0, question, NOW);
    }
    assert_eq!(upstreams.pick(0, 0), Some(1));
    assert_eq!(
        upstreams.pick(0, 0b10),
        Some(0),
        "better a silent server than none"
    );
    assert_eq!(upstreams.probe(0, 0b10, NOW), None);
    let due = NOW + PROBE_FIRST_MS;
    assert_eq!(upstreams.probe(0, 0b10, due), Some(0));
    assert_eq!(
        upstreams.probe(0, 0b10, due),
        None,
        "one question at a time"
    );
    assert_eq!(upstreams.probe(0, 0b10, due + 2 * PROBE_FIRST_MS), Some(0));
    upstreams.answered(0, 10, NOW);
    assert_eq!(upstreams.pick(0, 0), Some(0));
}

#[test]
fn one_question_cannot_make_a_server_silent() {
    let mut upstreams = servers(Strategy::Ordered);
    for _ in 0..100 {
        upstreams.timed_out(0, 7, NOW);
    }
    assert!(!upstreams.as_slice()[0].is_silent());
}

#[test]
fn fastest_prefers_the_shortest_time_and_measures_the_others_now_and_then() {
    let mut upstreams = servers(Strategy::Fastest);
    upstreams.answered(0, 50, NOW);
    upstreams.answered(1, 5, NOW);
    assert_eq!(upstreams.pick(0, 0), Some(1));
    assert_eq!(upstreams.probe(0, 0b10, NOW + 1), None);
    let due = NOW + MEASURE_MS;
    assert_eq!(upstreams.probe(0, 0b10, due), Some(0));
    assert_eq!(upstreams.probe(0, 0b10, due), None);
}

#[test]
fn the_retry_time_follows_the_usual_time() {
    let mut upstreams = servers(Strategy::Ordered);
    assert_eq!(upstreams.get(0).expect("there").retry_ms(), RETRY_FIRST_MS);
    for _ in 0..50 {
        upstreams.answered(0, 100, NOW);
    }
    let settled = upstreams.get(0).expect("there").retry_ms();
    assert!((100..150).contains(&settled), "{settled}");
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let mut upstreams = servers(Strategy::Ordered);
    upstreams.answered(1, 20, NOW);
    let kept = upstreams.get(1).expect("there").config;
    upstreams
        .configure(&[kept, UpstreamConfig { group: 1, ..kept }])
        .expect("fits");
    assert_eq!(upstreams.get(0).expect("there").srtt_ms(), Some(20));
    assert_eq!(
        upstreams.get(1).expect("there").srtt_ms(),
        None,
        "each group has its own health"
    );
}
