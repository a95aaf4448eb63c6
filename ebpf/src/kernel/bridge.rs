//! What the look at a bridge's stations asks of the kernel.

use super::{now, set_word, told, word};
use crate::bridge::{self, Stations};
use crate::flow::link::Mac;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::macros::btf_map;
use xdnsd_abi::bridge::{ELEMENT_WORDS, ELEMENTS, Element};
use xdnsd_abi::shield;

/// The table, as the loader is told of it.
type Table = Array<Element, { ELEMENTS as usize }, { BPF_F_MMAPABLE as usize }>;

#[btf_map(name = "stations")]
static STATIONS: ArrayOfMaps<Table, 1> = ArrayOfMaps::new();

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// See [`bridge::has_heard`].
#[inline(always)]
pub fn has_heard(ctx: *mut xdp_md, station: Mac) -> bool {
    let Mac([a, b, c]) = station;
    look(ctx, a.into(), b.into(), c.into()) != 0
}

/// A function of its own, which the verifier walks with nothing of the frame in hand.
#[inline(never)]
fn look(ctx: *mut xdp_md, a: u32, b: u32, c: u32) -> u32 {
    let station = Mac([a as u16, b as u16, c as u16]);
    bridge::has_heard(station, &OfPort { ctx }).into()
}

/// The port that a frame came by.
struct OfPort {
    ctx: *mut xdp_md,
}

impl Stations for OfPort {
    type Element = *mut Element;

    #[inline(always)]
    fn element(&self, index: u32) -> Option<*mut Element> {
        STATIONS.get_value_ptr_mut(0, &index)
    }

    #[inline(always)]
    fn word(&self, element: *mut Element, at: usize) -> u64 {
        // A torn word on a 32-bit machine is no station's, or one of another moment.
        word(element, at)
    }

    #[inline(always)]
    fn set_word(&self, element: *mut Element, at: usize, word: u64) {
        // Of two stations that are written at once one has the other's moment, which is the same, or its port: then its next frame
        // passes.
        set_word(element, at, word);
    }

    #[inline(always)]
    fn now_ms(&self) -> u32 {
        (now() / NANOSECONDS_PER_MILLISECOND) as u32
    }

    #[inline(always)]
    fn interval_ms(&self) -> u32 {
        told(shield::PORT_INTERVAL_MS)
    }

    #[inline(always)]
    fn bridge(&self) -> u32 {
        told(shield::PORT_BRIDGE)
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context that the kernel called us with; the field is an aligned u32 of it.
        unsafe { (*self.ctx).ingress_ifindex }
    }
}
