//! The shield in the program: what it is told, and the program behind the tail call that answers SYNs.

use super::{CheckBytes, Error, ListenKey, Program, replace, take};
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::Xdp;
use xdnsd_abi::{GUARDED_MAX, Listen, Orders, PathCheck, map, shield, tail};

/// The maps of the shield. Without SYN cookies on, the first one is empty, and the program passes SYNs as ever.
pub(super) struct Shield {
    /// Kept open: the kernel empties it when nobody in user space has it any more.
    pub(super) tails: ProgramArray<MapData>,
    guarded: HashMap<MapData, ListenKey, CheckBytes>,
    words: Array<MapData, u32>,
    is_loaded: bool,
}

impl Shield {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            tails: take(ebpf, map::TAILS, ProgramArray::try_from)?,
            guarded: take(ebpf, map::GUARDED, HashMap::try_from)?,
            words: take(ebpf, map::SHIELD, Array::try_from)?,
            is_loaded: false,
        })
    }
}

impl Program {
    /// Has SYNs to guarded ports seen from here on: counted, and answered where [`Self::set_syn_cookies`] says so. It is once
    /// and for all: what is off costs no query anything, and neither does this.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program (before Linux 5.18), or takes no frames in several buffers.
    pub fn guard(&mut self) -> Result<(), Error> {
        if self.shield.is_loaded {
            return Ok(());
        }
        if !self.takes_several_buffers() {
            return Err(Error::NoShield);
        }
        let program = self.ebpf.program_mut(map::PROGRAM_SYN);
        let program = program.and_then(|program| <&mut Xdp>::try_from(program).ok());
        let program = program.ok_or(Error::Contract(map::PROGRAM_SYN))?;
        let failed = |cause: aya::programs::ProgramError| Error::Load(Box::new(cause.into()));
        program.load().map_err(failed)?;
        let program = program.fd().map_err(failed)?;
        let set = self.shield.tails.set(tail::SYN, program, 0);
        set.map_err(|cause| Error::map(map::TAILS, cause))?;
        self.shield.is_loaded = true;
        Ok(())
    }

    /// What becomes of SYNs to guarded ports.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn set_syn_cookies(&mut self, orders: Orders) -> Result<(), Error> {
        self.tell(shield::SYN_COOKIES, orders.to_word())
    }

    /// Whether what can only be an attack is dropped.
    ///
    /// # Errors
    ///
    /// The map refuses.
    pub fn set_drop_garbage(&mut self, is_dropped: bool) -> Result<(), Error> {
        self.tell(shield::DROP_GARBAGE, is_dropped.into())
    }

    fn tell(&mut self, place: u32, word: u32) -> Result<(), Error> {
        let set = self.shield.words.set(place, word, 0);
        set.map_err(|cause| Error::map(map::SHIELD, cause))
    }

    /// Makes the map of guarded ports equal to `wanted`: adds, changes and removes. Entries that stay are never absent.
    ///
    /// # Errors
    ///
    /// More than [`GUARDED_MAX`] entries, or the map refuses.
    pub fn set_guarded(&mut self, wanted: &[(Listen, PathCheck)]) -> Result<(), Error> {
        if wanted.len() > GUARDED_MAX as usize {
            return Err(Error::TooManyListen(wanted.len()));
        }
        replace(&mut self.shield.guarded, wanted).map_err(|cause| Error::map(map::GUARDED, cause))
    }
}
