//! Bridge ports in the program: the table of stations that the bridge has learnt, shared by the programs of all ports.

use super::{Error, Program, shared_maps};
use crate::os::bpf_array::MappedWords;
use crate::os::keeper::MapKind;
use aya::maps::{Array, ArrayOfMaps, IterableMap as _, MapData};
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use xdnsd_abi::bridge::{Element, STATIONS, WORDS};
use xdnsd_abi::shield;

/// The map in a program that holds the table.
pub(super) type Stations = ArrayOfMaps<MapData, Array<MapData, Element>>;

/// The table. It lives as long as the last program that uses it.
pub struct StationsMap {
    array: Array<MapData, Element>,
    words: MappedWords,
}

impl StationsMap {
    /// An empty table.
    ///
    /// # Errors
    /// The kernel denies BPF to this process.
    pub fn new() -> Result<Self, Error> {
        let failed = |cause| Error::map(STATIONS, cause);
        let made = shared_maps::obtain(MapKind::Stations)?;
        let array = Array::try_from(made).map_err(failed)?;
        let words = MappedWords::map(array.map().fd().as_fd(), WORDS);
        let words = words.map_err(|cause| Error::Mmap {
            name: STATIONS,
            cause,
        })?;
        Ok(Self { array, words })
    }

    /// Clears the table: the next frame of each station passes.
    pub fn forget_all(&self) {
        for index in 0..WORDS as u32 {
            self.words.word(index).store(0, Ordering::Relaxed);
        }
    }
}

impl Program {
    /// Sets the bridge of the port that the program is on, by index, and an interval in milliseconds: a frame passes to the
    /// bridge if the bridge has not heard of its station by this port for that long. `pvid`: VLAN of frames without a tag, if
    /// the bridge looks at tags; 0 if it drops them.
    ///
    /// # Errors
    /// A map refused.
    pub fn set_port(
        &mut self,
        stations: &StationsMap,
        bridge: u32,
        interval_ms: u32,
        pvid: Option<u16>,
    ) -> Result<(), Error> {
        let vlan = pvid.map_or(0, |pvid| shield::FILTERS_VLANS | u32::from(pvid));
        self.tell(shield::PORT_VLAN, vlan)?;
        self.tell(shield::PORT_BRIDGE, bridge)?;
        self.tell(shield::PORT_INTERVAL_MS, interval_ms)?;
        let set = self.stations.set(0, &stations.array, 0);
        set.map_err(|cause| Error::map(STATIONS, cause))
    }
}
