//! What the look for denied prefixes and clients asks of the kernel.

use super::{ADDRESSES, LISTEN, Run, check_of, store, told, words};
use crate::context;
use crate::flow::network::Address;
use crate::prefixes::{self, PrefixKernel};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{ArrayOfMaps, LpmTrie};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use core::mem::MaybeUninit;
use xdnsd_abi::{Listen, PathCheck, PrefixKey, Reason, TRIE_MAX, shield, trie, verdict};

#[btf_map(name = "prefixes")]
static PREFIXES: ArrayOfMaps<Trie, { trie::COUNT as usize }> = ArrayOfMaps::new();

/// Declaration of the tries for the loader.
type Trie = LpmTrie<[u8; 16], u32, { TRIE_MAX as usize }>;

/// Number of the reason to drop the packet for its source; 0: there is none. A function of its own, so that the verifier knows
/// nothing of what it has looked at behind it.
#[inline(never)]
fn refusal(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let run = Run::<true>::new(&context);
    match prefixes::check(context::frame(&context), &run) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}
const _: () = assert!(Reason::DropDenied as u32 != 0 && Reason::DropAccess as u32 != 0);

impl<const FRAGS: bool> Run<'_, FRAGS> {
    /// `Err`: the packet is dropped, whatever it carries.
    #[inline(always)]
    pub fn check_prefixes(&self) -> Result<(), Reason> {
        if self.tries() == 0 {
            return Ok(());
        }
        const DENIED: u32 = Reason::DropDenied as u32;
        const ACCESS: u32 = Reason::DropAccess as u32;
        match refusal(self.ctx.ctx) {
            DENIED => Err(Reason::DropDenied),
            ACCESS => Err(Reason::DropAccess),
            _ => Ok(()),
        }
    }
}

impl<const FRAGS: bool> PrefixKernel for Run<'_, FRAGS> {
    #[inline(always)]
    fn tries(&self) -> u32 {
        told(shield::TRIES)
    }

    #[inline(always)]
    fn own(&self, address: &Listen) -> Option<PathCheck> {
        check_of(&ADDRESSES, address)
    }

    #[inline(always)]
    fn served(&self, destination: &Listen) -> Option<PathCheck> {
        check_of(&LISTEN, destination)
    }

    #[inline(always)]
    fn verdict(&self, trie: u32, source: Address) -> u8 {
        const { assert!(size_of::<PrefixKey>() == size_of::<Key<[u8; 16]>>()) };
        let mut key = MaybeUninit::<PrefixKey>::uninit();
        let [a, b, c, d] = words(source);
        store(&mut key, [u128::BITS, a, b, c, d]);
        // SAFETY: initialized to its last byte, and aya's packed key has the same size and accepts any bytes.
        let key = unsafe { &*key.as_ptr().cast::<Key<[u8; 16]>>() };
        match PREFIXES.get_value_ptr_mut(trie, key) {
            // SAFETY: the look-up returned an aligned value that the map keeps while the program runs, written at once.
            Some(value) => unsafe { value.read_volatile() as u8 },
            None => verdict::NONE,
        }
    }
}
