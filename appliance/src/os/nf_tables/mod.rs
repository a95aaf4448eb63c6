//! Sets of nf_tables, and addresses that are added to them by nfnetlink (linux/netfilter/nf_tables.h).
//!
//! ```text
//!  workers ── SetQueue ──► a thread: Filter::add ── one batch ──► kernel
//!                                          └─ an address a request ──► keeper: Direct::add ──► kernel
//! ```
//! Of crates for it one links a C library, one runs `nft`, and one may not be linked to from this licence.

mod direct;
mod message;
mod name;
mod queue;

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

use nix::errno::Errno;

use super::keeper::{self, Request};

pub use super::set_info::SetInfo;
pub use direct::Direct;
pub use name::{AddressFamilies, SetName};
pub use queue::{COUNTS, FoundAddress, InSets, PLACES, SetQueue, SetWork};

/// Why an address is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetFault {
    /// There is no such table, or no such set in it.
    Missing,
    /// The process may not change tables.
    Forbidden,
    /// Its table belongs to another program, which alone may change it.
    Owned,
    /// Its keys are no addresses.
    OtherKeys,
    /// It takes no elements while it is there.
    Constant,
    /// It is a map or a verdict map.
    Map,
    /// It has as many elements as its `size` says.
    Full,
    /// The keeper does not know it.
    Unknown,
    /// The kernel's reason.
    Kernel(Errno),
}

/// Faults that no errno stands for, with their numbers in replies of the keeper, above [`SetInfo::to_bits`].
const NUMBERED: [(SetFault, u32); 4] = [
    (SetFault::Owned, 16),
    (SetFault::OtherKeys, 17),
    (SetFault::Constant, 18),
    (SetFault::Map, 19),
];

impl SetFault {
    /// The number in a reply, or the errno of a refusal.
    ///
    /// # Errors
    /// An errno stands for it.
    pub fn to_number(self) -> Result<u32, Errno> {
        let numbered = NUMBERED.iter().find(|(fault, _)| *fault == self);
        numbered.map(|(_, number)| *number).ok_or(match self {
            Self::Missing => Errno::ENOENT,
            Self::Full => Errno::ENFILE,
            Self::Kernel(errno) => errno,
            Self::Forbidden
            | Self::Owned
            | Self::OtherKeys
            | Self::Constant
            | Self::Map
            | Self::Unknown => Errno::EPERM,
        })
    }

    fn from_number(number: u32) -> Option<Self> {
        let numbered = NUMBERED.iter().find(|(_, known)| *known == number);
        numbered.map(|(fault, _)| *fault)
    }
}

impl fmt::Display for SetFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Missing => "there is no such set: nft list sets",
            Self::Forbidden => "CAP_NET_ADMIN is missing",
            Self::Owned => "its table belongs to another program (flags owner)",
            Self::OtherKeys => "its type is neither ipv4_addr nor ipv6_addr",
            Self::Constant => "it is constant",
            Self::Map => "it is a map",
            Self::Full => "it is full: see its size",
            Self::Unknown => {
                "it was not in the config at the start, and its keeper (security.keeper) fills those: restart"
            }
            Self::Kernel(errno) => return write!(formatter, "{} ({errno:?})", errno.desc()),
        };
        formatter.write_str(text)
    }
}

impl From<Errno> for SetFault {
    fn from(errno: Errno) -> Self {
        const KNOWN: [(Errno, SetFault); 3] = [
            (Errno::ENOENT, SetFault::Missing),
            (Errno::EPERM, SetFault::Forbidden),
            (Errno::ENFILE, SetFault::Full),
        ];
        let known = KNOWN.iter().find(|(known, _)| *known == errno);
        known.map_or(Self::Kernel(errno), |(_, fault)| *fault)
    }
}

/// The packet filter of this network namespace. Its calls wait while another program changes the tables.
#[derive(Debug)]
pub enum Filter {
    /// By this process.
    Direct(Direct),
    /// By its keeper: the kernel looks at the rights of who opened the socket and of who sends.
    Keeper,
}

impl Filter {
    /// Opens a socket to it, or has the keeper do it.
    ///
    /// # Errors
    /// The kernel has no nfnetlink, or no descriptor is left.
    pub fn open() -> Result<Self, SetFault> {
        match keeper::is_there() {
            true => Ok(Self::Keeper),
            false => Direct::open().map(Self::Direct),
        }
    }

    /// The one that is open, or one that is opened now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn opened(filter: &mut Option<Self>) -> Result<&mut Self, SetFault> {
        match filter {
            Some(filter) => Ok(filter),
            None => Ok(filter.insert(Self::open()?)),
        }
    }

    /// What the set is now.
    ///
    /// # Errors
    /// It is not there, or takes no addresses.
    pub fn set(&mut self, set: &SetName) -> Result<SetInfo, SetFault> {
        match self {
            Self::Direct(direct) => direct.set(set),
            Self::Keeper => {
                let set = index_of(set).ok_or(SetFault::Unknown)?;
                let info = asked(Request::LookAtSet { set })?;
                let info = u8::try_from(info).ok().and_then(SetInfo::from_bits);
                info.ok_or(SetFault::Kernel(Errno::EPROTO))
            }
        }
    }

    /// Adds addresses of the set's kind to it, all or none; by a keeper one after the other. In a set whose elements end by
    /// themselves each begins anew, also one that is there.
    ///
    /// # Errors
    /// The kernel's reason. An address that is there, alone or in a range, is none.
    pub fn add(
        &mut self,
        set: &SetName,
        info: SetInfo,
        addresses: &[IpAddr],
    ) -> Result<(), SetFault> {
        match self {
            Self::Direct(direct) => direct.add(set, info, addresses),
            Self::Keeper => {
                let set = index_of(set).ok_or(SetFault::Unknown)?;
                let request = |address: &IpAddr| Request::AddToSet {
                    set,
                    info,
                    address: *address,
                };
                let mut requests = addresses.iter().map(request);
                requests.try_for_each(|request| asked(request).map(drop))
            }
        }
    }
}

/// Sets that the keeper fills: those of the config at the start.
static KNOWN: OnceLock<Vec<SetName>> = OnceLock::new();

/// Names the sets to both processes, before they split.
pub fn remember(sets: impl Iterator<Item = SetName>) {
    // Once: there is one start.
    let _ = KNOWN.set(sets.collect());
}

/// The set with this index in a request.
#[must_use]
pub fn known(index: u16) -> Option<&'static SetName> {
    KNOWN.get()?.get(usize::from(index))
}

fn index_of(set: &SetName) -> Option<u16> {
    let place = KNOWN.get()?.iter().position(|known| known == set);
    u16::try_from(place?).ok()
}

/// Has the keeper carry a request out.
fn asked(request: Request) -> Result<u32, SetFault> {
    let granted = keeper::ask(request, None).map_err(|refusal| SetFault::from(refusal.errno))?;
    match SetFault::from_number(granted.value) {
        Some(fault) => Err(fault),
        None => Ok(granted.value),
    }
}

#[cfg(test)]
mod tests;
