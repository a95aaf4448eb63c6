//! One device with an XDP program: it comes and goes, its RX queues get sockets of workers, and the program is told which
//! destinations are ours.
//!
//! The device is an interface of the config, or a port of one that is a bridge (`port.rs`).

mod port;
mod wanted;
mod zero_copy;

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use log::{debug, info, warn};
use nix::errno::Errno;
use xdnsd_abi::GUARDED_MAX;
use xdnsd_core::time::Instant;

use crate::config::{Config, Device, Devices, Interface, Plan, XdpMode, ZeroCopy};
use crate::daemon::destinations::{guarded_entries, is_served, listen_entries, protected_entries};
use crate::daemon::interface_programs::{InterfacePrograms, WantedPrograms};
use crate::daemon::program::{SharedProgram, detach, gains_by_xdp, is_loopback, lock};
use crate::daemon::queues;
use crate::daemon::retry::Retry;
use crate::daemon::seats::{Seated, Seats};
use crate::daemon::shield::{Prefixes, ShieldSettings};
use crate::daemon::switches::Switch;
use crate::daemon::tier0::Tier0;
use crate::os::clock;
use crate::os::device;
use crate::os::grace;
use crate::os::xdp;
use crate::os::xsk::{CopyMode, Options};
use crate::worker::engines::SOCKET_STATS;
use crate::worker::{Inbox, QueueName, XskPort};

use super::port_terms::{PortTerms, ShownPort, StationTable};

/// First pause after an interface refused the program, in milliseconds: to load it takes a slow processor long, and most
/// obstacles stay.
const REFUSED_MS: u64 = 60_000;
/// Longest pause, in milliseconds.
const REFUSED_MAX_MS: u64 = 3_600_000;
/// First pause while another program is attached, in milliseconds: shorter, since a replaced process is about to end, or was
/// killed and its program is still being removed.
const TAKEN_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
const TAKEN_MAX_MS: u64 = 600_000;
/// First pause before a queue without a socket is tried again, in milliseconds.
const QUEUE_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
const QUEUE_MAX_MS: u64 = 60_000;

/// One device with an XDP program.
pub struct Attachment {
    /// Name of the device.
    pub name: String,
    /// Interface of the config that it serves: the device itself, or the bridge that it is a port of.
    pub interface: String,
    /// Name in the log and in metrics: `lan0`, `br-lan/lan1`.
    shown: String,
    /// `Some` for a place for a port: the terms of its bridge, or `None` within if the place is free.
    place: Option<Option<PortTerms>>,
    /// The place, for other threads.
    pub port: ShownPort,
    /// True for a bridge whose ports have the program.
    gives_way: bool,
    /// True for a place whose port finds no room for sockets.
    is_left_out: bool,
    /// Mode in which the program is attached.
    attached: String,
    /// True if that is in the driver.
    is_native: bool,
    /// True if the driver moves VLAN tags out of the frames.
    hides_tags: bool,
    /// VLAN to which its sockets' frames without a tag belong, see [`XskPort::vlan`].
    untagged: u16,
    /// The program.
    pub program: SharedProgram,
    /// Index of the interface when the program was attached; `None` while it is away.
    ifindex: Option<u32>,
    /// Index of the interface that refused the program.
    refused: Option<u32>,
    /// When an interface that refused the program or lost its sockets is tried again.
    retry: Retry,
    mode: XdpMode,
    zero_copy: ZeroCopy,
    /// What the log says of zero copy.
    told: zero_copy::Found,
    /// True if the config listens on a VLAN of the device.
    pub(super) has_tagged: bool,
    /// RX queues that have a worker, from 0 on.
    queues: Vec<Queue>,
    /// Number of queues that can have a socket, and number of queues that cannot.
    countable: (u32, u32),
    /// What the program answers by itself.
    pub programs: InterfacePrograms,
    /// The operator's switch; below, whether it was followed.
    switch: Switch,
    is_off: bool,
    /// Last problem that was logged, so that it is logged once.
    trouble: String,
}

/// An RX queue that a worker serves, or is to serve.
struct Queue {
    number: u32,
    seat: Seated,
    /// Place of its socket among all, once it was handed to the worker.
    place: Option<usize>,
    /// Mode of its last socket.
    mode: Option<CopyMode>,
    retry: Retry,
    /// Last problem that was logged.
    trouble: String,
}

/// State of the machine and the config that an attachment reads.
pub(super) struct AttachmentContext<'a> {
    pub config: &'a Config,
    pub prefixes: &'a Prefixes,
    pub tier0: &'a Tier0,
    pub plan: &'a Plan,
    pub devices: &'a Devices,
    pub inboxes: &'a [Inbox],
    pub stations: &'a StationTable,
    /// True if no further program may be attached (`memory.programs`).
    pub is_full: bool,
    pub now: Instant,
}

impl Attachment {
    pub(super) fn new(interface: &Interface) -> Self {
        Self {
            mode: interface.xdp,
            zero_copy: interface.zero_copy,
            ..Self::bare(interface.name.as_str())
        }
    }

    /// An attachment of an interface that is not served.
    pub(super) fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            interface: name.to_owned(),
            shown: name.to_owned(),
            place: None,
            port: ShownPort::default(),
            gives_way: false,
            is_left_out: false,
            attached: String::new(),
            is_native: false,
            hides_tags: false,
            untagged: 0,
            program: Arc::new(Mutex::new(None)),
            ifindex: None,
            refused: None,
            retry: Retry::default(),
            mode: XdpMode::Auto,
            zero_copy: ZeroCopy::Off,
            told: (0, 0),
            has_tagged: false,
            queues: Vec::new(),
            countable: (0, 0),
            programs: InterfacePrograms::default(),
            switch: Switch::default(),
            is_off: false,
            trouble: String::new(),
        }
    }

    /// The operator's switch.
    pub(super) const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Mode in which the program is to be attached.
    pub(super) const fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Follows the operator's switch. True if it had changed.
    pub(super) fn follow_switch(&mut self, seats: &mut Seats, inboxes: &[Inbox]) -> bool {
        let is_off = self.switch.is_off();
        if std::mem::replace(&mut self.is_off, is_off) == is_off {
            return false;
        }
        if !is_off {
            // The operator's order overrides an earlier refusal.
            self.refused = None;
            self.retry.succeed();
        } else if self.ifindex.is_some() {
            self.let_go(seats, inboxes);
            info!(
                "{}: XDP program detached by xdnsd shield detach, until xdnsd shield attach; the kernel's sockets serve",
                self.shown
            );
        }
        true
    }

    /// Queues with a socket, each with its worker.
    pub(super) fn served(&self) -> impl Iterator<Item = (usize, QueueName)> {
        self.queues.iter().map(|queue| {
            let name = QueueName {
                interface: self.shown.clone(),
                queue: queue.number,
            };
            (queue.seat.worker, name)
        })
    }

    /// True if the interface refused the program.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// True if the program is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.ifindex.is_some()
    }

    /// Loads and attaches the program, set up as `wanted`.
    fn attach(&mut self, wanted: &WantedPrograms<'_>) {
        let ifindex = match device::index(self.name.as_str()) {
            Ok(ifindex) => ifindex,
            Err(Errno::ENODEV) => return,
            // It is there, and cannot be asked for.
            Err(errno) => return self.warn_once(format!("no XDP: {}", errno.desc())),
        };
        let mode = match self.mode {
            XdpMode::Native => xdp::AttachMode::Native,
            XdpMode::Generic => xdp::AttachMode::Generic,
            XdpMode::Auto | XdpMode::Off => xdp::AttachMode::Auto,
        };
        match wanted.tier0.load_program().and_then(|mut program| {
            let attached = program.attach(&self.name, mode)?;
            Ok((program, attached))
        }) {
            Ok((mut program, attached)) => {
                info!("{}: XDP program attached, mode {attached}", self.shown);
                if let xdp::Attached::GenericInstead(error) = &attached {
                    debug!("{}: not native: {error}", self.shown);
                }
                self.attached = attached.to_string();
                self.is_native = matches!(attached, xdp::Attached::Native);
                let programs = &mut self.programs;
                let guarded = programs.begin(&self.name, &mut program, &attached, wanted);
                *lock(&self.program) = Some(program);
                self.ifindex = Some(ifindex);
                if self.refused.take().is_some() {
                    self.retry.succeed();
                }
                self.trouble.clear();
                if let Err(problem) = guarded {
                    self.warn_once(problem);
                }
                self.show_tags();
            }
            Err(error) => {
                self.refused = Some(ifindex);
                let (first_ms, max_ms) = if error.is_place_taken() {
                    (TAKEN_MS, TAKEN_MAX_MS)
                } else {
                    (REFUSED_MS, REFUSED_MAX_MS)
                };
                self.retry.fail(wanted.now, first_ms, max_ms);
                let open = match wanted.guard.protects() {
                    true => "; hosts behind it are not protected, all to them passes",
                    false => "",
                };
                let why = error.plain();
                self.warn_once(format!("no XDP, the kernel's sockets serve: {why}{open}"));
                debug!("{}: no XDP: {error}", self.shown);
            }
        }
    }

    /// Number of its RX queues that can have a socket, and number of all. A socket sends on the TX queue of its own number. If
    /// there is none, the kernel accepts the frame and drops it (xsk_generic_xmit), so the XDP program passes what arrives on
    /// that RX queue.
    fn count(&self) -> (u32, u32) {
        let (rx_queues, tx_queues) = queues::count(&self.name).unwrap_or((1, 1));
        (
            rx_queues.min(tx_queues).min(xdnsd_abi::QUEUES_MAX),
            rx_queues,
        )
    }

    /// Number of sockets that it has, or would have now.
    pub(super) fn expected(&self, config: &Config, plan: &Plan, devices: &Devices) -> usize {
        let device = devices.named(&self.name);
        let rests = self.terms().is_some_and(|terms| terms.rest().is_some());
        let gives_way = self.gives_way || rests;
        let is_used = |device: &&Device| {
            !gives_way
                && is_served(&self.interface, config, plan)
                && gains_by_xdp(device, self.mode)
        };
        match device.filter(is_used).map(|_| self.count()) {
            Some((count, _)) => count as usize,
            None => self.queues.len(),
        }
    }

    /// Assigns a worker to each RX queue without one, while there is room for sockets.
    fn assign(&mut self, seats: &mut Seats) {
        let (count, rx_queues) = self.count();
        let (old_count, old_left) = self.countable;
        if count < rx_queues && count != old_count {
            info!(
                "{}: {count} of {rx_queues} RX queues can have an AF_XDP socket, the kernel's sockets serve the others",
                self.shown
            );
        }
        let last = count.min(if self.tries_first() { 1 } else { count });
        for number in self.queues.len() as u32..last {
            let Some(seat) = seats.take(self.wants_alone()) else {
                break;
            };
            self.queues.push(Queue {
                number,
                seat,
                place: None,
                mode: None,
                retry: Retry::default(),
                trouble: String::new(),
            });
        }
        let left = last.saturating_sub(self.queues.len() as u32);
        if left > 0 && left != old_left {
            warn!(
                "{}: {left} of {count} RX queues have no socket, the kernel's sockets serve them; \
                 capacity: {} sockets",
                self.shown,
                seats.capacity()
            );
        }
        self.countable = (count, left);
    }

    /// True if queues were added: there is no notification of `ethtool -L`, which refuses to remove queues in use.
    pub(super) fn has_grown(&self) -> bool {
        let (count, _) = self.countable;
        self.ifindex.is_some() && count < xdnsd_abi::QUEUES_MAX && queues::has(&self.name, count)
    }

    /// Opens missing sockets, except those that wait for their next attempt or for the worker to return others.
    pub(super) fn open_queues(&mut self, seats: &mut Seats, inboxes: &[Inbox], now: Instant) {
        for index in 0..self.queues.len() {
            let Queue {
                number,
                seat,
                place,
                retry,
                ..
            } = self.queues[index];
            if place.is_some() || !retry.may_try(now) || seats.is_crowded(seat.worker) {
                continue;
            }
            let opened = self.open_queue(number, seat, seats, &inboxes[seat.worker]);
            let queue = &mut self.queues[index];
            match opened {
                Ok((mode, place)) => {
                    info!("{} queue {number}: AF_XDP socket, {mode} mode", self.shown);
                    (queue.place, queue.mode) = (Some(place), Some(mode));
                    queue.trouble.clear();
                }
                Err(problem) => {
                    queue.retry.fail(now, QUEUE_MS, QUEUE_MAX_MS);
                    if queue.trouble != problem {
                        warn!(
                            "{} queue {number} has no AF_XDP, the kernel's sockets serve it: {problem}",
                            self.shown
                        );
                        queue.trouble = problem;
                    }
                }
            }
        }
    }

    /// Opens the socket of one queue and hands it to its worker. Returns its mode and its place.
    fn open_queue(
        &self,
        queue: u32,
        seat: Seated,
        seats: &mut Seats,
        inbox: &Inbox,
    ) -> Result<(CopyMode, usize), String> {
        let options = Options {
            interface: &self.name,
            queue,
            mode: self.bind_mode(seat),
        };
        let (xsk, place) = seats.open(seat.worker, &options, &self.shown)?;
        let mut program = lock(&self.program);
        let redirected = program.as_mut().ok_or("its program is gone".to_owned());
        let redirected = redirected.and_then(|program| {
            let told = |error: xdp::Error| error.to_string();
            let heartbeat = program.heartbeat(queue).map_err(told)?;
            heartbeat.beat(clock::monotonic_ns());
            program.set_socket(queue, xsk.as_fd()).map_err(told)?;
            Ok(heartbeat)
        });
        let heartbeat = match redirected {
            Ok(heartbeat) => heartbeat,
            Err(problem) => {
                seats.close(seat.worker, place, xsk, inbox);
                return Err(problem);
            }
        };
        let mode = xsk.mode();
        let port = XskPort {
            xsk,
            heartbeat,
            place,
            stats: &SOCKET_STATS[place],
            device: device::index(self.interface.as_str()).unwrap_or(0),
            vlan: self.untagged,
            pool: None,
        };
        seats.hand_over(seat.worker, port, inbox)?;
        Ok((mode, place))
    }

    /// Calls back the sockets of workers that are to have more than their UMEM has room for: they are opened anew. Meanwhile
    /// the kernel's sockets serve their queues. True if there were any.
    pub(super) fn make_room(&mut self, seats: &mut Seats, inboxes: &[Inbox]) -> bool {
        let mut called = Vec::new();
        for queue in &self.queues {
            let Some(place) = queue.place.filter(|_| seats.is_crowded(queue.seat.worker)) else {
                continue;
            };
            if let Some(program) = lock(&self.program).as_mut()
                && let Err(error) = program.clear_socket(queue.number)
            {
                debug!("{} queue {}: {error}", self.name, queue.number);
            }
            called.push((queue.seat.worker, place));
        }
        if called.is_empty() {
            return false;
        }
        // Frames that were redirected before are in the RX rings then.
        grace::wait_for_programs();
        for (worker, place) in called {
            seats.call_back(worker, place, &inboxes[worker]);
        }
        true
    }

    /// Notes that the sockets at these places were closed, so that they are opened anew.
    pub(super) fn forget(&mut self, places: &[usize]) {
        for queue in &mut self.queues {
            queue.place.take_if(|place| places.contains(place));
        }
    }

    /// Tells the program which destinations are ours. True if it was told all of them.
    fn listen(&mut self, context: &AttachmentContext<'_>) -> bool {
        let mut wanted = listen_entries(
            &self.interface,
            context.config,
            context.plan,
            context.devices,
        );
        // Listing only what fits also removes destinations that are no longer ours.
        let most = usize::from(context.config.memory.addresses);
        if wanted.len() > most {
            self.warn_once(format!(
                "capacity: {most} addresses over AF_XDP (memory.addresses); the kernel's sockets alone serve {}",
                wanted.len() - most
            ));
            wanted.truncate(most);
        }
        let by_port = self.terms().cloned().zip(self.ifindex);
        let mut others = Vec::new();
        if let Some((terms, port)) = &by_port {
            others = terms.move_listen(&mut wanted, *port, self.hides_tags);
        }
        let (guarded, left) = guarded_entries(&wanted, &context.config.shield);
        if left > 0 {
            self.warn_once(format!(
                "capacity: {GUARDED_MAX} guarded ports; the kernel answers SYNs to {left}"
            ));
        }
        let mut protected = protected_entries(&self.interface, context.config, context.devices);
        if let Some((terms, port)) = &by_port {
            terms.move_protected(&mut protected, *port, self.hides_tags);
        }
        let own = wanted.iter().map(|ours| (ours.listen, ours.check));
        // Those without room are counted as foreign.
        let checks: Vec<_> = own.chain(others).take(most).collect();
        let set = match lock(&self.program).as_mut() {
            Some(program) => by_port
                .map_or(Ok(()), |(terms, _)| terms.tell(context.stations, program))
                .and_then(|()| program.set_listen(&checks))
                .and_then(|()| program.set_guarded(&guarded))
                .and_then(|()| program.set_protected(&protected))
                .map_err(|error| error.to_string()),
            None => Ok(()),
        };
        let is_set = set.is_ok();
        if let Err(problem) = set {
            self.warn_once(problem);
        }
        is_set
    }

    /// Detaches from an interface that was deleted, also if another has its name by now, or whose sockets at the `lost` places
    /// were closed.
    pub(super) fn notice_loss(
        &mut self,
        now: Instant,
        lost: &[usize],
        seats: &mut Seats,
        inboxes: &[Inbox],
    ) {
        if self.ifindex.is_none() {
            return;
        }
        let is_gone = match device::index(self.name.as_str()) {
            Ok(index) => Some(index) != self.ifindex,
            // Any other error says nothing about the interface: the question takes a descriptor.
            Err(errno) => errno == Errno::ENODEV,
        };
        let is_closed = |queue: &Queue| queue.place.is_some_and(|place| lost.contains(&place));
        if !is_gone && !self.queues.iter().any(is_closed) {
            return;
        }
        self.let_go(seats, inboxes);
        if is_gone {
            self.retry.succeed();
            self.warn_once("the interface is gone".into());
        } else {
            self.retry.fail(now, QUEUE_MS, QUEUE_MAX_MS);
            self.warn_once(
                "a socket was lost, the kernel's sockets serve until it is opened anew".into(),
            );
        }
    }

    /// Detaches the program and calls back the sockets.
    fn let_go(&mut self, seats: &mut Seats, inboxes: &[Inbox]) {
        self.ifindex = None;
        detach(&self.program);
        self.programs.end();
        (self.countable, self.told) = ((0, 0), (0, 0));
        for queue in self.queues.drain(..) {
            let worker = queue.seat.worker;
            if let Some(place) = queue.place {
                seats.call_back(worker, place, &inboxes[worker]);
            }
            seats.leave(worker);
        }
    }

    /// Looks after the attachment. True if there is nothing more to do until something changes or is due.
    pub(super) fn poll(&mut self, context: &AttachmentContext<'_>, seats: &mut Seats) -> bool {
        self.is_left_out = false;
        if self.changes_vlan(seats, context.inboxes) {
            return false;
        }
        if self.ifindex.is_some() {
            if self.terms().is_some_and(PortTerms::needs_tags) {
                self.show_tags();
            }
            self.serve(context, seats);
            return self.listen(context);
        }
        if self.is_off || self.gives_way || self.is_free() {
            return true;
        }
        let Some(device) = self.wanted(context) else {
            self.refused = None;
            self.retry.succeed();
            return true;
        };
        // Another interface of this name has refused nothing.
        let is_other = self.refused.is_some_and(|refused| refused != device.index);
        if !is_other && !self.retry.may_try(context.now) {
            return true;
        }
        if let Some(terms) = self.terms() {
            // The bridge has no program there until the port forwards.
            if terms.rest().is_some() {
                return true;
            }
            let is_served = is_served(&self.interface, context.config, context.plan);
            self.is_left_out = is_served && (seats.is_full() || context.is_full);
            if self.is_left_out {
                return true;
            }
        }
        if self.is_beyond_room(context) {
            return true;
        }
        let wanted = ShieldSettings::of(
            &context.config.shield,
            context.prefixes,
            is_loopback(device),
        );
        let protects = context.config.protects_on(&self.interface);
        let orders = WantedPrograms {
            guard: &wanted.protecting(protects, context.config.asks_in_floods_on(&self.interface)),
            tier0: context.tier0,
            zero_copy: self.zero_copy != ZeroCopy::Off,
            now: context.now,
        };
        self.attach(&orders);
        if self.ifindex.is_some() {
            self.serve(context, seats);
            self.listen(context);
        }
        false
    }

    /// Assigns workers to the queues, if anything is served on the device.
    fn serve(&mut self, context: &AttachmentContext<'_>, seats: &mut Seats) {
        if is_served(&self.interface, context.config, context.plan) {
            // A second time for the other queues, once it is known what the first one's driver does.
            for _ in 0..=usize::from(self.tries_first()) {
                self.assign(seats);
                self.open_queues(seats, context.inboxes, context.now);
                self.follow_binds(context, seats);
            }
        }
    }

    /// True if something that failed is due for another attempt.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_queue_due = |queue: &Queue| queue.place.is_none() && queue.retry.is_due(now);
        match self.ifindex {
            Some(_) => self.queues.iter().any(is_queue_due),
            None => !self.is_off && self.retry.is_due(now),
        }
    }

    /// Logs a problem once, not every second.
    pub(super) fn warn_once(&mut self, trouble: String) {
        if self.trouble != trouble {
            warn!("{}: {trouble}", self.shown);
            self.trouble = trouble;
        }
    }
}

#[cfg(test)]
mod tests;
