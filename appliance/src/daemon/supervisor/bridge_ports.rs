//! Ports of bridges: assigns them to places, so that a program can be attached there.
//!
//! The config names the bridge. An [`Attachment`] of a place works like one of an interface, except that ports come and go, and
//! that a port may leave all frames to its bridge. All places exist from the start on, so that metrics, switches and the
//! shield's log have them all.

use log::{info, warn};

use super::attachment::Attachment;
use super::port_terms::{PortTerms, StationTable};
use crate::config::{Config, Devices, Member, XdpMode};
use crate::daemon::seats::Seats;
use crate::worker::Inbox;

/// Places of each bridge. The kernel's sockets serve packets from further ports.
pub const PLACES: usize = 8;

/// State of the bridges' ports that was logged.
#[derive(Default)]
pub struct BridgePorts {
    pub stations: StationTable,
    /// Description of what serves the ports of each interface.
    said: Vec<(String, String)>,
    /// Interfaces with more ports than places, and the number of their ports.
    crowded: Vec<(String, usize)>,
}

impl BridgePorts {
    /// Gives places to the ports of each bridge, and frees those of former ports. The interface of the config itself has no
    /// program while it has ports that may have one.
    pub(super) fn follow(
        &mut self,
        attachments: &mut [Attachment],
        (config, devices): (&Config, &Devices),
        seats: &mut Seats,
        inboxes: &[Inbox],
    ) {
        let mut is_changed = false;
        for index in 0..attachments.len() {
            if attachments[index].place().is_some() {
                continue;
            }
            let interface = attachments[index].interface.clone();
            // Generic mode has no gain at ports: one program on the bridge serves as well.
            let members: Vec<Member<'_>> = match attachments[index].mode() {
                XdpMode::Auto | XdpMode::Native => devices.members(&interface).collect(),
                XdpMode::Generic | XdpMode::Off => Vec::new(),
            };
            let vlans = config.vlans_of(&interface);
            attachments[index].give_way(!members.is_empty(), seats, inboxes);
            let is_of = |attachment: &&mut Attachment| {
                attachment.place().is_some() && attachment.interface == interface
            };
            let mut left = Vec::new();
            for member in &members {
                let mut places = attachments.iter_mut().filter(is_of);
                match places.find(|place| place.name == member.device.name) {
                    Some(place) => is_changed |= place.set_terms(PortTerms::of(member, &vlans)),
                    None => left.push(member),
                }
            }
            let is_member = |name: &str| members.iter().any(|member| member.device.name == name);
            for place in attachments.iter_mut().filter(is_of) {
                if place.is_taken() && !is_member(&place.name) {
                    place.leave(seats, inboxes);
                    is_changed = true;
                }
            }
            let mut free = attachments.iter_mut().filter(is_of);
            let mut free = free.by_ref().filter(|place| !place.is_taken());
            left.retain(|member| match free.next() {
                Some(place) => {
                    place.take(member.device, PortTerms::of(member, &vlans));
                    false
                }
                None => true,
            });
            self.warn_crowded(&interface, left.len());
        }
        if is_changed {
            self.stations.forget_all();
        }
    }

    fn warn_crowded(&mut self, interface: &str, left: usize) {
        let of = (interface.to_owned(), left);
        if self.crowded.contains(&of) {
            return;
        }
        self.crowded.retain(|(other, _)| other != interface);
        if left > 0 {
            warn!(
                "{interface}: capacity: XDP on {PLACES} ports; the kernel's sockets serve {left} more"
            );
            self.crowded.push(of);
        }
    }

    /// Logs what serves each port, if that has changed.
    pub(super) fn log_changes(&mut self, attachments: &[Attachment]) {
        let bases = attachments.iter().filter(|other| other.place().is_none());
        for base in bases {
            let places = attachments.iter().filter(|place| {
                place.interface == base.interface && place.place().is_some() && place.is_taken()
            });
            let ports: Vec<String> = places.map(Attachment::sentence).collect();
            let line = ports.join("; ");
            let known = self
                .said
                .iter_mut()
                .find(|(name, _)| *name == base.interface);
            match known {
                Some((_, said)) if *said == line => continue,
                Some((_, said)) => said.clone_from(&line),
                None if line.is_empty() => continue,
                None => self.said.push((base.interface.clone(), line.clone())),
            }
            match line.as_str() {
                "" => info!("{}: it has no ports", base.interface),
                line => info!("{}: served by its ports: {line}", base.interface),
            }
        }
    }
}
