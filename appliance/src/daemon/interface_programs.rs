//! What the XDP program of one interface answers itself: SYNs, hot names, queries beyond a client's limit. All answers leave
//! the same way: either all can be sent or none.

use xdnsd_core::time::Instant;

use super::rates;
use super::shield::{Guard, ShieldSettings};
use super::tier0::{InterfaceTier0, Tier0};
use super::way_out::{WayOut, WayOutState};
use crate::os::xdp::{Attached, Program};

/// The parts of the program that answer, and the test whether their answers leave.
#[derive(Default)]
pub struct InterfacePrograms {
    /// Shield on the interface.
    pub guard: Guard,
    /// Hot names on the interface.
    pub hot: InterfaceTier0,
    /// Limits per client on the interface.
    rates: rates::InterfaceLimits,
    way_out: WayOut,
}

/// What the config wants of them.
pub struct WantedPrograms<'a> {
    /// Settings of the shield.
    pub guard: &'a ShieldSettings<'a>,
    /// Settings of hot names.
    pub tier0: &'a Tier0,
    /// True if queues may come to have zero copy: see [`InterfacePrograms::follow_binds`].
    pub zero_copy: bool,
    /// Time of this look.
    pub now: Instant,
}

impl InterfacePrograms {
    /// Sets up a program that was just attached. `Err`: part of it is not available, and the program passes those frames.
    pub fn begin(
        &mut self,
        interface: &str,
        program: &mut Program,
        attached: &Attached,
        orders: &WantedPrograms<'_>,
    ) -> Result<(), String> {
        let is_used = orders.guard.may_answer() || orders.tier0.is_wanted() || rates::are_kept();
        self.way_out
            .begin(interface, attached, orders.zero_copy, is_used);
        let guarded = self.guard.begin(program, orders.guard);
        // Limits come before hot names, whose answers count.
        self.rates.look(orders.now, interface, program, false);
        self.hot.begin(orders.tier0, program);
        self.show_way_out(orders.now, program);
        guarded
    }

    /// The queues have their sockets, at least one of them in zero-copy mode or none.
    pub fn follow_binds(
        &mut self,
        now: Instant,
        interface: &str,
        program: &mut Program,
        zero_copy: bool,
    ) {
        if self.way_out.follow_binds(interface, zero_copy) {
            self.show_way_out(now, program);
        }
    }

    /// True if hot answers of this program count against their clients.
    #[must_use]
    pub fn counts_answers(&self, program: &Program) -> bool {
        self.rates.counts_answers(program)
    }

    /// The program was detached; its counters are gone.
    pub fn end(&mut self) {
        self.way_out.end();
        self.guard.end();
        self.hot.end();
        self.rates.end();
    }

    /// Once a second: checks whether answers leave, and switches on what may answer. The guard gets its orders later.
    pub fn look(&mut self, now: Instant, interface: &str, program: &mut Program) {
        self.way_out.look(now, interface, program);
        self.show_way_out(now, program);
        // A reload may bring limits while the way out is not being tested.
        let answers = self.way_out.is_used() && self.way_out.state(now) == WayOutState::Open;
        self.rates.look(now, interface, program, answers);
    }

    fn show_way_out(&mut self, now: Instant, program: &mut Program) {
        let state = self.way_out.state(now);
        self.guard.set_way_out(state);
        self.hot.look(state, program);
    }
}
