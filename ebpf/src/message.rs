//! Reads and writes of a DNS message that lies outside of the frame.

use xdnsd_abi::headers::dns::opt;

/// The bytes at this place.
#[inline(always)]
pub fn get<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..at + N)?.first_chunk().copied()
}

/// The big-endian number at this place.
#[inline(always)]
pub fn be16(message: &[u8], at: usize) -> Option<u16> {
    get(message, at).map(u16::from_be_bytes)
}

/// Writes bytes at this offset.
#[inline(always)]
pub fn put<const N: usize>(message: &mut [u8], at: usize, bytes: [u8; N]) -> Option<()> {
    *message.get_mut(at..at + N)?.first_chunk_mut()? = bytes;
    Some(())
}

/// An OPT record of ours without options, with these flags in the high byte.
#[inline(always)]
pub const fn opt_record(flags: u8) -> [u8; opt::LEN] {
    let [high, low] = (xdnsd_abi::UDP_MESSAGE_MAX as u16).to_be_bytes();
    [0, 0, opt::TYPE, high, low, 0, 0, flags, 0, 0, 0]
}
