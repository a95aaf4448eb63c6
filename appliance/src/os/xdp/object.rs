//! A BPF object with its maps and programs: loaded by this process, or by its keeper, which then holds it for us.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::{Error, LOADER_PIECE_MAX, OBJECT};
use crate::os::bpf_link::{self, LinkTarget};
use crate::os::keeper::{self, AttachPoint, ObjectKind, Refusal, Request};
use crate::os::{device, seal};
use aya::maps::{Map, MapData, ProgramArray};
use aya::programs::{Program, ProgramError, Xdp, XdpMode};
use aya::sys::SyscallError;
use aya::{Ebpf, EbpfLoader};
use nix::errno::Errno;
use xdnsd_abi::{bridge, hot, map, ports, rate};

/// The network namespace of this process.
const NAMESPACE: &str = "/proc/self/ns/net";
/// The object with the program for hot names, built by `cargo xtask ebpf`.
pub const HOT_OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../../ebpf/object/xdnsd-hot.bpf.o");
/// The object with the sk_lookup program, built by `cargo xtask ebpf`.
const PORTS_OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../../ebpf/object/xdnsd-ports.bpf.o");

/// What user space has to do with of an object, in the order of the numbers in requests to the keeper.
struct Contents {
    bytes: &'static [u8],
    maps: &'static [&'static str],
    programs: &'static [&'static str],
}

const fn contents(kind: ObjectKind) -> Contents {
    match kind {
        ObjectKind::Xdp => Contents {
            bytes: OBJECT,
            maps: &[
                map::XSKS,
                map::LISTEN,
                map::ADDRESSES,
                map::COUNTERS,
                map::HEARTBEAT,
                map::TAILS,
                map::GUARDED,
                map::SHIELD,
                map::SECRETS,
                map::PROTECTED,
                map::PREFIXES,
                map::LOGGED,
                map::EVENTS,
                rate::ACCOUNTS,
                bridge::STATIONS,
            ],
            programs: &[
                map::PROGRAM,
                map::PROGRAM_SINGLE,
                map::PROGRAM_TIER0,
                map::PROGRAM_SYN,
                map::PROGRAM_STRAY,
                map::PROGRAM_FORWARD,
                map::PROGRAM_LOG,
                rate::PROGRAM,
                rate::PROGRAM_TIER0,
            ],
        },
        ObjectKind::Hot => Contents {
            bytes: HOT_OBJECT,
            maps: &[
                hot::ANSWERS,
                hot::INDEX,
                hot::HITS,
                hot::CLIENTS,
                hot::SILENT,
                hot::CONTROL,
                hot::OUTCOMES,
            ],
            programs: &[hot::PROGRAM],
        },
        ObjectKind::Ports => Contents {
            bytes: PORTS_OBJECT,
            maps: &[ports::TABLE, ports::RECEIVERS],
            programs: &[ports::PROGRAM],
        },
    }
}

/// An object.
pub(super) enum Object {
    /// This process has loaded it.
    Own(Box<OwnObject>),
    /// The keeper has.
    Held(HeldObject),
}

impl Object {
    /// Makes the maps of an object: of `bytes`, if they are given, else of those that this program is built with. The maps of
    /// addresses have room for so many.
    pub(super) fn open(
        kind: ObjectKind,
        bytes: Option<&[u8]>,
        addresses: u32,
    ) -> Result<Self, Error> {
        if keeper::is_there() {
            return HeldObject::open(kind, addresses).map(Self::Held);
        }
        let bytes = bytes.unwrap_or(contents(kind).bytes);
        let own = OwnObject::open(kind, bytes, addresses)?;
        Ok(Self::Own(Box::new(own)))
    }

    /// Takes a map out of it. `None`: it has none of this name, or it was taken.
    pub(super) fn take_map(&mut self, name: &str) -> Option<Map> {
        match self {
            Self::Own(own) => own.ebpf.take_map(name),
            Self::Held(held) => {
                let maps = &mut held.maps;
                let at = maps.iter().position(|(known, _)| *known == name)?;
                Some(maps.swap_remove(at).1)
            }
        }
    }

    /// Loads a program.
    pub(super) fn load(&mut self, name: &'static str) -> Result<(), Error> {
        match self {
            Self::Own(own) => own.load(name),
            Self::Held(held) => held.load(name),
        }
    }

    /// Puts a loaded program of `other`, or of this object, into a slot of `tails`, the map of this object.
    pub(super) fn hand_on(
        &mut self,
        tails: &mut ProgramArray<MapData>,
        place: u32,
        name: &'static str,
        other: Option<&mut Self>,
    ) -> Result<(), Error> {
        let into = match self {
            Self::Own(_) => None,
            Self::Held(held) => Some(held.number),
        };
        match (other.unwrap_or(self), into) {
            (Self::Own(own), _) => own.hand_on(tails, place, name),
            (Self::Held(held), Some(into)) => {
                let request = Request::HandOn {
                    into,
                    place: u8::try_from(place).map_err(|_| Error::Contract(map::TAILS))?,
                    of: (held.number, held.program(name)?),
                };
                asked(request).map(drop)
            }
            (Self::Held(_), None) => Err(Error::Contract(name)),
        }
    }

    /// Attaches a loaded program to an interface. The attachment ends with the link.
    pub(super) fn attach(
        &mut self,
        name: &'static str,
        interface: &str,
        mode: XdpMode,
    ) -> Result<OwnedFd, Error> {
        match self {
            Self::Own(own) => own.attach(name, interface, mode),
            Self::Held(held) => held.attach(name, interface, mode),
        }
    }

    /// Attaches the loaded sk_lookup program to the network namespace of this process.
    pub(super) fn attach_to_namespace(&mut self, name: &'static str) -> Result<OwnedFd, Error> {
        match self {
            Self::Own(own) => own.attach_to_namespace(name),
            Self::Held(held) => {
                let program = held.program(name)?;
                let to = AttachPoint::Namespace;
                let held = held.number;
                link_of(asked(Request::Attach { held, program, to })?)
            }
        }
    }

    /// aya's view of a program. An object that the keeper holds has none.
    pub(super) fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, Error> {
        let Self::Own(own) = self else {
            return Err(Error::Contract(name));
        };
        let program = own.program(name)?;
        program.try_into().map_err(|_| Error::Contract(name))
    }
}

/// An object that this process has loaded.
pub struct OwnObject {
    kind: ObjectKind,
    ebpf: Ebpf,
}

impl OwnObject {
    /// See [`Object::open`].
    fn open(kind: ObjectKind, bytes: &[u8], addresses: u32) -> Result<Self, Error> {
        let mut loader = seal::with_pieces_up_to(LOADER_PIECE_MAX, EbpfLoader::new);
        if kind == ObjectKind::Xdp {
            for name in [map::LISTEN, map::ADDRESSES] {
                loader.map_max_entries(name, addresses);
            }
        }
        let ebpf = loader.load(bytes).map_err(|e| Error::Load(Box::new(e)))?;
        Ok(Self { kind, ebpf })
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Program, Error> {
        self.ebpf.program_mut(name).ok_or(Error::Contract(name))
    }

    /// Loads a program.
    fn load(&mut self, name: &'static str) -> Result<(), Error> {
        let program = self.program(name)?;
        let loaded = if let Program::Xdp(xdp) = program {
            xdp.load()
        } else if let Program::SkLookup(lookup) = program {
            lookup.load()
        } else {
            return Err(Error::Contract(name));
        };
        loaded.map_err(|cause| Error::Load(Box::new(cause.into())))
    }

    fn hand_on(
        &mut self,
        tails: &mut ProgramArray<MapData>,
        place: u32,
        name: &'static str,
    ) -> Result<(), Error> {
        let program = self.program(name)?.fd();
        let program = program.map_err(|cause| Error::Load(Box::new(cause.into())))?;
        let set = tails.set(place, program, 0);
        set.map_err(|cause| Error::map(map::TAILS, cause))
    }

    fn attach(
        &mut self,
        name: &'static str,
        interface: &str,
        mode: XdpMode,
    ) -> Result<OwnedFd, Error> {
        let refused = |cause| Error::Attach {
            interface: interface.to_owned(),
            mode,
            cause: Box::new(cause),
        };
        let index = device::index(interface).map_err(|errno| Error::Interface {
            name: interface.to_owned(),
            errno,
        })?;
        let target = match mode {
            XdpMode::Driver => LinkTarget::Driver(index),
            XdpMode::Skb | XdpMode::Default | XdpMode::Hardware => LinkTarget::Skb(index),
        };
        let program = self.program(name)?.fd().map_err(refused)?;
        bpf_link::create(program, target).map_err(|io_error| refused(not_created(io_error)))
    }

    fn attach_to_namespace(&mut self, name: &'static str) -> Result<OwnedFd, Error> {
        let failed = |cause: ProgramError| Error::Load(Box::new(cause.into()));
        let namespace = File::open(NAMESPACE).map_err(|io_error| failed(io_error.into()))?;
        let program = self.program(name)?.fd().map_err(failed)?;
        let link = bpf_link::create(program, LinkTarget::Namespace(namespace.as_fd()));
        link.map_err(|io_error| failed(not_created(io_error)))
    }
}

fn not_created(io_error: io::Error) -> ProgramError {
    let call = "bpf_link_create";
    ProgramError::SyscallError(SyscallError { call, io_error })
}

/// An object that the keeper holds for this process.
pub(super) struct HeldObject {
    kind: ObjectKind,
    number: u8,
    maps: Vec<(&'static str, Map)>,
}

impl HeldObject {
    fn open(object: ObjectKind, addresses: u32) -> Result<Self, Error> {
        let granted = asked(Request::Open { object, addresses })?;
        let number = u8::try_from(granted.value).map_err(|_| Error::Contract("number"))?;
        let mut held = Self {
            kind: object,
            number,
            maps: Vec::new(),
        };
        for (name, descriptor) in contents(object).maps.iter().zip(granted.descriptors) {
            held.maps.push((name, map_of(descriptor, name)?));
        }
        Ok(held)
    }

    /// Index of a program in requests.
    fn program(&self, name: &'static str) -> Result<u8, Error> {
        let programs = contents(self.kind).programs;
        let at = programs.iter().position(|known| *known == name);
        let at = at.and_then(|at| u8::try_from(at).ok());
        at.ok_or(Error::Contract(name))
    }

    fn load(&self, name: &'static str) -> Result<(), Error> {
        let program = self.program(name)?;
        let held = self.number;
        asked(Request::Load { held, program }).map(drop)
    }

    fn attach(&self, name: &'static str, interface: &str, mode: XdpMode) -> Result<OwnedFd, Error> {
        let no_name = Error::Interface {
            name: interface.to_owned(),
            errno: Errno::ENODEV,
        };
        let to = keeper::InterfaceName::new(interface).ok_or(no_name)?;
        let request = Request::Attach {
            held: self.number,
            program: self.program(name)?,
            to: match mode {
                XdpMode::Driver => AttachPoint::Native(to),
                XdpMode::Skb | XdpMode::Default | XdpMode::Hardware => AttachPoint::Generic(to),
            },
        };
        let granted = keeper::ask(request, None).map_err(|refusal| Error::Attach {
            interface: interface.to_owned(),
            mode,
            cause: Box::new(not_created(refusal.errno.into())),
        })?;
        link_of(granted)
    }
}

impl Drop for HeldObject {
    fn drop(&mut self) {
        // A keeper that has ended has forgotten it.
        let _ = asked(Request::Close { held: self.number });
    }
}

/// Has the keeper carry out a request.
pub(super) fn asked(request: Request) -> Result<keeper::Granted, Error> {
    keeper::ask(request, None).map_err(|refusal| Error::Refused(Box::new(refusal)))
}

fn link_of(mut granted: keeper::Granted) -> Result<OwnedFd, Error> {
    granted.descriptors.pop().ok_or(Error::Contract("link"))
}

/// The map behind a descriptor.
pub(super) fn map_of(descriptor: OwnedFd, name: &'static str) -> Result<Map, Error> {
    let map = MapData::from_fd(descriptor).and_then(Map::from_map_data);
    map.map_err(|cause| Error::map(name, cause))
}

/// An object that the keeper holds for the server, with its maps: programs are loaded with them later.
pub struct KeptObject {
    own: OwnObject,
    maps: Vec<MapData>,
}

impl KeptObject {
    /// Makes the maps.
    ///
    /// # Errors
    /// The kernel refused one.
    pub fn open(kind: ObjectKind, addresses: u32) -> Result<Self, Error> {
        let Contents { bytes, maps, .. } = contents(kind);
        let mut kept = Self {
            own: OwnObject::open(kind, bytes, addresses)?,
            maps: Vec::new(),
        };
        for name in maps {
            let map = kept.own.ebpf.take_map(name).ok_or(Error::Contract(name))?;
            let data = data_of(map).ok_or(Error::Contract(name))?;
            kept.maps.push(data);
        }
        Ok(kept)
    }

    /// Copies of the maps' descriptors, in the order of the contract with the server.
    pub fn maps(&self) -> impl Iterator<Item = io::Result<OwnedFd>> {
        let copy = |data: &MapData| data.fd().as_fd().try_clone_to_owned();
        self.maps.iter().map(copy)
    }

    /// The slots for tail calls.
    ///
    /// # Errors
    /// The object has none, or no descriptor is left.
    pub fn tails(&self) -> Result<ProgramArray<MapData>, Error> {
        let names = contents(self.own.kind).maps;
        let at = names.iter().position(|name| *name == map::TAILS);
        let copy = at.and_then(|at| self.maps().nth(at));
        let copy = copy.ok_or(Error::Contract(map::TAILS))?;
        let copy = copy.map_err(|cause| Error::Mmap {
            name: map::TAILS,
            cause,
        })?;
        let tails = ProgramArray::try_from(map_of(copy, map::TAILS)?);
        tails.map_err(|_| Error::Contract(map::TAILS))
    }

    fn name(&self, program: u8) -> Result<&'static str, Error> {
        let programs = contents(self.own.kind).programs;
        let name = programs.get(usize::from(program));
        name.copied().ok_or(Error::Contract("program"))
    }

    /// Loads a program, by its index.
    ///
    /// # Errors
    /// There is none, or the kernel refused it.
    pub fn load(&mut self, program: u8) -> Result<(), Error> {
        let name = self.name(program)?;
        self.own.load(name).map_err(|error| self.told(error))
    }

    /// The error as the server is to tell it.
    fn told(&self, error: Error) -> Error {
        match self.own.kind {
            ObjectKind::Xdp | ObjectKind::Hot => error,
            // It is no XDP program.
            ObjectKind::Ports => {
                let errno = error.errno().unwrap_or(Errno::EIO);
                Error::Refused(Box::new(Refusal::with(errno, &error.innermost())))
            }
        }
    }

    /// Puts a loaded program into a slot of `tails`.
    ///
    /// # Errors
    /// There is no such program, it is not loaded, or there is no such slot.
    pub fn hand_on(
        &mut self,
        tails: &mut ProgramArray<MapData>,
        place: u8,
        program: u8,
    ) -> Result<(), Error> {
        let name = self.name(program)?;
        self.own.hand_on(tails, place.into(), name)
    }

    /// Attaches a loaded program.
    ///
    /// # Errors
    /// There is no such program, or it cannot be attached.
    pub fn attach(&mut self, program: u8, to: AttachPoint) -> Result<OwnedFd, Error> {
        let name = self.name(program)?;
        match to {
            AttachPoint::Native(to) => self.own.attach(name, to.as_str(), XdpMode::Driver),
            AttachPoint::Generic(to) => self.own.attach(name, to.as_str(), XdpMode::Skb),
            AttachPoint::Namespace => self.own.attach_to_namespace(name),
        }
        .map_err(|error| self.told(error))
    }
}

/// What aya has of a map of a kind that an object here has.
fn data_of(map: Map) -> Option<MapData> {
    let (Map::Array(data)
    | Map::ArrayOfMaps(data)
    | Map::HashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data)
    | Map::ProgramArray(data)
    | Map::SockMap(data)
    | Map::XskMap(data)) = map
    else {
        return None;
    };
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::capabilities;
    use rustix::thread::CapabilitySet;
    use std::thread;
    use xdnsd_lab::privilege::root_or_skip;

    /// Loads each program of an object with these rights, and says what the kernel said.
    fn load(kind: ObjectKind, rights: CapabilitySet) -> Vec<Result<(), Option<Errno>>> {
        let loaded = thread::spawn(move || {
            capabilities::set(rights).expect("root has them");
            let mut object = KeptObject::open(kind, 64).expect("maps take CAP_BPF alone");
            let programs = contents(kind).programs.len() as u8;
            let load = |program| object.load(program).map_err(|error| error.errno());
            (0..programs).map(load).collect()
        });
        loaded.join().expect("it ends")
    }

    /// Why the keeper keeps CAP_PERFMON: an interface may come at any time.
    #[test]
    fn bpf_prog_load_of_xdp_programs_fails_without_perfmon() {
        if !root_or_skip("bpf_prog_load_of_xdp_programs_fails_without_perfmon") {
            return;
        }
        let without = capabilities::NETWORK.union(CapabilitySet::BPF);
        let with = without.union(CapabilitySet::PERFMON);
        for kind in [ObjectKind::Xdp, ObjectKind::Hot, ObjectKind::Ports] {
            assert!(load(kind, with).iter().all(Result::is_ok), "{kind:?}");
            eprintln!("{kind:?} without CAP_PERFMON: {:?}", load(kind, without));
        }
        let refused = load(ObjectKind::Xdp, without);
        assert_eq!(refused[0], Err(Some(Errno::EACCES)));
    }
}
