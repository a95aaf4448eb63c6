//! The process: a thread for each lane, which reads a request, carries it out if it is permitted, and replies.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::lchown;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};
use rustix::thread::CapabilitySet;

use super::permitted::Permitted;
use crate::logging;
use crate::os::account::PasswdEntry;
use crate::os::ethtool::{self, RxVlanOffload};
use crate::os::keeper::{
    self, Descriptors, LANES, REQUEST_BYTES, Refusal, Reply, Request, SocketKind,
};
use crate::os::landlock::{self, Reach, WritablePath};
use crate::os::nf_tables::{self, Filter, SetFault, SetInfo};
use crate::os::sysctl::{FOR_COOKIES, Sysctl};
use crate::os::system_calls::{self, Caller};
use crate::os::xdp::{self, KeptObject};
use crate::os::{capabilities, peer, seal, socket, threads};

/// Bytes of the send buffer of an AF_XDP socket: what the largest TX ring needs, twice.
const SEND_BUFFER: usize = crate::os::xsk::Shape::of(1).tx * xdnsd_core::limits::CHUNK_SIZE;
/// Stack of the second thread, in bytes.
pub const STACK_BYTES: usize = 16 * 1024;

type Outcome = Result<(Reply, Descriptors), Refusal>;

/// Serves until the server has ended.
pub fn run(lanes: [OwnedFd; LANES], permitted: Permitted, user: Option<PasswdEntry>) -> ! {
    logging::leave();
    keeper::close_others(&lanes);
    if let Err(error) = confine(&permitted, user) {
        eprintln!("the keeper (security.keeper) cannot begin: {error}");
        std::process::exit(1);
    }
    let permitted = Arc::new(permitted);
    let [quick, slow, sets] = lanes;
    let shared = Arc::clone(&permitted);
    let mut is_whole = attend_beside("keeper sockets", capabilities::KEEPER_SOCKETS, quick, {
        move |request, brought| sockets(request, brought, &shared)
    });
    if permitted.fills_sets {
        let mut filter = None;
        is_whole &= attend_beside("keeper sets", capabilities::NETWORK, sets, {
            move |request, _| fill(request, &mut filter)
        });
    }
    if is_whole {
        capabilities::keep(permitted.rights());
        let mut objects = Vec::new();
        attend(&slow, |request, _| {
            let outcome = carry_out(request, &permitted, &mut objects);
            seal::give_back();
            outcome
        });
    }
    std::process::exit(0)
}

/// Starts a thread that serves a lane with these rights. False: there is none, and the process ends.
fn attend_beside(
    name: &str,
    rights: CapabilitySet,
    lane: OwnedFd,
    carry_out: impl FnMut(Request, Option<BorrowedFd<'_>>) -> Outcome + Send + 'static,
) -> bool {
    let spawned = threads::builder_with_stack(name, STACK_BYTES).spawn(move || {
        capabilities::keep(rights);
        attend(&lane, carry_out);
        std::process::exit(0);
    });
    spawned.is_ok()
}

/// Takes the account, and gives up what the requests do not take. What the kernel lacks is left out, as in the server, which tells of it.
fn confine(permitted: &Permitted, user: Option<PasswdEntry>) -> io::Result<()> {
    threads::name_first("keeper");
    let _ = capabilities::bound(capabilities::KEEPER);
    match user {
        Some(user) => user.become_it(capabilities::KEEPER)?,
        None => capabilities::limit(capabilities::KEEPER)?,
    }
    let settings = FOR_COOKIES.map(Sysctl::named);
    let settings = settings.iter().filter(|_| permitted.sets);
    let places: Vec<WritablePath> = settings
        .filter_map(|setting| WritablePath::file_of_the_kernel(setting.path()).ok())
        .collect();
    if permitted.is_fenced {
        let _ = landlock::restrict(&places, Reach::Paths);
    }
    if let Some(denied) = permitted.denied {
        let _ = system_calls::restrict(denied, Caller::WithRights);
    }
    Ok(())
}

/// Reads requests from a lane until its end.
fn attend(lane: &OwnedFd, mut carry_out: impl FnMut(Request, Option<BorrowedFd<'_>>) -> Outcome) {
    loop {
        let mut bytes = [0; REQUEST_BYTES];
        let mut brought = Descriptors::new();
        let outcome = match keeper::receive(lane.as_fd(), &mut bytes, &mut brought) {
            Ok(0) => return,
            Ok(REQUEST_BYTES) => match Request::from_bytes(&bytes) {
                Some(request) => carry_out(request, brought.first().map(OwnedFd::as_fd)),
                None => Err(Refusal::of(Errno::EINVAL)),
            },
            Ok(_) | Err(Errno::EMSGSIZE) => Err(Refusal::of(Errno::EINVAL)),
            Err(_) => return,
        };
        let (reply, descriptors) = match outcome {
            Ok((reply, descriptors)) => (reply.to_bytes(), descriptors),
            Err(refusal) => (refusal.to_bytes(), Descriptors::new()),
        };
        let handed: heapless::Vec<BorrowedFd<'_>, { keeper::DESCRIPTORS_MAX }> =
            descriptors.iter().map(OwnedFd::as_fd).collect();
        if keeper::send(lane.as_fd(), &reply, &handed).is_err() {
            return;
        }
    }
}

/// Requests that a worker may wait for ([`Request::lane`]).
fn sockets(request: Request, brought: Option<BorrowedFd<'_>>, permitted: &Permitted) -> Outcome {
    if let Request::Socket(kind) = request {
        let made = socket::make(kind).map_err(Refusal::of)?;
        if kind == SocketKind::Xdp {
            // Fails without CAP_NET_ADMIN; then the buffer is as the kernel makes it.
            let _ = setsockopt(&made, sockopt::SndBufForce, &SEND_BUFFER);
        }
        one(made)
    } else if let Request::Bind(address) = request {
        let socket = brought.ok_or(Refusal::of(Errno::EBADF))?;
        if !permitted.has_port(address) {
            return Err(Refusal::of(Errno::EPERM));
        }
        let bound = SockaddrStorage::from(address);
        let bound = nix::sys::socket::bind(socket.as_raw_fd(), &bound);
        bound.map(|()| done(0)).map_err(Refusal::of)
    } else {
        Err(Refusal::of(Errno::EINVAL))
    }
}

/// Requests about sets of nf_tables.
fn fill(request: Request, filter: &mut Option<Filter>) -> Outcome {
    let outcome = match request {
        Request::LookAtSet { set } => look_at(set, filter),
        Request::AddToSet { set, info, address } => add_to(set, info, address, filter).map(|()| 0),
        Request::Open { .. }
        | Request::Load { .. }
        | Request::HandOn { .. }
        | Request::Attach { .. }
        | Request::Close { .. }
        | Request::Map(_)
        | Request::Socket(_)
        | Request::Bind(_)
        | Request::ShowTags(_)
        | Request::TakesFrames(_)
        | Request::Set { .. }
        | Request::AdmitGroup => return Err(Refusal::of(Errno::EINVAL)),
    };
    let value = outcome.or_else(SetFault::to_number);
    value.map(done).map_err(Refusal::of)
}

fn look_at(set: u16, filter: &mut Option<Filter>) -> Result<u32, SetFault> {
    let name = nf_tables::known(set).ok_or(SetFault::Forbidden)?;
    let info = Filter::opened(filter)?.set(name)?;
    Ok(info.to_bits().into())
}

fn add_to(
    set: u16,
    info: SetInfo,
    address: IpAddr,
    filter: &mut Option<Filter>,
) -> Result<(), SetFault> {
    let name = nf_tables::known(set).ok_or(SetFault::Forbidden)?;
    if !(info.takes(address) && name.wants(address)) {
        return Err(SetFault::Forbidden);
    }
    Filter::opened(filter)?.add(name, info, &[address])
}

/// Requests that may take long.
fn carry_out(
    request: Request,
    permitted: &Permitted,
    objects: &mut Vec<Option<KeptObject>>,
) -> Outcome {
    match request {
        Request::Map(kind) => one(xdp::make_map(kind).map_err(|error| refusal(&error))?),
        Request::ShowTags(name) => {
            permit(permitted.has_interface(&name))?;
            show_tags(name.as_str())
        }
        Request::TakesFrames(name) => {
            permit(permitted.has_interface(&name))?;
            let takes = peer::takes_frames(name.as_str());
            takes.map(|takes| done(takes.into())).map_err(Refusal::of)
        }
        Request::Set { setting, value } => {
            permit(permitted.sets)?;
            let name = FOR_COOKIES.get(usize::from(setting));
            let name = name.ok_or(Refusal::of(Errno::EINVAL))?;
            told(Sysctl::named(name).write(value))
        }
        Request::AdmitGroup => {
            let group = permitted.group.as_ref();
            let (path, group) = group.ok_or(Refusal::of(Errno::EPERM))?;
            told(lchown(path, None, Some(*group)))
        }
        Request::Attach { held, program, to } => {
            permit(
                to.interface()
                    .is_none_or(|name| permitted.has_interface(&name)),
            )?;
            let object = object(objects, held)?;
            one(object
                .attach(program, to)
                .map_err(|error| refusal(&error))?)
        }
        Request::Open { object, addresses } => {
            permit(permitted.has_room(addresses))?;
            let number = free_place(permitted, objects)?;
            open(KeptObject::open(object, addresses), number, objects)
        }
        Request::Load { held, program } => {
            let loaded = object(objects, held)?.load(program);
            loaded.map(|()| done(0)).map_err(|error| refusal(&error))
        }
        Request::HandOn { into, place, of } => hand_on(objects, into, place, of),
        Request::Close { held } => {
            let place = objects.get_mut(usize::from(held));
            *place.ok_or(Refusal::of(Errno::EINVAL))? = None;
            Ok(done(0))
        }
        Request::Socket(_)
        | Request::Bind(_)
        | Request::LookAtSet { .. }
        | Request::AddToSet { .. } => Err(Refusal::of(Errno::EINVAL)),
    }
}

/// Number of a place for another object.
fn free_place(
    permitted: &Permitted,
    objects: &mut Vec<Option<KeptObject>>,
) -> Result<usize, Refusal> {
    let free = objects.iter().position(Option::is_none);
    let number = free.unwrap_or(objects.len());
    permit(permitted.has_object(number))?;
    if free.is_none() {
        objects.push(None);
    }
    Ok(number)
}

fn open(
    opened: Result<KeptObject, xdp::Error>,
    number: usize,
    objects: &mut [Option<KeptObject>],
) -> Outcome {
    let opened = opened.map_err(|error| refusal(&error))?;
    let copies: std::io::Result<Descriptors> = opened.maps().collect();
    let copies = copies.map_err(|error| Refusal::of(errno(&error)))?;
    objects[number] = Some(opened);
    Ok((
        Reply {
            value: number as u32,
        },
        copies,
    ))
}

fn object(objects: &mut [Option<KeptObject>], number: u8) -> Result<&mut KeptObject, Refusal> {
    let object = objects.get_mut(usize::from(number));
    object
        .and_then(Option::as_mut)
        .ok_or(Refusal::of(Errno::EINVAL))
}

fn hand_on(
    objects: &mut [Option<KeptObject>],
    into: u8,
    place: u8,
    (of, program): (u8, u8),
) -> Outcome {
    let mut tails = object(objects, into)?
        .tails()
        .map_err(|error| refusal(&error))?;
    let handed = object(objects, of)?.hand_on(&mut tails, place, program);
    handed.map(|()| done(0)).map_err(|error| refusal(&error))
}

fn show_tags(interface: &str) -> Outcome {
    match ethtool::turn_off_rx_vlan_offload(interface) {
        Ok(RxVlanOffload::Off) => Ok(done(0)),
        Ok(RxVlanOffload::TurnedOff) => Ok(done(1)),
        Ok(RxVlanOffload::StillOn(error)) => Ok(done(2 + errno(&error) as u32)),
        Err(error) => Err(Refusal::of(errno(&error))),
    }
}

fn permit(is_permitted: bool) -> Result<(), Refusal> {
    let refused = || Refusal::with(Errno::EPERM, "the config does not name it");
    is_permitted.then_some(()).ok_or_else(refused)
}

fn done(value: u32) -> (Reply, Descriptors) {
    (Reply { value }, Descriptors::new())
}

fn one(descriptor: OwnedFd) -> Outcome {
    let mut descriptors = Descriptors::new();
    // Has room.
    let _ = descriptors.push(descriptor);
    Ok((Reply { value: 0 }, descriptors))
}

fn told(done_so: std::io::Result<()>) -> Outcome {
    done_so
        .map(|()| done(0))
        .map_err(|error| Refusal::of(errno(&error)))
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn refusal(error: &xdp::Error) -> Refusal {
    let errno = error.errno().unwrap_or(Errno::EIO);
    Refusal::with(errno, &error.to_string())
}
