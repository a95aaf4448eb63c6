//! What the XDP program of one interface answers by itself: SYNs, hot names, who has asked too much. All leave by one way out, or
//! none does.

use xdnsd_core::time::Instant;

use super::rates;
use super::shield::{Guard, ShieldSettings};
use super::tier0::{InterfaceTier0, Tier0};
use super::way_out::{Sight, WayOut};
use crate::os::xdp::{Attached, Program};

/// All of it, and the way out.
#[derive(Default)]
pub struct Inside {
    /// The shield on it.
    pub guard: Guard,
    /// Hot names on it.
    pub hot: InterfaceTier0,
    /// Limits per client.
    rates: rates::InterfaceLimits,
    way_out: WayOut,
}

/// What is wanted of it.
pub struct Demand<'a> {
    /// By the shield.
    pub guard: &'a ShieldSettings<'a>,
    /// Hot names.
    pub tier0: &'a Tier0,
    /// Queues are to be zero-copy ones.
    pub zero_copy: bool,
    /// When this look is.
    pub now: Instant,
}

impl Inside {
    /// A program was attached. `Err`: it cannot do all that is wanted, and what it cannot passes.
    pub fn begin(
        &mut self,
        interface: &str,
        program: &mut Program,
        attached: &Attached,
        orders: &Demand<'_>,
    ) -> Result<(), String> {
        let is_used = orders.guard.may_answer() || orders.tier0.is_wanted() || rates::are_kept();
        self.way_out
            .begin(interface, attached, orders.zero_copy, is_used);
        let guarded = self.guard.begin(program, orders.guard);
        // In front of hot names, whose answers count.
        self.rates.look(orders.now, interface, program, false);
        self.hot.begin(orders.tier0, program);
        self.show_way_out(orders.now, program);
        guarded
    }

    /// Whether hot answers of this program count against their clients.
    #[must_use]
    pub fn counts_answers(&self, program: &Program) -> bool {
        self.rates.counts_answers(program)
    }

    /// The program is gone, and its counters with it.
    pub fn end(&mut self) {
        self.way_out.end();
        self.guard.end();
        self.hot.end();
        self.rates.end();
    }

    /// Looks whether answers leave, and lets the program give those that do: once a second. What the guard is to do is told later.
    pub fn look(&mut self, now: Instant, interface: &str, program: &mut Program) {
        self.way_out.look(now, interface, program);
        self.show_way_out(now, program);
        // Limits may have come by a reload, when nobody looks at the way out.
        let answers = self.way_out.is_used() && self.way_out.sight(now) == Sight::Open;
        self.rates.look(now, interface, program, answers);
    }

    fn show_way_out(&mut self, now: Instant, program: &mut Program) {
        let sight = self.way_out.sight(now);
        self.guard.set_way_out(sight);
        self.hot.look(sight, program);
    }
}
