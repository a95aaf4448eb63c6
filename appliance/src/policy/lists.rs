//! Compiles blocklists to the image that `xdnsd_core::policy::list` reads, in memory or as a file.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use xdnsd_core::hash::HashKey;
use xdnsd_core::policy::list::{
    BUCKET_MAX, CRC, ENTRY_LEN, MAGIC, NAMES_MAX, NAMES_PER_BUCKET, Spot, VERSION, field, tag,
};
use xdnsd_core::policy::name::Labels;

use super::name;
use super::problem::Problem;
use super::rules::{Covers, Rule, parse_line};
use super::table::{put, random_key};
use crate::files::{self, Stamp};

/// Longest line that is looked at. A longer one is passed over.
const LINE_MAX: usize = 4096;
/// Most sources of one compiled list: what fits an entry's tag.
pub const SOURCES_MAX: usize = tag::LIST_MASK as usize + 1;

/// What a source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its names are blocked, its exceptions allowed.
    Block,
    /// Its names are allowed. Its exceptions are allowed too: nobody writes an allowlist to block something.
    Allow,
}

/// What was found in one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rules that were taken.
    pub rules: usize,
    /// Lines that are no rules about whole names.
    pub skipped: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} rules, {} lines skipped",
            self.rules, self.skipped
        )
    }
}

/// A name on its way into a list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: (u64, u64),
    tag: u16,
}

/// Collects names and compiles them. Takes 24 bytes per name while it does.
#[derive(Debug)]
pub struct ListBuilder {
    key: HashKey,
    entries: Vec<Entry>,
    exact_depths: u128,
    subtree_depths: u128,
}

impl Default for ListBuilder {
    fn default() -> Self {
        Self::with_key(random_key())
    }
}

impl ListBuilder {
    /// With a given key of the hash: a build that has to be reproducible brings its own.
    #[must_use]
    pub const fn with_key(key: HashKey) -> Self {
        Self {
            key,
            entries: Vec::new(),
            exact_depths: 0,
            subtree_depths: 0,
        }
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a rule of the source with index `list`.
    pub fn add(&mut self, rule: &Rule, list: u16, purpose: Purpose) {
        let Some(labels) = Labels::new(&rule.name) else {
            debug_assert!(false, "names were parsed");
            return;
        };
        let allows = rule.is_exception || purpose == Purpose::Allow;
        let (itself, below) = if allows {
            (tag::ALLOW_SELF, tag::ALLOW_BELOW)
        } else {
            (tag::BLOCK_SELF, tag::BLOCK_BELOW)
        };
        let flags = match rule.covers {
            Covers::Name => itself,
            Covers::Below => below,
            Covers::Subtree => itself | below,
        };
        let depth = 1u128 << labels.count();
        if flags & itself != 0 {
            self.exact_depths |= depth;
        }
        if flags & below != 0 {
            self.subtree_depths |= depth;
        }
        let hash = labels.hash(&self.key);
        self.entries.push(Entry {
            hash: (hash.first(), hash.second()),
            tag: flags | list & tag::LIST_MASK,
        });
    }

    /// Adds a name from the config, and all below it. `*.name` is all below it alone.
    ///
    /// # Errors
    /// The text is not a name.
    pub fn add_name(
        &mut self,
        text: &str,
        list: u16,
        purpose: Purpose,
    ) -> Result<(), name::NameError> {
        let (text, covers) = text
            .strip_prefix("*.")
            .map_or((text, Covers::Subtree), |rest| (rest, Covers::Below));
        let rule = Rule {
            name: name::parse_host(text)?,
            covers,
            is_exception: false,
        };
        self.add(&rule, list, purpose);
        Ok(())
    }

    /// Adds the rules of a text file. A file that has lines, but not one rule, is an error: a login page or an error page
    /// was saved in place of the list. After an error nothing of the file is in the list.
    ///
    /// # Errors
    /// The file cannot be read, or is no list.
    pub fn add_file(&mut self, path: &Path, list: u16, purpose: Purpose) -> Result<Tally, Problem> {
        let wrong = |error: io::Error| Problem::with_file(path, &error);
        let before = self.entries.len();
        let file = files::open(path).map_err(wrong)?;
        let stamp = Stamp::of(&file.metadata().map_err(wrong)?);
        let tally = self.add_text(path, BufReader::new(&file), list, purpose)?;
        // Half a list is none: whoever writes it has not finished.
        if stamp != Stamp::of(&file.metadata().map_err(wrong)?) {
            self.entries.truncate(before);
            return Err(wrong(files::changes()));
        }
        Ok(tally)
    }

    fn add_text(
        &mut self,
        path: &Path,
        text: impl BufRead,
        list: u16,
        purpose: Purpose,
    ) -> Result<Tally, Problem> {
        let before = self.entries.len();
        let tally = self.add_lines(text, list, purpose);
        let tally = tally.map_err(|error| Problem::with_file(path, &error));
        let tally = tally.and_then(|tally| self.check_tally(path, tally));
        if tally.is_err() {
            self.entries.truncate(before);
        }
        tally
    }

    fn check_tally(&self, path: &Path, tally: Tally) -> Result<Tally, Problem> {
        let problem = |what| Err(Problem::of(path.display().to_string(), what));
        if tally.rules == 0 && tally.skipped > 0 {
            let lines = tally.skipped;
            return problem(format!("has no rule in {lines} lines: is it a blocklist?"));
        }
        if self.entries.len() > NAMES_MAX {
            return problem(format!(
                "with this list there are more than {NAMES_MAX} names"
            ));
        }
        Ok(tally)
    }

    fn add_lines(
        &mut self,
        mut lines: impl BufRead,
        list: u16,
        purpose: Purpose,
    ) -> std::io::Result<Tally> {
        let mut tally = Tally::default();
        let mut line = Vec::new();
        while read_line(&mut lines, &mut line)? {
            match std::str::from_utf8(&line)
                .ok()
                .filter(|line| line.len() < LINE_MAX)
                .map(parse_line)
            {
                Some(Ok(rules)) => {
                    tally.rules += rules.len();
                    rules.iter().for_each(|rule| self.add(rule, list, purpose));
                }
                Some(Err(_)) | None => tally.skipped += 1,
            }
        }
        Ok(tally)
    }

    /// The compiled list. `None` where the hash puts too many names into one bucket, which needs another key; by chance
    /// that happens once in 10^40 times.
    #[must_use]
    pub fn build(mut self) -> Option<Vec<u8>> {
        self.entries.sort_unstable_by_key(|entry| entry.hash);
        self.entries.dedup_by(|next, kept| {
            let same = next.hash == kept.hash;
            if same {
                kept.tag = merge(kept.tag, next.tag);
            }
            same
        });
        self.emit()
    }

    fn emit(&self) -> Option<Vec<u8>> {
        let buckets = self.entries.len().div_ceil(NAMES_PER_BUCKET).max(1);
        let filter_at = field::HEADER_LEN;
        let starts_at = filter_at + buckets * 8;
        let entries_at = starts_at + (buckets + 1) * 4;
        let mut image = vec![0; entries_at + self.entries.len() * ENTRY_LEN];
        let mut counts = vec![0u8; buckets];
        for (index, entry) in self.entries.iter().enumerate() {
            let spot = Spot::new(entry.hash.0);
            let bucket = spot.bucket(buckets as u32);
            counts[bucket] = counts[bucket]
                .checked_add(1)
                .filter(|&count| usize::from(count) <= BUCKET_MAX)?;
            let word = &mut image[filter_at + bucket * 8..][..8];
            let bits = spot.filter_bits().to_le_bytes();
            word.iter_mut()
                .zip(bits)
                .for_each(|(word, bits)| *word |= bits);
            emit_entry(
                &mut image[entries_at + index * ENTRY_LEN..][..ENTRY_LEN],
                entry,
            );
        }
        let mut start = 0;
        for (bucket, count) in counts.into_iter().enumerate() {
            put(&mut image, starts_at + bucket * 4, start);
            start += u32::from(count);
        }
        put(&mut image, starts_at + buckets * 4, start);
        self.emit_header(&mut image, buckets);
        Some(image)
    }

    fn emit_header(&self, image: &mut [u8], buckets: usize) {
        let allows = self
            .entries
            .iter()
            .filter(|entry| entry.tag & (tag::ALLOW_SELF | tag::ALLOW_BELOW) != 0)
            .count();
        let body_crc = CRC.checksum(&image[field::HEADER_LEN..]);
        let file_len = image.len() as u64;
        image[field::MAGIC..][..MAGIC.len()].copy_from_slice(&MAGIC);
        image[field::VERSION..][..2].copy_from_slice(&VERSION.to_le_bytes());
        put(image, field::COUNT, self.entries.len() as u32);
        put(image, field::BUCKETS, buckets as u32);
        put(image, field::ALLOWS, allows as u32);
        image[field::KEY..][..16].copy_from_slice(&self.key);
        image[field::EXACT_DEPTHS..][..16].copy_from_slice(&self.exact_depths.to_le_bytes());
        image[field::SUBTREE_DEPTHS..][..16].copy_from_slice(&self.subtree_depths.to_le_bytes());
        image[field::FILE_LEN..][..8].copy_from_slice(&file_len.to_le_bytes());
        put(image, field::BODY_CRC, body_crc);
        let header_crc = CRC.checksum(&image[..field::HEADER_CRC]);
        put(image, field::HEADER_CRC, header_crc);
    }
}

/// Reads one line without its end into `line`; `false` at the end of the file. Of an overlong line the first
/// [`LINE_MAX`] bytes are kept, which tells that it is one.
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

fn emit_entry(bytes: &mut [u8], entry: &Entry) {
    let (low, high) = (entry.hash.1, Spot::new(entry.hash.0).fingerprint());
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..10].copy_from_slice(&high.to_le_bytes());
    bytes[10..].copy_from_slice(&entry.tag.to_le_bytes());
}

/// The tag of a name that two rules are about: what either says, and the first list of those that block.
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
