//! The shield in the program: what it is told, and the programs behind the tail call, for SYNs and for what belongs to no
//! connection.

use super::{CheckBytes, Error, ListenKey, Program, replace, take};
use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, HashMap, LpmTrie, MapData, MapError, ProgramArray};
use aya::programs::Xdp;
use xdnsd_abi::hash::HashKey;
use xdnsd_abi::{GUARDED_MAX, Listen, Orders, PathCheck, map, secret, shield, tail};

use crate::os::random;

/// The maps of the shield. Without SYN cookies on, the first one is empty, and the program passes SYNs as ever.
pub(super) struct ShieldMaps {
    /// Kept open: the kernel empties it when nobody in user space has it any more.
    pub(super) tails: ProgramArray<MapData>,
    guarded: HashMap<MapData, ListenKey, CheckBytes>,
    secrets: Array<MapData, HashKey>,
    /// See [`Program::set_listen`].
    pub(super) addresses: HashMap<MapData, ListenKey, CheckBytes>,
    pub(super) prefixes: ArrayOfMaps<MapData, LpmTrie<MapData, [u8; 16], u32>>,
    words: Array<MapData, u32>,
    is_loaded: bool,
    /// Segments other than SYNs are handed on.
    sees_strays: bool,
}

impl ShieldMaps {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            tails: take(ebpf, map::TAILS, ProgramArray::try_from)?,
            guarded: take(ebpf, map::GUARDED, HashMap::try_from)?,
            secrets: take(ebpf, map::SECRETS, Array::try_from)?,
            addresses: take(ebpf, map::ADDRESSES, HashMap::try_from)?,
            prefixes: take(ebpf, map::PREFIXES, ArrayOfMaps::try_from)?,
            words: take(ebpf, map::SHIELD, Array::try_from)?,
            is_loaded: false,
            sees_strays: false,
        })
    }
}

impl Program {
    /// Has SYNs to guarded ports seen from here on: counted, and answered where [`Self::set_syn_cookies`] says so. It is once
    /// and for all: what is off costs no query anything, and neither does this.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program (before Linux 6.0), or takes no frames in several buffers.
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

    /// What every program of it needs.
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

    /// Who has SYNs and other segments: the program for this host's own where there is one, else the one for those behind it.
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

    /// Hands nothing on by this place, whatever was there.
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
        let loaded = xdp(&mut self.ebpf, name)?.load();
        loaded.map_err(|cause| Error::Load(Box::new(cause.into())))
    }

    /// Hands frames on to a program that is loaded.
    pub(super) fn hand_on(&mut self, place: u32, name: &'static str) -> Result<(), Error> {
        let program = xdp(&mut self.ebpf, name)?.fd();
        let program = program.map_err(|cause| Error::Load(Box::new(cause.into())))?;
        let set = self.shield.tails.set(place, program, 0);
        set.map_err(|cause| Error::map(map::TAILS, cause))
    }

    /// What becomes of segments to guarded ports. Where none are dropped no frame is handed on for that.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn set_syn_cookies(&mut self, orders: Orders) -> Result<(), Error> {
        self.tell(shield::SYN_COOKIES, orders.to_word())?;
        let sees_strays = self.shield.is_loaded && orders.drops_strays();
        if std::mem::replace(&mut self.shield.sees_strays, sees_strays) == sees_strays {
            return Ok(());
        }
        self.arrange_shield()
    }

    /// Whether what can only be an attack is dropped.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn set_drop_garbage(&mut self, is_dropped: bool) -> Result<(), Error> {
        self.tell(shield::DROP_GARBAGE, is_dropped.into())
    }

    pub(super) fn tell(&mut self, place: u32, word: u32) -> Result<(), Error> {
        let set = self.shield.words.set(place, word, 0);
        set.map_err(|cause| Error::map(map::SHIELD, cause))
    }

    /// Makes the map of guarded ports equal to `wanted`: adds, changes and removes. Entries that stay are never absent.
    ///
    /// # Errors
    ///
    /// More than [`GUARDED_MAX`] entries, or the map refuses.
    pub fn set_guarded(&mut self, wanted: &[(Listen, PathCheck)]) -> Result<(), Error> {
        Error::check_room(map::GUARDED, wanted.len(), GUARDED_MAX)?;
        // All are looked for meanwhile.
        self.tell(shield::GUARDED_BITS, u32::MAX)?;
        let replaced = replace(&mut self.shield.guarded, wanted);
        replaced.map_err(|cause| Error::map(map::GUARDED, cause))?;
        let bits = wanted.iter().map(|(listen, _)| listen.address_bit());
        self.tell(shield::GUARDED_BITS, bits.fold(0, |all, bit| all | bit))
    }
}

/// One of the object's programs.
fn xdp<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name);
    let program = program.and_then(|program| program.try_into().ok());
    program.ok_or(Error::Contract(name))
}
