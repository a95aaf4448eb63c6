//! Access of the program for hosts behind this one to the kernel.

use super::{Run, hash_by, prove, told};
use crate::flow::network::Address;
use crate::forward::Forwarding;
use crate::syn::Ends;
use aya_ebpf::helpers::generated::bpf_xdp_load_bytes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie;
use aya_ebpf::programs::XdpContext;
use core::mem::MaybeUninit;
use xdnsd_abi::{Behind, PROTECTED_MAX, Protected, protect, secret, shield};

#[map(name = "protected")]
static PROTECTED: lpm_trie::LpmTrie<Behind, Protected> =
    lpm_trie::LpmTrie::with_max_entries(PROTECTED_MAX, 0);

impl Forwarding for Run<'_, true> {
    #[inline(always)]
    fn protects(&self) -> bool {
        told(shield::PROTECT) != protect::OFF
    }

    #[inline(always)]
    fn words(&self, at: u32) -> Option<[u64; 2]> {
        peek(self.ctx, at)
    }

    #[inline(always)]
    fn word(&self, at: u32) -> Option<u64> {
        peek::<1>(self.ctx, at).map(|[word]| word)
    }

    #[inline(always)]
    fn protected(&self, destination: &Behind) -> Option<Protected> {
        if !self.protects() {
            return None;
        }
        let bits = u8::BITS * size_of::<Behind>() as u32;
        PROTECTED
            .get(lpm_trie::Key::new(bits, *destination))
            .copied()
    }

    #[inline(always)]
    fn is_flooded(&self) -> bool {
        told(shield::PROTECT) == protect::FLOOD
    }

    #[inline(always)]
    fn cookies(&self, ends: &Ends, sequence: u32) -> [u32; 2] {
        let (Address(a, b), Address(c, d)) = (ends.source, ends.destination);
        let ports = u64::from(ends.source_port) << 16 | u64::from(ends.destination_port);
        let words = [a, b, c, d, ports << 32 | u64::from(sequence)];
        // Without a key, which cannot happen, the cookie is 0.
        let by = |place| hash_by(place, words).map_or(0, |hash| hash as u32);
        [by(secret::COOKIE), by(secret::COOKIE_BEFORE)]
    }

    #[inline(always)]
    fn prove(&self, ends: &Ends) {
        prove(ends.source);
    }
}

/// Words of the frame from offset `at` on; `None` if it ends before.
#[inline(always)]
fn peek<const N: usize>(ctx: &XdpContext, at: u32) -> Option<[u64; N]> {
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    let len = size_of::<[u64; N]>() as u32;
    // SAFETY: the helper writes all of the words, and any bytes are integers; the context is the kernel's.
    unsafe {
        let result = bpf_xdp_load_bytes(ctx.ctx, at, words.as_mut_ptr().cast(), len);
        (result == 0).then(|| words.assume_init())
    }
}
