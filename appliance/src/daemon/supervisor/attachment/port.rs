//! An attachment that is a place for a port of a bridge.

use log::{info, warn};

use super::Attachment;
use crate::config::Device;
use crate::daemon::seats::Seats;
use crate::daemon::supervisor::port_terms::PortTerms;
use crate::os::ethtool::{self, RxVlanOffload};
use crate::worker::Inbox;

impl Attachment {
    /// A free place for a port of this interface, for the case that it is a bridge.
    pub(in crate::daemon::supervisor) fn new_place(&self) -> Self {
        Self {
            mode: self.mode,
            zero_copy: self.zero_copy,
            has_tagged: self.has_tagged,
            place: Some(None),
            name: String::new(),
            shown: String::new(),
            switch: self.switch.clone(),
            ..Self::bare(&self.interface)
        }
    }

    /// Makes the driver leave VLAN tags in the frames if the config listens on a VLAN. Elsewhere the FIB check finds the frames
    /// to which hidden tags would do harm.
    pub(super) fn show_tags(&mut self) {
        let needs_tags = self.terms().is_some_and(|terms| terms.needs_tags());
        if !self.has_tagged && !needs_tags {
            return;
        }
        self.hides_tags = true;
        match ethtool::turn_off_rx_vlan_offload(&self.name) {
            Ok(RxVlanOffload::Off) => self.hides_tags = false,
            Ok(RxVlanOffload::TurnedOff) => {
                self.hides_tags = false;
                info!(
                    "{}: rx-vlan-offload turned off, it hides VLAN tags from XDP",
                    self.shown
                );
            }
            Ok(RxVlanOffload::StillOn(error)) => warn!(
                "{}: the driver keeps rx-vlan-offload on, the kernel's sockets serve its VLANs: {error}",
                self.shown
            ),
            Err(error) => warn!("{}: rx-vlan-offload: {error}", self.shown),
        }
    }

    /// Of a place: terms of the bridge, if a port has the place. `None` if this is no place.
    pub(in crate::daemon::supervisor) const fn place(&self) -> Option<&Option<PortTerms>> {
        self.place.as_ref()
    }

    /// True if this is a place for a port.
    pub const fn is_place(&self) -> bool {
        self.place.is_some()
    }

    /// True if this is a place that a port has.
    pub(in crate::daemon::supervisor) const fn is_taken(&self) -> bool {
        matches!(self.place, Some(Some(_)))
    }

    /// Gives the place to this port.
    pub(in crate::daemon::supervisor) fn take(&mut self, port: &Device, terms: PortTerms) {
        self.name.clone_from(&port.name);
        self.shown = format!("{}/{}", self.interface, port.name);
        self.place = Some(Some(terms));
        self.refused = None;
        self.retry.succeed();
        self.trouble.clear();
    }

    /// Sets the bridge's terms of the port in this place. True if they have changed.
    pub(in crate::daemon::supervisor) fn set_terms(&mut self, terms: PortTerms) -> bool {
        let is_changed = self.place.as_ref() != Some(&Some(terms.clone()));
        self.place = Some(Some(terms));
        is_changed
    }

    /// Frees the place.
    pub(in crate::daemon::supervisor) fn leave(&mut self, seats: &mut Seats, inboxes: &[Inbox]) {
        if self.ifindex.is_some() {
            self.let_go(seats, inboxes);
        }
        self.place = Some(None);
        self.is_left_out = false;
        self.name.clear();
    }

    /// Of a bridge: sets whether its ports have the program instead.
    pub(in crate::daemon::supervisor) fn give_way(
        &mut self,
        gives_way: bool,
        seats: &mut Seats,
        inboxes: &[Inbox],
    ) {
        if std::mem::replace(&mut self.gives_way, gives_way) != gives_way && self.ifindex.is_some()
        {
            self.let_go(seats, inboxes);
        }
    }

    /// Terms of the bridge, if this is a port with a place.
    pub(super) const fn terms(&self) -> Option<&PortTerms> {
        match &self.place {
            Some(Some(terms)) => Some(terms),
            Some(None) | None => None,
        }
    }

    /// Of a place: notes the VLAN to which frames without a tag belong. True if its sockets were closed, since what they hold
    /// belongs to another one; the next round opens others.
    pub(super) fn changes_vlan(&mut self, seats: &mut Seats, inboxes: &[Inbox]) -> bool {
        let untagged = self.terms().map_or(0, PortTerms::untagged);
        let is_changed = std::mem::replace(&mut self.untagged, untagged) != untagged;
        let changes = is_changed && self.ifindex.is_some();
        if changes {
            self.let_go(seats, inboxes);
        }
        changes
    }

    /// Of a place whose port rests: gives up its sockets for others. True if it had any.
    pub(in crate::daemon::supervisor) fn give_seats(
        &mut self,
        seats: &mut Seats,
        inboxes: &[Inbox],
    ) -> bool {
        let rests = self.terms().is_some_and(|terms| terms.rest().is_some());
        let gives = rests && self.ifindex.is_some();
        if gives {
            self.let_go(seats, inboxes);
        }
        gives
    }

    /// True for a place whose port is to have a program and finds no room for sockets.
    pub(in crate::daemon::supervisor) const fn is_left_out(&self) -> bool {
        self.is_left_out
    }

    /// Why the program of this port serves no queries, in a word. Empty if it does.
    fn why_not(&self) -> &'static str {
        match self.terms().and_then(|terms| terms.rest()) {
            Some(rest) => rest.reason(),
            None if self.is_off => "off",
            None if self.is_left_out => "no_seat",
            None if self.ifindex.is_none() => "no_program",
            None if self.queues.iter().any(|queue| queue.place.is_some()) => "",
            None => "no_socket",
        }
    }

    /// Publishes the state for other threads.
    pub(in crate::daemon::supervisor) fn show(&self) {
        let port = self.is_taken().then(|| (self.name.clone(), self.why_not()));
        self.port.set(port);
    }

    /// Describes what serves the port.
    pub(in crate::daemon::supervisor) fn sentence(&self) -> String {
        let name = &self.name;
        let why = match self.why_not() {
            "" => return format!("{name} {}", self.attached),
            "off" => "switched off",
            "no_seat" => "no AF_XDP socket or XDP program is left",
            "no_program" => "it cannot have the program",
            "no_socket" => "no AF_XDP socket",
            _ => match self.terms().and_then(|terms| terms.rest()) {
                Some(rest) => rest.words(),
                None => "",
            },
        };
        format!("{name} by the kernel's sockets, {why}")
    }

    /// True for a place without a port.
    pub(super) const fn is_free(&self) -> bool {
        matches!(self.place, Some(None))
    }
}
