//! Limits per client kept by the XDP programs: the accounts in the kernel, and on each interface whether a program looks into them,
//! and answers by itself.
//!
//! Wherever one does not, user space keeps the limits alone: nothing depends on it but what a flood costs.

use std::sync::{Mutex, PoisonError};

use log::warn;
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::compile::set::PolicySet;
use crate::os::xdp::{AccountsMap, Program};
use crate::store::{HOT, rates};
use crate::worker::PolicySource as _;

/// A program that was refused is tried again after this time, in milliseconds, and later each time.
const AGAIN_MS: u64 = 60_000;
/// The longest of these pauses.
const AGAIN_MAX_MS: u64 = 3_600_000;

/// The accounts in the kernel, made when the first interface needs them.
static ACCOUNTS: Mutex<Option<AccountsMap>> = Mutex::new(None);

/// Has the programs keep to this policy from now on.
pub fn show_policy(set: &PolicySet) {
    let on_link = set.policy().on_link;
    let were_kept = are_kept();
    let mut limits = set.settings().rates;
    if set.has_views_by_device() {
        // The program for hot names knows nobody then, and all would share the rate.
        limits.newcomers = 0;
    }
    rates::set_policy(&limits, on_link.networks());
    if are_kept() && !were_kept {
        // Until the programs count them.
        HOT.hold();
    }
}

/// Whether queries are limited.
#[must_use]
pub fn are_kept() -> bool {
    rates::are_queries_limited()
}

/// Limits on one interface.
#[derive(Debug, Default)]
pub struct InterfaceLimits {
    /// The program looks into the accounts.
    is_on: bool,
    /// When one that was refused is tried again.
    refused: Retry,
    /// It answers by itself.
    answers: bool,
}

impl InterfaceLimits {
    /// Whether the program gives no hot answer that is not counted.
    #[must_use]
    pub fn counts_answers(&self, program: &Program) -> bool {
        self.is_on || !are_kept() || !program.asks_for_hot()
    }

    /// The program is gone.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// Once a second: has the program do what the policy in force wants, and answer by itself where answers leave.
    pub fn look(&mut self, now: Instant, interface: &str, program: &mut Program, answers: bool) {
        rates::refresh();
        let is_wanted = are_kept();
        if is_wanted != self.is_on {
            if is_wanted && !self.refused.may_try(now) {
                return;
            }
            if let Err(problem) = turn(is_wanted, program) {
                self.refused.fail(now, AGAIN_MS, AGAIN_MAX_MS);
                warn!("{interface}: limits per client are kept by user space alone: {problem}");
                return;
            }
            self.is_on = is_wanted;
        }
        if self.is_on && answers != self.answers && program.set_limits_answer(answers).is_ok() {
            self.answers = answers;
        }
    }
}

/// Has the program look into the accounts, or not any more.
fn turn(is_on: bool, program: &mut Program) -> Result<(), String> {
    let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    if is_on && accounts.is_none() {
        let (map, words) = AccountsMap::new().map_err(|error| error.to_string())?;
        rates::share(words);
        *accounts = Some(map);
    }
    let turned = program.set_limits(accounts.as_ref().filter(|_| is_on));
    turned.map_err(|error| error.to_string())
}
