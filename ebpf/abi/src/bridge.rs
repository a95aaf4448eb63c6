//! Stations of bridges: MAC addresses whose frames a bridge has seen lately, and the ports they came by.
//!
//! A query that is answered on a port never reaches the bridge, whose FDB would forget a station that sends nothing but
//! DNS. So now and then a frame of each station passes to the bridge. This table has the stations whose frames have passed.
//!
//! ```text
//!  63                      16 15             0   63             32 31                  0
//!   | MAC address             | bridge, VLAN   |  | port's index   | time in ms          |   four of these are an element
//! ```

/// Name of the map: ARRAY_OF_MAPS of one ARRAY of [`Element`], mappable, shared by the programs of all ports. A station is
/// in the element to which its address hashes. When that is full, the station replaces the one that was seen longest ago,
/// whose next frame passes.
pub const STATIONS: &str = "stations";

/// Stations of an element.
pub const WAYS: usize = 4;
/// Words of an element.
pub const ELEMENT_WORDS: usize = 2 * WAYS;
/// An element: a set of stations.
pub type Element = [u64; ELEMENT_WORDS];
/// Number of elements.
pub const ELEMENTS: u32 = 128;
/// Number of words of all elements.
pub const WORDS: usize = ELEMENTS as usize * ELEMENT_WORDS;
/// Size of the map in bytes.
pub const BYTES: usize = WORDS * size_of::<u64>();

const _: () = assert!(ELEMENTS.is_power_of_two());
