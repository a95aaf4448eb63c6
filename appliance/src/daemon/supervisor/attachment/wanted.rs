//! Whether a device is to have a program.

use log::info;

use super::{Attachment, AttachmentContext};
use crate::config::Device;
use crate::daemon::destinations::is_served;
use crate::daemon::program::{gains_by_xdp, is_loopback};

impl Attachment {
    /// The device, if something is served or protected there and a program is of use.
    pub(super) fn wanted<'d>(&mut self, context: &AttachmentContext<'d>) -> Option<&'d Device> {
        let device = context.devices.named(&self.name)?;
        // Packets from a port belong to the device that has it.
        let is_own = device.port_of.is_none() || self.is_taken();
        let protects = context.config.protects_on(&self.interface) && is_own;
        if !protects && !is_served(&self.interface, context.config, context.plan) {
            return None;
        }
        if !gains_by_xdp(device, self.mode) {
            self.note_useless(device);
            return None;
        }
        Some(device)
    }

    /// True if there are as many programs as there may be, which is logged once.
    pub(super) fn is_beyond_room(&mut self, context: &AttachmentContext<'_>) -> bool {
        if context.is_full {
            let most = context.config.memory.programs;
            self.warn_once(format!(
                "capacity: {most} XDP programs (memory.programs); the kernel's sockets serve"
            ));
        }
        context.is_full
    }

    /// Logs once that a program is of no use on the device.
    fn note_useless(&mut self, device: &Device) {
        let why = match is_loopback(device) {
            true => "all of it comes from this machine",
            false => "its packets are in no Ethernet frames",
        };
        if self.trouble != why {
            info!(
                "{}: no XDP program, the kernel's sockets serve: {why}",
                self.shown
            );
            why.clone_into(&mut self.trouble);
        }
    }
}
