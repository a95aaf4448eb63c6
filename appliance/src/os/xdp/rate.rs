//! Rate limits per client in the program: the accounts, shared with workers, and the program behind the tail call that checks
//! them.

use super::object::Object;
use super::{Error, Program, shared_maps};
use crate::os::bpf_array::MappedWords;
use crate::os::keeper::MapKind;
use aya::maps::{Array, ArrayOfMaps, IterableMap, MapData};
use std::os::fd::AsFd as _;
use xdnsd_abi::rate::{self, Element, WORDS};
use xdnsd_abi::{Listen, PathCheck, shield, tail};

/// The accounts in the kernel, shared by all programs.
pub struct AccountsMap(Array<MapData, Element>);

impl AccountsMap {
    /// Empty accounts, and their words in our address space.
    ///
    /// # Errors
    /// The kernel denies BPF to this process.
    pub fn new() -> Result<(Self, MappedWords), Error> {
        let failed = |cause| Error::map(rate::ACCOUNTS, cause);
        let made = shared_maps::obtain(MapKind::Accounts)?;
        let array = Array::try_from(made).map_err(failed)?;
        let words = MappedWords::map(IterableMap::map(&array).fd().as_fd(), WORDS);
        let words = words.map_err(|cause| Error::Mmap {
            name: rate::ACCOUNTS,
            cause,
        })?;
        Ok((Self(array), words))
    }
}

/// State of the limits in a program.
pub(super) struct Limits {
    accounts: ArrayOfMaps<MapData, Array<MapData, Element>>,
    is_loaded: bool,
    /// True while queries are handed to the limits' program.
    is_on: bool,
    /// The listen map's wanted entries, without the limits' mark.
    listen: Vec<(Listen, PathCheck)>,
}

impl Limits {
    pub(super) fn of(object: &mut Object) -> Result<Self, Error> {
        Ok(Self {
            accounts: super::take(object, rate::ACCOUNTS, ArrayOfMaps::try_from)?,
            is_loaded: false,
            is_on: false,
            listen: Vec::new(),
        })
    }

    /// Marks `wanted` entries for the listen map while limits are on, and remembers them unmarked.
    pub(super) fn marked(&mut self, wanted: &[(Listen, PathCheck)]) -> Vec<(Listen, PathCheck)> {
        wanted.clone_into(&mut self.listen);
        let mark = |(listen, check): &(Listen, PathCheck)| match self.is_on {
            true => (*listen, check.with_limits()),
            false => (*listen, *check),
        };
        self.listen.iter().map(mark).collect()
    }
}

impl Program {
    /// Enforces limits by these accounts in the program from here on; `None` leaves that to user space.
    ///
    /// # Errors
    /// The kernel refused the program (before Linux 5.18), the program does not take multi-buffer frames, or a map refused.
    pub fn set_limits(&mut self, accounts: Option<&AccountsMap>) -> Result<(), Error> {
        if let Some(AccountsMap(accounts)) = accounts {
            if !self.takes_several_buffers() {
                return Err(Error::NoShield);
            }
            let name = match self.asks_for_hot() {
                true => rate::PROGRAM_TIER0,
                false => rate::PROGRAM,
            };
            if !self.limits.is_loaded {
                self.load_shield(name)?;
                self.limits.is_loaded = true;
            }
            let set = self.limits.accounts.set(0, accounts, 0);
            set.map_err(|cause| Error::map(rate::ACCOUNTS, cause))?;
            self.hand_on(tail::RATE, name)?;
        }
        self.limits.is_on = accounts.is_some();
        let listen = std::mem::take(&mut self.limits.listen);
        self.set_listen(&listen)?;
        match accounts {
            Some(_) => Ok(()),
            None => self.clear(tail::RATE),
        }
    }

    /// True if the program itself answers a client that is to retry over TCP; otherwise user space does.
    ///
    /// # Errors
    /// The map refused.
    pub fn set_limits_answer(&mut self, answers: bool) -> Result<(), Error> {
        self.tell(shield::RATE_ANSWERS, answers.into())
    }
}
