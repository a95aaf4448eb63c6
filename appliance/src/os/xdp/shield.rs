//! The shield in the program: its settings, and the tail-called programs for SYNs and for segments outside of any connection.

use super::object::Object;
use super::{CheckBytes, Error, ListenKey, Program, replace, take};
use aya::maps::{Array, ArrayOfMaps, HashMap, LpmTrie, MapData, MapError, ProgramArray};
use xdnsd_abi::hash::HashKey;
use xdnsd_abi::{GUARDED_MAX, Listen, Orders, PathCheck, map, secret, shield, tail};

use crate::os::random;

/// Maps of the shield. Until a program of the shield is loaded, `tails` has none for SYNs, which then pass.
pub(super) struct ShieldMaps {
    /// Kept open: the kernel empties it when user space closes the last descriptor.
    pub(super) tails: ProgramArray<MapData>,
    guarded: HashMap<MapData, ListenKey, CheckBytes>,
    secrets: Array<MapData, HashKey>,
    /// See [`Program::set_listen`].
    pub(super) addresses: HashMap<MapData, ListenKey, CheckBytes>,
    pub(super) prefixes: ArrayOfMaps<MapData, LpmTrie<MapData, [u8; 16], u32>>,
    words: Array<MapData, u32>,
    is_loaded: bool,
    /// True while segments other than SYNs are handed on.
    sees_strays: bool,
}

impl ShieldMaps {
    pub(super) fn of(object: &mut Object) -> Result<Self, Error> {
        Ok(Self {
            tails: take(object, map::TAILS, ProgramArray::try_from)?,
            guarded: take(object, map::GUARDED, HashMap::try_from)?,
            secrets: take(object, map::SECRETS, Array::try_from)?,
            addresses: take(object, map::ADDRESSES, HashMap::try_from)?,
            prefixes: take(object, map::PREFIXES, ArrayOfMaps::try_from)?,
            words: take(object, map::SHIELD, Array::try_from)?,
            is_loaded: false,
            sees_strays: false,
        })
    }
}

impl Program {
    /// Has the program see SYNs to guarded ports from here on: counts them, and answers as [`Self::set_syn_cookies`] says. It
    /// stays on, since it costs queries nothing.
    ///
    /// # Errors
    ///
    /// The kernel refused the program (before Linux 6.0), or the program does not take multi-buffer frames.
    pub fn guard(&mut self) -> Result<(), Error> {
        if self.shield.is_loaded {
            return Ok(());
        }
        self.prepare_shield()?;
        self.load_shield(map::PROGRAM_STRAY)?;
        self.load_shield(map::PROGRAM_SYN)?;
        self.shield.is_loaded = true;
        self.arrange_shield()
    }

    /// Preparation common to the shield's programs.
    pub(super) fn prepare_shield(&mut self) -> Result<(), Error> {
        if !self.takes_several_buffers() {
            return Err(Error::NoShield);
        }
        if self.shield.is_loaded || self.protect.is_loaded {
            return Ok(());
        }
        let key = random::bytes().map_err(Error::Random)?;
        self.set_secret(secret::CLIENTS, key)
    }

    pub(super) fn set_secret(&mut self, place: u32, key: HashKey) -> Result<(), Error> {
        let set = self.shield.secrets.set(place, key, 0);
        set.map_err(|cause| Error::map(map::SECRETS, cause))
    }

    /// Assigns SYNs and other segments: to the program for this host's own ports if loaded, otherwise to the one for hosts behind
    /// it.
    pub(super) fn arrange_shield(&mut self) -> Result<(), Error> {
        let others = self.protect.is_loaded.then_some(map::PROGRAM_FORWARD);
        let syns = match self.shield.is_loaded {
            true => Some(map::PROGRAM_SYN),
            false => others,
        };
        let strays = match self.shield.sees_strays {
            true => Some(map::PROGRAM_STRAY),
            false => others,
        };
        for (place, program) in [(tail::SYN, syns), (tail::STRAY, strays)] {
            match program {
                Some(name) => self.hand_on(place, name)?,
                None => self.clear(place)?,
            }
        }
        Ok(())
    }

    /// Empties a slot of `tails`, if it is used.
    pub(super) fn clear(&mut self, place: u32) -> Result<(), Error> {
        match self.shield.tails.clear_index(&place) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            cleared => cleared.map_err(|cause| Error::map(map::TAILS, cause)),
        }
    }

    pub(super) fn load_shield(&mut self, name: &'static str) -> Result<(), Error> {
        self.object.load(name)
    }

    /// Hands frames on to a loaded program by slot `place`.
    pub(super) fn hand_on(&mut self, place: u32, name: &'static str) -> Result<(), Error> {
        let tails = &mut self.shield.tails;
        self.object.hand_on(tails, place, name, None)
    }

    /// Sets the treatment of segments to guarded ports. If none are dropped, no frame is handed on for that.
    ///
    /// # Errors
    ///
    /// The map refused.
    pub fn set_syn_cookies(&mut self, orders: Orders) -> Result<(), Error> {
        self.tell(shield::SYN_COOKIES, orders.to_word())?;
        let sees_strays = self.shield.is_loaded && orders.drops_strays();
        if std::mem::replace(&mut self.shield.sees_strays, sees_strays) == sees_strays {
            return Ok(());
        }
        self.arrange_shield()
    }

    /// Sets whether packets that can only be an attack are dropped.
    ///
    /// # Errors
    ///
    /// The map refused.
    pub fn set_drop_garbage(&mut self, is_dropped: bool) -> Result<(), Error> {
        self.tell(shield::DROP_GARBAGE, is_dropped.into())
    }

    pub(super) fn tell(&mut self, place: u32, word: u32) -> Result<(), Error> {
        let set = self.shield.words.set(place, word, 0);
        set.map_err(|cause| Error::map(map::SHIELD, cause))
    }

    /// Makes the map of guarded ports equal to `wanted`: adds, changes and removes. Entries that stay are present throughout.
    ///
    /// # Errors
    ///
    /// More than [`GUARDED_MAX`] entries, or the map refused.
    pub fn set_guarded(&mut self, wanted: &[(Listen, PathCheck)]) -> Result<(), Error> {
        Error::check_room(map::GUARDED, wanted.len(), GUARDED_MAX)?;
        // All addresses count as guarded while the map changes.
        self.tell(shield::GUARDED_BITS, u32::MAX)?;
        let replaced = replace(&mut self.shield.guarded, wanted);
        replaced.map_err(|cause| Error::map(map::GUARDED, cause))?;
        let bits = wanted.iter().map(|(listen, _)| listen.address_bit());
        self.tell(shield::GUARDED_BITS, bits.fold(0, |all, bit| all | bit))
    }
}
