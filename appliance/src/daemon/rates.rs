//! Limits per client kept by the XDP programs: the accounts in the kernel, and for each interface whether its program looks
//! into them and answers itself.
//!
//! Elsewhere user space keeps the limits alone: the same answers, at a higher cost in a flood.

use std::sync::{Mutex, PoisonError};

use log::warn;
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::compile::set::PolicySet;
use crate::os::xdp::{AccountsMap, Program};
use crate::store::{HOT, rates};
use crate::worker::PolicySource as _;

/// First pause before a refused program is tried again, in milliseconds.
const AGAIN_MS: u64 = 60_000;
/// Longest pause, in milliseconds.
const AGAIN_MAX_MS: u64 = 3_600_000;

/// Accounts in the kernel, made when the first interface needs them.
static ACCOUNTS: Mutex<Option<AccountsMap>> = Mutex::new(None);

/// Tells the programs that this policy is in force.
pub fn show_policy(set: &PolicySet) {
    let on_link = set.policy().on_link;
    let were_kept = are_kept();
    let mut limits = set.settings().rates;
    if set.has_views_by_device() {
        // The program for hot names knows no clients then, and all would share the rate.
        limits.newcomers = 0;
    }
    rates::set_policy(&limits, on_link.networks());
    if are_kept() && !were_kept {
        // Hot answers wait until the programs count them.
        HOT.hold();
    }
}

/// True if queries are limited.
#[must_use]
pub fn are_kept() -> bool {
    rates::are_queries_limited()
}

/// Limits on one interface.
#[derive(Debug, Default)]
pub struct InterfaceLimits {
    /// True if the program looks into the accounts.
    is_on: bool,
    /// When a refused program is tried again.
    refused: Retry,
    /// True if the program answers by itself.
    answers: bool,
}

impl InterfaceLimits {
    /// True unless limits are kept and the program gives hot answers without counting them.
    #[must_use]
    pub fn counts_answers(&self, program: &Program) -> bool {
        self.is_on || !are_kept() || !program.asks_for_hot()
    }

    /// The program was detached.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// Once a second: makes the program do what the policy in force wants, and answer by itself if answers leave.
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

/// Switches the program's use of the accounts.
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
