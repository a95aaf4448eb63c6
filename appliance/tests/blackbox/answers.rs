//! A question is answered, first by the upstream and then from the cache, with the right bytes.

use anyhow::Result;
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_ebpf::Reason;

use crate::support::client::Family;
use crate::support::message::{addresses, query};
use crate::support::scene::{Setup, scene};
use crate::support::script::Rule;

#[test]
fn first_hit_and_cache_hit_go_over_af_xdp() -> Result<()> {
    let scene = scene!(Setup::default());
    scene.upstream.on("www.test.", Rule::addresses(300, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
    let client = scene.raw_client()?;
    for (family, kind, expected) in [
        (Family::V4, RecordType::A, &["192.0.2.1", "192.0.2.2"][..]),
        (Family::V6, RecordType::AAAA, &["2001:db8::1"][..]),
    ] {
        let before = scene.daemon.metrics()?;
        for _ in 0..2 {
            let answer = client.ask(family, &query("www.test.", kind))?;
            assert_eq!(addresses(&answer), expected);
        }
        scene.daemon.wait_growth(&before, &[
            (&Reason::Redirected, 2),
            (&Counter::QueriesXdp, 2),
            (&Counter::AnswersXdp, 2),
            (&Counter::QueriesUdp, 0),
            (&Counter::CacheMisses, 1),
            (&Counter::CacheHits, 1),
            (&Counter::UpstreamQueries, 1),
            (&Counter::UpstreamAnswers, 1),
        ])?;
    }
    assert_eq!(scene.upstream.asked("www.test.").len(), 2);
    Ok(())
}
