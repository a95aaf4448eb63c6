//! Prefixes of sources whose packets or queries are dropped: tries in the kernel, shared by the programs of all interfaces.

use super::{Error, Program, shared_maps};
use crate::os::keeper::MapKind;
use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, MapData, MapError};
use xdnsd_abi::{map, shield, verdict};

/// The block of IPv4-mapped addresses.
const MAPPED: PrefixBits = PrefixBits {
    addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
    len: 96,
};

/// A prefix, IPv4 as ::ffff:a.b.c.d. Ordered by address, then by length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrefixBits {
    /// The first address.
    pub addr: [u8; 16],
    /// Prefix length in bits.
    pub len: u8,
}

impl PrefixBits {
    fn key(self) -> Key<[u8; 16]> {
        Key::new(self.len.into(), self.addr)
    }
}

/// A trie. All programs share it; it lives as long as the last of them.
pub struct Trie(LpmTrie<MapData, [u8; 16], u32>);

impl Trie {
    /// An empty trie.
    ///
    /// # Errors
    /// The kernel denies BPF to this process.
    pub fn new() -> Result<Self, Error> {
        let failed = |cause| Error::map(map::PREFIXES, cause);
        let made = shared_maps::obtain(MapKind::Prefixes)?;
        let mut trie = Self(LpmTrie::try_from(made).map_err(failed)?);
        trie.remove(MAPPED)?;
        Ok(trie)
    }

    /// Sets the verdict of a prefix, see [`verdict`].
    ///
    /// # Errors
    /// The trie is full, or the kernel has no memory.
    pub fn insert(&mut self, prefix: PrefixBits, value: u32) -> Result<(), Error> {
        let set = self.0.insert(&prefix.key(), value, 0);
        set.map_err(|cause| Error::map(map::PREFIXES, cause))
    }

    /// Removes a prefix, if present.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&mut self, prefix: PrefixBits) -> Result<(), Error> {
        if prefix == MAPPED {
            return self.insert(prefix, verdict::NONE.into());
        }
        match self.0.remove(&prefix.key()) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(cause) => Err(Error::map(map::PREFIXES, cause)),
        }
    }

    /// All prefixes with a verdict, in order.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn entries(&self) -> Result<Vec<(PrefixBits, u32)>, Error> {
        let entry = |entry: Result<(Key<[u8; 16]>, u32), MapError>| {
            let (key, value) = entry?;
            let len = key.prefix_len() as u8;
            let addr = key.data();
            Ok((PrefixBits { addr, len }, value))
        };
        let entries: Result<Vec<_>, MapError> = self.0.iter().map(entry).collect();
        let mut entries = entries.map_err(|cause| Error::map(map::PREFIXES, cause))?;
        entries.retain(|(_, value)| *value != u32::from(verdict::NONE));
        entries.sort_unstable();
        Ok(entries)
    }
}

impl Program {
    /// Gives this program a trie, by its index of [`xdnsd_abi::trie`]; it is looked into while [`Self::set_tries`] has its bit.
    ///
    /// # Errors
    /// The map refused.
    pub fn share_trie(&mut self, index: u32, trie: &Trie) -> Result<(), Error> {
        let set = self.shield.prefixes.set(index, &trie.0, 0);
        set.map_err(|cause| Error::map(map::PREFIXES, cause))
    }

    /// Sets the tries that are looked into, by their bits of [`xdnsd_abi::trie`]. With none, frames skip the look-up.
    ///
    /// # Errors
    /// The map refused.
    pub fn set_tries(&mut self, bits: u32) -> Result<(), Error> {
        self.tell(shield::TRIES, bits)
    }
}
