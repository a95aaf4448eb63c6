//! The loader of the XDP program: one object, with maps of its own, per interface.
//!
//! Order for a caller: [`Program::load`], [`Program::attach`] (a driver may add RX queues when it sees XDP, so count
//! them after it), bind the sockets, [`Program::set_socket`] and a first [`Heartbeat::beat`] for each queue, and
//! [`Program::set_listen`] last. Until then the program passes everything. The attachment is a bpf_link: it goes when
//! this process goes, however it goes. Nothing here is on the path of a packet but the heartbeat.

mod bridge;
mod error;
mod heartbeat;
mod hot;
mod log;
mod prefixes;
mod protect;
mod rate;
mod shield;

pub use bridge::StationsMap;
pub use error::Error;
pub use heartbeat::Heartbeat;
pub use hot::{HOT_OBJECT, HotMaps, HotProgram};
pub use log::{EventRing, FrameEvent};
pub use prefixes::{PrefixBits, Trie};
pub use rate::AccountsMap;

use crate::os::seal;
use ::log::debug;
use aya::maps::{ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use bridge::Stations;
use heartbeat::Beats;
pub use protect::ProtectedPrefix;

use log::Log;
use protect::Protect;
use rate::Limits;
use shield::ShieldMaps;
use std::fmt;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use xdnsd_abi::bridge::STATIONS;
use xdnsd_abi::{LISTEN_MAX, Listen, PathCheck, QUEUES_MAX, Reason, map};

/// The object that `cargo xtask ebpf` built.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/object/xdnsd.bpf.o");

/// The largest piece of memory that aya's loader may ask for when it is made, in bytes.
///
/// It reads the types of the whole kernel then (`/sys/kernel/btf/vmlinux`, 1.5 to 6 MiB), which in its heap become three
/// times as much, and which it has no use for: this program relocates nothing by them. Refused, it goes on as on a kernel
/// without types. aya reads them only where they are needed from 0.15 on, which asks for Rust 1.98 (aya issue 1172).
const LOADER_PIECE_MAX: usize = 64 * 1024;
/// Lines of the end of what the verifier said of a program that it refuses, for debugging.
const VERIFIER_LINES: usize = 64;

/// The key as bytes: aya's marker for plain data is not ours to put on [`Listen`].
type ListenKey = [u8; size_of::<Listen>()];
/// The value, for the same reason.
type CheckBytes = [u8; size_of::<PathCheck>()];

/// Where the program shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, or not at all.
    Native,
    /// Behind the driver, on any interface, at the cost of an skb per frame.
    Generic,
    /// In the driver if it can, else behind it.
    Auto,
}

/// Where the program runs.
#[derive(Debug)]
pub enum Attached {
    /// In the driver.
    Native,
    /// Behind the driver, as [`AttachMode::Generic`] asked.
    Generic,
    /// Behind the driver, because [`AttachMode::Auto`] met this.
    GenericInstead(Error),
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Generic => f.write_str("generic"),
            Self::GenericInstead(error) => write!(f, "generic: {}", error.why_not_native()),
        }
    }
}

/// What the program counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCounts {
    /// One row per possible CPU, indexed by [`Reason`].
    pub per_cpu: Vec<[u64; Reason::COUNT as usize]>,
}

impl ReasonCounts {
    /// The sum over all CPUs.
    #[must_use]
    pub fn sum(&self, reason: Reason) -> u64 {
        self.of(reason).into_iter().fold(0, u64::wrapping_add)
    }

    /// `reason` on each CPU.
    #[must_use]
    pub fn of(&self, reason: Reason) -> Vec<u64> {
        self.per_cpu
            .iter()
            .map(|row| row[reason as usize])
            .collect()
    }
}

/// The program of one interface and its maps. Dropping it detaches.
pub struct Program {
    link: Option<FdLink>,
    sockets: XskMap<MapData>,
    listen: HashMap<MapData, ListenKey, CheckBytes>,
    counters: PerCpuArray<MapData, u64>,
    shield: ShieldMaps,
    protect: Protect,
    log: Log,
    limits: Limits,
    stations: Stations,
    beats: Beats,
    /// Open until the program is loaded, which names it by its descriptor.
    _heartbeat: MapData,
    /// Which of the object's programs is loaded.
    name: &'static str,
    ebpf: Ebpf,
}

impl Program {
    /// Loads [`OBJECT`].
    ///
    /// # Errors
    ///
    /// The kernel refuses the program or a map; the text names the capability that is missing.
    pub fn load() -> Result<Self, Error> {
        Self::load_object(OBJECT)
    }

    /// Loads another object with the same contract: a test's, or one built by another toolchain.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and if the object lacks a map or the program.
    pub fn load_object(object: &[u8]) -> Result<Self, Error> {
        let mut program = Self::open(object)?;
        program.load_either()?;
        Ok(program)
    }

    /// Loads of it what a kernel before 5.18 gets.
    ///
    /// # Errors
    ///
    /// As [`Self::load_object`].
    pub fn load_single(object: &[u8]) -> Result<Self, Error> {
        let mut program = Self::open(object)?;
        program.load_as(map::PROGRAM_SINGLE)?;
        Ok(program)
    }

    /// Makes the maps.
    fn open(object: &[u8]) -> Result<Self, Error> {
        let mut loader = seal::with_pieces_up_to(LOADER_PIECE_MAX, EbpfLoader::new);
        let mut ebpf = loader.load(object).map_err(|e| Error::Load(Box::new(e)))?;
        let Some(Map::Array(heartbeat)) = ebpf.take_map(map::HEARTBEAT) else {
            return Err(Error::Contract(map::HEARTBEAT));
        };
        let beats = Beats::map(heartbeat.fd().as_fd())?;
        Ok(Self {
            link: None,
            sockets: take(&mut ebpf, map::XSKS, XskMap::try_from)?,
            listen: take(&mut ebpf, map::LISTEN, HashMap::try_from)?,
            counters: take(&mut ebpf, map::COUNTERS, PerCpuArray::try_from)?,
            shield: ShieldMaps::of(&mut ebpf)?,
            protect: Protect::of(&mut ebpf)?,
            log: Log::of(&mut ebpf)?,
            limits: Limits::of(&mut ebpf)?,
            stations: take(&mut ebpf, STATIONS, ArrayOfMaps::try_from)?,
            beats,
            _heartbeat: heartbeat,
            name: map::PROGRAM,
            ebpf,
        })
    }

    /// A kernel before 5.18 refuses the flag of a program that takes frames in several buffers. It gets the other one,
    /// and drivers keep their limit of the MTU.
    fn load_either(&mut self) -> Result<(), Error> {
        let Err(error) = self.load_as(map::PROGRAM) else {
            return Ok(());
        };
        match self.load_as(map::PROGRAM_SINGLE) {
            Ok(()) => Ok(()),
            // What both have in common, such as a right that is missing, is what the first one says.
            Err(_) => Err(error),
        }
    }

    fn load_as(&mut self, name: &'static str) -> Result<(), Error> {
        self.name = name;
        let loaded = self.xdp()?.load();
        loaded.map_err(|cause| {
            let error = Error::Load(Box::new(cause.into()));
            // The steps that led there are many, and the last of them the ones that matter.
            let log = error.verifier_log();
            let skipped = log.lines().count().saturating_sub(VERIFIER_LINES);
            for line in log.lines().skip(skipped) {
                debug!("{name}: verifier: {line}");
            }
            error
        })
    }

    /// Whether it takes frames in several buffers.
    #[must_use]
    pub fn takes_several_buffers(&self) -> bool {
        self.name != map::PROGRAM_SINGLE
    }

    /// aya's view of the program, for BPF_PROG_TEST_RUN.
    ///
    /// # Errors
    ///
    /// Only if the object has no such program, which [`Self::load`] excludes.
    pub fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        let program = self.ebpf.program_mut(self.name);
        let xdp = program.and_then(|program| program.try_into().ok());
        xdp.ok_or(Error::Contract(self.name))
    }

    /// Attaches to the interface of this name, in place of an earlier attachment of this program.
    ///
    /// # Errors
    ///
    /// No such interface, another program is attached, or driver and kernel cannot do it; see [`Error`] for hints.
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<Attached, Error> {
        let index = nix::net::if_::if_nametoindex(interface).map_err(|errno| Error::Interface {
            name: interface.to_owned(),
            errno,
        })?;
        self.detach();
        let native = |program: &mut Self| program.link(interface, index, XdpMode::Driver);
        let generic = |program: &mut Self| program.link(interface, index, XdpMode::Skb);
        match mode {
            AttachMode::Native => native(self).map(|()| Attached::Native),
            AttachMode::Generic => generic(self).map(|()| Attached::Generic),
            AttachMode::Auto => match native(self) {
                Ok(()) => Ok(Attached::Native),
                Err(error) if error.generic_may_help() => {
                    generic(self).map(|()| Attached::GenericInstead(error))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Attaches by bpf_link. aya falls back to netlink on EINVAL, and that attachment would outlive the process.
    fn link(&mut self, interface: &str, index: u32, mode: XdpMode) -> Result<(), Error> {
        // The driver of a bond hands the program on to its ports. A socket cannot be had for those.
        if mode == XdpMode::Driver && is_bond(interface) {
            return Err(Error::Bond(interface.to_owned()));
        }
        let refused = |cause| Error::Attach {
            interface: interface.to_owned(),
            mode,
            cause: Box::new(cause),
        };
        let xdp = self.xdp()?;
        let id = xdp.attach_to_if_index(index, mode).map_err(refused)?;
        let link = xdp.take_link(id).map_err(refused)?;
        let link = FdLink::try_from(link).map_err(|_| Error::NoLink(interface.to_owned()))?;
        self.link = Some(link);
        Ok(())
    }

    /// Detaches, if attached. The maps stay filled.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Makes the listen map equal to `wanted`: adds, changes and removes. Entries that stay are never absent. The map of addresses
    /// that are ours follows it.
    ///
    /// # Errors
    ///
    /// More than [`LISTEN_MAX`] entries, or the map refuses.
    pub fn set_listen(&mut self, wanted: &[(Listen, PathCheck)]) -> Result<(), Error> {
        Error::check_room(map::LISTEN, wanted.len(), LISTEN_MAX)?;
        let own = wanted.iter().map(|(listen, _)| listen.address_bit());
        let own = own.fold(0, BitOr::bitor);
        let with_own = |(listen, check): &(Listen, PathCheck)| (*listen, check.with_own(own));
        let listens: Vec<_> = self.limits.marked(wanted).iter().map(with_own).collect();
        replace(&mut self.listen, &listens).map_err(|cause| Error::map(map::LISTEN, cause))?;
        let whole = |(listen, check): &(Listen, PathCheck)| {
            let port = [0; 2];
            (Listen { port, ..*listen }, *check)
        };
        let addresses: Vec<_> = wanted.iter().map(whole).collect();
        let set = replace(&mut self.shield.addresses, &addresses);
        set.map_err(|cause| Error::map(map::ADDRESSES, cause))
    }

    /// What the listen map holds, in no order.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn listen(&self) -> Result<Vec<(ListenKey, PathCheck)>, Error> {
        let entries = self.listen.iter().map(|entry| {
            let (key, check) = entry?;
            Ok((key, PathCheck::from_bytes(check)))
        });
        let entries: Result<Vec<_>, MapError> = entries.collect();
        entries.map_err(|cause| Error::map(map::LISTEN, cause))
    }

    /// Puts a bound AF_XDP socket into the slot of its RX queue. The kernel removes it when the socket is closed.
    ///
    /// # Errors
    ///
    /// The queue is [`QUEUES_MAX`] or above, or the descriptor is no AF_XDP socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), Error> {
        check_queue(queue)?;
        let socket = socket.as_fd().as_raw_fd();
        let set = self.sockets.set(queue, socket, 0);
        set.map_err(|cause| Error::map(map::XSKS, cause))
    }

    /// Redirects no frames of an RX queue any more: they pass.
    ///
    /// # Errors
    ///
    /// The queue is [`QUEUES_MAX`] or above, or has no socket.
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), Error> {
        check_queue(queue)?;
        let cleared = self.sockets.unset(queue);
        cleared.map_err(|cause| Error::map(map::XSKS, cause))
    }

    /// The heartbeat of an RX queue, for the thread that serves it.
    ///
    /// # Errors
    ///
    /// The queue is [`QUEUES_MAX`] or above.
    pub fn heartbeat(&self, queue: u32) -> Result<Heartbeat, Error> {
        check_queue(queue)?;
        Ok(self.beats.of_queue(queue))
    }

    /// How often `reason` was counted, on all CPUs.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn counter(&self, reason: Reason) -> Result<u64, Error> {
        let values = self.counters.get(&(reason as u32), 0);
        let values = values.map_err(|cause| Error::map(map::COUNTERS, cause))?;
        Ok(values.iter().copied().fold(0, u64::wrapping_add))
    }

    /// Reads every counter of every CPU. One system call per reason, and it allocates: for a statistics thread.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn counters(&self) -> Result<ReasonCounts, Error> {
        let mut per_cpu = Vec::new();
        for &reason in Reason::ALL {
            let values = self.counters.get(&(reason as u32), 0);
            let values = values.map_err(|cause| Error::map(map::COUNTERS, cause))?;
            per_cpu.resize(values.len(), [0; Reason::COUNT as usize]);
            for (row, value) in per_cpu.iter_mut().zip(values.iter()) {
                row[reason as usize] = *value;
            }
        }
        Ok(ReasonCounts { per_cpu })
    }
}

/// Makes a map equal to `wanted`. Entries that stay are never absent.
fn replace(
    map: &mut HashMap<MapData, ListenKey, CheckBytes>,
    wanted: &[(Listen, PathCheck)],
) -> Result<(), MapError> {
    let present: Result<Vec<ListenKey>, MapError> = map.keys().collect();
    for key in present? {
        if !wanted.iter().any(|(listen, _)| listen.to_bytes() == key) {
            map.remove(&key)?;
        }
    }
    for (listen, check) in wanted {
        map.insert(listen.to_bytes(), check.to_bytes(), 0)?;
    }
    Ok(())
}

fn is_bond(interface: &str) -> bool {
    Path::new(&format!("/sys/class/net/{interface}/bonding")).is_dir()
}

fn check_queue(queue: u32) -> Result<(), Error> {
    if queue >= QUEUES_MAX {
        return Err(Error::Queue(queue));
    }
    Ok(())
}

/// Takes a map of the contract out of the object, as the type that it has to be.
fn take<T, E>(
    ebpf: &mut Ebpf,
    name: &'static str,
    convert: impl FnOnce(Map) -> Result<T, E>,
) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Contract(name))?;
    convert(map).map_err(|_| Error::Contract(name))
}
