//! Limits per client in the program: the accounts, which it shares with workers, and the program behind the tail call that looks
//! into them.

use super::{Error, Program};
use crate::os::bpf_array::MappedWords;
use aya::maps::{Array, ArrayOfMaps, IterableMap, MapData};
use std::os::fd::AsFd as _;
use xdnsd_abi::rate::{self, ELEMENTS, Element, WORDS};
use xdnsd_abi::{Listen, PathCheck, shield, tail};

/// linux/bpf.h, BPF_F_MMAPABLE.
const MMAPABLE: u32 = 1 << 10;

/// The accounts in the kernel. One for all programs.
pub struct AccountsMap(Array<MapData, Element>);

impl AccountsMap {
    /// Empty ones, and the same in our address space.
    ///
    /// # Errors
    /// The kernel has no BPF for us.
    pub fn new() -> Result<(Self, MappedWords), Error> {
        let failed = |cause| Error::map(rate::ACCOUNTS, cause);
        let array = Array::create(ELEMENTS, MMAPABLE).map_err(failed)?;
        let words = MappedWords::map(IterableMap::map(&array).fd().as_fd(), WORDS);
        let words = words.map_err(|cause| Error::Mmap {
            name: rate::ACCOUNTS,
            cause,
        })?;
        Ok((Self(array), words))
    }
}

/// What the program has for limits.
pub(super) struct Limits {
    accounts: ArrayOfMaps<MapData, Array<MapData, Element>>,
    is_loaded: bool,
    /// Queries are handed on.
    is_on: bool,
    /// What the listen map was to hold, but for that.
    listen: Vec<(Listen, PathCheck)>,
}

impl Limits {
    pub(super) fn of(ebpf: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            accounts: super::take(ebpf, rate::ACCOUNTS, ArrayOfMaps::try_from)?,
            is_loaded: false,
            is_on: false,
            listen: Vec::new(),
        })
    }

    /// What the listen map is to hold.
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
    /// Has queries of clients with too much on these accounts kept out from here on; `None`: that is user space's.
    ///
    /// # Errors
    /// The kernel refuses the program (before Linux 5.18), or takes no frames in several buffers, or a map refuses.
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

    /// Whether the program answers by itself who is to come over TCP; else user space does.
    ///
    /// # Errors
    /// The map refuses.
    pub fn set_limits_answer(&mut self, answers: bool) -> Result<(), Error> {
        self.tell(shield::RATE_ANSWERS, answers.into())
    }
}
