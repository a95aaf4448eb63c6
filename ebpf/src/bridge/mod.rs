//! Lets a frame of each station pass now and then, so that the bridge keeps the station in its FDB, see
//! `xdnsd_abi::bridge`.
//!
//! A station that asks by another port has moved. Its frame passes at once, so that the bridge learns the new port.

use crate::flow::link::Mac;
use xdnsd_abi::bridge::{ELEMENTS, WAYS};

/// The table of stations, the clock, and the port of the frame.
pub trait Stations {
    type Element: Copy;
    fn element(&self, index: u32) -> Option<Self::Element>;
    fn word(&self, element: Self::Element, at: usize) -> u64;
    fn set_word(&self, element: Self::Element, at: usize, word: u64);
    /// CLOCK_MONOTONIC in milliseconds.
    fn now_ms(&self) -> u32;
    /// Milliseconds after which a frame of a station passes again.
    fn interval_ms(&self) -> u32;
    /// Index of the bridge.
    fn bridge(&self) -> u32;
    /// Index of the port that received the frame.
    fn ingress(&self) -> u32;
    /// VLAN of the frame in the FDB: 0 if the bridge does not look at tags. `None` if the tag is not of the kind that it looks
    /// at.
    fn vlan(&self) -> Option<u16>;
}

/// True if the bridge has seen a frame of this station lately. If not, this frame is noted, and is to pass.
#[inline(always)]
pub fn has_heard(station: Mac, stations: &impl Stations) -> bool {
    // The bridge drops a frame from a group address.
    if station.is_group() {
        return false;
    }
    let Some(element) = stations.element(element_of(station)) else {
        return false;
    };
    let Some(vlan) = stations.vlan() else {
        return false;
    };
    // Two pairs of bridge and VLAN may have one number. A port is in one bridge, so the places of a station in both displace each
    // other, and are never taken for each other.
    let network = stations.bridge() as u16 ^ vlan << 4;
    let key = station.number() << 16 | u64::from(network);
    let port = u64::from(stations.ingress()) << 32;
    let now = stations.now_ms();
    let (mut place, mut place_age) = (0, 0);
    for way in 0..WAYS {
        let (who, when) = (
            stations.word(element, 2 * way),
            stations.word(element, 2 * way + 1),
        );
        let age = match who {
            0 => u32::MAX,
            _ => now.wrapping_sub(when as u32),
        };
        if who == key {
            if when >> 32 << 32 == port && age < stations.interval_ms() {
                return true;
            }
            place = way;
            break;
        }
        if age >= place_age {
            (place, place_age) = (way, age);
        }
    }
    stations.set_word(element, 2 * place, key);
    stations.set_word(element, 2 * place + 1, port | u64::from(now));
    false
}

/// Multiplicative hash by the golden ratio, as Linux hashes numbers.
#[inline(always)]
const fn element_of(station: Mac) -> u32 {
    const GOLDEN: u64 = 0x61c8_8646_80b5_83eb;
    let hash = station.number().wrapping_mul(GOLDEN);
    (hash >> (u64::BITS - ELEMENTS.ilog2())) as u32
}

#[cfg(test)]
mod tests;
