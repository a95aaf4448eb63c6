//! Zero copy by the queues of an attachment: wanted by the config, decided by each bind.

use log::info;

use super::{Attachment, AttachmentContext};
use crate::config::ZeroCopy;
use crate::daemon::program::lock;
use crate::daemon::seats::{Seated, Seats};
use crate::os::xsk::{BindMode, CopyMode};

/// Number of queues with a socket in zero-copy mode, and of those with a socket.
pub(super) type Found = (usize, usize);

impl Attachment {
    /// True if a bind may try zero copy: a program in generic mode gets no frames from such a queue.
    pub(super) fn wants_zero_copy(&self) -> bool {
        self.zero_copy != ZeroCopy::Off && self.is_native
    }

    /// Mode in which the socket of this seat is bound.
    pub(super) fn bind_mode(&self, seat: Seated) -> BindMode {
        match self.wants_zero_copy() && seat.is_alone {
            true => BindMode::Auto,
            false => BindMode::Copy,
        }
    }

    /// True if the next socket is to have a worker for itself.
    pub(super) fn wants_alone(&self) -> bool {
        let is_copied = self.zero_copy == ZeroCopy::Auto && matches!(self.found(), (0, 1..));
        self.wants_zero_copy() && !is_copied
    }

    /// True while the first queue alone is to be tried.
    pub(super) fn tries_first(&self) -> bool {
        self.zero_copy == ZeroCopy::Auto && self.wants_zero_copy() && self.queues.is_empty()
    }

    /// What the binds resulted in.
    pub(super) fn found(&self) -> Found {
        let modes = || self.queues.iter().filter_map(|queue| queue.mode);
        let shared = modes().filter(|mode| *mode == CopyMode::ZeroCopy);
        (shared.count(), modes().count())
    }

    /// Gives back the workers of queues that are copied after all, and tells what answers in the kernel which queues are not.
    pub(super) fn follow_binds(&mut self, context: &AttachmentContext<'_>, seats: &mut Seats) {
        if !self.wants_zero_copy() {
            return;
        }
        self.share_copied(seats);
        let found = self.found();
        let (shared, all) = found;
        if let Some(program) = lock(&self.program).as_mut() {
            let programs = &mut self.programs;
            programs.follow_binds(context.now, &self.name, program, shared > 0);
        }
        if std::mem::replace(&mut self.told, found) != found {
            info!(
                "{}: zero copy at {shared} of {all} queues with a socket{}",
                self.shown,
                if shared < all {
                    ", the kernel copies at the others"
                } else {
                    ""
                }
            );
        }
    }

    /// Gives back the workers of queues that are copied, unless each queue is to have one.
    pub(super) fn share_copied(&mut self, seats: &mut Seats) {
        if self.zero_copy != ZeroCopy::Auto {
            return;
        }
        for queue in &mut self.queues {
            let is_copied = queue.mode == Some(CopyMode::Copy);
            if is_copied && std::mem::take(&mut queue.seat.is_alone) {
                seats.share(queue.seat.worker);
            }
        }
    }
}
