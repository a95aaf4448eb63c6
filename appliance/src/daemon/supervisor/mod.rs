//! Attaches the XDP programs, hands each RX queue's AF_XDP socket to a worker (`daemon/seats.rs`), and follows interfaces as
//! they are plugged in and out.
//!
//! ```text
//!  attach program ─► count RX queues ─► open sockets ─► XSKMAP ─► worker attaches ─► listen map
//! ```
//! The program is attached first, because some drivers change the number of queues at that moment. The listen map is filled
//! last and the program passes everything until then: no query is redirected to a queue that is not ready.

mod attachment;
mod bridge_ports;
mod port_terms;

use std::sync::Arc;

use log::{info, warn};
use xdnsd_core::time::Instant;

use super::destinations::sources_checked;
use super::program::{SharedProgram, detach, lock};
use super::seats::Seats;
use super::shared::SharedState;
use super::shield::{CookieSettings, Events, Follower, Prefixes, Protection, Shield, SynCounts};
use super::switches::{Keys, Switched, Switches};
use super::tier0::Tier0;
use crate::config::{
    AskWord, Config, Devices, Errors, Fault, Forwarding, Interface, Plan, XdpMode, is_strict,
};
use crate::control::metrics::ProtectStatus;
use crate::os::clock;
use crate::os::netlink::Changes;
use crate::store::HOT;
use crate::worker::{Inbox, QueueName};

pub use attachment::Attachment;
use attachment::AttachmentContext;
use bridge_ports::{BridgePorts, PLACES};

/// All of AF_XDP that is not part of a worker.
pub struct Supervisor {
    config: Config,
    /// Changes of devices, addresses and VLAN devices; [`Self::poll`] reads them.
    pub changes: Changes,
    /// True if every program knows the current devices. False at the start: they were read before `changes` existed.
    is_settled: bool,
    /// Attachments of interfaces, and places for the ports of those that are bridges.
    attachments: Vec<Attachment>,
    ports: BridgePorts,
    /// Assignment of sockets to workers.
    seats: Seats,
    /// Devices whose listeners follow the kernel's own check of sources, and its last value. Sysctls have no notification.
    sources_checked: Vec<(String, bool)>,
    /// The families of which the kernel tells routes, if any program asks for them. Likewise.
    forwarding: Option<Forwarding>,
    /// Faults that were logged: missing or implausible items of the config.
    missing: LoggedFaults,
    doubts: LoggedFaults,
    /// State that the shields of all interfaces share.
    shield: Shield,
    /// Hot names.
    pub tier0: Tier0,
    /// Keys for cookies of hosts behind this one.
    keys: Keys,
    /// Records for readers of the shield's log.
    events: Events,
}

impl Supervisor {
    /// Nothing is attached yet: [`Self::poll`] does that. The programs get these prefixes.
    #[must_use]
    pub fn new(config: Config, prefixes: Prefixes) -> Self {
        let mut attachments: Vec<Attachment> = Vec::new();
        for interface in &config.interfaces {
            let name = interface.name.as_str();
            if interface.xdp == XdpMode::Off || attachments.iter().any(|other| other.name == name) {
                continue;
            }
            let mut attachment = Attachment::new(interface);
            let tagged = |other: &Interface| other.name == interface.name && other.vlan != 0;
            attachment.has_tagged = config.interfaces.iter().any(tagged);
            attachments.push(attachment);
        }
        for section in &config.protects {
            let name = section.interface.as_str();
            if !attachments.iter().any(|other| other.name == name) {
                attachments.push(Attachment::bare(name));
            }
        }
        let may_have_ports =
            |attachment: &&Attachment| matches!(attachment.mode(), XdpMode::Auto | XdpMode::Native);
        let bridges = attachments.iter().filter(may_have_ports);
        let places = bridges.flat_map(|bridge| (0..PLACES).map(|_| bridge.new_place()));
        let places: Vec<Attachment> = places.collect();
        attachments.extend(places);
        let is_served = |name: &str| {
            let mut interfaces = config.interfaces.iter();
            interfaces.any(|interface| interface.name.as_str() == name)
        };
        let followers: Vec<Follower> = attachments
            .iter()
            .map(|attachment| Follower {
                interface: attachment.interface.clone(),
                program: Arc::clone(&attachment.program),
                is_served: is_served(&attachment.interface),
            })
            .collect();
        prefixes.follow(followers.iter().cloned());
        let events = Events::default();
        events.follow(followers.into_iter());
        let shield = Shield::new(&config.shield, prefixes);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let seats = Seats::new(cpus, usize::from(config.memory.workers));
        Self {
            shield,
            tier0: Tier0::new(config.cache.tier0, config.memory.addresses),
            keys: Keys::default(),
            events,
            changes: Changes::watch(),
            is_settled: false,
            attachments,
            ports: BridgePorts::default(),
            seats,
            sources_checked: Vec::new(),
            config,
            forwarding: None,
            missing: LoggedFaults::default(),
            doubts: LoggedFaults::default(),
        }
    }

    /// Interfaces that should have XDP, and places for ports.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Interfaces and queues with a socket, each with its worker.
    #[must_use]
    pub fn queues(&self) -> Vec<(usize, QueueName)> {
        self.attachments
            .iter()
            .flat_map(Attachment::served)
            .collect()
    }

    /// Looks after the interfaces: those that come or were deleted, sockets that failed, VLAN devices that were made or
    /// removed. Attaches the programs, opens the AF_XDP sockets, hands them to the workers behind `inboxes`, which need not run
    /// yet, and lets the programs redirect. An interface that cannot have XDP is served by the kernel's sockets alone, and the
    /// log says why.
    ///
    /// Returns the part of the config that this machine can serve now, if it may have changed. Without a change this costs a
    /// system call for each interface, one for its queues, one more, and looks at `rp_filter` and `forwarding` if `route_check`
    /// follows them.
    pub fn poll(&mut self, inboxes: &[Inbox], let_in: impl FnOnce(&Plan)) -> Option<Plan> {
        let now = clock::now();
        let lost = self.seats.collect(inboxes);
        let seats = &mut self.seats;
        for attachment in &mut self.attachments {
            attachment.notice_loss(now, &lost, seats, inboxes);
            self.is_settled &= !attachment.follow_switch(seats, inboxes);
        }
        // Sockets that were called back just now.
        self.seats.collect(inboxes);
        let is_due = self
            .attachments
            .iter()
            .any(|attachment| attachment.is_due(now));
        self.is_settled &= !self.has_changed() && !is_due;
        if self.is_settled {
            return None;
        }
        let devices = Devices::read().ok()?;
        // What the config names may come piece by piece: first the interface, then its addresses.
        let plan = self.config.plan(&devices);
        self.warn_missing(&plan);
        let_in(&plan);
        self.sources_checked = sources_checked(&self.config, &plan, &devices);
        self.follow_forwarding(&plan, &devices);
        self.is_settled = true;
        let (ports, attachments) = (&mut self.ports, &mut self.attachments);
        let found = (&self.config, &devices);
        ports.follow(attachments, found, &mut self.seats, inboxes);
        let expected = attachments
            .iter()
            .map(|attachment| attachment.expected(&self.config, &plan, &devices));
        self.seats.expect(expected.sum());
        let most = usize::from(self.config.memory.programs);
        let is_attached = |attachment: &&Attachment| attachment.is_attached();
        let mut programs = self.attachments.iter().filter(is_attached).count();
        for attachment in &mut self.attachments {
            let before = attachment.is_attached();
            let context = AttachmentContext {
                config: &self.config,
                prefixes: self.shield.prefixes(),
                tier0: &self.tier0,
                plan: &plan,
                devices: &devices,
                inboxes,
                stations: &self.ports.stations,
                is_full: programs >= most,
                now,
            };
            self.is_settled &= attachment.poll(&context, &mut self.seats);
            programs += usize::from(attachment.is_attached() && !before);
        }
        self.give_seats(inboxes);
        self.make_room(inboxes, now);
        self.attachments.iter().for_each(Attachment::show);
        self.ports.log_changes(&self.attachments);
        Some(plan)
    }

    /// True if devices or settings of the kernel may be others than at the last round.
    fn has_changed(&mut self) -> bool {
        let is_other = |(device, was): &(String, bool)| is_strict(device) != *was;
        let has_switched = |was: Forwarding| was != Forwarding::of_routes();
        self.changes.take()
            || self.sources_checked.iter().any(is_other)
            || self.forwarding.is_some_and(has_switched)
            || self.attachments.iter().any(Attachment::has_grown)
    }

    /// What has ceased to be told is a doubt about the config.
    fn follow_forwarding(&mut self, plan: &Plan, devices: &Devices) {
        let asks = self.config.asks_routes(&plan.endpoints, devices);
        let told = asks.then(|| devices.routes_told());
        let was = std::mem::replace(&mut self.forwarding, told);
        let lacked = was.is_some_and(|was| !was.is_whole());
        if lacked && told.is_some_and(Forwarding::is_whole) {
            info!(
                "forwarding is on: the kernel tells the XDP program routes, as route_check needs"
            );
        }
    }

    /// If a port finds no room for sockets, another one that rests gives up its own.
    fn give_seats(&mut self, inboxes: &[Inbox]) {
        if self.attachments.iter().any(Attachment::is_left_out) {
            let seats = &mut self.seats;
            let mut others = self.attachments.iter_mut();
            // The next round uses the room.
            self.is_settled &= !others.any(|other| other.give_seats(seats, inboxes));
        }
    }

    /// Reopens the sockets of workers that are to have more than their UMEM has room for.
    fn make_room(&mut self, inboxes: &[Inbox], now: Instant) {
        let (attachments, seats) = (&mut self.attachments, &mut self.seats);
        let mut is_crowded = false;
        for attachment in attachments.iter_mut() {
            is_crowded |= attachment.make_room(seats, inboxes);
        }
        if !is_crowded {
            return;
        }
        self.is_settled = false;
        let closed = seats.collect(inboxes);
        for attachment in attachments.iter_mut() {
            attachment.forget(&closed);
        }
        for attachment in attachments {
            attachment.open_queues(seats, inboxes, now);
        }
    }

    /// Log of the shield.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// Switches for an operator.
    #[must_use]
    pub fn switches(&self) -> Switches {
        Switches {
            interfaces: self.switched(),
            keys: self.keys.clone(),
        }
    }

    /// Interfaces of the config as an operator switches them: with all their ports.
    fn switched(&self) -> Vec<Switched> {
        let interfaces = self
            .attachments
            .iter()
            .filter(|base| base.place().is_none());
        let switched = |base: &Attachment| Switched {
            interface: base.interface.clone(),
            programs: self.programs_of(&base.interface),
            switch: base.switch().clone(),
        };
        interfaces.map(switched).collect()
    }

    /// Programs of an interface, including those of its ports.
    fn programs_of(&self, interface: &str) -> Vec<SharedProgram> {
        let all = self.attachments.iter();
        let of = all.filter(|attachment| attachment.interface == interface);
        of.map(|attachment| Arc::clone(&attachment.program))
            .collect()
    }

    /// Changes the key for cookies of hosts behind this one, if asked to.
    pub fn change_keys(&mut self) {
        let Some(wanted) = self.keys.take() else {
            return;
        };
        let now = clock::now();
        for attachment in &mut self.attachments {
            let changed = match lock(&attachment.program).as_mut() {
                Some(program) => attachment.programs.guard.change_key(now, program),
                None => Ok(()),
            };
            if let Err(error) = changed {
                attachment.warn_once(error.to_string());
            }
        }
        self.keys.done(wanted);
    }

    /// Once a second: looks after the shield and hot names.
    pub fn guard(&mut self) {
        let now = clock::now();
        self.shield.prefixes().look();
        self.events.look();
        let holds = HOT.holds();
        let mut is_counted = true;
        for attachment in &mut self.attachments {
            if let Some(program) = lock(&attachment.program).as_mut() {
                attachment.programs.look(now, &attachment.name, program);
                is_counted &= attachment.programs.counts_answers(program);
            }
        }
        if is_counted {
            HOT.release(holds);
        }
        self.tier0.look();
        if !self.shield.is_on() && self.config.protects.is_empty() {
            return;
        }
        let (mut seen, mut can_give) = (SynCounts::default(), false);
        for attachment in &mut self.attachments {
            if let Some(program) = lock(&attachment.program).as_ref() {
                let guard = &mut attachment.programs.guard;
                seen += guard.look(program);
                can_give |= guard.can_give();
            }
        }
        let decision = self.shield.look(now, seen, can_give);
        for attachment in &mut self.attachments {
            let told = match lock(&attachment.program).as_mut() {
                Some(program) => attachment.programs.guard.tell(now, decision, program),
                None => Ok(()),
            };
            if let Err(problem) = told {
                attachment.warn_once(problem);
            }
        }
    }

    /// Logs what the config names and is missing, each item once until it comes; also implausible items.
    fn warn_missing(&mut self, plan: &Plan) {
        for fault in self.missing.not_yet(&plan.missing) {
            warn!("{fault}; the rest is served, and this when it comes");
        }
        for doubt in self.doubts.not_yet(&plan.doubts) {
            warn!("{doubt}");
        }
    }

    /// Protection of hosts behind this one, for status and metrics.
    #[must_use]
    pub fn protects(&self) -> Vec<ProtectStatus> {
        let protect = |section: &crate::config::Protect| {
            let interface = section.interface.as_str();
            let attachments = self.attachments.iter();
            let states = attachments.filter(|attachment| attachment.interface == interface);
            let states = states.map(|attachment| attachment.programs.guard.protection());
            let states: Vec<_> = states.collect();
            let is_auto = section.ask == AskWord::Auto;
            let interface = match section.vlan {
                0 => interface.to_owned(),
                vlan => format!("{interface} vlan {vlan}"),
            };
            Some(ProtectStatus {
                interface,
                addresses: section.addresses.iter().map(ToString::to_string).collect(),
                ports: section.ports.clone(),
                // For a bridge, the state is that of its ports with a program.
                why_not: Box::new(move || {
                    let states = states.iter().map(SharedState::get);
                    let mut states = states.filter(|state| *state != Protection::NoProgram);
                    let state = states.next().unwrap_or_default();
                    state.reason(is_auto)
                }),
            })
        };
        self.config.protects.iter().filter_map(protect).collect()
    }

    /// Logs which attachments are without XDP.
    pub fn warn_without_xdp(&self) {
        let mut attachments = self.attachments.iter();
        let is_refused = attachments.any(Attachment::is_refused);
        if self.queues().is_empty() && is_refused {
            warn!("no AF_XDP on any interface: the kernel's sockets serve alone");
        }
    }

    /// Detaches every program: from here on the kernel's sockets serve alone. For the kernel's settings see [`CookieSettings`].
    pub fn stop(&mut self) {
        let now = clock::now();
        for attachment in &mut self.attachments {
            if let Some(program) = lock(&attachment.program).as_ref() {
                let seen = attachment.programs.guard.look(program);
                self.shield.saw(now, seen);
            }
            detach(&attachment.program);
            attachment.programs.end();
        }
    }

    /// Kernel settings that are changed while cookies are given.
    #[must_use]
    pub fn kernel(&self) -> CookieSettings {
        self.shield.kernel()
    }
}

/// Faults that were logged, each kept until it is over.
#[derive(Default)]
struct LoggedFaults(Vec<Fault>);

impl LoggedFaults {
    /// The faults among `errors` that were not logged yet. Remembers all of `errors` as logged.
    fn not_yet<'e>(&mut self, errors: &'e Errors) -> Vec<&'e Fault> {
        let is_same = |one: &Fault, other: &Fault| {
            (&one.key, one.position, &one.problem) == (&other.key, other.position, &other.problem)
        };
        let faults = errors.faults();
        let is_known = |fault: &&Fault| self.0.iter().any(|known| is_same(known, fault));
        let new = faults.iter().filter(|fault| !is_known(fault)).collect();
        self.0 = faults.to_vec();
        new
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
        if self.attachments.iter().any(Attachment::is_attached) {
            info!("XDP programs detached");
        }
    }
}
