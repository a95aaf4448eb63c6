//! Capture files for tcpdump, tshark and Wireshark: frames of AF_XDP sockets, which packet sockets do not see.
//!
//! The classic format with nanoseconds (draft-ietf-opsawg-pcap), in the byte order of this machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::output;
use super::reader::SeenEntry;

/// Magic number for times in nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
const SNAPLEN: u32 = 65_535;
const ETHERNET: u32 = 1;

/// A capture file.
#[derive(Debug)]
pub struct Pcap<W: Write>(W);

impl Pcap<BufWriter<File>> {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::begin(BufWriter::new(output::new_file(path)?))
    }
}

impl<W: Write> Pcap<W> {
    fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC.to_ne_bytes())?;
        for number in VERSION {
            out.write_all(&number.to_ne_bytes())?;
        }
        // Time zone and accuracy of times: always 0.
        for number in [0, 0, SNAPLEN, ETHERNET] {
            out.write_all(&number.to_ne_bytes())?;
        }
        Ok(Self(out))
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, seen: &SeenEntry) -> io::Result<()> {
        let secs = u32::try_from(seen.wall.as_secs()).unwrap_or(u32::MAX);
        let kept = seen.bytes.len() as u32;
        for number in [secs, seen.wall.subsec_nanos(), kept, seen.entry.len] {
            self.0.write_all(&number.to_ne_bytes())?;
        }
        self.0.write_all(&seen.bytes)
    }

    /// Flushes to the kernel.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::{MESSAGE, seen};
    use super::*;
    use crate::store::tap::entry::{AnswerReason, TapKind};

    #[test]
    fn a_frame_has_its_time_and_both_lengths() {
        let mut pcap = Pcap::begin(Vec::new()).expect("memory");
        assert_eq!(pcap.0.len(), 24);
        let mut frame = seen(TapKind::FrameIn, AnswerReason::Own);
        frame.entry.len = 1_500;
        pcap.write(&frame).expect("memory");
        let word = |at: usize| {
            let bytes = pcap.0[at..].first_chunk().expect("so many bytes");
            u32::from_ne_bytes(*bytes)
        };
        assert_eq!((word(0), word(20)), (MAGIC, ETHERNET));
        let record = [24, 28, 32, 36].map(word);
        assert_eq!(
            record,
            [1_700_000_000, 5_000_000, MESSAGE.len() as u32, 1_500]
        );
        assert_eq!(&pcap.0[40..], MESSAGE);
    }
}
