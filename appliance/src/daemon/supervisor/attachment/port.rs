//! An attachment that is a place for a port of a bridge.

use super::Attachment;
use crate::config::Device;
use crate::daemon::seats::Seats;
use crate::daemon::supervisor::port_terms::PortTerms;
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
        self.place.replace(Some(terms)) != Some(Some(terms))
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
    pub(super) const fn terms(&self) -> Option<PortTerms> {
        match self.place {
            Some(terms) => terms,
            None => None,
        }
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
            "no_seat" => "no AF_XDP socket is left",
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
