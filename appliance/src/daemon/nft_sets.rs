//! The thread that adds addresses of answers to sets of nf_tables. It runs only while some name has sets, and ends with the last
//! policy that has these.
//!
//! Workers do not wait for it, since a change of the tables waits for every other: a firewall that loads its rules would stop all
//! answers. So a client may have its answer a fraction of a millisecond before the address is in its set.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use log::{info, warn};
use xdnsd_core::time::Instant;

use super::retry::Retry;
use crate::compile::set::PolicySet;
use crate::os::nf_tables::{
    COUNTS, Filter, FoundAddress, PLACES, SetFault, SetInfo, SetName, SetQueue, SetWork,
};
use crate::os::{capabilities, threads};

/// Pauses before a thread that could not be started is tried again, in milliseconds.
const AGAIN_MS: u64 = 1_000;
const AGAIN_MAX_MS: u64 = 3_600_000;

/// Starts the thread for the sets of the policy in force, once for each choice of sets.
#[derive(Debug, Default)]
pub struct SetThread {
    /// The queue whose thread was started last.
    started: Weak<SetQueue>,
    retry: Retry,
}

impl SetThread {
    /// Starts it if it is missing.
    pub fn look(&mut self, set: &PolicySet, now: Instant) {
        let Some(queue) = set.set_queue() else {
            return;
        };
        let is_started = Weak::ptr_eq(&self.started, &Arc::downgrade(queue));
        if is_started || !self.retry.may_try(now) {
            return;
        }
        let taken = Arc::clone(queue);
        let thread = threads::builder_with_stack("nftset", threads::SETS_STACK_BYTES);
        let spawned = thread.spawn(move || {
            capabilities::keep(capabilities::NETWORK);
            let work = taken.take_work();
            // Or it would wait for itself.
            drop(taken);
            if let Some(work) = work {
                Sets::of(&work).run(&work);
            }
        });
        match spawned {
            Ok(_) => {
                self.started = Arc::downgrade(queue);
                self.retry.succeed();
            }
            Err(error) => {
                self.retry.fail(now, AGAIN_MS, AGAIN_MAX_MS);
                warn!("nftset: no address goes into a set: the thread: {error}");
            }
        }
    }
}

/// A set, and the addresses for it out of those that came together.
struct Filled {
    /// Its number in the queue.
    number: u16,
    name: SetName,
    addresses: Vec<IpAddr>,
    /// Why the latest were not added, as the log has it.
    fault: Option<SetFault>,
}

/// All sets of a policy.
struct Sets(Vec<Filled>);

impl Sets {
    fn of(work: &SetWork) -> Self {
        let numbered = (0..).zip(work.sets.iter());
        let sets = numbered.flat_map(|(number, sets)| {
            sets.iter().map(move |name| Filled {
                number,
                name: name.clone(),
                addresses: Vec::with_capacity(PLACES),
                fault: None,
            })
        });
        Self(sets.collect())
    }

    /// Adds addresses as they come. Those that came meanwhile are added together.
    fn run(&mut self, work: &SetWork) {
        let mut filter = None;
        while let Ok(first) = work.found.recv() {
            let more = work.found.try_iter().take(PLACES - 1);
            for found in [first].into_iter().chain(more) {
                self.sort_in(found);
            }
            let wanting = self.0.iter_mut().filter(|set| !set.addresses.is_empty());
            for set in wanting {
                set.fill(&mut filter);
            }
        }
    }

    fn sort_in(&mut self, found: FoundAddress) {
        let sets = self.0.iter_mut().filter(|set| set.number == found.sets);
        for set in sets.filter(|set| set.name.wants(found.address)) {
            if !set.addresses.contains(&found.address) {
                set.addresses.push(found.address);
            }
        }
    }
}

impl Filled {
    /// Adds its addresses, and logs what changes: a fault once, and when it is over.
    fn fill(&mut self, filter: &mut Option<Filter>) {
        let fault = self.add(filter).err();
        self.addresses.clear();
        if fault == self.fault {
            return;
        }
        let name = &self.name;
        match fault {
            Some(fault) => warn!("nftset: {name}: {fault}; addresses are not added meanwhile"),
            None => info!("nftset: {name}: addresses are added again"),
        }
        self.fault = fault;
    }

    fn add(&mut self, filter: &mut Option<Filter>) -> Result<(), SetFault> {
        let (name, addresses) = (&self.name, &mut self.addresses);
        let found = match find(filter, name) {
            Ok(found) => found,
            Err(fault) => {
                count(&COUNTS.failed, addresses.len());
                return Err(fault);
            }
        };
        let (filter, info) = found;
        addresses.retain(|address| info.takes(*address));
        if addresses.is_empty() {
            return Ok(());
        }
        // A range that overlaps another fails its batch.
        if !info.is_interval && filter.add(name, info, addresses).is_ok() {
            count(&COUNTS.added, addresses.len());
            return Ok(());
        }
        one_by_one(filter, name, info, addresses)
    }
}

/// The packet filter, and what the set is now: whoever makes the rules may have made it anew, as another.
fn find<'f>(
    filter: &'f mut Option<Filter>,
    name: &SetName,
) -> Result<(&'f mut Filter, SetInfo), SetFault> {
    let filter = Filter::opened(filter)?;
    let info = filter.set(name)?;
    Ok((filter, info))
}

/// Adds what can be added. The fault is that of the first one that cannot.
fn one_by_one(
    filter: &mut Filter,
    name: &SetName,
    info: SetInfo,
    addresses: &[IpAddr],
) -> Result<(), SetFault> {
    let mut result = Ok(());
    for address in addresses {
        let added = filter.add(name, info, &[*address]);
        let counter = match added {
            Ok(()) => &COUNTS.added,
            Err(_) => &COUNTS.failed,
        };
        count(counter, 1);
        result = result.and(added);
    }
    result
}

fn count(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
