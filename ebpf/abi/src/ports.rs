//! Contract between the sk_lookup program and user space: source ports with a question in flight.
//!
//! One array of u64, mapped by the workers, with a place for each port. Eight ports share a place, and are never open at
//! the same time. A place without an open port is 0. The last entry is the key of the tags.
//!
//! ```text
//!  63     59   58..56     55..48   47..32     31..0
//!  | open | v6 | port high | worker | question | tag |
//! ```
//! The tag is a keyed sum of the server's address and ours: 32 bits in place of two addresses. A sender without the key
//! cannot send from an address with the same tag; user space compares the addresses themselves.

/// ARRAY of u64, mappable: [`SLOTS`] entries, and the key.
pub const TABLE: &str = "ports";
/// SOCKMAP: receiving sockets, two for each worker, see [`receiver`].
pub const RECEIVERS: &str = "receivers";
/// Name of the program.
pub const PROGRAM: &str = "xdnsd_ports";

/// Places for ports.
pub const SLOTS: u32 = 8192;
/// Index of the key.
pub const KEY: u32 = SLOTS;
/// Most workers that can receive.
pub const WORKERS_MAX: u32 = 64;
/// Entries of the map of sockets.
pub const RECEIVERS_MAX: u32 = WORKERS_MAX * 2;

const OPEN: u64 = 1 << 63;
const V6: u64 = 1 << 59;
const PORT_SHIFT: u32 = 56;
const WORKER_SHIFT: u32 = 48;
const QUESTION_SHIFT: u32 = 32;
/// Bits that the program compares: all but worker and question.
const COMPARED: u64 = OPEN | V6 | 7 << PORT_SHIFT | 0xffff_ffff;

/// The place of a port.
#[inline(always)]
#[must_use]
pub const fn slot(port: u16) -> u32 {
    port as u32 & (SLOTS - 1)
}

/// Entry of an open port, without worker and question.
#[inline(always)]
#[must_use]
pub const fn open(port: u16, v6: bool, tag: u32) -> u64 {
    let family = if v6 { V6 } else { 0 };
    OPEN | family | (port as u64 / SLOTS as u64) << PORT_SHIFT | tag as u64
}

/// The entry with the worker and the question of the port.
#[inline(always)]
#[must_use]
pub const fn owned(entry: u64, worker: u8, question: u16) -> u64 {
    entry | (worker as u64) << WORKER_SHIFT | (question as u64) << QUESTION_SHIFT
}

/// True if `entry` is of the same port and server as `wanted`, which [`open`] made.
#[inline(always)]
#[must_use]
pub const fn matches(entry: u64, wanted: u64) -> bool {
    entry & COMPARED == wanted
}

/// Worker of the port.
#[inline(always)]
#[must_use]
pub const fn worker(entry: u64) -> u8 {
    (entry >> WORKER_SHIFT) as u8
}

/// Question of the port.
#[inline(always)]
#[must_use]
pub const fn question(entry: u64) -> u16 {
    (entry >> QUESTION_SHIFT) as u16
}

/// Index of a worker's socket.
#[inline(always)]
#[must_use]
pub const fn receiver(worker: u8, v6: bool) -> u32 {
    worker as u32 * 2 + v6 as u32
}

/// Mixes the next word into the sum.
#[inline(always)]
const fn mix(sum: u64, word: u32) -> u64 {
    let sum = (sum ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sum ^ sum >> 29
}

/// Tag of an IPv4 server and our address `local`, both as in the header, read in native order. `port` is the server's.
#[inline(always)]
#[must_use]
pub const fn tag_v4(key: u64, remote: u32, local: u32, port: u16) -> u32 {
    let sum = mix(mix(mix(key, remote), local), port as u32);
    (mix(sum, 4) >> 32) as u32
}

/// An IPv6 server.
#[derive(Clone, Copy)]
pub struct ServerV6 {
    /// Address as in the header, read in native order.
    pub address: [u32; 4],
    /// Port of the server.
    pub port: u16,
    /// Index of its interface if the address is link-local, else 0.
    pub link: u32,
}

/// Tag of an IPv6 server and our address.
#[inline(always)]
#[must_use]
pub const fn tag_v6(key: u64, server: ServerV6, local: [u32; 4]) -> u32 {
    let mut sum = key;
    let mut at = 0;
    while at < 4 {
        sum = mix(mix(sum, server.address[at]), local[at]);
        at += 1;
    }
    (mix(mix(sum, server.port as u32), server.link) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_port_family_server_worker_and_question() {
        let open_port = open(50_000, true, 0x8765_4321);
        let entry = owned(open_port, 3, 511);
        assert!(matches(entry, open_port));
        assert_eq!((worker(entry), question(entry)), (3, 511));
        for other in [
            open(50_000, false, 0x8765_4321),
            open(50_000 - SLOTS as u16, true, 0x8765_4321),
            open(50_000, true, 0x8765_4320),
        ] {
            assert!(!matches(entry, other));
        }
        assert!(
            !matches(0, open(1024, false, 0)),
            "no port is open in a place of 0"
        );
        assert_eq!(
            slot(50_000),
            slot(50_000 - SLOTS as u16),
            "they share a place"
        );
    }

    #[test]
    fn every_port_has_an_entry_of_its_own() {
        let mut port = 0_u16;
        loop {
            let entry = open(port, false, 7);
            let high = (entry >> PORT_SHIFT & 7) as u32;
            assert_eq!(high * SLOTS + slot(port), u32::from(port));
            if port == u16::MAX {
                break;
            }
            port += 1;
        }
    }

    #[test]
    fn the_tag_depends_on_each_part_and_on_the_key() {
        let tag = |key, remote, local, port| tag_v4(key, remote, local, port);
        let one = tag(1, 2, 3, 4);
        for other in [
            tag(9, 2, 3, 4),
            tag(1, 9, 3, 4),
            tag(1, 2, 9, 4),
            tag(1, 2, 3, 9),
        ] {
            assert_ne!(one, other);
        }
        let six = |remote: usize, local: usize, port, link| {
            let word = |at: usize| {
                let mut words = [1; 4];
                if at < 4 {
                    words[at] = 7;
                }
                words
            };
            let address = word(remote);
            let server = ServerV6 {
                address,
                port,
                link,
            };
            tag_v6(5, server, word(local))
        };
        let mut seen = [six(9, 9, 53, 0); 11];
        for at in 0..4 {
            seen[1 + at] = six(at, 9, 53, 0);
            seen[5 + at] = six(9, at, 53, 0);
        }
        seen[9] = six(9, 9, 54, 0);
        seen[10] = six(9, 9, 53, 1);
        for (at, tag) in seen.iter().enumerate() {
            assert!(!seen[..at].contains(tag), "{at}");
        }
    }
}
