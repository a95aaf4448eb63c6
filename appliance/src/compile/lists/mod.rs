//! Compiles blocklists to the image that `xdnsd_core::policy::list` reads, in memory or as a file.

mod clauses;
mod image;
mod kept;
mod origin;
mod tally;

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::policy::list::{
    CLAUSE_LEN, ENTRY_LEN, LEFT_OUT_LEN, NAMES_MAX, TYPES_MAX, clause, tag,
};
use xdnsd_core::policy::name::Labels;

use super::name;
use super::problem::{Problem, check_encoding};
use super::room;
use super::rpz;
use super::rules::{Covers, LineSyntax, NotARule, Rule, parse_line};
use super::table::random_key;
use crate::os::files::{self, Stamp};
use crate::text;
use clauses::NO_ROOM;
use kept::ChangedEntries;
pub use kept::KeptRules;
pub use origin::{FileLine, Ruled};
pub use tally::ListTally;

/// Maximum length of a line, in bytes. A longer one is skipped.
const LINE_MAX: usize = 64 * 1024;
/// Maximum number of names in a line: of one byte, with a blank.
const LINE_NAMES_MAX: usize = LINE_MAX / 2;
/// Maximum size of a text file, in bytes: more than all names that fit would take.
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// Maximum number of sources of one compiled list, from the bits in an entry's tag.
pub const SOURCES_MAX: usize = tag::LIST_MASK as usize + 1;

/// Purpose of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListPurpose {
    /// Names are blocked, exceptions allowed.
    Block,
    /// Names are allowed, and so are exceptions: nobody writes an allowlist to block something.
    Allow,
}

/// A name that goes into a list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: (u64, u64),
    tag: u16,
    /// See [`Rule::text`].
    text: u32,
}

impl Entry {
    /// Sort key, which identifies a rule.
    const fn order(&self) -> ((u64, u64), u16, u32) {
        (self.hash, self.tag, self.text)
    }

    const fn list(&self) -> u16 {
        self.tag & tag::LIST_MASK
    }
}

/// A rule that takes back another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TakenBack {
    /// Name and text of the other rule.
    rule: ((u64, u64), u32),
    list: u16,
}

/// A rule that does not fit a tag.
#[derive(Clone, Debug)]
struct Special {
    hash: (u64, u64),
    flags: u16,
    list: u16,
    types: [u16; TYPES_MAX],
    pattern: Vec<u8>,
    /// Hashes of excluded names, in order.
    left_out: Vec<(u64, u64)>,
    /// See [`Rule::text`].
    text: u32,
}

/// Name, flags, types, pattern, excluded names and text.
type Order<'a> = (
    (u64, u64),
    u16,
    [u16; TYPES_MAX],
    &'a [u8],
    &'a [(u64, u64)],
    u32,
);

impl Special {
    /// Sort key, which identifies a rule.
    const fn order(&self) -> Order<'_> {
        (
            self.hash,
            self.flags,
            self.types,
            self.pattern.as_slice(),
            self.left_out.as_slice(),
            self.text,
        )
    }

    /// Bytes that it takes in an image beside its clause.
    const fn text_len(&self) -> usize {
        self.pattern.len() + self.left_out.len() * LEFT_OUT_LEN
    }
}

/// Collects names and compiles them. Takes 24 bytes per name.
#[derive(Debug)]
pub struct ListBuilder {
    key: HashKey,
    entries: Vec<Entry>,
    specials: Vec<Special>,
    /// Number of names that they exclude.
    left_out: usize,
    /// Rules that take back others, wherever they are.
    taken_back: Vec<TakenBack>,
    exact_depths: u128,
    subtree_depths: u128,
    /// Checks that the machine has memory for this many more bytes.
    room: fn(u64) -> io::Result<()>,
}

impl Default for ListBuilder {
    fn default() -> Self {
        Self::with_key(random_key())
    }
}

impl ListBuilder {
    /// With a given key of the hash, for reproducible builds.
    #[must_use]
    pub fn with_key(key: HashKey) -> Self {
        Self {
            key,
            entries: Vec::new(),
            specials: Vec::new(),
            left_out: 0,
            taken_back: Vec::new(),
            exact_depths: 0,
            subtree_depths: 0,
            room: room::check_now,
        }
    }

    /// True if nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.specials.is_empty()
    }

    /// Adds a rule of the source with index `list`. It must have room.
    pub fn add(&mut self, rule: &Rule, list: u16, purpose: ListPurpose) {
        let (itself, below) = match rule.covers {
            Covers::Name => (true, false),
            Covers::Below => (false, true),
            Covers::Subtree => (true, true),
        };
        let Some(hash) = self.place(&rule.name, itself, below) else {
            debug_assert!(false, "names were parsed");
            return;
        };
        if rule.is_badfilter {
            self.taken_back.push(TakenBack {
                rule: (hash, rule.text),
                list,
            });
            return;
        }
        let allows = rule.is_exception || purpose == ListPurpose::Allow;
        // A name that the operator allows has the highest rank.
        let is_important = rule.is_important || purpose == ListPurpose::Allow;
        if !rule.has_options() {
            let (itself_flag, below_flag) = if allows {
                (tag::ALLOW_SELF, tag::ALLOW_BELOW)
            } else {
                (tag::BLOCK_SELF, tag::BLOCK_BELOW)
            };
            let flags = [
                (itself, itself_flag),
                (below, below_flag),
                (is_important, tag::IMPORTANT),
            ];
            let flags = flags.iter().filter(|(is_set, _)| *is_set);
            self.entries.push(Entry {
                hash,
                tag: flags.fold(list & tag::LIST_MASK, |tag, (_, flag)| tag | flag),
                text: rule.text,
            });
            return;
        }
        self.add_special(
            rule,
            hash,
            list,
            [
                (itself, clause::SELF),
                (below, clause::BELOW),
                (allows, clause::ALLOWS),
                (is_important, clause::IMPORTANT),
            ],
        );
    }

    fn add_special(&mut self, rule: &Rule, hash: (u64, u64), list: u16, flags: [(bool, u16); 4]) {
        let types_flag = match rule.types {
            None => 0,
            Some(types) if types.are_left_out => clause::TYPES_NOT,
            Some(_) => clause::TYPES_ONLY,
        };
        let pattern_flag = if rule.pattern.is_empty() {
            0
        } else {
            clause::PATTERN
        };
        let flags = flags
            .iter()
            .filter(|(is_set, _)| *is_set)
            .fold(0, |all, (_, flag)| all | flag);
        let left_out = rule.left_out.iter();
        let mut left_out: Vec<_> = left_out.filter_map(|name| self.hash(name)).collect();
        left_out.sort_unstable();
        left_out.dedup();
        self.left_out += left_out.len();
        self.specials.push(Special {
            hash,
            flags: flags | types_flag | pattern_flag,
            list,
            types: rule.types.map_or([0; TYPES_MAX], |types| types.numbers),
            pattern: rule.pattern.clone(),
            left_out,
            text: rule.text,
        });
    }

    fn hash(&self, name: &[u8]) -> Option<(u64, u64)> {
        let hash = Labels::new(name)?.hash(&self.key);
        Some((hash.first(), hash.second()))
    }

    /// Hash of a name; notes the name's depth.
    fn place(&mut self, name: &[u8], itself: bool, below: bool) -> Option<(u64, u64)> {
        let depth = 1u128 << Labels::new(name)?.count();
        if itself {
            self.exact_depths |= depth;
        }
        if below {
            self.subtree_depths |= depth;
        }
        self.hash(name)
    }

    /// Adds a name from the config, and all below it; with `*.name` only all below it.
    ///
    /// # Errors
    /// The text is not a name.
    pub fn add_name(
        &mut self,
        text: &str,
        list: u16,
        purpose: ListPurpose,
    ) -> Result<(), name::NameTextError> {
        let (text, covers) = text
            .strip_prefix("*.")
            .map_or((text, Covers::Subtree), |rest| (rest, Covers::Below));
        let rule = Rule::new(name::parse_host(text)?, covers, LineSyntax::Plain);
        self.add(&rule, list, purpose);
        Ok(())
    }

    /// Adds the rules of a text file. A file that has lines, but no rule, is an error: probably a login page or an error page
    /// was saved in place of the list. After an error the list has nothing of the file.
    ///
    /// # Errors
    /// The file cannot be read, or is no list.
    pub fn add_file(
        &mut self,
        path: &Path,
        list: u16,
        purpose: ListPurpose,
    ) -> Result<ListTally, Problem> {
        let wrong = |error: io::Error| Problem::with_file(path, &error);
        let before = self.mark();
        let file = files::open(path).map_err(wrong)?;
        let metadata = file.metadata().map_err(wrong)?;
        if metadata.len() > TEXT_BYTES_MAX {
            let what = format!("is larger than {TEXT_BYTES_MAX} bytes");
            return Err(wrong(io::Error::new(io::ErrorKind::FileTooLarge, what)));
        }
        let stamp = Stamp::of(&metadata);
        let mut bytes = files::bytes_of(&file).map_err(wrong)?;
        let tally = self.add_text(path, BufReader::new(&mut bytes), list, purpose)?;
        let is_longer = bytes.limit() == 0;
        // A partial list is refused: its writer has not finished.
        if is_longer || stamp != Stamp::of(&file.metadata().map_err(wrong)?) {
            self.forget(&before);
            return Err(wrong(files::changes()));
        }
        Ok(tally)
    }

    /// Adds the rules of a text; `path` is its name in reports.
    ///
    /// # Errors
    /// It is no list, or cannot be read.
    pub fn add_text(
        &mut self,
        path: &Path,
        mut text: impl BufRead,
        list: u16,
        purpose: ListPurpose,
    ) -> Result<ListTally, Problem> {
        let before = self.mark();
        let wrong = |error: io::Error| Problem::with_file(path, &error);
        let first = text.fill_buf().map_err(wrong)?;
        check_encoding(path, first)?;
        let tally = self.add_lines(text, list, purpose).map_err(wrong);
        let tally = tally.map(|tally| self.leave_repeated_out(&before, tally));
        let tally = tally.and_then(|tally| self.check_tally(path, tally));
        if tally.is_err() {
            self.forget(&before);
        }
        tally
    }

    /// Current size, to return to.
    pub(super) fn mark(&self) -> BuilderMark {
        BuilderMark {
            entries: self.entries.len(),
            specials: self.specials.len(),
            left_out: self.left_out,
            taken_back: self.taken_back.len(),
        }
    }

    /// Removes what was added after the mark.
    pub(super) fn forget(&mut self, mark: &BuilderMark) {
        self.entries.truncate(mark.entries);
        self.specials.truncate(mark.specials);
        self.left_out = mark.left_out;
        self.taken_back.truncate(mark.taken_back);
    }

    /// Removes the rules after the mark that were there already, and corrects the tally.
    fn leave_repeated_out(&mut self, mark: &BuilderMark, mut tally: ListTally) -> ListTally {
        let new = &mut self.entries[mark.entries..];
        new.sort_unstable_by_key(Entry::order);
        let mut left = mark.entries;
        for index in mark.entries..self.entries.len() {
            let entry = self.entries[index];
            if left == mark.entries || self.entries[left - 1].order() != entry.order() {
                self.entries[left] = entry;
                left += 1;
            }
        }
        self.entries.truncate(left);
        let specials = &self.specials[mark.specials..];
        let specials: HashSet<_> = specials.iter().map(Special::order).collect();
        let taken_back = &self.taken_back[mark.taken_back..];
        let taken_back: HashSet<_> = taken_back.iter().map(|other| other.rule).collect();
        let distinct = left - mark.entries + specials.len() + taken_back.len();
        tally.repeated = tally.rules - distinct;
        tally.rules = distinct;
        tally
    }

    fn check_tally(&self, path: &Path, tally: ListTally) -> Result<ListTally, Problem> {
        let problem = |what| Err(Problem::of(path.display().to_string(), what));
        if tally.rules == 0 && tally.skipped > 0 && tally.beyond.is_none() {
            let lines = tally.skipped;
            return problem(format!(
                "has no rule in {}: is it a blocklist?",
                text::count(lines, "line")
            ));
        }
        Ok(tally)
    }

    /// Checks that everything fits a list and the memory: too long a text ends the reading, not the process.
    ///
    /// # Errors
    /// It does not fit.
    fn check_room(&mut self) -> io::Result<()> {
        if self.entries.len() > NAMES_MAX {
            let what = format!("with this list there are more than {NAMES_MAX} names");
            return Err(io::Error::other(what));
        }
        let free = self.entries.capacity() - self.entries.len();
        if free < LINE_NAMES_MAX {
            let more = self.entries.len().max(LINE_NAMES_MAX);
            (self.room)(((self.entries.len() + more) * size_of::<Entry>()) as u64)?;
            self.entries.try_reserve_exact(more)?;
        }
        Ok(())
    }

    /// Maximum bytes of the list while it is made.
    #[must_use]
    pub fn image_bytes_max(&self) -> u64 {
        // An entry, and its share of the buckets.
        let names = (self.entries.len() + self.specials.len()) * (ENTRY_LEN + size_of::<u32>());
        let texts: usize = self.specials.iter().map(Special::text_len).sum();
        (names + self.specials.len() * CLAUSE_LEN + texts) as u64
    }

    fn add_lines(
        &mut self,
        mut lines: impl BufRead,
        list: u16,
        purpose: ListPurpose,
    ) -> std::io::Result<ListTally> {
        let mut taken = Taken::new(list, purpose);
        let (mut line, mut number) = (Vec::new(), 0);
        let mut zone: Option<rpz::Reader> = None;
        while read_line(&mut lines, &mut line)? {
            number += 1;
            self.check_room()?;
            let text = decode(&line);
            if line.len() >= LINE_MAX {
                taken.tally.skip(number, &text, NotARule("is too long"));
                continue;
            }
            if zone.is_none() && taken.tally == ListTally::default() && rpz::begins(&text) {
                zone = Some(rpz::Reader::default());
            }
            if let Some(zone) = &mut zone {
                zone.reserve(self.room)?;
                let read = zone.line(number, &text);
                read.map_or_else(|why| taken.tally.skip(number, &text, why), drop);
                continue;
            }
            match parse_line(&text) {
                Ok(rules) => {
                    let mut rules = rules.iter();
                    rules.try_for_each(|rule| self.take(rule, (number, &text), &mut taken))?;
                }
                Err(why) => taken.tally.skip(number, &text, why),
            }
        }
        if let Some(zone) = zone {
            zone.rules(|number, rule| {
                let name = name::display(&rule.name);
                self.take(&rule, (number, &name), &mut taken)
            })?;
        }
        self.check_room()?;
        Ok(taken.tally)
    }

    /// Takes one rule of a source, from this line.
    fn take(
        &mut self,
        rule: &Rule,
        (number, text): (usize, &str),
        taken: &mut Taken,
    ) -> io::Result<()> {
        let has_options = rule.has_options() || rule.is_badfilter;
        let hash = has_options.then(|| taken.hasher.hash_one(rule));
        if hash.is_some_and(|hash| taken.seen.contains(&hash)) {
            taken.tally.take(rule);
        } else if self.has_room_for(rule) {
            taken.tally.take(rule);
            self.check_room()?;
            self.add(rule, taken.list, taken.purpose);
            taken.seen.extend(hash);
        } else {
            taken.tally.leave_out(number, text, NO_ROOM);
        }
        Ok(())
    }

    /// Compiles the list. `None` if the hash puts too many names into one bucket, which needs another key; by chance that
    /// happens once in 10^40 times.
    #[must_use]
    pub fn build(self) -> Option<Vec<u8>> {
        self.build_to_keep().map(|built| built.image)
    }

    /// Compiles the list, with what is needed to find the rules of each source in it again.
    #[must_use]
    pub fn build_to_keep(mut self) -> Option<Built> {
        let mut apart = ChangedEntries {
            specials: self.specials.clone(),
            taken_back: self.take_back(),
            ..ChangedEntries::default()
        };
        self.entries
            .sort_unstable_by_key(|entry| (entry.hash, entry.tag & tag::IMPORTANT));
        apart.shared = kept::of_several_sources(&self.entries).collect();
        self.entries.dedup_by(|next, kept| {
            let same = is_same_name(next, kept);
            if same {
                kept.tag = merge(kept.tag, next.tag);
            }
            same
        });
        let (moved, left_out) = self.move_what_no_tag_holds();
        apart.moved = moved;
        let (clauses, texts) = self.emit_clauses();
        self.entries.sort_unstable_by_key(|entry| entry.hash);
        let image = self.emit(&clauses, &texts)?;
        Some(Built {
            image,
            kept: KeptRules::new(self, apart),
            left_out,
        })
    }

    /// Removes the rules that are taken back, and returns them.
    fn take_back(&mut self) -> Vec<Entry> {
        let rules = self.taken_back.iter().map(|other| other.rule);
        let rules: HashSet<_> = rules.collect();
        if rules.is_empty() {
            return Vec::new();
        }
        self.specials
            .retain(|special| !rules.contains(&(special.hash, special.text)));
        let mut taken_back = Vec::new();
        self.entries.retain(|entry| {
            let is_taken_back = rules.contains(&(entry.hash, entry.text));
            if is_taken_back {
                taken_back.push(*entry);
            }
            !is_taken_back
        });
        taken_back
    }
}

/// What is taken of one source.
struct Taken {
    list: u16,
    purpose: ListPurpose,
    tally: ListTally,
    /// Rules with options, which count, since there is least room for them.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Taken {
    fn new(list: u16, purpose: ListPurpose) -> Self {
        Self {
            list,
            purpose,
            tally: ListTally::default(),
            seen: HashSet::new(),
            hasher: RandomState::new(),
        }
    }
}

/// True if two entries are merged: those of one name and one rank.
const fn is_same_name(a: &Entry, b: &Entry) -> bool {
    a.hash.0 == b.hash.0 && a.hash.1 == b.hash.1 && (a.tag ^ b.tag) & tag::IMPORTANT == 0
}

/// Result of a builder.
#[derive(Debug)]
pub struct Built {
    /// The list.
    pub image: Vec<u8>,
    /// Finds the rules of each source in it again.
    pub kept: KeptRules,
    /// Number of rules that did not fit, of names with options or of two ranks.
    pub left_out: usize,
}

/// Size of a builder at one moment.
pub(super) struct BuilderMark {
    entries: usize,
    specials: usize,
    left_out: usize,
    taken_back: usize,
}

/// Decodes a line as UTF-8, or else as Latin-1, in which every byte is a character.
fn decode(line: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => line
            .iter()
            .copied()
            .map(char::from)
            .collect::<String>()
            .into(),
    }
}

/// Reads one line without its end into `line`; `false` at the end of the file. Keeps the first [`LINE_MAX`] bytes of a longer
/// line, so that it can be recognised.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut is_something = false;
    loop {
        let buffer = lines.fill_buf()?;
        if buffer.is_empty() {
            return Ok(is_something);
        }
        is_something = true;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(LINE_MAX - line.len())]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        lines.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Merges the tags of two rules about a name: the flags of both, and the first list of those that block.
fn merge(a: u16, b: u16) -> u16 {
    const BLOCKS: u16 = tag::BLOCK_SELF | tag::BLOCK_BELOW;
    let flags = (a | b) & !tag::LIST_MASK;
    let list = match (a & BLOCKS != 0, b & BLOCKS != 0) {
        (true, false) => a & tag::LIST_MASK,
        (false, true) => b & tag::LIST_MASK,
        _ => (a & tag::LIST_MASK).min(b & tag::LIST_MASK),
    };
    flags | list
}

#[cfg(test)]
mod tests;
