//! Implements the table of stations with the kernel's maps and clock.

use super::{now, set_word, told, word};
use crate::bridge::{self, Stations};
use crate::context;
use crate::flow::link::Mac;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use xdnsd_abi::bridge::{ELEMENTS, Element};
use xdnsd_abi::headers::ethernet::{self, ethertype};
use xdnsd_abi::headers::vlan;
use xdnsd_abi::shield;

/// Declaration of the table for the loader.
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

/// A function of its own, which the verifier walks without any knowledge of the frame.
#[inline(never)]
fn look(ctx: *mut xdp_md, a: u32, b: u32, c: u32) -> u32 {
    let station = Mac([a as u16, b as u16, c as u16]);
    bridge::has_heard(station, &OfPort { ctx }).into()
}

/// The port that received a frame.
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
        // A torn word on a 32-bit machine matches no station, or has another time.
        word(element, at)
    }

    #[inline(always)]
    fn set_word(&self, element: *mut Element, at: usize, word: u64) {
        // If two stations are written at the same time, one gets the other's time, which is the same, or its port, and then
        // its next frame passes.
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
    fn vlan(&self) -> Option<u16> {
        let word = told(shield::PORT_VLAN);
        if word & shield::FILTERS_VLANS == 0 {
            return Some(0);
        }
        let ctx = XdpContext::new(self.ctx);
        let (header, rest) = context::frame(&ctx).take::<{ ethernet::HEADER_LEN }>()?;
        match header.be16::<{ ethernet::field::ETHERTYPE.start }>() {
            ethertype::VLAN => {
                let (tag, _) = rest.take::<{ vlan::HEADER_LEN }>()?;
                Some(tag.be16::<{ vlan::field::TCI.start }>() & vlan::ID)
            }
            other if vlan::is_tag(other) => None,
            _ => Some(word as u16),
        }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is the one that the kernel called us with; the field is an aligned u32 in it.
        unsafe { (*self.ctx).ingress_ifindex }
    }
}
