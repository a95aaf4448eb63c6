//! Ports of a bridge: whose frames the bridge had lately, and by which port.
//!
//! A query that is answered on a port never reaches the bridge, whose FDB would forget a station that sends nothing but DNS. So one
//! frame of each station passes now and then. This table has the stations whose frames have passed.
//!
//! ```text
//!  63                      16 15             0   63             32 31                  0
//!  | MAC address             | bridge's index |  | port's index   | moment, in ms       |   four of these are an element
//! ```

/// Name of the map. ARRAY_OF_MAPS of one ARRAY of [`Element`], mappable, which the programs of all ports share. A station is in the
/// element that its address hashes to. Where that is full, it takes the place of the one that was seen longest ago, whose next frame
/// passes.
pub const STATIONS: &str = "stations";

/// Stations of an element.
pub const WAYS: usize = 4;
/// Words of an element.
pub const ELEMENT_WORDS: usize = 2 * WAYS;
/// An element.
pub type Element = [u64; ELEMENT_WORDS];
/// How many there are.
pub const ELEMENTS: u32 = 128;
/// Words of all of them.
pub const WORDS: usize = ELEMENTS as usize * ELEMENT_WORDS;
/// Bytes of the map.
pub const BYTES: usize = WORDS * size_of::<u64>();

const _: () = assert!(ELEMENTS.is_power_of_two());
