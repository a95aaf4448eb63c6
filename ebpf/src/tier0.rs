//! The program behind the tail call that answers hot names, with answers that user space has put into maps. See `hot/`.
//!
//! It is an object of its own, because it is loaded once, while the XDP program is loaded for each interface: there is one
//! set of hot answers.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[expect(
    dead_code,
    reason = "the other object's programs copy and add up by helpers"
)]
mod context;
#[cfg(any(target_arch = "bpf", test))]
mod cookie;
#[cfg(any(target_arch = "bpf", test))]
#[expect(
    dead_code,
    reason = "what TCP and user space's way need is the other program's"
)]
mod flow;
#[cfg(any(target_arch = "bpf", test))]
#[expect(
    dead_code,
    reason = "the other program sums up a datagram where it stands"
)]
mod frame;
#[cfg(any(target_arch = "bpf", test))]
mod hot;
#[cfg(any(target_arch = "bpf", test))]
mod message;
#[cfg(target_arch = "bpf")]
mod object;

#[cfg(target_arch = "bpf")]
mod program {
    use crate::hot::{self, kernel};
    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use xdnsd_abi::hot::HotOutcome;

    /// Entry point. XDP_PASS and XDP_DROP tell the caller to go on with the frame, which is unchanged. XDP_DROP adds that
    /// no worker has answered its client lately.
    #[xdp(frags)]
    pub fn xdnsd_hot(ctx: XdpContext) -> u32 {
        let Some((run, scratch)) = kernel::HotRun::begin(&ctx) else {
            return XDP_PASS;
        };
        let outcome = match hot::answer(&run, scratch) {
            Ok(()) => HotOutcome::Answered,
            Err(outcome) => outcome,
        };
        kernel::count(outcome);
        match outcome {
            HotOutcome::Answered => XDP_TX,
            HotOutcome::NotPlain
            | HotOutcome::Unknown
            | HotOutcome::Over
            | HotOutcome::Withdrawn
            | HotOutcome::NewClient
            | HotOutcome::NoRoom => match hot::is_newcomer(&run, scratch) {
                true => XDP_DROP,
                false => XDP_PASS,
            },
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
