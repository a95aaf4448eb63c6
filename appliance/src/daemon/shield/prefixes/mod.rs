//! Prefixes that the XDP programs deny: those of the config and its files, and those set by an operator since the start. Clients
//! whose queries they drop, as `access` says.
//!
//! Each of both is one trie in the kernel, which the programs of all interfaces use while they run. A new list is written step by
//! step, in an order in which every address has, at every moment, the verdict of the old list or of the new one: first the new
//! entries, the longest prefix first; then the rest of the old list is removed, the shortest first.
//!
//! ```text
//!  old: deny 10/8, allow 10.1/16      new: deny 10.1.2/24
//!  + deny 10.1.2/24                   its addresses: as in the new list; all others: as in the old one
//!  - deny 10/8                        10.2.0.0: as in the new list; 10.1.0.0: allowed, by the old one
//!  - allow 10.1/16                    all: as in the new list
//! ```
//! If both lists together do not fit the trie, the rest of the old one is removed first.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{info, warn};
use xdnsd_abi::{ACCESS_DROP_MAX, PREFIXES_MAX, PREFIXES_ROOM, trie, verdict};
use xdnsd_core::time::Instant;

use crate::compile::prefix::Prefix;
use crate::compile::prefix_list::{self, PrefixFile, PrefixInput, Rule, Sources, Verdict};
use crate::control::shield::{Listed, PrefixControl};
use crate::daemon::program::{SharedProgram, lock};
use crate::os::clock;
use crate::os::xdp::{Error, PrefixBits, Program, Trie};

/// Denied prefixes, shared by threads: the one that reads the config, the one that attaches programs, and control's.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Verdicts set by an operator since the start, each prefix once.
    said: Vec<Override>,
    /// Made on first use.
    trie: Option<Trie>,
    /// Counts of its entries with a verdict.
    counts: Counts,
    /// Clients that are dropped; made on first use.
    clients: Option<Trie>,
    /// True while programs look into it.
    has_clients: bool,
    /// Files of the config with prefixes in the trie, in the order by which [`Sources`] name them.
    files: Vec<(PathBuf, Verdict)>,
    programs: Vec<Follower>,
}

/// Numbers of denied and allowed prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prefixes whose packets are dropped.
    pub denied: usize,
    /// Prefixes whose packets are passed.
    pub allowed: usize,
}

impl Counts {
    fn of(entries: &[(PrefixBits, u32)]) -> Self {
        let is_denied = |(_, value): &&(PrefixBits, u32)| *value as u8 == verdict::DENY;
        let denied = entries.iter().filter(is_denied).count();
        Self {
            denied,
            allowed: entries.len() - denied,
        }
    }

    fn has_any(self) -> bool {
        self.denied + self.allowed > 0
    }
}

/// A program that follows a shared state: it looks into the trie, or writes records.
#[derive(Clone)]
pub struct Follower {
    /// Interface of the config that it serves: the one that it is attached to, or the bridge of that port.
    pub interface: String,
    /// The program.
    pub program: SharedProgram,
    /// True if addresses are served there; otherwise there is nothing to deny.
    pub is_served: bool,
}

/// A verdict set by a request. It overrides the config's, and ends with the process.
#[derive(Clone, Copy, Debug)]
struct Override {
    prefix: Prefix,
    verdict: Verdict,
    until: Option<Instant>,
}

/// Maximum number of overrides, as far as the config's prefixes leave room.
const BY_HAND_MAX: usize = 1024;

impl Prefixes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the programs that are told whether there are any prefixes.
    pub fn follow(&self, programs: impl Iterator<Item = Follower>) {
        self.state().programs = programs.collect();
    }

    /// Counts of prefixes in force.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Gives a program that is about to be attached the tries.
    ///
    /// # Errors
    /// It cannot have them: a sentence.
    pub fn begin(&self, program: &mut Program) -> Result<(), String> {
        let mut state = self.state();
        let mut begin = || {
            program.share_trie(trie::DENIED, made(&mut state.trie)?)?;
            program.share_trie(trie::ACCESS, made(&mut state.clients)?)?;
            program.set_tries(state.tries())
        };
        begin().map_err(|error| format!("denied prefixes are not in force: {error}"))
    }

    /// Has the programs drop queries of these clients, by the longest prefix, in place of earlier ones.
    ///
    /// # Errors
    /// There are too many, or the kernel refused: the programs drop none, which leaves it to the workers. A sentence.
    pub fn drop_clients(&self, clients: &[(Prefix, Verdict)]) -> Result<(), String> {
        let mut state = self.state();
        let put = state.put_clients(clients);
        state.has_clients = put.is_ok() && !clients.is_empty();
        state.tell();
        put.map_err(|problem| format!("clients are dropped by user space alone: {problem}"))
    }

    /// Reads the config's prefixes and puts in force what is usable: half a list is better than none. Returns what is wrong.
    #[must_use]
    pub fn start(&self, input: &PrefixInput) -> Vec<String> {
        let (told, problems) = self.read(input);
        told.iter().for_each(|line| info!("{line}"));
        problems
    }

    /// Reads them again and replaces the earlier ones; an unusable file keeps its last contents. Returns what was done, and
    /// what is wrong.
    #[must_use]
    pub fn reload(&self, input: &PrefixInput) -> (Vec<String>, Vec<String>) {
        self.read(input)
    }

    fn read(&self, input: &PrefixInput) -> (Vec<String>, Vec<String>) {
        let read = prefix_list::read(input, self.room(), |file| self.kept(file));
        read.doubts.iter().for_each(|doubt| warn!("{doubt}"));
        let left_out = read.left_out();
        left_out.iter().for_each(|line| warn!("{line}"));
        let problems = read.problems.iter();
        let mut problems: Vec<String> = problems
            .map(|problem| format!("denied prefixes: {problem}"))
            .collect();
        let told = match self.replace(&read.rules, input) {
            Ok(told) => told,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        (left_out.into_iter().chain(told).collect(), problems)
    }

    /// Last good contents of a file.
    fn kept(&self, file: PrefixFile<'_>) -> Vec<Prefix> {
        let state = self.state();
        let mut files = state.files.iter();
        let place = files.position(|(path, verdict)| path == file.path && *verdict == file.verdict);
        let entries = state.trie.as_ref().map(Trie::entries);
        match (place, entries) {
            (Some(place), Some(Ok(entries))) => of_source(&entries, Sources::of(place)),
            // It was never read, or the kernel does not say.
            _ => Vec::new(),
        }
    }

    /// Room for prefixes of the config, beside the overrides.
    fn room(&self) -> usize {
        let said = self.state().said.len();
        (PREFIXES_ROOM as usize - said).min(PREFIXES_MAX as usize)
    }

    /// Replaces the list, as the module says. Returns a line about it if there is or was a list.
    fn replace(&self, rules: &[Rule], input: &PrefixInput) -> Result<Option<String>, String> {
        let mut new: Vec<_> = rules.iter().map(entry).collect();
        new.sort_unstable();
        let mut state = self.state();
        if new.is_empty() && state.trie.is_none() {
            return Ok(None);
        }
        let put = state.put(&new);
        state.tell();
        put.map_err(|problem| format!("denied prefixes: {problem}"))?;
        let files = input.files();
        state.files = files
            .map(|file| (file.path.to_owned(), file.verdict))
            .collect();
        let is_denied = |rule: &&Rule| rule.verdict == Verdict::Deny;
        let denied = rules.iter().filter(is_denied).count();
        let allowed = rules.len() - denied;
        Ok(Some(format!(
            "{denied} denied and {allowed} allowed prefixes"
        )))
    }

    /// Once a second: ends overrides whose time is over, and tells programs that were attached meanwhile.
    pub fn look(&self) {
        let mut state = self.state();
        if state.trie.is_none() && state.clients.is_none() {
            return;
        }
        let now = clock::now();
        let is_over = |said: &Override| said.until.is_some_and(|until| until <= now);
        if state.said.iter().any(is_over) {
            state.said.retain(|said| !is_over(said));
            if let Err(problem) = state.put_again() {
                warn!("denied prefixes: {problem}");
            }
        }
        state.tell();
    }
}

/// The trie, which is made if there is none.
fn made(trie: &mut Option<Trie>) -> Result<&mut Trie, Error> {
    match trie {
        Some(trie) => Ok(trie),
        none @ None => Ok(none.insert(Trie::new()?)),
    }
}

/// Replaces the entries of a trie with this room by these, which are sorted, as the module says.
fn rewrite(trie: &mut Trie, new: &[(PrefixBits, u32)], room: u32) -> Result<(), Error> {
    let old = trie.entries()?;
    let mut steps = steps(&old, new, room).into_iter();
    steps.try_for_each(|step| match step {
        Step::Insert(prefix, value) => trie.insert(prefix, value),
        Step::Remove(prefix) => trie.remove(prefix),
    })
}

impl State {
    /// Tries that programs look into, by their bits.
    fn tries(&self) -> u32 {
        let bit = |trie, is_used| if is_used { trie::bit(trie) } else { 0 };
        bit(trie::DENIED, self.counts.has_any()) | bit(trie::ACCESS, self.has_clients)
    }

    fn put_clients(&mut self, clients: &[(Prefix, Verdict)]) -> Result<(), String> {
        if clients.len() > ACCESS_DROP_MAX as usize {
            let count = clients.len();
            return Err(format!(
                "there is room for {ACCESS_DROP_MAX} prefixes of `access`, not for {count}"
            ));
        }
        if clients.is_empty() && self.clients.is_none() {
            return Ok(());
        }
        let entry = |(prefix, verdict): &(Prefix, Verdict)| {
            (bits(*prefix), u32::from(verdict_of(*verdict)))
        };
        let mut new: Vec<_> = clients.iter().map(entry).collect();
        new.sort_unstable();
        let put = made(&mut self.clients).and_then(|trie| rewrite(trie, &new, ACCESS_DROP_MAX));
        put.map_err(|error| error.to_string())
    }

    /// Replaces the config's list, under the overrides. `Err`: the list does not fit and nothing has changed, or the kernel
    /// refuses.
    fn put(&mut self, config: &[(PrefixBits, u32)]) -> Result<(), String> {
        let new = merged(config, &self.said);
        if new.len() > PREFIXES_ROOM as usize {
            return Err(format!(
                "there is no room: {PREFIXES_MAX} prefixes of the config and its files, {PREFIXES_ROOM} in all"
            ));
        }
        let in_words = |error: Error| error.to_string();
        let trie = made(&mut self.trie).map_err(in_words)?;
        let put = rewrite(trie, &new, PREFIXES_ROOM);
        // After a failure: the entries that were reached.
        let entries = trie.entries();
        self.counts = entries.map_or(Counts::of(&new), |entries| Counts::of(&entries));
        put.map_err(in_words)
    }

    /// Applies the overrides to the config's current list.
    fn put_again(&mut self) -> Result<(), String> {
        let entries = made(&mut self.trie).and_then(|trie| trie.entries());
        let mut config = entries.map_err(|error| error.to_string())?;
        config
            .iter_mut()
            .for_each(|(_, value)| *value >>= BY_CONFIG);
        config.retain(|(_, value)| *value != 0);
        self.put(&config)
    }

    /// Lines about interfaces where prefixes are not in force.
    ///
    /// # Errors
    /// They are in force on no interface: a sentence.
    fn without_program(&self) -> Result<Vec<String>, String> {
        let served = self.programs.iter().filter(|follower| follower.is_served);
        let mut interfaces: Vec<&str> = Vec::new();
        let mut with: Vec<&str> = Vec::new();
        for follower in served {
            let interface = follower.interface.as_str();
            // A bridge has several programs: those of its ports.
            if !interfaces.contains(&interface) {
                interfaces.push(interface);
            }
            if lock(&follower.program).is_some() {
                with.push(interface);
            }
        }
        let is_without = |interface: &&str| !with.contains(interface);
        let without: Vec<&str> = interfaces.into_iter().filter(is_without).collect();
        if with.is_empty() {
            return Err(
                "refused: no interface has an XDP program that would obey; see xdnsd shield status"
                    .into(),
            );
        }
        let line = |interface: &&str| format!("{interface}: not in force, it has no XDP program");
        Ok(without.iter().map(line).collect())
    }

    /// Tells the programs which tries have any.
    fn tell(&self) {
        let tries = self.tries();
        for follower in &self.programs {
            let told = lock(&follower.program)
                .as_mut()
                .map(|program| program.set_tries(tries));
            if let Some(Err(error)) = told {
                warn!("denied prefixes: {error}");
            }
        }
    }
}

/// Shift in a value of the trie at which the config's part begins, see [`merged`].
const BY_CONFIG: u32 = u8::BITS;

/// Entry for a rule of the config: its verdict, and above it the files that it is from.
fn entry(rule: &Rule) -> (PrefixBits, u32) {
    let verdict = u32::from(verdict_of(rule.verdict));
    (
        bits(rule.prefix),
        verdict | u32::from(rule.sources.0) << u8::BITS,
    )
}

const fn verdict_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Deny => verdict::DENY,
        Verdict::Allow => verdict::ALLOW,
    }
}

/// Prefixes from this source among the trie's entries.
fn of_source(entries: &[(PrefixBits, u32)], source: Sources) -> Vec<Prefix> {
    let sources = |value: u32| Sources((value >> (BY_CONFIG + u8::BITS)) as u16);
    let own = entries
        .iter()
        .filter(|(_, value)| sources(*value).has(source));
    own.map(|(prefix, _)| prefix_of(*prefix)).collect()
}

/// Bits before the IPv4 address in a mapped one.
const MAPPED_BITS: u8 = 96;

fn bits(prefix: Prefix) -> PrefixBits {
    match prefix.address() {
        std::net::IpAddr::V4(v4) => PrefixBits {
            addr: v4.to_ipv6_mapped().octets(),
            len: MAPPED_BITS + prefix.length(),
        },
        std::net::IpAddr::V6(v6) => PrefixBits {
            addr: v6.octets(),
            len: prefix.length(),
        },
    }
}

/// Entries in force: the config's list, sorted, with the overrides applied. Of a value the low byte is the verdict in force,
/// the next byte the config's verdict, and the rest says which of its files have it.
fn merged(config: &[(PrefixBits, u32)], said: &[Override]) -> Vec<(PrefixBits, u32)> {
    let whole = |(prefix, value): &(PrefixBits, u32)| {
        (*prefix, u32::from(*value as u8) | value << BY_CONFIG)
    };
    let mut merged: Vec<_> = config.iter().map(whole).collect();
    for said in said {
        let (prefix, value) = (bits(said.prefix), u32::from(verdict_of(said.verdict)));
        match config.binary_search_by_key(&prefix, |(prefix, _)| *prefix) {
            Ok(at) => merged[at].1 = value | config[at].1 << BY_CONFIG,
            Err(_) => merged.push((prefix, value)),
        }
    }
    merged.sort_unstable();
    merged
}

impl PrefixControl for Prefixes {
    fn list(&self) -> Result<Vec<Listed>, String> {
        let state = self.state();
        let Some(trie) = &state.trie else {
            return Ok(Vec::new());
        };
        let entries = trie.entries().map_err(|error| error.to_string())?;
        let now = clock::now();
        let listed = |(bits, value): (PrefixBits, u32)| {
            let prefix = prefix_of(bits);
            let said = state.said.iter().find(|said| said.prefix == prefix);
            let until = said.and_then(|said| said.until);
            Listed {
                prefix,
                verdict: match value as u8 == verdict::DENY {
                    true => Verdict::Deny,
                    false => Verdict::Allow,
                },
                is_said: said.is_some(),
                secs_left: until.map(|until| until.secs_since(now)),
            }
        };
        Ok(entries.into_iter().map(listed).collect())
    }

    fn set_verdict(
        &self,
        prefix: Prefix,
        verdict: Option<Verdict>,
        secs: Option<u32>,
    ) -> Result<Vec<String>, String> {
        let prefix = prefix.unmapped();
        let mut state = self.state();
        // After the override is forgotten no part of it is in force.
        let without = match verdict {
            Some(_) => state.without_program()?,
            None => Vec::new(),
        };
        let before = state.said.clone();
        state.said.retain(|said| said.prefix != prefix);
        let until = secs.map(|secs| clock::now() + u64::from(secs) * 1_000);
        let said = verdict.map(|verdict| Override {
            prefix,
            verdict,
            until,
        });
        if said.is_none() && state.said.len() == before.len() {
            return Err(format!("neither denied nor allowed by hand: {prefix}"));
        }
        state.said.extend(said);
        if state.said.len() > BY_HAND_MAX {
            state.said = before;
            return Err(format!("there is no room: {BY_HAND_MAX} prefixes by hand"));
        }
        let put = state.put_again();
        if put.is_err() {
            state.said = before;
        }
        state.tell();
        put.map(|()| without)
    }
}

fn prefix_of(bits: PrefixBits) -> Prefix {
    let address = std::net::Ipv6Addr::from(bits.addr);
    match (address.to_ipv4_mapped(), bits.len.checked_sub(MAPPED_BITS)) {
        (Some(v4), Some(len)) => Prefix::masked(v4.into(), len),
        _ => Prefix::masked(address.into(), bits.len),
    }
}

/// One change of the trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Insert(PrefixBits, u32),
    Remove(PrefixBits),
}

/// Steps from one list to another, both sorted, in a trie with this room: see the module.
fn steps(old: &[(PrefixBits, u32)], new: &[(PrefixBits, u32)], room: u32) -> Vec<Step> {
    let of = |list: &[(PrefixBits, u32)], prefix: &PrefixBits| {
        let at = list.binary_search_by_key(prefix, |(prefix, _)| *prefix);
        at.ok().map(|at| list[at].1)
    };
    let mut come: Vec<_> = new.to_vec();
    come.retain(|(prefix, value)| of(old, prefix) != Some(*value));
    come.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len));
    let mut go: Vec<_> = old.iter().map(|(prefix, _)| *prefix).collect();
    go.retain(|prefix| of(new, prefix).is_none());
    go.sort_by_key(|prefix| prefix.len);
    let fits = new.len() + go.len() <= room as usize;
    let come = come
        .into_iter()
        .map(|(prefix, value)| Step::Insert(prefix, value));
    let go = go.into_iter().map(Step::Remove);
    if fits {
        come.chain(go).collect()
    } else {
        go.chain(come).collect()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
