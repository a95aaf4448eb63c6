//! Loader of the XDP program: one object per interface, with its own maps.
//!
//! Order of calls: [`Program::load`], [`Program::attach`] (a driver may add RX queues when it sees XDP, so count them after it),
//! bind the sockets, [`Program::set_socket`] and a first [`Heartbeat::beat`] for each queue, and [`Program::set_listen`] last.
//! Until then the program passes everything. The attachment is a bpf_link, so it ends with this process, even after a crash. Only
//! the heartbeat here is needed per packet.

mod bridge;
mod error;
mod heartbeat;
mod hot;
mod log;
mod object;
mod ports;
mod prefixes;
mod protect;
mod rate;
mod shared_maps;
mod shield;

pub use bridge::StationsMap;
pub use error::Error;
pub use heartbeat::Heartbeat;
pub use hot::{HotMaps, HotProgram};
pub use log::{EventRing, FrameEvent};
pub use object::{HOT_OBJECT, KeptObject};
pub use ports::PortsProgram;
pub use prefixes::{PrefixBits, Trie};
pub use rate::AccountsMap;
pub use shared_maps::make as make_map;

use crate::os::device;
use crate::os::keeper::ObjectKind;
use ::log::debug;
use aya::maps::{ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{Xdp, XdpMode};
use bridge::Stations;
use heartbeat::HeartbeatArray;
pub use protect::ProtectedPrefix;

use log::Log;
use object::Object;
use protect::Protect;
use rate::Limits;
use shield::ShieldMaps;
use std::fmt;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use xdnsd_abi::bridge::STATIONS;
use xdnsd_abi::{LISTEN_MAX, Listen, PathCheck, QUEUES_MAX, Reason, map};

/// The object built by `cargo xtask ebpf`.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/object/xdnsd.bpf.o");

/// Largest allocation that aya's loader may make when it is created, in bytes.
///
/// It would read the whole kernel's type information (`/sys/kernel/btf/vmlinux`, 1.5 to 6 MiB), three times as much on its heap,
/// without need: this program has no CO-RE relocations. If refused, it goes on as on a kernel without BTF. From 0.15 on aya reads
/// it only where needed, but that requires Rust 1.98 (aya issue 1172).
const LOADER_PIECE_MAX: usize = 64 * 1024;
/// Lines logged from the end of a verifier log, for debugging.
const VERIFIER_LINES: usize = 64;

/// [`Listen`] as bytes: aya's marker trait for plain data cannot be implemented for it here.
type ListenKey = [u8; size_of::<Listen>()];
/// [`PathCheck`] as bytes, for the same reason.
type CheckBytes = [u8; size_of::<PathCheck>()];

/// Mode in which to attach the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, or fail.
    Native,
    /// Generic, on any interface, at the cost of an skb per frame.
    Generic,
    /// In the driver if possible, otherwise generic.
    Auto,
}

/// Mode in which the program is attached.
#[derive(Debug)]
pub enum Attached {
    /// In the driver.
    Native,
    /// Generic, as [`AttachMode::Generic`] requested.
    Generic,
    /// Generic, because native mode failed with this error under [`AttachMode::Auto`].
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

/// The program's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCounts {
    /// One row per possible CPU, indexed by [`Reason`].
    pub per_cpu: Vec<[u64; Reason::COUNT as usize]>,
}

impl ReasonCounts {
    /// Sum over all CPUs.
    #[must_use]
    pub fn sum(&self, reason: Reason) -> u64 {
        self.of(reason).into_iter().fold(0, u64::wrapping_add)
    }

    /// Count of `reason` on each CPU.
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
    /// Closing it detaches.
    link: Option<OwnedFd>,
    /// Room of the listen map.
    addresses_max: u32,
    sockets: XskMap<MapData>,
    listen: HashMap<MapData, ListenKey, CheckBytes>,
    counters: PerCpuArray<MapData, u64>,
    shield: ShieldMaps,
    protect: Protect,
    log: Log,
    limits: Limits,
    stations: Stations,
    beats: HeartbeatArray,
    /// Kept open until the program is loaded, since it refers to the map by descriptor.
    _heartbeat: MapData,
    /// Name of the loaded program in the object.
    name: &'static str,
    object: Object,
}

impl Program {
    /// Loads [`OBJECT`], with room for so many entries of the listen map.
    ///
    /// # Errors
    ///
    /// The kernel refused the program or a map; the text names a missing capability.
    pub fn load(addresses: u32) -> Result<Self, Error> {
        let mut program = Self::open(None, addresses)?;
        program.load_either()?;
        Ok(program)
    }

    /// Loads another object with the same contract: a test's, or one built by another toolchain.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and if the object lacks a map or the program.
    pub fn load_object(object: &[u8]) -> Result<Self, Error> {
        let mut program = Self::open(Some(object), LISTEN_MAX)?;
        program.load_either()?;
        Ok(program)
    }

    /// Loads the variant for kernels before 5.18.
    ///
    /// # Errors
    ///
    /// As [`Self::load_object`].
    pub fn load_single(object: &[u8]) -> Result<Self, Error> {
        let mut program = Self::open(Some(object), LISTEN_MAX)?;
        program.load_as(map::PROGRAM_SINGLE)?;
        Ok(program)
    }

    /// Makes the maps of [`OBJECT`] or another object, with room for so many entries of the listen map.
    fn open(bytes: Option<&[u8]>, addresses: u32) -> Result<Self, Error> {
        let mut object = Object::open(ObjectKind::Xdp, bytes, addresses)?;
        let Some(Map::Array(heartbeat)) = object.take_map(map::HEARTBEAT) else {
            return Err(Error::Contract(map::HEARTBEAT));
        };
        let beats = HeartbeatArray::map(heartbeat.fd().as_fd())?;
        Ok(Self {
            link: None,
            addresses_max: addresses,
            sockets: take(&mut object, map::XSKS, XskMap::try_from)?,
            listen: take(&mut object, map::LISTEN, HashMap::try_from)?,
            counters: take(&mut object, map::COUNTERS, PerCpuArray::try_from)?,
            shield: ShieldMaps::of(&mut object)?,
            protect: Protect::of(&mut object)?,
            log: Log::of(&mut object)?,
            limits: Limits::of(&mut object)?,
            stations: take(&mut object, STATIONS, ArrayOfMaps::try_from)?,
            beats,
            _heartbeat: heartbeat,
            name: map::PROGRAM,
            object,
        })
    }

    /// Loads the program, or the single-buffer variant: a kernel before 5.18 refuses the flag for multi-buffer frames. Without
    /// the flag, drivers keep their MTU limit.
    fn load_either(&mut self) -> Result<(), Error> {
        let Err(error) = self.load_as(map::PROGRAM) else {
            return Ok(());
        };
        match self.load_as(map::PROGRAM_SINGLE) {
            Ok(()) => Ok(()),
            // Errors of both variants, such as a missing capability, are reported for the first.
            Err(_) => Err(error),
        }
    }

    fn load_as(&mut self, name: &'static str) -> Result<(), Error> {
        self.name = name;
        self.object.load(name).inspect_err(|error| {
            // The log is long, and its last lines matter.
            let log = error.verifier_log();
            let skipped = log.lines().count().saturating_sub(VERIFIER_LINES);
            for line in log.lines().skip(skipped) {
                debug!("{name}: verifier: {line}");
            }
        })
    }

    /// True if the program takes multi-buffer frames.
    #[must_use]
    pub fn takes_several_buffers(&self) -> bool {
        self.name != map::PROGRAM_SINGLE
    }

    /// aya's view of the program, for BPF_PROG_TEST_RUN.
    ///
    /// # Errors
    ///
    /// The object lacks the program, which [`Self::load`] excludes, or a keeper holds it.
    pub fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        self.object.xdp(self.name)
    }

    /// Attaches to the named interface, in place of an earlier attachment of this program.
    ///
    /// # Errors
    ///
    /// No such interface, another program is attached, or driver or kernel cannot do it; see [`Error`] for hints.
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<Attached, Error> {
        device::index(interface).map_err(|errno| Error::Interface {
            name: interface.to_owned(),
            errno,
        })?;
        self.detach();
        let native = |program: &mut Self| program.link(interface, XdpMode::Driver);
        let generic = |program: &mut Self| program.link(interface, XdpMode::Skb);
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

    /// Attaches by bpf_link, which ends with the process.
    fn link(&mut self, interface: &str, mode: XdpMode) -> Result<(), Error> {
        // The driver of a bond passes the program to its ports, whose queues cannot have our sockets.
        if mode == XdpMode::Driver && is_bond(interface) {
            return Err(Error::Bond(interface.to_owned()));
        }
        self.link = Some(self.object.attach(self.name, interface, mode)?);
        Ok(())
    }

    /// Detaches, if attached. The maps stay filled.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Makes the listen map equal to `wanted`: adds, changes and removes. Entries that stay are present throughout. The map of
    /// our own addresses follows it.
    ///
    /// # Errors
    ///
    /// More entries than there is room for, or the map refused.
    pub fn set_listen(&mut self, wanted: &[(Listen, PathCheck)]) -> Result<(), Error> {
        Error::check_room(map::LISTEN, wanted.len(), self.addresses_max)?;
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

    /// Entries of the listen map, unordered.
    ///
    /// # Errors
    ///
    /// The map refused.
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
    /// The queue is [`QUEUES_MAX`] or above, or the descriptor is not an AF_XDP socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), Error> {
        check_queue(queue)?;
        let socket = socket.as_fd().as_raw_fd();
        let set = self.sockets.set(queue, socket, 0);
        set.map_err(|cause| Error::map(map::XSKS, cause))
    }

    /// Stops redirecting frames of an RX queue: they pass.
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

    /// Count of `reason`, over all CPUs.
    ///
    /// # Errors
    ///
    /// The map refused.
    pub fn counter(&self, reason: Reason) -> Result<u64, Error> {
        let values = self.counters.get(&(reason as u32), 0);
        let values = values.map_err(|cause| Error::map(map::COUNTERS, cause))?;
        Ok(values.iter().copied().fold(0, u64::wrapping_add))
    }

    /// Reads all counters of all CPUs. One system call per reason, and it allocates: for a statistics thread.
    ///
    /// # Errors
    ///
    /// The map refused.
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

/// Makes a map equal to `wanted`. Entries that stay are present throughout.
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

/// Takes a map of the contract out of the object, converted to its type.
fn take<T, E>(
    object: &mut Object,
    name: &'static str,
    convert: impl FnOnce(Map) -> Result<T, E>,
) -> Result<T, Error> {
    let map = object.take_map(name).ok_or(Error::Contract(name))?;
    convert(map).map_err(|_| Error::Contract(name))
}
