//! Who is denied: packets from a denied prefix to an address of ours are dropped, whatever they carry.
//!
//! Asked before everything else, and only where there are prefixes. What is addressed to others costs one more look-up then, for
//! its destination: the longer look-up, of the source in the trie, is for packets to us alone.

use crate::classify::{FrameContext, check_ours, listen};
use crate::flow::link::Link;
use crate::flow::network::{Address, ends};
use crate::frame::Cursor;
use xdnsd_abi::{Listen, PathCheck, Reason, verdict};

/// What the program asks of the kernel besides.
pub trait PrefixKernel: FrameContext {
    /// Whether there are any prefixes.
    fn has_prefixes(&self) -> bool;
    /// What has to hold of a packet to an address that is ours; `None`: it is not.
    fn own(&self, address: &Listen) -> Option<PathCheck>;
    /// What the longest prefix says that holds this address, see [`verdict`].
    fn verdict(&self, source: Address) -> u8;
}

/// `Err`: it is dropped. Anything that is not understood is not.
#[inline(always)]
pub fn check(frame: Cursor<'_>, kernel: &impl PrefixKernel) -> Result<(), Reason> {
    if kernel.has_prefixes() && is_denied(frame, kernel).unwrap_or(false) {
        return Err(Reason::DropDenied);
    }
    Ok(())
}

/// `None`: it is none of ours.
#[inline(always)]
fn is_denied(frame: Cursor<'_>, kernel: &impl PrefixKernel) -> Option<bool> {
    let (link, rest) = Link::parse(frame).ok()?;
    let (source, destination) = ends(link.ethertype, rest)?;
    let check = kernel.own(&listen(&link, destination, 0))?;
    check_ours(&link, &check, kernel).ok()?;
    Some(kernel.verdict(source) == verdict::DENY)
}

#[cfg(test)]
mod tests;
