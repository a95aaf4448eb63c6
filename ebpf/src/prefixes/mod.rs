//! Drops packets of any kind from denied prefixes to our addresses.
//!
//! This comes before all other checks, and only if there are prefixes. A packet to others then costs one more look-up, of
//! its destination. The longer look-up, of the source in the trie, is made only for packets to us.

use crate::classify::{FrameContext, check_ours, listen};
use crate::flow::link::Link;
use crate::flow::network::{Address, ends};
use crate::frame::Cursor;
use xdnsd_abi::{Listen, PathCheck, Reason, verdict};

/// Further access that the program needs.
pub trait PrefixKernel: FrameContext {
    /// True if there are any prefixes.
    fn has_prefixes(&self) -> bool;
    /// Checks for a packet to this address; `None` if the address is not ours.
    fn own(&self, address: &Listen) -> Option<PathCheck>;
    /// Verdict of the longest prefix that contains this address, see [`verdict`].
    fn verdict(&self, source: Address) -> u8;
}

/// `Err` if the packet is dropped. A packet that cannot be parsed goes on.
#[inline(always)]
pub fn check(frame: Cursor<'_>, kernel: &impl PrefixKernel) -> Result<(), Reason> {
    if kernel.has_prefixes() && is_denied(frame, kernel).unwrap_or(false) {
        return Err(Reason::DropDenied);
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
    Some(kernel.verdict(source) == verdict::DENY)
}

#[cfg(test)]
mod tests;
