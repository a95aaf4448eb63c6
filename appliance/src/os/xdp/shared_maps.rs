//! Maps that programs of several interfaces share: made by this process, or by its keeper.

use std::os::fd::AsFd as _;

use super::Error;
use super::object::{asked, map_of};
use crate::os::keeper::{self, MapKind, Request};
use aya::maps::lpm_trie::Key;
use aya::maps::{Map, MapData};
use nix::unistd::{SysconfVar, sysconf};
use std::os::fd::OwnedFd;
use xdnsd_abi::event::RING_BYTES;
use xdnsd_abi::{TRIE_MAX, bridge, map, rate};

/// linux/bpf.h: types of maps, and flags. The kernel requires the first one for tries.
const ARRAY: u32 = 2;
const LPM_TRIE: u32 = 11;
const RINGBUF: u32 = 27;
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

/// Makes a map.
///
/// # Errors
/// The kernel denies BPF to this process.
pub fn make(kind: MapKind) -> Result<OwnedFd, Error> {
    let words = size_of::<u32>() as u32;
    let array = |bytes: usize, entries| (ARRAY, words, bytes as u32, entries, MMAPABLE);
    let (of_type, key, value, entries, flags) = match kind {
        MapKind::Prefixes => {
            let key = size_of::<Key<[u8; 16]>>() as u32;
            (LPM_TRIE, key, words, TRIE_MAX, NO_PREALLOC)
        }
        MapKind::Events => (RINGBUF, 0, 0, ring_bytes(), 0),
        MapKind::Accounts => array(size_of::<rate::Element>(), rate::ELEMENTS),
        MapKind::Stations => array(size_of::<bridge::Element>(), bridge::ELEMENTS),
    };
    let described = aya_obj::Map::new_from_params(of_type, key, value, entries, flags);
    let name = name(kind);
    let failed = |cause| Error::map(name, cause);
    let made = MapData::create(described, name, None).map_err(failed)?;
    let copy = made.fd().as_fd().try_clone_to_owned();
    copy.map_err(|cause| Error::Mmap { name, cause })
}

/// A map of this kind, made here or by the keeper.
pub(super) fn obtain(kind: MapKind) -> Result<Map, Error> {
    if !keeper::is_there() {
        return map_of(make(kind)?, name(kind));
    }
    let mut granted = asked(Request::Map(kind))?;
    let map = granted.descriptors.pop();
    map_of(map.ok_or(Error::Contract(name(kind)))?, name(kind))
}

const fn name(kind: MapKind) -> &'static str {
    match kind {
        MapKind::Prefixes => map::PREFIXES,
        MapKind::Events => map::EVENTS,
        MapKind::Accounts => rate::ACCOUNTS,
        MapKind::Stations => bridge::STATIONS,
    }
}

/// Bytes of the ring: at least a page.
fn ring_bytes() -> u32 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|page| u32::try_from(page).ok()).unwrap_or(0);
    RING_BYTES.max(page)
}
