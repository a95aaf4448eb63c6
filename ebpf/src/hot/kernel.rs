//! Maps and helpers: the fence around what the kernel lends the program. Built for the kernel only.

use super::{HotKernel, HotScratch};
use crate::context;
use crate::frame::Cursor;
use crate::frame::write::CursorMut;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_adjust_head};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use xdnsd_abi::hot::{
    ANSWERS_MAX, AnswerWords, CLIENTS_MAX, HotOutcome, PLACES, SILENT_WORDS, control, silent_bit,
};

// The names are those of `xdnsd_abi::hot`; the macro takes literals only. Loading fails if they differ.

#[map(name = "hot_answers")]
static ANSWERS: Array<AnswerWords> = Array::with_max_entries(ANSWERS_MAX, BPF_F_MMAPABLE);
#[map(name = "hot_index")]
static INDEX: Array<u64> = Array::with_max_entries(PLACES, BPF_F_MMAPABLE);
#[map(name = "hot_hits")]
static HITS: Array<u64> = Array::with_max_entries(ANSWERS_MAX, BPF_F_MMAPABLE);
#[map(name = "hot_clients")]
static CLIENTS: Array<u64> = Array::with_max_entries(CLIENTS_MAX, BPF_F_MMAPABLE);
#[map(name = "hot_silent")]
static SILENT: Array<u64> = Array::with_max_entries(SILENT_WORDS, BPF_F_MMAPABLE);
#[map(name = "hot_control")]
static CONTROL: Array<u64> = Array::with_max_entries(control::COUNT, BPF_F_MMAPABLE);
#[map(name = "hot_outcomes")]
static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(HotOutcome::COUNT, 0);
#[map(name = "hot_scratch")]
static SCRATCH: PerCpuArray<HotScratch> = PerCpuArray::with_max_entries(1, 0);

/// Counts the outcome of a query on this CPU.
#[inline(always)]
pub fn count(outcome: HotOutcome) {
    if let Some(counter) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the look-up returned this CPU's own slot, aligned and alive as long as the program; nothing else runs on
        // this CPU's slot while the program does.
        unsafe { *counter = (*counter).wrapping_add(1) }
    }
}

/// A word that user space stores to through its mapping at any time; 0 if there is none.
#[inline(always)]
fn load(array: &Array<u64>, index: u32) -> u64 {
    let Some(word) = array.get_ptr(index) else {
        return 0;
    };
    // SAFETY: the look-up returned an aligned value that lives as long as the map. Volatile, since it changes; aligned
    // eight bytes are never torn on a 64-bit machine, and a torn word elsewhere matches nothing.
    unsafe { word.read_volatile() }
}

/// One frame's run of the program.
pub struct HotRun<'a> {
    ctx: &'a XdpContext,
}

impl<'a> HotRun<'a> {
    /// The run for this frame, and the scratch of this CPU.
    #[inline(always)]
    pub fn begin(ctx: &'a XdpContext) -> Option<(Self, &'a mut HotScratch)> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the look-up returned this CPU's own slot, aligned and alive as long as the program, of integers; nothing
        // else runs on this CPU's slot while the program does, and this function runs once.
        Some((Self { ctx }, unsafe { &mut *scratch }))
    }
}

impl HotKernel for HotRun<'_> {
    #[inline(always)]
    fn frame(&self) -> Cursor<'_> {
        context::frame(self.ctx)
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        context::frame_len(self.ctx) as usize
    }

    #[inline(always)]
    fn opaque(&self, place: &u64) -> u64 {
        // SAFETY: a live reference. The verifier does not track values stored to a map.
        unsafe { (&raw const *place).read_volatile() }
    }

    #[inline(always)]
    fn again(&self, number: u64) -> u64 {
        context::opaque(number)
    }

    #[inline(always)]
    fn control(&self, index: u32) -> u64 {
        load(&CONTROL, index)
    }

    #[inline(always)]
    fn is_silent(&self, port: u16) -> bool {
        let (index, bit) = silent_bit(port);
        load(&SILENT, index) & bit != 0
    }

    #[inline(always)]
    fn index(&self, place: u32) -> u64 {
        load(&INDEX, place)
    }

    #[inline(always)]
    fn answer(&self, number: u32) -> Option<&AnswerWords> {
        // Nobody writes to an answer that the index named until no run can read it any more.
        ANSWERS.get(number)
    }

    #[inline(always)]
    fn hits(&self, number: u32) -> u64 {
        load(&HITS, number)
    }

    #[inline(always)]
    fn hit(&self, number: u32) {
        if let Some(hits) = HITS.get_ptr_mut(number) {
            // SAFETY: the look-up returned an aligned value that lives as long as the map. Other CPUs and user space access
            // it at the same time, so the access is volatile, and a hit may be lost: the count shows what is asked for, and
            // need not be exact.
            unsafe { hits.write_volatile(hits.read_volatile().wrapping_add(1)) }
        }
    }

    #[inline(always)]
    fn client(&self, place: u32) -> u64 {
        load(&CLIENTS, place)
    }

    #[inline(always)]
    fn set_client(&self, place: u32, entry: u64) {
        if let Some(word) = CLIENTS.get_ptr_mut(place) {
            // SAFETY: the look-up returned an aligned value that lives as long as the map. Other CPUs and user space store
            // to it at the same time, so the store is volatile; one of two clients may be forgotten.
            unsafe { word.write_volatile(entry) }
        }
    }

    /// The coarse clock costs a load, while the fine one reads the timer; it lags by at most a tick.
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments, which every XDP program may call since Linux 5.11.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn grow(&self, more: i32) -> Option<()> {
        // SAFETY: the context is the kernel's. No earlier view of the frame is used from here on.
        (unsafe { bpf_xdp_adjust_head(self.ctx.ctx, -more) } == 0).then_some(())
    }

    #[inline(always)]
    fn frame_mut(&self) -> CursorMut<'_> {
        context::frame_mut(self.ctx)
    }
}
