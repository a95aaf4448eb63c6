//! Drops packets of any kind from denied prefixes to our addresses, and queries of clients that `access` drops.
//!
//! This comes before all other checks, and only if there are prefixes. With denied ones, a packet to others costs one more
//! look-up, of its destination; with such clients, a datagram to others does. The longer look-up, of the source in a trie, is
//! made only for what is to us.

use crate::classify::{FrameContext, check_ours, listen};
use crate::flow::link::Link;
use crate::flow::network::{Address, Payload, ends};
use crate::flow::transport::Datagram;
use crate::frame::Cursor;
use xdnsd_abi::{Listen, PathCheck, Reason, trie, verdict};

/// Further access that the program needs.
pub trait PrefixKernel: FrameContext {
    /// Tries that have any prefixes, see [`trie::bit`].
    fn tries(&self) -> u32;
    /// Checks for a packet to this address; `None` if the address is not ours.
    fn own(&self, address: &Listen) -> Option<PathCheck>;
    /// Checks for a query to this destination; `None` if nobody answers there.
    fn served(&self, destination: &Listen) -> Option<PathCheck>;
    /// Verdict of the longest prefix in this trie that contains the address, see [`verdict`].
    fn verdict(&self, trie: u32, source: Address) -> u8;
}

/// `Err` if the packet is dropped. A packet that cannot be parsed goes on.
#[inline(always)]
pub fn check(frame: Cursor<'_>, kernel: &impl PrefixKernel) -> Result<(), Reason> {
    let has = |trie| kernel.tries() & trie::bit(trie) != 0;
    if has(trie::DENIED) && is_denied(frame, kernel).unwrap_or(false) {
        return Err(Reason::DropDenied);
    }
    if has(trie::ACCESS) && is_unanswered(frame, kernel).unwrap_or(false) {
        return Err(Reason::DropAccess);
    }
    Ok(())
}

/// `None` if the packet is to others or cannot be parsed.
#[inline(always)]
fn is_denied(frame: Cursor<'_>, kernel: &impl PrefixKernel) -> Option<bool> {
    let (link, rest) = Link::parse_any_priority(frame).ok()?;
    let (source, destination) = ends(link.ethertype, rest)?;
    let check = kernel.own(&listen(&link, destination, 0))?;
    check_ours(&link, &check, kernel).ok()?;
    Some(kernel.verdict(trie::DENIED, source) == verdict::DENY)
}

/// True for a datagram that a worker would take, and drop for its source alone. `None` if it is to others or cannot be parsed:
/// behind options or in parts it comes to the kernel's sockets, and user space drops it.
#[inline(always)]
fn is_unanswered(frame: Cursor<'_>, kernel: &impl PrefixKernel) -> Option<bool> {
    let (link, rest) = Link::parse_any_priority(frame).ok()?;
    let Payload::Udp(packet, rest) = Payload::parse(link.ethertype, rest).ok()? else {
        return None;
    };
    let port = Datagram::parse(rest).ok()?.destination_port();
    let check = kernel.served(&listen(&link, packet.destination, port))?;
    check_ours(&link, &check, kernel).ok()?;
    Some(kernel.verdict(trie::ACCESS, packet.source) == verdict::DENY)
}

#[cfg(test)]
mod tests;
