//! A program that several threads have: the one that attaches it, those that read its counters and those that tell it something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{rates, tier0};
use crate::compile::set::PolicySet;
use crate::config::{Device, XdpMode};
use crate::os::xdp::Program;

/// A program that others may have a look at; `None` while the interface is away.
pub type SharedProgram = Arc<Mutex<Option<Program>>>;

/// Locks although a thread panicked while it held the lock: a program is valid at every moment.
pub fn lock(program: &SharedProgram) -> MutexGuard<'_, Option<Program>> {
    program.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the programs keep to this policy from now on, and give no answer of another one.
pub fn show_policy(set: &PolicySet) {
    tier0::show_policy(set);
    rates::show_policy(set);
}

/// Detaches the program. That may take a driver long, so nobody who reads its counters waits for it.
pub fn detach(program: &SharedProgram) {
    let taken = lock(program).take();
    drop(taken);
}

/// Whether an XDP program there is of any use, unless the config insists. What comes by the loopback device is from an address
/// of ours, and its checksums are not there: the program would pass all of it, and slow down what this machine says to itself.
/// A device whose frames have no MAC addresses has none that the program knows.
pub fn gains_by_xdp(device: &Device, mode: XdpMode) -> bool {
    mode != XdpMode::Auto || (device.mac.is_some() && !is_loopback(device))
}

/// Whether it is the loopback device.
pub fn is_loopback(device: &Device) -> bool {
    device.mac == Some([0; 6])
}
