//! A bench for the program: loaded for real, run frame by frame with BPF_PROG_TEST_RUN in a namespace of its own.

use crate::frames::{OUR_MAC, Query};
use aya::programs::{TestRun as _, TestRunOptions};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;
use xdnsd::os::xdp::{Heartbeat, OBJECT, Program, ReasonCounts};
use xdnsd_abi::{HEARTBEAT_STALE_NS, LISTEN_MAX, Listen, PathCheck, QUEUES_MAX, Reason};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::privilege;

/// linux/bpf.h, enum xdp_action.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
/// BPF_PROG_TEST_RUN wants a whole Ethernet header.
pub const FRAME_LEN_MIN: usize = 14;
/// Number of attempts at a run during which the thread was not scheduled.
const ATTEMPTS: u32 = 100;
/// Frames are short; this is room to detect one that grew.
const FRAME_LEN_MAX: usize = 16 * 1024;

/// Index of the interface of a run that sets no other.
pub const LOOPBACK: u32 = 1;

/// A loaded program, a namespace, and the socket of queue 0.
pub struct Bench {
    pub namespace: Namespace,
    pub program: Program,
    heartbeat: Heartbeat,
    socket: Option<OwnedFd>,
}

impl Bench {
    /// Listens on the good queries' destinations; worker and socket of queue 0 are alive. `None`: skipped.
    pub fn new(test: &str) -> Option<Self> {
        if !privilege::root_or_skip(test) {
            return None;
        }
        Some(Self::with(load()))
    }

    /// With the program for kernels that only know frames in one buffer.
    pub fn single(test: &str) -> Option<Self> {
        let program = || Program::load_single(&object()).unwrap_or_else(|error| panic!("{error}"));
        privilege::root_or_skip(test).then(|| Self::with(program()))
    }

    /// With the program that calls the one for hot names.
    pub fn hot(test: &str) -> Option<Self> {
        let program = || {
            Program::load_for_hot(&object(), LISTEN_MAX).unwrap_or_else(|error| panic!("{error}"))
        };
        privilege::root_or_skip(test).then(|| Self::with(program()))
    }

    fn with(mut program: Program) -> Self {
        let namespace = Namespace::unnamed().expect("root makes namespaces");
        let socket = xdp_socket();
        program.set_socket(0, &socket).expect("the socket fits");
        let heartbeat = program.heartbeat(0).expect("queue 0 is in the map");
        let mut bench = Self {
            namespace,
            program,
            heartbeat,
            socket: Some(socket),
        };
        bench.listen(&[
            (listen("192.0.2.53", 0, 0), 0),
            (listen("2001:db8::53", 0, 0), 0),
        ]);
        bench
    }

    /// Shortest time that the program takes for the frame, in nanoseconds.
    pub fn measure(&mut self, frame: &[u8]) -> u128 {
        const RUNS: u32 = 200_000;
        let measured = (0..9).map(|_| {
            self.heartbeat.beat(monotonic_ns());
            let mut out = vec![0xa5; FRAME_LEN_MAX];
            let options = TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                repeat: RUNS,
                ..TestRunOptions::default()
            };
            let result = self.program.xdp().expect("loaded").test_run(options);
            result.expect("BPF_PROG_TEST_RUN").duration.as_nanos()
        });
        measured.min().expect("nine")
    }

    /// Closes the socket of queue 0.
    pub fn close_socket(&mut self) {
        self.socket = None;
    }

    /// Sets the listen map to these, each with its egress_ifindex.
    pub fn listen(&mut self, entries: &[(Listen, u32)]) {
        let with_check = |&(listen, egress)| (listen, PathCheck::new(egress, LOOPBACK, OUR_MAC));
        let entries: Vec<_> = entries.iter().map(with_check).collect();
        self.program.set_listen(&entries).expect("the map has room");
    }

    /// Runs the program on the frame, with a worker that is alive.
    pub fn expect(&mut self, frame: &[u8], reason: Reason) {
        self.expect_at(frame, reason, Duration::ZERO, None);
    }

    /// Runs the program on the frame on this (interface, queue), with a heartbeat of this age.
    pub fn expect_at(
        &mut self,
        frame: &[u8],
        reason: Reason,
        age: Duration,
        queue: Option<(u32, u32)>,
    ) {
        let (before, after, (action, after_run)) = self.run_at(frame, age, queue);
        let moved = moved(&before, &after);
        assert_eq!(moved, [(reason, 1)], "frame {frame:02x?}");
        let wanted = if reason == Reason::Redirected {
            XDP_REDIRECT
        } else if reason.name().starts_with("drop_") {
            XDP_DROP
        } else {
            XDP_PASS
        };
        assert_eq!(action, wanted, "{reason:?}");
        assert_eq!(after_run, frame, "the program never writes");
    }

    /// Runs the program on a frame that it must not change, and returns the counted reason.
    pub fn reason(&mut self, frame: &[u8]) -> Reason {
        let (before, after, (_, after_run)) = self.run_at(frame, Duration::ZERO, None);
        assert_eq!(after_run, frame, "nothing is written");
        match moved(&before, &after)[..] {
            [(reason, 1)] => reason,
            ref moved => panic!("counted once, not {moved:?}"),
        }
    }

    /// Runs the program on a SYN that is answered, and returns the answer.
    pub fn answer(&mut self, frame: &[u8]) -> Vec<u8> {
        self.sent(frame, Reason::SynCookie)
    }

    /// Runs the program on a frame that is answered and counted by `reason`, and returns the answer.
    pub fn sent(&mut self, frame: &[u8], reason: Reason) -> Vec<u8> {
        let (before, after, (action, answer)) = self.run_at(frame, Duration::ZERO, None);
        let moved = moved(&before, &after);
        assert_eq!(moved, [(reason, 1)], "frame {frame:02x?}");
        assert_eq!(action, XDP_TX);
        answer
    }

    /// Runs the program on the frame `count` times, and returns the frame after the last run, and whether that run dropped it.
    pub fn flood(&mut self, frame: &[u8], count: u64) -> (Vec<u8>, bool) {
        let (program, namespace) = (&mut self.program, &self.namespace);
        let program = program.xdp().expect("loaded");
        let last = namespace.run(|| {
            let mut last = None;
            for _ in 0..count {
                let mut out = vec![0xa5; FRAME_LEN_MAX];
                let options = TestRunOptions {
                    data_in: Some(frame),
                    data_out: Some(&mut out),
                    ..TestRunOptions::default()
                };
                let result = program.test_run(options).expect("BPF_PROG_TEST_RUN");
                out.truncate(result.data_size_out as usize);
                last = Some((out, result.return_value == XDP_DROP));
            }
            last
        });
        last.expect("there is one")
    }

    /// Listens on the destination of this query, too.
    pub fn listen_for(&mut self, query: &Query) {
        let vlan = |at: usize| query.tags.get(at).map_or(0, |tag| tag[1] & 0x0fff);
        let entry = listen(&query.destination.to_string(), vlan(0), vlan(1));
        self.listen(&[(entry, 0)]);
    }

    /// Runs the program on the frame: the reason that was counted, and the frame after it.
    pub fn run_hot(&mut self, frame: &[u8]) -> (Reason, Vec<u8>) {
        let (before, after, (action, answer)) = self.run_at(frame, Duration::ZERO, None);
        let moved = moved(&before, &after);
        let [(reason, 1)] = moved[..] else {
            panic!("{moved:?}")
        };
        assert_eq!(action == XDP_TX, reason == Reason::Answered, "{action}");
        (reason, answer)
    }

    /// Runs it on a frame with a first buffer of `first` bytes. False if this kernel cannot.
    pub fn expect_split(&mut self, frame: &[u8], first: usize, reason: Reason) -> bool {
        let before = self.program.counters().expect("readable");
        self.heartbeat.beat(monotonic_ns());
        let mut out = vec![0xa5; FRAME_LEN_MAX];
        let context = context(first, 0, 0);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let Ok(result) = self.program.xdp().expect("loaded").test_run(options) else {
            return false;
        };
        let after = self.program.counters().expect("readable");
        let counted = |reason| after.sum(reason) - before.sum(reason);
        let is_stale = counted(Reason::PassStale) == 1;
        assert!(
            is_stale || counted(reason) == 1,
            "{first}: {reason:?}, {before:?} {after:?}"
        );
        let redirected = result.return_value == XDP_REDIRECT;
        assert_eq!(redirected, reason == Reason::Redirected && !is_stale);
        true
    }

    /// Counters before, counters after, and the outcome of a run.
    ///
    /// On a loaded machine this thread may not be scheduled for longer than a heartbeat is fresh. Such a run does not have the
    /// requested age of the heartbeat, so it is repeated: the clock decides that, not the outcome.
    fn run_at(
        &mut self,
        frame: &[u8],
        age: Duration,
        queue: Option<(u32, u32)>,
    ) -> (ReasonCounts, ReasonCounts, (u32, Vec<u8>)) {
        let age = u64::try_from(age.as_nanos()).expect("short");
        let is_stale = |age: u64| age > HEARTBEAT_STALE_NS;
        for _ in 0..ATTEMPTS {
            let before = self.program.counters().expect("readable");
            let beat = monotonic_ns() - age;
            self.heartbeat.beat(beat);
            let outcome = self.run(frame, queue);
            let age_after = monotonic_ns() - beat;
            let after = self.program.counters().expect("readable");
            if is_stale(age) == is_stale(age_after) {
                return (before, after, outcome);
            }
        }
        panic!("{ATTEMPTS} times this thread did not run for {HEARTBEAT_STALE_NS} ns");
    }

    /// Action and frame after one run.
    fn run(&mut self, frame: &[u8], queue: Option<(u32, u32)>) -> (u32, Vec<u8>) {
        let mut out = vec![0xa5; FRAME_LEN_MAX];
        let context = queue.map(|(ifindex, queue)| context(frame.len(), ifindex, queue));
        let (program, namespace) = (&mut self.program, &self.namespace);
        let result = namespace.run(|| {
            let options = TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: context.as_deref(),
                ..TestRunOptions::default()
            };
            program
                .xdp()
                .expect("loaded")
                .test_run(options)
                .expect("BPF_PROG_TEST_RUN")
        });
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }
}

/// Reasons that were counted between the two, and how often.
fn moved(before: &ReasonCounts, after: &ReasonCounts) -> Vec<(Reason, u64)> {
    let counted = |&reason: &Reason| (reason, after.sum(reason) - before.sum(reason));
    let moved = Reason::ALL.iter().map(counted);
    moved.filter(|(_, count)| *count != 0).collect()
}

/// The committed object, or the one that `cargo xtask ebpf` names.
pub fn load() -> Program {
    Program::load_object(&object()).unwrap_or_else(|error| panic!("{error}"))
}

fn object() -> Vec<u8> {
    match std::env::var_os(xdnsd_lab::bpf::OBJECT_VARIABLE) {
        None => OBJECT.to_vec(),
        Some(path) => std::fs::read(Path::new(&path)).expect("the object is readable"),
    }
}

/// A key of the listen map for port 53.
pub fn listen(address: &str, vlan_outer: u16, vlan_inner: u16) -> Listen {
    let addr = match address.parse().expect("an address") {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    Listen {
        addr,
        vlan_outer: vlan_outer.to_be_bytes(),
        vlan_inner: vlan_inner.to_be_bytes(),
        port: 53u16.to_be_bytes(),
        padding: [0; 2],
    }
}

/// CLOCK_MONOTONIC, as the program reads it.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec, which is ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An AF_XDP socket with an RX ring: all that the XSKMAP requires.
pub fn xdp_socket() -> OwnedFd {
    let family = AddressFamily::from_i32(libc::AF_XDP);
    // nix has no name for AF_XDP, so the call is libc's.
    assert_eq!(family, None);
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new, and nothing else owns it.
    let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let entries = 64u32;
    // SAFETY: the option is one u32, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_RX_RING,
            (&raw const entries).cast(),
            size_of_val(&entries) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    socket
}

/// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(len: usize, ifindex: u32, queue: u32) -> Vec<u8> {
    let len = u32::try_from(len).expect("short");
    [0, len, 0, ifindex, queue, 0]
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect()
}

/// A socket that is not of AF_XDP.
pub fn udp_socket() -> OwnedFd {
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::empty(),
        None,
    )
    .expect("a socket")
}

/// The first RX queue that the maps have no slot for.
pub const QUEUE_TOO_HIGH: u32 = QUEUES_MAX;
