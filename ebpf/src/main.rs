//! The XDP program: decides which frames user space answers through AF_XDP, which end here, and which the kernel keeps.
//!
//! `classify/` decides which queries are ours, and `bridge/` which of them a bridge gets first. Programs behind tail calls
//! answer SYNs (`syn/`), judge other TCP segments (`stray.rs`) and those to hosts behind this one (`forward/`), limit
//! clients (`rate/`), answer hot names (`tier0.rs`, an object of its own) and write the shield's log (`kernel/log.rs`).
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(any(target_arch = "bpf", test))]
mod bridge;
#[cfg(any(target_arch = "bpf", test))]
mod classify;
#[cfg(any(target_arch = "bpf", test))]
mod clients;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(any(target_arch = "bpf", test))]
mod cookie;
#[cfg(any(target_arch = "bpf", test))]
mod flow;
#[cfg(any(target_arch = "bpf", test))]
mod forward;
#[cfg(any(target_arch = "bpf", test))]
mod frame;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(any(target_arch = "bpf", test))]
mod message;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(any(target_arch = "bpf", test))]
mod prefixes;
#[cfg(any(target_arch = "bpf", test))]
mod rate;
#[cfg(any(target_arch = "bpf", test))]
mod stray;
#[cfg(any(target_arch = "bpf", test))]
mod syn;
#[cfg(test)]
mod testing;

#[cfg(target_arch = "bpf")]
mod program {
    use crate::{classify, forward, kernel, stray, syn};
    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use xdnsd_abi::Reason;

    /// Entry point for frames that may be in several buffers.
    #[xdp(frags)]
    pub fn xdnsd(ctx: XdpContext) -> u32 {
        run::<true>(&ctx)
    }

    /// Entry point with a call of the program for hot names before the redirect.
    #[xdp(frags)]
    pub fn xdnsd_tier0(ctx: XdpContext) -> u32 {
        let reason = match decide::<true>(&ctx) {
            Ok(has_limits) => {
                let run = kernel::Run::<true>::new(&ctx);
                run.hand_on_rate(has_limits);
                run.answer_or_redirect(|| Ok(()))
            }
            Err(reason) => reason,
        };
        kernel::count(reason);
        action(reason)
    }

    /// Program for queries of clients with limits, behind a tail call.
    #[xdp(frags)]
    pub fn xdnsd_rate(ctx: XdpContext) -> u32 {
        let run = kernel::Run::<true>::new(&ctx);
        let reason = match kernel::judge(&ctx) {
            Ok(_) => run.redirect(),
            Err(reason) => reason,
        };
        finish(&ctx, reason)
    }

    /// The same, with a call of the program for hot names before the redirect.
    #[xdp(frags)]
    pub fn xdnsd_rate_tier0(ctx: XdpContext) -> u32 {
        let run = kernel::Run::<true>::new(&ctx);
        let reason = match kernel::judge(&ctx) {
            Ok(account) => {
                let reason = run.answer_or_redirect(|| kernel::judge_newcomer(&ctx));
                // Queries that go to user space are counted there.
                if reason == Reason::Answered {
                    kernel::charge(&ctx, account);
                }
                reason
            }
            Err(reason) => reason,
        };
        finish(&ctx, reason)
    }

    /// Entry point for kernels without frames in several buffers.
    #[xdp]
    pub fn xdnsd_single(ctx: XdpContext) -> u32 {
        run::<false>(&ctx)
    }

    /// Program for SYNs, behind a tail call.
    #[xdp(frags)]
    pub fn xdnsd_syn(ctx: XdpContext) -> u32 {
        let reason = syn_verdict(&ctx);
        finish(&ctx, reason)
    }

    #[inline(always)]
    fn syn_verdict(ctx: &XdpContext) -> Reason {
        let run = kernel::Run::<true>::new(ctx);
        match syn::classify(run.first_buffer(), &run) {
            Ok(answer) => run.answer(&answer, Reason::SynCookie),
            Err(reason) => run.hand_on_forward(reason),
        }
    }

    /// Program for other segments, behind a tail call.
    #[xdp(frags)]
    pub fn xdnsd_stray(ctx: XdpContext) -> u32 {
        let run = kernel::Run::<true>::new(&ctx);
        let reason = match stray::classify(run.first_buffer(), &run) {
            Ok(reason) => reason,
            Err(reason) => run.hand_on_forward(reason),
        };
        finish(&ctx, reason)
    }

    /// Program for segments to hosts behind this one, behind a tail call.
    #[xdp(frags)]
    pub fn xdnsd_forward(ctx: XdpContext) -> u32 {
        let run = kernel::Run::<true>::new(&ctx);
        let reason = match forward::classify(run.first_buffer(), &run) {
            Ok((answer, reason)) => run.answer(&answer, reason),
            Err(reason) => reason,
        };
        finish(&ctx, reason)
    }

    /// Program that logs a frame, behind a tail call.
    #[xdp(frags)]
    pub fn xdnsd_log(ctx: XdpContext) -> u32 {
        kernel::write_record(&ctx)
    }

    #[inline(always)]
    fn run<const FRAGS: bool>(ctx: &XdpContext) -> u32 {
        let reason = verdict::<FRAGS>(ctx);
        if FRAGS {
            return finish(ctx, reason);
        }
        kernel::count(reason);
        action(reason)
    }

    /// Counts the frame, has it logged, and returns its action.
    #[inline(always)]
    fn finish(ctx: &XdpContext, reason: Reason) -> u32 {
        kernel::count(reason);
        kernel::tell_reader(ctx, reason, action(reason));
        action(reason)
    }

    #[inline(always)]
    fn verdict<const FRAGS: bool>(ctx: &XdpContext) -> Reason {
        match decide::<FRAGS>(ctx) {
            Ok(has_limits) => {
                let run = kernel::Run::<FRAGS>::new(ctx);
                run.hand_on_rate(has_limits);
                run.redirect()
            }
            Err(reason) => reason,
        }
    }

    /// `Ok`: the frame is a query for user space. The value is true if its client has limits.
    #[inline(always)]
    fn decide<const FRAGS: bool>(ctx: &XdpContext) -> Result<bool, Reason> {
        let run = kernel::Run::<FRAGS>::new(ctx);
        run.check_prefixes()?;
        // From the first byte on again, so that the verifier walks it once, whatever was looked at before.
        classify::classify(run.first_buffer(), &run)
    }

    /// Action of the kernel on the frame.
    #[inline(always)]
    const fn action(reason: Reason) -> u32 {
        match reason {
            Reason::Redirected => XDP_REDIRECT,
            Reason::SynCookie
            | Reason::Answered
            | Reason::ForwardCookie
            | Reason::ForwardProof
            | Reason::RateSlipped => XDP_TX,
            Reason::DropStray
            | Reason::DropReset
            | Reason::DropResponse
            | Reason::DropSource
            | Reason::DropTruncated
            | Reason::DropDenied
            | Reason::DropAccess
            | Reason::DropForward
            | Reason::DropRate
            | Reason::DropNewcomer => XDP_DROP,
            Reason::PassTruncated
            | Reason::PassMulticast
            | Reason::PassEthertype
            | Reason::PassVlanDepth
            | Reason::PassVlanPriority
            | Reason::PassIpv4Options
            | Reason::PassFragment
            | Reason::PassProtocol
            | Reason::PassForeign
            | Reason::PassOtherMac
            | Reason::PassOtherDevice
            | Reason::PassPort
            | Reason::PassStation
            | Reason::PassIpv4Checksum
            | Reason::PassUdpChecksum
            | Reason::PassLength
            | Reason::PassLong
            | Reason::PassLargeFrame
            | Reason::PassResponse
            | Reason::PassSource
            | Reason::PassRoute
            | Reason::PassStale
            | Reason::PassNoSocket
            | Reason::PassSyn
            | Reason::PassSynLength
            | Reason::PassTcpChecksum
            | Reason::PassNoCookie
            | Reason::PassNoRoom
            | Reason::PassCookie
            | Reason::PassVerified
            | Reason::PassStray
            | Reason::ForwardVerified
            | Reason::ForwardCalm => XDP_PASS,
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
