//! The way out: whether frames leave that the XDP program of an interface sends back, such as SYN cookies and hot answers.
//!
//! A frame that a program sends back may vanish without an error: the other end of a veth pair needs an XDP program as well,
//! and a zero-copy queue of virtio-net sends none. Both are checked before anything is sent, and each second after. All other
//! drivers count losses: if one lost all that was sent in a second, user space and the kernel answer alone, and it is tried
//! again later, since the other end may change.

use log::{info, warn};
use xdnsd_abi::Reason;
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::os::ethtool::{self, LostByXdpTx};
use crate::os::peer;
use crate::os::xdp::{Attached, Program};

/// First pause after answers did not leave, in milliseconds.
const LOST_MS: u64 = 60_000;
/// Longest pause, in milliseconds.
const LOST_MAX_MS: u64 = 3_600_000;

/// Reasons by which a program counts frames that it sends back.
const ANSWERS: [Reason; 5] = [
    Reason::SynCookie,
    Reason::ForwardCookie,
    Reason::ForwardProof,
    Reason::Answered,
    Reason::RateSlipped,
];

/// What is known of the way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WayOutState {
    /// Frames leave as far as known, and the driver counts losses.
    #[default]
    Open,
    /// Unknown: the other end of this veth pair cannot be asked, and the driver does not say whether it took anything.
    Hidden,
    /// Frames vanish.
    Closed,
}

/// Drivers, by what they say of lost frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DriverKind {
    /// A driver that counts losses, or generic mode, which sends like the kernel.
    #[default]
    Counting,
    /// One end of a veth pair.
    Veth,
    /// virtio-net whose queues have no sockets yet and may come to have zero copy: nothing is sent until that is known.
    VirtioUnbound,
    /// virtio-net that copies at all queues.
    VirtioCopy,
    /// virtio-net with zero-copy queues.
    VirtioZeroCopy,
}

impl DriverKind {
    fn of(driver: &str, is_native: bool, zero_copy: bool) -> Self {
        match driver {
            "veth" if is_native => Self::Veth,
            "virtio_net" if is_native && zero_copy => Self::VirtioUnbound,
            _ => Self::Counting,
        }
    }

    fn look(self, interface: &str) -> WayOutState {
        match self {
            Self::Counting | Self::VirtioCopy => WayOutState::Open,
            Self::Veth => match peer::takes_frames(interface) {
                Ok(true) => WayOutState::Open,
                Ok(false) => WayOutState::Closed,
                Err(_) => WayOutState::Hidden,
            },
            Self::VirtioUnbound | Self::VirtioZeroCopy => WayOutState::Closed,
        }
    }

    /// The same device once its queues have their sockets.
    fn bound(self, zero_copy: bool) -> Self {
        match (self, zero_copy) {
            (Self::Counting | Self::Veth, _) => self,
            (_, true) => Self::VirtioZeroCopy,
            (_, false) => Self::VirtioCopy,
        }
    }
}

/// The way out of one interface.
#[derive(Debug, Default)]
pub struct WayOut {
    /// True if there is a program that may send something.
    is_used: bool,
    device: DriverKind,
    state: WayOutState,
    /// The driver's counter of losses.
    counters: LostByXdpTx,
    /// Counters at the last look: frames that the program sent, and below those that the driver lost.
    sent: u64,
    lost: u64,
    /// When answers that did not leave are tried again.
    retry: Retry,
}

impl WayOut {
    /// A program was attached; `is_used` says whether it may send something.
    pub fn begin(&mut self, interface: &str, attached: &Attached, zero_copy: bool, is_used: bool) {
        self.end();
        self.is_used = is_used;
        if !is_used {
            return;
        }
        let driver = ethtool::driver(interface).unwrap_or_default();
        let is_native = matches!(attached, Attached::Native);
        self.device = DriverKind::of(&driver, is_native, zero_copy);
        self.counters = LostByXdpTx::default();
        self.lost = self.read_lost(interface);
        if self.device == DriverKind::VirtioUnbound {
            // Until the queues have their sockets there is nothing to say.
            self.state = WayOutState::Closed;
        } else {
            self.see(interface);
        }
    }

    /// The queues have their sockets, at least one of them in zero-copy mode or none. True if that changes what is known.
    pub fn follow_binds(&mut self, interface: &str, zero_copy: bool) -> bool {
        let bound = self.device.bound(zero_copy);
        let before = std::mem::replace(&mut self.device, bound);
        if before == bound {
            return false;
        }
        if before == DriverKind::VirtioUnbound {
            self.state = WayOutState::Open;
        }
        self.see(interface);
        true
    }

    /// The program was detached; its counters are gone. Findings about the driver stay.
    pub fn end(&mut self) {
        self.is_used = false;
        self.sent = 0;
        self.device = DriverKind::Counting;
        self.state = WayOutState::Open;
    }

    /// True if the way out is tested.
    #[must_use]
    pub const fn is_used(&self) -> bool {
        self.is_used
    }

    /// Current knowledge.
    #[must_use]
    pub fn state(&self, now: Instant) -> WayOutState {
        if self.retry.may_try(now) {
            self.state
        } else {
            WayOutState::Closed
        }
    }

    /// Once a second: checks the device, and compares losses with what was sent.
    pub fn look(&mut self, now: Instant, interface: &str, program: &Program) {
        if !self.is_used {
            return;
        }
        self.see(interface);
        let count = |reason| program.counter(reason).unwrap_or(0);
        let all = ANSWERS.into_iter().map(count).sum();
        let sent = all - std::mem::replace(&mut self.sent, all).min(all);
        if sent == 0 {
            return;
        }
        let all = self.read_lost(interface);
        let lost = all - std::mem::replace(&mut self.lost, all).min(all);
        // If the device is closed, losses say nothing new.
        if self.state != WayOutState::Closed {
            self.judge(now, interface, [sent, lost]);
        }
    }

    /// Judges by numbers of frames sent and lost. All lost: answers pause.
    fn judge(&mut self, now: Instant, interface: &str, [sent, lost]: [u64; 2]) {
        // These frames were on their way when the loss was found.
        if !self.retry.may_try(now) {
            return;
        }
        if lost >= sent {
            self.retry.fail(now, LOST_MS, LOST_MAX_MS);
            warn!(
                "{interface}: answers do not leave: the driver lost {lost} of {sent}; user space answers hot names and the kernel \
                 SYNs, and this is tried again later"
            );
        } else if self.retry != Retry::default() {
            self.retry.succeed();
            info!("{interface}: answers leave again");
        }
    }

    /// Checks the device, and logs a change.
    fn see(&mut self, interface: &str) {
        let state = self.device.look(interface);
        let before = std::mem::replace(&mut self.state, state);
        if before != state {
            info!("{interface}: {}", self.sentence());
        }
    }

    fn sentence(&self) -> &'static str {
        match (self.state, self.device) {
            (WayOutState::Open, _) => "answers leave again",
            (WayOutState::Hidden, _) => {
                "unknown whether answers leave: the other end of this veth pair is in a network namespace that cannot be asked"
            }
            (WayOutState::Closed, DriverKind::VirtioZeroCopy) => {
                "answers do not leave: virtio-net sends none from zero-copy queues; user space answers hot names and the kernel SYNs"
            }
            (WayOutState::Closed, _) => {
                "answers do not leave: the other end of this veth pair has no XDP program in its driver; until it has one, user \
                 space answers hot names and the kernel SYNs"
            }
        }
    }

    /// Frames from programs that the driver has lost so far; 0 if it does not say.
    fn read_lost(&mut self, interface: &str) -> u64 {
        self.counters.read(interface).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_which_none_leave_stop_for_a_while_and_some_that_leave_do_not() {
        let mut way = WayOut::default();
        let now = Instant::from_millis(1_000_000);
        way.judge(now, "lan0", [5, 4]);
        assert_eq!(way.state(now), WayOutState::Open, "one has left");
        way.judge(now, "lan0", [5, 5]);
        assert_eq!(way.state(now + (LOST_MS - 1)), WayOutState::Closed);
        assert_eq!(way.state(now + LOST_MS), WayOutState::Open);
        // It was on its way.
        way.judge(now + 1_000, "lan0", [1, 1]);
        assert_eq!(way.state(now + LOST_MS), WayOutState::Open, "as it was");
        way.judge(now + LOST_MS, "lan0", [1, 9]);
        let later = now + 2 * LOST_MS;
        assert_eq!(
            way.state(later),
            WayOutState::Closed,
            "later than the first time"
        );
        way.judge(now + 10 * LOST_MS, "lan0", [5, 0]);
        assert_eq!(way.retry, Retry::default());
    }

    #[test]
    fn what_is_known_of_a_device_is_known_before_anything_is_sent() {
        for (driver, is_native, zero_copy, wanted) in [
            ("veth", true, false, DriverKind::Veth),
            ("veth", false, false, DriverKind::Counting),
            ("virtio_net", true, false, DriverKind::Counting),
            ("virtio_net", true, true, DriverKind::VirtioUnbound),
            ("virtio_net", false, true, DriverKind::Counting),
            ("ice", true, true, DriverKind::Counting),
            ("", true, false, DriverKind::Counting),
        ] {
            let device = DriverKind::of(driver, is_native, zero_copy);
            assert_eq!(device, wanted, "{driver} {is_native} {zero_copy}");
        }
        assert_eq!(DriverKind::Counting.look("lan0"), WayOutState::Open);
        assert_eq!(DriverKind::VirtioZeroCopy.look("lan0"), WayOutState::Closed);
        assert_eq!(DriverKind::VirtioUnbound.look("lan0"), WayOutState::Closed);
        // `lo` is no end of a pair, so its other end cannot be asked.
        assert_eq!(DriverKind::Veth.look("lo"), WayOutState::Hidden);
    }

    #[test]
    fn virtio_sends_nothing_until_its_queues_are_bound_and_then_as_they_are() {
        let now = Instant::from_millis(1_000_000);
        let mut way = WayOut {
            is_used: true,
            device: DriverKind::VirtioUnbound,
            state: WayOutState::Closed,
            ..WayOut::default()
        };
        for (zero_copy, expected, is_news) in [
            (false, WayOutState::Open, true),
            (false, WayOutState::Open, false),
            // A queue that had no socket at first.
            (true, WayOutState::Closed, true),
            (true, WayOutState::Closed, false),
            (false, WayOutState::Open, true),
        ] {
            assert_eq!(way.follow_binds("lan0", zero_copy), is_news);
            assert_eq!(way.state(now), expected, "{zero_copy}");
        }
        // Others send from any queue.
        let mut other = WayOut::default();
        assert!(!other.follow_binds("lan0", true));
        assert_eq!(other.state(now), WayOutState::Open);
    }
}
