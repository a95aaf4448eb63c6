//! A worker on sockets of this machine: events that one wake-up delivers together.

use super::*;
use crate::store::TAP;
use crate::store::shared::tests::test_cache;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use xdnsd_core::counters::Counter;
use xdnsd_core::engine::Tables;

/// A policy that allows everything, with this generation.
pub(super) struct Numbered(pub(super) u32);

impl PolicySource for Numbered {
    fn policy(&self) -> Policy<'_> {
        Policy {
            generation: self.0,
            ..Policy::OPEN
        }
    }
}

/// A query with its length prefix: `. NS`; there is no upstream to ask.
const QUERY: [u8; 19] = [
    0, 17, 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1,
];

/// Runs `f` with a worker that has accepted one TCP connection, and the client's end of it.
fn with_client<T>(inbox: &Inbox, f: impl FnOnce(Worker<'_>, TcpStream) -> T) -> T {
    let listener = open_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let address = listener.local_addr().expect("its address");
    let client = TcpStream::connect(address).expect("it listens");
    let patience = Some(Duration::from_secs(10));
    client.set_read_timeout(patience).expect("a socket");
    // Too large for a stack.
    static TABLES: Mutex<Tables<ReplyPath>> = Mutex::new(Tables::new());
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let counters = Counters::new();
    static CACHE: LazyLock<&SharedCache> = LazyLock::new(|| test_cache!(8192));
    let engine = Engine::new(&mut tables, *CACHE, &counters, Settings::DEFAULT);
    let parts = WorkerParts {
        has_hot: false,
        listeners: Listeners {
            tcp: vec![(0, listener)],
            ..Listeners::default()
        },
        places: 1,
        has_tcp: true,
        tcp_idle_ms: 10_000,
        busy_poll_us: 0,
        policy: Arc::new(Numbered(1)),
        notices: &NoticeBoard::new(),
        inbox,
        inboxes: std::slice::from_ref(inbox),
        counters: &counters,
        arrivals: &Arrivals::new(),
        stats: &WorkerStats::new(),
        pulse: &Pulse::new(),
        rings: TAP.rings(0),
    };
    let mut worker = Worker::new(engine, parts).expect("epoll");
    let context = Context {
        now: worker.io.now,
        unix_secs: 0,
        policy: &Policy::OPEN,
        views: &xdnsd_core::policy::Views::NONE,
    };
    worker.serve_tcp_listener(&context, 0);
    f(worker, client)
}

/// Posts `Stop` when dropped.
struct StopAtTheEnd<'a>(&'a Inbox);

impl Drop for StopAtTheEnd<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(WorkerCommand::Stop);
    }
}

#[test]
fn a_tcp_query_that_comes_with_a_new_policy_is_answered() {
    let inbox = Inbox::new().expect("eventfd");
    with_client(&inbox, |mut worker, mut client| {
        client.write_all(&QUERY).expect("connected");
        inbox.send_policy(Arc::new(Numbered(2)));
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| {
                let _stop = StopAtTheEnd(&inbox);
                let mut answer = [0; 14];
                client.read_exact(&mut answer).map(|()| answer)
            });
            worker.run();
            let answer = answer.join().expect("no panic").expect("an answer");
            assert_eq!(answer[2..4], QUERY[2..4]);
        });
        assert_eq!(worker.policy.policy().generation, 2);
    });
}

#[test]
fn a_tcp_query_that_comes_with_the_end_is_answered() {
    let inbox = Inbox::new().expect("eventfd");
    with_client(&inbox, |mut worker, mut client| {
        client.write_all(&QUERY).expect("connected");
        assert!(inbox.send(WorkerCommand::Stop).is_ok());
        worker.run();
        drop(worker);
        let mut answer = [0; 14];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[2..4], QUERY[2..4]);
    });
}

#[test]
fn an_event_of_a_connection_that_has_gone_is_not_the_next_ones() {
    let inbox = Inbox::new().expect("eventfd");
    with_client(&inbox, |mut worker, mut client| {
        client.write_all(&QUERY).expect("connected");
        let context = Context {
            now: worker.io.now,
            unix_secs: 0,
            policy: &Policy::OPEN,
            views: &xdnsd_core::policy::Views::NONE,
        };
        let event = |generation| {
            let source = EventSource::TcpClient {
                slot: 0,
                generation,
            };
            EpollEvent::new(nix::sys::epoll::EpollFlags::EPOLLIN, source.to_bits())
        };
        let asked = |worker: &Worker<'_>| worker.io.counters.get(Counter::QueriesTcp);
        worker.serve_events(&context, &[event(0), event(2)]);
        assert_eq!(asked(&worker), 0);
        worker.serve_events(&context, &[event(1)]);
        assert_eq!(asked(&worker), 1);
    });
}

#[test]
fn a_worker_shows_that_it_lives() {
    let inbox = Inbox::new().expect("eventfd");
    with_client(&inbox, |mut worker, _client| {
        let before = worker.pulse.turns();
        assert!(inbox.send(WorkerCommand::Stop).is_ok());
        worker.run();
        assert_ne!(worker.pulse.turns(), before);
    });
}
