//! A program shared by threads: one attaches it, others read its counters or write its maps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{rates, tier0};
use crate::compile::set::PolicySet;
use crate::config::{Device, XdpMode};
use crate::os::xdp::Program;

/// A shared program; `None` while the interface is away.
pub type SharedProgram = Arc<Mutex<Option<Program>>>;

/// Locks even if a thread panicked while it held the lock: a program is valid at every moment.
pub fn lock(program: &SharedProgram) -> MutexGuard<'_, Option<Program>> {
    program.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the programs that this policy is in force: they give no answer of another one.
pub fn show_policy(set: &PolicySet) {
    tier0::show_policy(set);
    rates::show_policy(set);
}

/// Detaches the program. A driver may take long, so the lock is released first and readers of counters do not wait.
pub fn detach(program: &SharedProgram) {
    let taken = lock(program).take();
    drop(taken);
}

/// True if an XDP program on the device is of use, or the config insists on one. Packets on the loopback device come from our
/// own addresses and have no checksums: the program would pass all of them, and slow down local traffic. It knows no frames
/// without MAC addresses either.
pub fn gains_by_xdp(device: &Device, mode: XdpMode) -> bool {
    mode != XdpMode::Auto || (device.mac.is_some() && !is_loopback(device))
}

/// True for the loopback device.
pub fn is_loopback(device: &Device) -> bool {
    device.mac == Some([0; 6])
}
