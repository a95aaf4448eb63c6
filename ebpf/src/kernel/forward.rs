//! What the program for hosts behind this one asks of the kernel.

use super::{Run, hash_by, prove, told};
use crate::flow::network::Address;
use crate::forward::Forwarding;
use crate::syn::Ends;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie;
use xdnsd_abi::{Behind, PROTECTED_MAX, Protected, protect, secret, shield};

#[map(name = "protected")]
static PROTECTED: lpm_trie::LpmTrie<Behind, Protected> =
    lpm_trie::LpmTrie::with_max_entries(PROTECTED_MAX, 0);

impl Forwarding for Run<'_, true> {
    #[inline(always)]
    fn protected(&self, destination: &Behind) -> Option<Protected> {
        if told(shield::PROTECT) == protect::OFF {
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
        // Where there is no key, which cannot be, there is a cookie that nobody may bring back.
        let by = |place| hash_by(place, words).map_or(0, |hash| hash as u32);
        [by(secret::COOKIE), by(secret::COOKIE_BEFORE)]
    }

    #[inline(always)]
    fn prove(&self, ends: &Ends) {
        prove(ends.source);
    }
}
