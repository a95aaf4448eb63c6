//! Access of the program for limits to the kernel.

use super::{FEW, Run, has_proved, now, set_word, told, word};
use crate::context;
use crate::flow::network::Address;
use crate::frame::Cursor;
use crate::frame::write::CursorMut;
use crate::rate::{self, QueryBuffer, RateKernel, RateScratch};
use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use xdnsd_abi::rate::{ELEMENT_WORDS, ELEMENTS, Element, Rate};
use xdnsd_abi::{Reason, shield, tail};

/// Declaration of the table for the loader.
type Table = Array<Element, { ELEMENTS as usize }, { BPF_F_MMAPABLE as usize }>;

#[btf_map(name = "accounts")]
static ACCOUNTS: ArrayOfMaps<Table, 1> = ArrayOfMaps::new();
#[map(name = "rate_scratch")]
static SCRATCH: PerCpuArray<RateScratch> = PerCpuArray::with_max_entries(1, 0);

/// Account of a client whose query goes on: the index of its first word in the table; 0 if there is none.
pub type AccountId = u32;
/// Results of [`look`] besides an account.
const SLIPPED: u32 = u32::MAX;
const DROPPED: u32 = u32::MAX - 1;
const _: () = assert!(ELEMENTS * (ELEMENT_WORDS as u32) < DROPPED);

/// Decides about a query by the client's limits, see [`rate::judge`].
#[inline(always)]
pub fn judge(ctx: &XdpContext) -> Result<AccountId, Reason> {
    match look(ctx.ctx) {
        SLIPPED => Err(Reason::RateSlipped),
        DROPPED => Err(Reason::DropRate),
        counted => Ok(counted),
    }
}

/// Decides about a query of a client that no worker has answered lately, see [`rate::judge_newcomer`].
#[inline(always)]
pub fn judge_newcomer(ctx: &XdpContext) -> Result<(), Reason> {
    match look_at_newcomer(ctx.ctx) {
        SLIPPED => Err(Reason::RateSlipped),
        DROPPED => Err(Reason::DropNewcomer),
        _ => Ok(()),
    }
}

/// A function of its own, like [`look`].
#[inline(never)]
fn look_at_newcomer(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    let context = XdpContext::new(ctx);
    // SAFETY: as in `look`, which has returned.
    let scratch = unsafe { &mut *scratch };
    match rate::judge_newcomer(&Run::<true>::new(&context), scratch) {
        Ok(()) => 0,
        Err(Reason::RateSlipped) => SLIPPED,
        Err(_) => DROPPED,
    }
}

/// A function of its own: two programs have it, and beside a tail call that returns there is little room on the stack.
#[inline(never)]
fn look(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    let context = XdpContext::new(ctx);
    // SAFETY: the look-up returned this CPU's own slot, aligned and alive as long as the program, of integers; nothing else
    // runs on this CPU's slot while the program does, and this function runs once.
    let scratch = unsafe { &mut *scratch };
    match rate::judge(&Run::<true>::new(&context), scratch) {
        Ok(Some(account)) => account.place,
        Ok(None) => 0,
        Err(Reason::RateSlipped) => SLIPPED,
        Err(_) => DROPPED,
    }
}

/// Charges a query that another program has answered.
#[inline(always)]
pub fn charge(ctx: &XdpContext, counted: AccountId) {
    if counted != 0 {
        rate::charge(&Run::<true>::new(ctx), counted);
    }
}

impl<const FRAGS: bool> Run<'_, FRAGS> {
    /// Tail-calls the program for limits, if the client has limits. Returns otherwise.
    #[inline(always)]
    pub fn hand_on_rate(&self, has_limits: bool) {
        if FRAGS && has_limits {
            // SAFETY: no value here has a drop that the tail call would skip, and the other program begins anew.
            unsafe { super::TAILS.tail_call(self.ctx, tail::RATE) }
        }
    }
}

impl RateKernel for Run<'_, true> {
    type Element = *mut Element;

    #[inline(always)]
    fn frame(&self) -> Cursor<'_> {
        self.first_buffer()
    }

    #[inline(always)]
    fn element(&self, index: u32) -> Option<*mut Element> {
        ACCOUNTS.get_value_ptr_mut(0, &index)
    }

    #[inline(always)]
    fn word(&self, element: *mut Element, at: usize) -> u64 {
        // A torn word on a 32-bit machine is a wrong time for one query.
        word(element, at)
    }

    #[inline(always)]
    fn set_word(&self, element: *mut Element, at: usize, word: u64) {
        // A store by another processor at the same time is lost, and with it the charge for one query.
        set_word(element, at, word);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }

    #[inline(always)]
    fn has_proved(&self, client: Address, secs: u32) -> bool {
        has_proved(client, secs)
    }

    #[inline(always)]
    fn take(&self, place: u32, rate: Rate) -> bool {
        let Some(clear_at) = FEW.get_ptr_mut(place) else {
            return true;
        };
        // SAFETY: this CPU's own slot, aligned and alive as long as the program; nothing else runs on it while the program
        // does.
        unsafe {
            let has_room = rate.has_room(*clear_at, now());
            if has_room {
                *clear_at = rate.charge(*clear_at, now());
            }
            has_room
        }
    }

    #[inline(always)]
    fn answers(&self) -> bool {
        told(shield::RATE_ANSWERS) != 0
    }

    #[inline(always)]
    fn opaque(&self, place: &u64) -> u64 {
        // SAFETY: a live reference. The verifier does not track values stored to a map.
        unsafe { (&raw const *place).read_volatile() }
    }

    #[inline(always)]
    fn load(&self, at: usize, len: usize, message: &mut QueryBuffer) -> Option<()> {
        context::load(self.ctx, at, len, message)
    }

    #[inline(always)]
    fn sum(&self, message: &QueryBuffer, len: usize) -> u64 {
        context::sum(message, len)
    }

    #[inline(always)]
    fn resize(&self, len: usize) -> Option<()> {
        self.set_len(len)
    }

    #[inline(always)]
    fn frame_mut(&self) -> CursorMut<'_> {
        context::frame_mut(self.ctx)
    }

    #[inline(always)]
    fn store(&self, at: usize, message: &QueryBuffer, len: usize) -> Option<()> {
        context::store(self.ctx, at, message, len)
    }
}
