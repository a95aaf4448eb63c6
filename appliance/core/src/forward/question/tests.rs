//! Transitions of a question, row by row, without an engine.

use super::*;
use crate::forward::tries::ATTEMPTS;
use crate::forward::upstreams::UpstreamConfig;
use crate::forward::via::Via;
use core::net::SocketAddr;
use std::vec::Vec;

const NOW: Instant = Instant::from_millis(100_000);
/// Time that an upstream without a measured RTT is given, in milliseconds.
const RETRY_MS: u64 = 400;
const FAR: u64 = u64::MAX;

fn upstreams(strategy: Strategy) -> Upstreams {
    let mut upstreams = Upstreams::new();
    let config = |port| UpstreamConfig {
        to: SocketAddr::from(([192, 0, 2, 1], port)).into(),
        group: 0,
        trusted: false,
        edns: true,
        strategy,
    };
    upstreams.configure(&[config(1), config(2)]).expect("fits");
    upstreams
}

const fn sent(upstream: u8, via: Via) -> Attempt {
    Attempt {
        upstream,
        via: Some(via),
        id: 1,
        sent: NOW,
        live: true,
        edns: true,
        random_case: true,
        overdue: false,
        forged: 0,
    }
}

/// Attempts at both servers by datagram, and at both by stream.
const A: Attempt = sent(0, Via::Datagram { port: 2_000 });
const B: Attempt = sent(1, Via::Datagram { port: 2_001 });
const S: Attempt = sent(0, Via::Stream { slot: 0 });
const T: Attempt = sent(1, Via::Stream { slot: 1 });

const fn over(attempt: Attempt) -> Attempt {
    Attempt {
        live: false,
        ..attempt
    }
}

const REFUSED: Failure = Failure {
    rcode: rcode::REFUSED,
    ede: 18,
};

const fn failed(rcode: u8, ede: u16) -> Step {
    Step::Fail(Failure { rcode, ede })
}

const fn opening(server: u8, purpose: StreamPurpose) -> Stage {
    Stage::Opening { server, purpose }
}

fn question(stage: Stage, tries: &[Attempt]) -> Question {
    let deadlines = Deadlines {
        next_try: NOW + 7,
        stale: Instant::FAR_FUTURE,
        give_up: NOW + 4_500,
    };
    let mut question = Question::new(Name::ROOT, stage, deadlines);
    tries.iter().for_each(|tried| question.tries.push(*tried));
    question
}

fn step(question: &mut Question, event: Event, upstreams: &mut Upstreams) -> Step {
    let counters = Counters::new();
    let mut context = QuestionContext {
        upstreams,
        counters: &counters,
        now: NOW,
    };
    question.on(event, &mut context)
}

/// A row: event, stage and attempts before it, then the step, the stage after it, and the milliseconds until the next
/// server is asked. 7: unchanged.
type Row = (
    &'static str,
    Stage,
    &'static [Attempt],
    Event,
    Step,
    Stage,
    u64,
);

#[rustfmt::skip]
const ROWS: &[Row] = {
    use Event::*;
    use StreamPurpose::*;
    use Stage::*;
    use Step::*;
    &[
        ("it begins with the first server", Beginning, &[], Begin, Send(0), Beginning, 7),
        ("one for something else begins, too", Asking, &[], Begin, Send(0), Beginning, 7),
        ("a long answer is fetched in a stream", Fetching, &[], Begin, Open(0), opening(0, Whole), 7),

        ("another engine asks it already", Beginning, &[], AskedElsewhere, Wait, Elsewhere, ELSEWHERE_MS),
        ("its answer is not in the cache", Elsewhere, &[], Begin, Send(0), Beginning, 7),
        ("its time is over", Elsewhere, &[], Deadline, Send(0), Beginning, 7),

        ("it went out: there is nobody to be asked beside", Beginning, &[A], Sent, Wait, Asking, RETRY_MS),
        ("the next one has as long as it usually takes", Asking, &[A], Sent, Wait, Asking, RETRY_MS),
        ("it did not go out: the next one soon", Asking, &[over(A)], NotSent, Wait, Asking, 2),
        ("a first round over the same servers", Asking, &[A, B], Sent, Wait, Asking, RETRY_MS),
        ("a second one waits twice as long", Asking, &[A, B, A], Sent, Wait, Asking, 2 * RETRY_MS),
        ("a probe changes no deadline", Probing, &[A, B], Sent, Wait, Asking, 7),
        ("nor does one that cannot be sent", Probing, &[A, over(B)], NotSent, Wait, Asking, 7),

        ("a stream repeats by itself what is lost", opening(1, Rest), &[over(A), over(B), T], Sent, Wait, Asking, FAR),
        ("also where it is for safety", opening(1, Instead), &[over(A), over(B), T], Sent, Wait, Asking, FAR),
        ("also where it is for length", opening(1, Whole), &[S, T], Sent, Wait, Fetching, FAR),
        ("who drops TCP in silence keeps nobody from asking another", opening(0, Rest), &[over(A), S], Sent, Wait, Asking, STREAM_BESIDE_MS),
        ("also where it is for safety", opening(0, Instead), &[over(A), S], Sent, Wait, Asking, STREAM_BESIDE_MS),
        ("also where it is for length", opening(0, Whole), &[S], Sent, Wait, Fetching, STREAM_BESIDE_MS),
        ("then by datagram", Asking, &[over(A), S], Deadline, Send(1), Asking, 7),
        ("no stream: what there is is given", opening(0, Rest), &[over(A)], NotSent, Deliver, Asking, 7),
        ("no stream: a datagram once more", opening(0, Instead), &[over(A)], NotSent, Send(0), Asking, 7),
        ("no stream: it waits for one", opening(0, Whole), &[], NotSent, Wait, Fetching, STREAM_WAIT_MS),

        ("an answer is given", Asking, &[over(A)], Answered, Deliver, Asking, 7),
        ("also one that a stream was waited for", Fetching, &[over(A), S], Answered, Deliver, Fetching, 7),
        ("a truncated one is asked for in a stream", Asking, &[over(A)], Truncated(A), Open(0), opening(0, Rest), 7),
        ("where one is waited for, it is given as it is", Fetching, &[over(B), S], Truncated(B), Deliver, Fetching, 7),

        ("EDNS was not understood: without", Asking, &[over(A)], NotUnderstood(A, REFUSED), Send(0), Asking, 7),
        ("in a stream: in another one", Asking, &[over(S)], NotUnderstood(S, REFUSED), Open(0), opening(0, Instead), 7),
        ("of a long answer: in another one, or wait", Fetching, &[over(S)], NotUnderstood(S, REFUSED), Open(0), opening(0, Whole), 7),
        ("too often: that is its answer", Asking, &[over(A); ATTEMPTS], NotUnderstood(A, REFUSED), Step::Fail(REFUSED), Asking, 7),

        ("no help: the next one", Asking, &[over(A)], Useless(REFUSED), Send(1), Asking, 7),
        ("no help with a long answer: the next one", Fetching, &[over(S)], Useless(REFUSED), Open(1), opening(1, Whole), 7),
        ("no help, but another one is asked already", Asking, &[over(A), B], Useless(REFUSED), Wait, Asking, 7),
        ("nobody helped", Asking, &[over(A), over(B)], Useless(REFUSED), Step::Fail(REFUSED), Asking, 7),
        ("nobody said why", Asking, &[over(A), over(B)], Useless(Failure::SERVFAIL), failed(rcode::SERVFAIL, ede::NO_REACHABLE_AUTHORITY), Asking, 7),

        ("the case was lost: a stream", Asking, &[over(A)], WrongCase(A), Open(0), opening(0, Instead), 7),
        ("the case was lost, of a long answer", Fetching, &[over(A)], WrongCase(A), Open(0), opening(0, Whole), 7),
        ("somebody guesses: a stream", Asking, &[over(A)], Guessed(A), Open(0), opening(0, Instead), 7),
        ("somebody guesses, at a long answer", Fetching, &[over(A)], Guessed(A), Open(0), opening(0, Whole), 7),
        ("a stream was lost: the next one, by datagram", Asking, &[over(A), over(S)], Lost(S), Send(1), Asking, 7),
        ("a stream was lost for a long answer", Fetching, &[over(S)], Lost(S), Open(1), opening(1, Whole), 7),
        ("both were lost", Fetching, &[over(S), over(T)], Lost(T), failed(rcode::SERVFAIL, ede::NO_REACHABLE_AUTHORITY), Fetching, 7),
        ("a stream was refused: the next one, by datagram", Asking, &[over(A), over(S)], Unreachable(S), Send(1), Asking, 7),
        ("a stream was refused for a long answer", Fetching, &[over(S)], Unreachable(S), Open(1), opening(1, Whole), 7),
        ("it did not arrive: the next one", Asking, &[over(A)], Unreachable(A), Send(1), Asking, 7),

        ("there is no way to it: the next one", Beginning, &[over(A)], NoWay(A), Send(1), Beginning, 2),
        ("nor is there one to any other", Asking, &[over(A), over(B)], NoWay(B), failed(rcode::SERVFAIL, ede::NO_REACHABLE_AUTHORITY), Asking, 4),
        ("none to a rival: the first is waited for", Beginning, &[A, over(B)], NoWay(B), Wait, Asking, 4),
        ("none to one that is probed", Probing, &[A, over(B)], NoWay(B), Wait, Asking, 7),
        ("none for the rest: what there is is given", opening(0, Rest), &[over(A), over(S)], NoWay(S), Deliver, Asking, 7),
        ("none for a long answer: the next one", opening(0, Whole), &[over(S)], NoWay(S), Open(1), opening(1, Whole), 2),
        ("none for safety: the next one", opening(0, Instead), &[over(A), over(S)], NoWay(S), Send(1), Asking, 4),

        ("the next one's time has come", Asking, &[A], Deadline, Send(1), Asking, 7),
        ("once all were asked they take turns", Asking, &[A, B], Deadline, Send(0), Asking, 7),
        ("of a long answer, too", Fetching, &[S], Deadline, Open(1), opening(1, Whole), 7),
        ("no more than so many are sent", Asking, &[A; ATTEMPTS], Deadline, Wait, Asking, FAR),
        ("all of them in vain", Asking, &[over(A); ATTEMPTS], Deadline, failed(rcode::SERVFAIL, ede::NO_REACHABLE_AUTHORITY), Asking, 7),

        ("it is not whole", Asking, &[over(A)], Incomplete { steps: STEPS_MAX }, Ask, Asking, 7),
        ("it never ends", Asking, &[over(A)], Incomplete { steps: STEPS_MAX + 1 }, failed(rcode::SERVFAIL, ede::OTHER), Asking, 7),
        ("nor do the aliases of one answer", Asking, &[over(A)], Endless, failed(rcode::SERVFAIL, ede::OTHER), Asking, 7),
        ("whoever else may answer", Asking, &[A, over(B)], Endless, failed(rcode::SERVFAIL, ede::OTHER), Asking, 7),
        ("there is no room for the rest", Asking, &[], NoRoom, failed(rcode::SERVFAIL, ede::NOT_READY), Asking, 7),

        ("everybody has the answer", Asking, &[over(A)], Delivered { others_wait: false }, End, Asking, 7),
        ("everybody has all of it", Fetching, &[over(S)], Delivered { others_wait: false }, End, Fetching, 7),
        ("others want all of it", Asking, &[over(A)], Delivered { others_wait: true }, Wait, Fetching, STREAM_WAIT_MS),
        ("a stream for them is open", Fetching, &[over(A), S], Delivered { others_wait: true }, Wait, Fetching, 7),
        ("none is any more", Fetching, &[over(A), over(S)], Delivered { others_wait: true }, Wait, Fetching, STREAM_WAIT_MS),
    ]
};

#[test]
fn every_row_leads_where_the_table_says() {
    for &(what, stage, tries, event, expected, then, next_ms) in ROWS {
        let mut question = question(stage, tries);
        let step = step(&mut question, event, &mut upstreams(Strategy::Ordered));
        assert_eq!((step, question.stage), (expected, then), "{what}");
        let next = match next_ms {
            FAR => Instant::FAR_FUTURE,
            ms => NOW + ms,
        };
        assert_eq!(question.deadlines.next_try, next, "{what}");
    }
}

/// Every event, with an attempt for those that carry one.
fn every_event(attempt: Attempt) -> Vec<Event> {
    let flags = [false, true].into_iter();
    let mut events = std::vec![
        Event::Begin,
        Event::AskedElsewhere,
        Event::Sent,
        Event::NotSent,
        Event::NoWay(attempt),
        Event::Deadline,
        Event::Answered,
        Event::Truncated(attempt),
        Event::NotUnderstood(attempt, REFUSED),
        Event::Useless(REFUSED),
        Event::WrongCase(attempt),
        Event::Guessed(attempt),
        Event::Lost(attempt),
        Event::Unreachable(attempt),
        Event::Incomplete { steps: 1 },
        Event::Endless,
        Event::NoRoom,
    ];
    events.extend(flags.map(|others_wait| Event::Delivered { others_wait }));
    events
}

/// True for a stage in which a question waits.
const fn rests(stage: Stage) -> bool {
    matches!(stage, Stage::Asking | Stage::Fetching | Stage::Elsewhere)
}

#[test]
fn whatever_happens_a_question_that_waits_is_in_a_stage_in_which_it_can_be_woken() {
    let stages = [
        Stage::Beginning,
        Stage::Probing,
        Stage::Asking,
        opening(0, StreamPurpose::Whole),
        opening(0, StreamPurpose::Rest),
        opening(0, StreamPurpose::Instead),
        Stage::Fetching,
        Stage::Elsewhere,
    ];
    let tried: [&[Attempt]; 7] = [
        &[],
        &[A],
        &[over(A)],
        &[over(A), over(B)],
        &[over(A), S],
        &[A; ATTEMPTS],
        &[over(A); ATTEMPTS],
    ];
    let mut waited = 0;
    for (stage, tries) in stages
        .into_iter()
        .flat_map(|stage| tried.map(|tries| (stage, tries)))
    {
        let rests = rests(stage);
        let may_happen = |event: &Event| {
            rests || { matches!(event, Event::Sent | Event::NotSent | Event::NoWay(_)) }
        };
        for event in [A, S].into_iter().flat_map(every_event).filter(may_happen) {
            let mut question = question(stage, tries);
            let mut upstreams = upstreams(Strategy::Race);
            let mut next = step(&mut question, event, &mut upstreams);
            // Like an engine that cannot send anything.
            // Bound: each step leaves one more attempt, or waits.
            for _ in 0..4 * ATTEMPTS {
                let (Step::Send(server) | Step::Open(server)) = next else {
                    break;
                };
                let attempt = over(Attempt {
                    upstream: server,
                    via: None,
                    ..A
                });
                question.tries.push(attempt);
                let then = if matches!(event, Event::NoWay(_)) {
                    Event::NoWay(attempt)
                } else {
                    Event::NotSent
                };
                next = step(&mut question, then, &mut upstreams);
            }
            let ends = !matches!(next, Step::Send(_) | Step::Open(_));
            assert!(ends, "{stage:?} {event:?}");
            if next == Step::Wait {
                waited += 1;
                let then = question.stage;
                assert!(self::rests(then), "{stage:?} {event:?} {then:?}");
                assert!(question.wake() <= NOW + 4_500);
            }
        }
    }
    assert!(waited > 50, "{waited}");
}

#[test]
fn servers_that_race_are_asked_at_once_and_one_that_is_silent_is_probed_beside_them() {
    let mut upstreams = upstreams(Strategy::Race);
    let mut question = question(Stage::Beginning, &[]);
    assert_eq!(
        step(&mut question, Event::Begin, &mut upstreams),
        Step::Send(0)
    );
    question.tries.push(A);
    assert_eq!(
        step(&mut question, Event::Sent, &mut upstreams),
        Step::Send(1)
    );
    question.tries.push(B);
    assert_eq!(step(&mut question, Event::Sent, &mut upstreams), Step::Wait);
    assert_eq!(question.stage, Stage::Asking);

    let mut upstreams = self::upstreams(Strategy::Ordered);
    for question in 0..3 {
        upstreams.timed_out(0, question, Instant::from_millis(0));
    }
    let mut question = self::question(Stage::Beginning, &[]);
    assert_eq!(
        step(&mut question, Event::Begin, &mut upstreams),
        Step::Send(1)
    );
    question.tries.push(B);
    assert_eq!(
        step(&mut question, Event::Sent, &mut upstreams),
        Step::Send(0)
    );
    assert_eq!(question.stage, Stage::Probing);
    question.tries.push(A);
    assert_eq!(step(&mut question, Event::Sent, &mut upstreams), Step::Wait);
}

#[test]
fn a_stream_that_was_lost_for_letter_case_alone_is_followed_by_a_plain_datagram() {
    for lost in [Event::Lost(S), Event::Unreachable(S)] {
        is_followed_by_a_plain_datagram(lost);
    }
}

fn is_followed_by_a_plain_datagram(lost: Event) {
    let mut upstreams = upstreams(Strategy::Ordered);
    let mut question = question(Stage::Asking, &[over(A)]);
    assert_eq!(
        step(&mut question, Event::WrongCase(A), &mut upstreams),
        Step::Open(0)
    );
    question.tries.push(over(S));
    assert_eq!(step(&mut question, Event::Sent, &mut upstreams), Step::Wait);
    assert_eq!(step(&mut question, lost, &mut upstreams), Step::Send(0));
    // The last one was sent in plain case.
    question.tries.push(Attempt {
        random_case: false,
        ..over(A)
    });
    assert_eq!(step(&mut question, lost, &mut upstreams), Step::Send(1));
}

/// Without a route by stream there may still be one by datagram, in plain case.
#[test]
fn without_a_way_for_a_stream_lost_letter_case_is_followed_by_a_plain_datagram() {
    let mut upstreams = upstreams(Strategy::Ordered);
    let mut question = question(Stage::Asking, &[over(A)]);
    assert_eq!(
        step(&mut question, Event::WrongCase(A), &mut upstreams),
        Step::Open(0)
    );
    let not_sent = Attempt {
        via: None,
        ..over(S)
    };
    question.tries.push(not_sent);
    assert_eq!(
        step(&mut question, Event::NoWay(not_sent), &mut upstreams),
        Step::Send(0)
    );
    assert_eq!(question.stage, Stage::Asking);
}

#[test]
fn what_is_due_comes_in_its_order() {
    let mut upstreams = upstreams(Strategy::Ordered);
    let mut question = question(Stage::Asking, &[A]);
    (question.deadlines.stale, question.deadlines.next_try) = (NOW, NOW);
    assert_eq!(
        step(&mut question, Event::Deadline, &mut upstreams),
        Step::Stale
    );
    assert_eq!(question.wake(), NOW, "the next server is still due");
    assert_eq!(
        step(&mut question, Event::Deadline, &mut upstreams),
        Step::Send(1)
    );
    question.deadlines.give_up = NOW;
    let given_up = failed(rcode::SERVFAIL, ede::NO_REACHABLE_AUTHORITY);
    assert_eq!(
        step(&mut question, Event::Deadline, &mut upstreams),
        given_up
    );
}

#[test]
fn a_group_without_servers_fails_at_once() {
    let mut upstreams = upstreams(Strategy::Ordered);
    let mut question = question(Stage::Beginning, &[]);
    question.restart(7);
    let failed = failed(rcode::SERVFAIL, ede::NO_REACHABLE_AUTHORITY);
    assert_eq!(step(&mut question, Event::Begin, &mut upstreams), failed);
}
