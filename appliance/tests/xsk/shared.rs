//! Several sockets on one UMEM.
//!
//! ```text
//!  +------------- one namespace per test -------------+
//!  |  FrameSocket - peer0 === near0 - Xsk ┐           |
//!  |  FrameSocket - peer1 === near1 - Xsk ┼ one Pool  |
//!  |  FrameSocket - peer2 === near2 - Xsk ┘           |
//!  +--------------------------------------------------+
//! ```

use super::*;
use xdnsd::os::xsk::{Pool, SHARERS_MAX, Xsk};
use xdnsd_core::limits::CHUNKS_PER_QUEUE;

/// Timeout of one look at a peer: finds what is there already.
const LOOK: Duration = Duration::from_millis(1);

/// One interface.
struct Port {
    name: String,
    peer: FrameSocket,
    redirect: Redirect,
    xsk: Option<Xsk>,
}

struct Ports {
    ports: Vec<Port>,
    pool: Pool,
    opener: Opener,
    namespace: Namespace,
    _turn: MutexGuard<'static, ()>,
}

impl Ports {
    /// This number of interfaces, none of which has a socket.
    fn new(count: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = Namespace::unnamed().unwrap();
        let ports = (0..count).map(|number| Self::plug(&namespace, number));
        let ports = ports.collect();
        let (opener, pool) = Opener::claim(0, count).expect("the slot is free");
        Self {
            ports,
            pool,
            opener,
            namespace,
            _turn: turn,
        }
    }

    fn plug(namespace: &Namespace, number: usize) -> Port {
        let (name, peer) = (format!("near{number}"), format!("peer{number}"));
        let script = format!(
            "link add {name} numrxqueues 1 numtxqueues 1 type veth peer name {peer} numrxqueues 1 numtxqueues 1\n\
             link set {name} addrgenmode none up\nlink set {peer} addrgenmode none up\n"
        );
        namespace.ip(&script).unwrap();
        let attach = || Redirect::attach(index(&name), Attach::Native);
        Port {
            redirect: namespace.run(attach).unwrap(),
            peer: FrameSocket::open(namespace, &peer).unwrap(),
            xsk: None,
            name,
        }
    }

    fn open(&mut self, number: usize) -> Result<(), SetupError> {
        let port = &mut self.ports[number];
        let options = Options {
            interface: &port.name,
            queue: 0,
            mode: BindMode::Copy,
        };
        let opener = &mut self.opener;
        let mut xsk = self.namespace.run(|| opener.open(&options))?;
        xsk.join(&mut self.pool);
        let _ = xsk.flush(&mut self.pool);
        port.redirect.set_socket(0, &xsk).unwrap();
        port.xsk = Some(xsk);
        self.check();
        Ok(())
    }

    /// Chunks in the kernel are lost until the ledger hears of it.
    fn close(&mut self, number: usize) {
        let xsk = self.ports[number].xsk.take().unwrap();
        let closed = self.opener.close(xsk).expect("the ledger knew it");
        self.pool.reclaim(&closed);
        self.check();
    }

    /// Checks that every chunk is in exactly one place.
    fn check(&self) {
        assert!(self.pool.holds());
        let open = self.ports.iter().filter_map(|port| port.xsk.as_ref());
        let mut all = 0;
        for (at, xsk) in open.enumerate() {
            let census = xsk.census(&self.pool);
            // Chunks without a socket are reported by each.
            let nobodys = if at == 0 {
                0
            } else {
                census.worker + census.free
            };
            all += census.total() - nobodys;
        }
        let is_any = self.ports.iter().any(|port| port.xsk.is_some());
        assert!(!is_any || all as usize == CHUNKS_PER_QUEUE, "{all}");
    }

    /// Takes up to a batch from one socket and sends it back.
    fn echo(&mut self, number: usize) -> usize {
        let Some(xsk) = &mut self.ports[number].xsk else {
            return 0;
        };
        let mut batch = Batch::new();
        let count = xsk.receive(&mut self.pool, &mut batch);
        for frame in batch {
            let len = frame.len();
            xsk.transmit(&mut self.pool, frame, len).unwrap();
        }
        let _ = xsk.flush(&mut self.pool);
        count
    }

    /// A single frame goes to an interface and comes back by it, and by no other.
    fn ask(&mut self, number: usize, mark: usize) {
        let is_it = |frame: &[u8]| is_ours(frame) && number_of(frame) == mark;
        self.ports[number].peer.send(&numbered(mark)).unwrap();
        wait_until("the frame comes back", PATIENCE, || {
            self.echo(number);
            let peer = &self.ports[number].peer;
            peer.receive(LOOK, is_it).unwrap().is_some()
        })
        .unwrap();
        for port in &self.ports {
            // An error: the interface was deleted.
            let more = port.peer.receive(LOOK, is_it).ok().flatten();
            assert_eq!(more, None, "{}", port.name);
        }
    }
}

#[test]
fn a_frame_goes_back_by_the_socket_that_it_came_by_and_one_that_closes_leaves_the_others() {
    if !root_or_skip(
        "a_frame_goes_back_by_the_socket_that_it_came_by_and_one_that_closes_leaves_the_others",
    ) {
        return;
    }
    const PORTS: usize = 3;
    let mut ports = Ports::new(PORTS);
    (0..PORTS).for_each(|number| ports.open(number).unwrap());
    for mark in 0..4 * PORTS {
        ports.ask(mark % PORTS, mark);
    }
    // The socket that registered the memory is closed first, with unread frames.
    for _ in 0..8 {
        ports.ports[0].peer.send(&numbered(9)).unwrap();
    }
    ports.close(0);
    for number in 1..PORTS {
        ports.ask(number, 100 + number);
    }
    ports.open(0).unwrap();
    // An interface that is deleted.
    ports.namespace.ip("link delete near1\n").unwrap();
    let gone = ports.ports[1].xsk.as_mut().unwrap().probe();
    assert_eq!(gone, Kick::Gone);
    ports.ask(0, 200);
    // Of those that share the memory, this one is no longer bound.
    ports.close(2);
    ports.close(0);
    let error = ports
        .open(0)
        .expect_err("there is none to share with")
        .to_string();
    assert!(error.contains("near0 queue 0"), "{error}");
    ports.close(1);
    ports.ports[1] = Ports::plug(&ports.namespace, 1);
    (0..PORTS).for_each(|number| ports.open(number).unwrap());
    for number in 0..PORTS {
        ports.ask(number, 300 + number);
        ports.close(number);
    }
    assert!(ports.pool.is_empty());
}

/// Frames come all the time, also to sockets about to be closed; an interface is deleted and made again.
#[test]
fn sockets_of_one_umem_open_and_close_under_load_and_no_chunk_is_lost() {
    if !root_or_skip("sockets_of_one_umem_open_and_close_under_load_and_no_chunk_is_lost") {
        return;
    }
    const ROUNDS: usize = 48;
    let count = SHARERS_MAX.min(8);
    let mut ports = Ports::new(count);
    let mut state = 0x9e37_79b9_u32;
    for round in 0..ROUNDS {
        for port in &ports.ports {
            for number in 0..20 {
                port.peer.send(&numbered(number)).unwrap();
            }
        }
        for number in 0..count {
            ports.echo(number);
        }
        ports.check();
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = (state >> 24) as usize % count;
        match ports.ports[number].xsk {
            None => ports.open(number).unwrap(),
            Some(_) => ports.close(number),
        }
        if round % 12 == 11 && ports.ports[number].xsk.is_none() {
            ports
                .namespace
                .ip(&format!("link delete near{number}\n"))
                .unwrap();
            ports.ports[number] = Ports::plug(&ports.namespace, number);
        }
    }
    for number in 0..count {
        if ports.ports[number].xsk.is_none() {
            ports.open(number).unwrap();
        }
    }
    for number in 0..count {
        ports.ask(number, 1_000 + number);
    }
    (0..count).for_each(|number| ports.close(number));
    assert!(ports.pool.is_empty() && ports.opener.is_empty());
}
