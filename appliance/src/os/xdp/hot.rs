//! The program that answers hot names: loaded once, with its maps in our address space, and tail-called by the XDP program of
//! every interface.

use super::object::Object;
use super::{Error, Program, take};
use crate::os::bpf_array::MappedWords;
use crate::os::keeper::ObjectKind;
use aya::maps::{Map, MapData, PerCpuArray};
use nix::errno::Errno;
use std::os::fd::AsFd as _;
use xdnsd_abi::hot::{
    self, ANSWERS_MAX, CLIENTS_MAX, HotOutcome, PLACES, SILENT_WORDS, control, word,
};
use xdnsd_abi::{map, tail};

/// The program for hot names.
pub struct HotProgram {
    outcomes: PerCpuArray<MapData, u64>,
    object: Object,
}

/// Its mapped arrays, as in [`xdnsd_abi::hot`]. They outlive the program.
#[derive(Debug)]
pub struct HotMaps {
    /// See [`hot::ANSWERS`]; one answer's words after the other.
    pub answers: MappedWords,
    /// See [`hot::INDEX`].
    pub index: MappedWords,
    /// See [`hot::HITS`].
    pub hits: MappedWords,
    /// See [`hot::CLIENTS`].
    pub clients: MappedWords,
    /// See [`hot::SILENT`].
    pub silent: MappedWords,
    /// See [`hot::CONTROL`].
    pub control: MappedWords,
}

impl HotProgram {
    /// Loads the program. It answers nothing until its maps are filled.
    ///
    /// # Errors
    /// The kernel refused the program (before Linux 5.18) or a map.
    pub fn load() -> Result<(Self, HotMaps), Error> {
        Self::load_from(None)
    }

    /// Loads another object with the same contract.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_object(object: &[u8]) -> Result<(Self, HotMaps), Error> {
        Self::load_from(Some(object))
    }

    fn load_from(bytes: Option<&[u8]>) -> Result<(Self, HotMaps), Error> {
        let mut object = Object::open(ObjectKind::Hot, bytes, 0)?;
        // Kept open until the program is loaded, since it refers to them by descriptor.
        let mut open = Vec::new();
        let mut mapped = |name, words| mapped(&mut object, name, words, &mut open);
        let maps = HotMaps {
            answers: mapped(hot::ANSWERS, ANSWERS_MAX as usize * word::COUNT)?,
            index: mapped(hot::INDEX, PLACES as usize)?,
            hits: mapped(hot::HITS, ANSWERS_MAX as usize)?,
            clients: mapped(hot::CLIENTS, CLIENTS_MAX as usize)?,
            silent: mapped(hot::SILENT, SILENT_WORDS as usize)?,
            control: mapped(hot::CONTROL, control::COUNT as usize)?,
        };
        let outcomes = take(&mut object, hot::OUTCOMES, PerCpuArray::try_from)?;
        object.load(hot::PROGRAM)?;
        Ok((Self { outcomes, object }, maps))
    }

    /// Count of each [`HotOutcome`], over all CPUs.
    ///
    /// # Errors
    /// The map refused.
    pub fn outcomes(&self) -> Result<[u64; HotOutcome::COUNT as usize], Error> {
        let mut sums = [0; HotOutcome::COUNT as usize];
        for (sum, &outcome) in sums.iter_mut().zip(HotOutcome::ALL) {
            let values = self.outcomes.get(&(outcome as u32), 0);
            let values = values.map_err(|cause| Error::map(hot::OUTCOMES, cause))?;
            *sum = values.iter().copied().fold(0, u64::wrapping_add);
        }
        Ok(sums)
    }
}

/// Takes an array out of the object, maps it, and keeps its descriptor in `open`.
fn mapped(
    object: &mut Object,
    name: &'static str,
    words: usize,
    open: &mut Vec<MapData>,
) -> Result<MappedWords, Error> {
    let Some(Map::Array(array)) = object.take_map(name) else {
        return Err(Error::Contract(name));
    };
    let mapped = MappedWords::map(array.fd().as_fd(), words);
    open.push(array);
    mapped.map_err(|cause| Error::Mmap { name, cause })
}

impl Program {
    /// Loads [`super::OBJECT`], or another object, as the program that can call the one for hot names: see [`Self::set_hot`]. It has
    /// room for so many entries of the listen map.
    ///
    /// # Errors
    /// As [`Self::load`]; the kernel or this processor's JIT compiler cannot return from a tail call.
    pub fn load_for_hot(object: &[u8], addresses: u32) -> Result<Self, Error> {
        let mut program = Self::open(Some(object), addresses)?;
        program.load_as(map::PROGRAM_TIER0)?;
        Ok(program)
    }

    /// True if the loaded program can call the one for hot names.
    #[must_use]
    pub fn asks_for_hot(&self) -> bool {
        self.name == map::PROGRAM_TIER0
    }

    /// Has `hot` answer queries from here on; `None` leaves them to user space.
    ///
    /// # Errors
    /// The map refused.
    pub fn set_hot(&mut self, hot: Option<&mut HotProgram>) -> Result<(), Error> {
        let refused = |cause| Error::map(map::TAILS, cause);
        let tails = &mut self.shield.tails;
        let Some(hot) = hot else {
            let cleared = tails.clear_index(&tail::HOT).map_err(refused);
            // ENOENT: the slot was empty.
            return cleared.or_else(|error| match error.errno() {
                Some(Errno::ENOENT) => Ok(()),
                Some(_) | None => Err(error),
            });
        };
        let other = Some(&mut hot.object);
        self.object.hand_on(tails, tail::HOT, hot::PROGRAM, other)
    }
}
