//! Compiles blocklists to the image that `xdnsd_core::policy::list` reads, in memory or as a file.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use xdnsd_core::policy::hash::HashKey;
use xdnsd_core::policy::list::{
    BUCKET_MAX, CRC, ENTRY_LEN, MAGIC, NAMES_MAX, NAMES_PER_BUCKET, Spot, VERSION, field, tag,
};
use xdnsd_core::policy::name::Labels;

use super::name;
use super::problem::Problem;
use super::rules::{Covers, Rule, parse_line};
use super::table::{put, random_key};

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
        let file = File::open(path).map_err(|error| Problem::with_file(path, &error))?;
        self.add_text(path, BufReader::new(file), list, purpose)
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
mod tests {
    use super::*;
    use crate::policy::testing::Folder;
    use xdnsd_core::policy::list::{List, ListError, Verdict};

    const BLOCKED: Verdict = Verdict::Blocked { list: 0 };

    fn compile(sources: &[(&str, Purpose)]) -> Vec<u8> {
        let mut builder = ListBuilder::default();
        for (index, (text, purpose)) in sources.iter().enumerate() {
            builder
                .add_lines(text.as_bytes(), index as u16, *purpose)
                .expect("bytes can be read");
        }
        builder.build().expect("no crowded bucket")
    }

    fn verdict(image: &[u8], name: &str) -> Verdict {
        let name = name::parse(name).expect("a name");
        List::check(image)
            .expect("a list")
            .verdict(&Labels::new(&name).expect("well-formed"))
    }

    #[test]
    fn each_shape_covers_what_it_says() {
        let text =
            "0.0.0.0 hosts.example\ntree.example\n*.below.example\n|exact.example^\n||zip^\n";
        let image = compile(&[(text, Purpose::Block)]);
        let blocked = [
            "hosts.example",
            "tree.example",
            "a.tree.example",
            "a.b.tree.example",
            "x.below.example",
        ];
        for name in
            blocked
                .into_iter()
                .chain(["y.x.below.example", "exact.example", "zip", "evil.zip"])
        {
            assert_eq!(verdict(&image, name), BLOCKED, "{name}");
        }
        let free = [
            "a.hosts.example",
            "below.example",
            "a.exact.example",
            "xtree.example",
            "example",
            "tree",
            ".",
        ];
        for name in free
            .into_iter()
            .chain(["zipper", "tree.example.org", "hosts.example.x"])
        {
            assert_eq!(verdict(&image, name), Verdict::None, "{name}");
        }
    }

    #[test]
    fn allowed_wins_wherever_it_stands() {
        let block =
            "ads.example\nsub.ok.example\n@@||good.ads.example^\n||important.example^$important";
        let image = compile(&[
            (block, Purpose::Block),
            ("ok.example\n0.0.0.0 www.ads.example", Purpose::Allow),
        ]);
        assert_eq!(verdict(&image, "ads.example"), BLOCKED);
        assert_eq!(verdict(&image, "x.ads.example"), BLOCKED);
        assert_eq!(verdict(&image, "important.example"), BLOCKED);
        assert_eq!(
            verdict(&image, "good.ads.example"),
            Verdict::Allowed,
            "an exception below a block"
        );
        assert_eq!(verdict(&image, "a.good.ads.example"), Verdict::Allowed);
        assert_eq!(
            verdict(&image, "sub.ok.example"),
            Verdict::Allowed,
            "an allowed parent above a block"
        );
        assert_eq!(
            verdict(&image, "www.ads.example"),
            Verdict::Allowed,
            "a hosts line allows exactly"
        );
        assert_eq!(verdict(&image, "a.www.ads.example"), BLOCKED);
        assert_eq!(verdict(&image, "other.example"), Verdict::None);
    }

    #[test]
    fn rules_about_one_name_are_one_entry() {
        let first = "0.0.0.0 a.example\n*.a.example\n0.0.0.0 b.example";
        let image = compile(&[
            ("@@|c.example^", Purpose::Block),
            (first, Purpose::Block),
            ("a.example\nc.example", Purpose::Block),
        ]);
        let list = List::check(&image).expect("a list");
        assert_eq!((list.count(), list.allows()), (3, 1));
        assert_eq!(
            verdict(&image, "a.example"),
            Verdict::Blocked { list: 1 },
            "the first list that has it"
        );
        assert_eq!(verdict(&image, "x.a.example"), Verdict::Blocked { list: 1 });
        assert_eq!(verdict(&image, "c.example"), Verdict::Allowed);
        assert_eq!(
            verdict(&image, "x.c.example"),
            Verdict::Blocked { list: 2 },
            "an exception has no list of its own"
        );
    }

    #[test]
    fn the_nearest_block_is_reported() {
        let image = compile(&[
            ("example", Purpose::Block),
            ("ads.example.org", Purpose::Block),
            ("example.org", Purpose::Block),
        ]);
        assert_eq!(
            verdict(&image, "x.ads.example.org"),
            Verdict::Blocked { list: 1 }
        );
        assert_eq!(
            verdict(&image, "x.example.org"),
            Verdict::Blocked { list: 2 }
        );
    }

    #[test]
    fn an_exception_does_not_take_a_block_for_its_own() {
        let block_first = compile(&[
            ("a.example", Purpose::Block),
            ("@@|a.example^", Purpose::Block),
        ]);
        let block_last = compile(&[
            ("@@|a.example^", Purpose::Block),
            ("a.example", Purpose::Block),
        ]);
        let below = |image| verdict(image, "x.a.example");
        assert_eq!(below(&block_first), Verdict::Blocked { list: 0 });
        assert_eq!(below(&block_last), Verdict::Blocked { list: 1 });
    }

    #[test]
    fn of_a_file_that_fails_half_way_nothing_is_kept() {
        struct Failing;
        impl std::io::Read for Failing {
            fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("worn out flash"))
            }
        }
        let mut builder = ListBuilder::default();
        let text = BufReader::new(std::io::Read::chain(&b"half.example\n"[..], Failing));
        let error = builder.add_text(Path::new("list"), text, 0, Purpose::Block);
        assert_eq!(
            error.expect_err("fails").to_string(),
            "list: worn out flash"
        );
        assert!(builder.is_empty());
    }

    #[test]
    fn an_overlong_line_is_not_taken_half() {
        // Cut at LINE_MAX, the line would end in `a.exampl`.
        let names = " a.example".repeat(1000);
        let mut builder = ListBuilder::default();
        let text = format!("0.0.0.0{names}\n0.0.0.0 ok.example");
        let tally = builder.add_lines(text.as_bytes(), 0, Purpose::Block);
        let expected = Tally {
            rules: 1,
            skipped: 1,
        };
        assert_eq!(tally.expect("bytes can be read"), expected);
    }

    /// Against the definition, over all names of a small world.
    #[test]
    fn any_list_says_what_its_rules_say() {
        let labels = ["a", "b"];
        let mut world = vec![String::new()];
        for _ in 0..4 {
            let deeper = labels
                .iter()
                .flat_map(|label| world.iter().map(move |name| format!("{label}.{name}")));
            let deeper: Vec<_> = deeper.collect();
            world.extend(deeper);
        }
        world.sort();
        world.dedup();
        world.retain(|name| !name.is_empty());
        let mut state = 7u32;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..300 {
            let mut builder = ListBuilder::default();
            let mut rules = Vec::new();
            for _ in 0..draw(8) {
                let rule = Rule {
                    name: name::parse(&world[draw(world.len())]).expect("a name"),
                    covers: [Covers::Name, Covers::Below, Covers::Subtree][draw(3)],
                    is_exception: draw(4) == 0,
                };
                builder.add(&rule, 0, Purpose::Block);
                rules.push(rule);
            }
            let image = builder.build().expect("no crowded bucket");
            for name in &world {
                let wire = name::parse(name).expect("a name");
                // A label's length byte is no letter, so a suffix of bytes is one of labels.
                let covers = |rule: &&Rule| match rule.covers {
                    Covers::Name => wire == rule.name,
                    Covers::Below => wire.ends_with(&rule.name) && wire != rule.name,
                    Covers::Subtree => wire.ends_with(&rule.name),
                };
                let says = |exception| {
                    rules
                        .iter()
                        .filter(covers)
                        .any(|rule| rule.is_exception == exception)
                };
                let expected = match (says(true), says(false)) {
                    (true, _) => Verdict::Allowed,
                    (false, true) => BLOCKED,
                    (false, false) => Verdict::None,
                };
                assert_eq!(verdict(&image, name), expected, "{name} {rules:?}");
            }
        }
    }

    #[test]
    fn buckets_out_of_order_are_refused_although_the_crcs_match() {
        let text: String = (0..40).map(|n| format!("n{n}.example\n")).collect();
        let image = compile(&[(&text, Purpose::Block)]);
        let starts_at = field::HEADER_LEN + 10 * 8;
        for (bucket, start) in [(0, 1), (5, 41), (9, 0), (10, 39)] {
            let mut broken = image.clone();
            put(&mut broken, starts_at + bucket * 4, start);
            let body_crc = CRC.checksum(&broken[field::HEADER_LEN..]);
            put(&mut broken, field::BODY_CRC, body_crc);
            let header_crc = CRC.checksum(&broken[..field::HEADER_CRC]);
            put(&mut broken, field::HEADER_CRC, header_crc);
            assert_eq!(
                List::check(&broken).err(),
                Some(ListError::Inconsistent),
                "{bucket}"
            );
        }
    }

    #[test]
    fn an_empty_list_blocks_nothing() {
        let image = compile(&[]);
        assert_eq!(verdict(&image, "a.example"), Verdict::None);
        assert_eq!(verdict(&image, "."), Verdict::None);
    }

    #[test]
    fn the_deepest_names_are_found() {
        let deepest = "a.".repeat(127);
        let image = compile(&[(deepest.as_str(), Purpose::Block)]);
        assert_eq!(verdict(&image, &deepest), BLOCKED);
        assert_eq!(verdict(&image, &"a.".repeat(126)), Verdict::None);
    }

    #[test]
    fn names_from_the_config() {
        let mut builder = ListBuilder::default();
        builder
            .add_name("a.example", 0, Purpose::Block)
            .expect("a name");
        builder
            .add_name("*.b.example", 0, Purpose::Block)
            .expect("a name");
        assert!(builder.add_name("c d", 0, Purpose::Block).is_err());
        let image = builder.build().expect("no crowded bucket");
        assert_eq!(verdict(&image, "x.a.example"), BLOCKED);
        assert_eq!(verdict(&image, "b.example"), Verdict::None);
    }

    #[test]
    fn lines_of_any_length_and_bytes_are_counted() {
        let mut text = Vec::from(*b"good.example\r\n\xff\xfe.example\n");
        text.extend(std::iter::repeat_n(b'a', 3 * LINE_MAX));
        text.extend(b"\nlast.example");
        let mut builder = ListBuilder::default();
        let tally = builder
            .add_lines(text.as_slice(), 0, Purpose::Block)
            .expect("bytes can be read");
        assert_eq!(
            tally,
            Tally {
                rules: 2,
                skipped: 2
            }
        );
        assert_eq!(
            verdict(&builder.build().expect("no crowded bucket"), "last.example"),
            BLOCKED
        );
    }

    #[test]
    fn a_page_in_place_of_a_list_is_an_error() {
        let folder = Folder::new();
        let page = folder.write("list.txt", "<html>\n<body>Please log in</body>\n</html>\n");
        let error = ListBuilder::default()
            .add_file(&page, 0, Purpose::Block)
            .expect_err("no list");
        assert_eq!(
            error.to_string(),
            format!(
                "{}: has no rule in 3 lines: is it a blocklist?",
                page.display()
            )
        );
        let comments = folder.write("comments.txt", "# nothing yet\n");
        let tally = ListBuilder::default()
            .add_file(&comments, 0, Purpose::Block)
            .expect("an empty list is one");
        assert_eq!(tally, Tally::default());
        let missing = folder.path().join("missing.txt");
        assert!(
            ListBuilder::default()
                .add_file(&missing, 0, Purpose::Block)
                .is_err()
        );
    }

    #[test]
    fn a_list_cut_or_changed_anywhere_is_refused() {
        let image = compile(&[(
            "a.example\n@@||b.a.example^\n0.0.0.0 c.example",
            Purpose::Block,
        )]);
        for len in 0..image.len() {
            let expected = match len {
                0..8 => ListError::Foreign,
                _ if len < field::HEADER_LEN => ListError::Torn {
                    written: field::HEADER_LEN as u64,
                    found: len as u64,
                },
                _ => ListError::Torn {
                    written: image.len() as u64,
                    found: len as u64,
                },
            };
            assert_eq!(
                List::check(&image[..len]).err(),
                Some(expected),
                "cut at {len}"
            );
        }
        let mut longer = image.clone();
        longer.push(0);
        assert!(matches!(List::check(&longer), Err(ListError::Torn { .. })));
        for at in 0..image.len() {
            let mut changed = image.clone();
            changed[at] ^= 1;
            assert!(List::check(&changed).is_err(), "a bit of byte {at} changed");
        }
        let mut future = image;
        future[field::VERSION] = 2;
        assert_eq!(
            List::check(&future).err(),
            Some(ListError::Version { found: 2 })
        );
    }

    /// CRCs that match prove nothing about who wrote them: any header and any body must be survived.
    #[test]
    fn any_bytes_with_matching_crcs_are_survived() {
        let image = compile(&[(
            "a.example\n@@||b.a.example^\n0.0.0.0 c.example",
            Purpose::Block,
        )]);
        let name = name::parse("x.b.a.example").expect("a name");
        let labels = Labels::new(&name).expect("well-formed");
        for at in 0..image.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut broken = image.clone();
                broken[at] = byte;
                let body_crc = CRC.checksum(&broken[field::HEADER_LEN..]);
                put(&mut broken, field::BODY_CRC, body_crc);
                let header_crc = CRC.checksum(&broken[..field::HEADER_CRC]);
                put(&mut broken, field::HEADER_CRC, header_crc);
                let checked = List::check(&broken).map(|list| list.verdict(&labels));
                let viewed = List::view(&broken).map(|list| list.verdict(&labels));
                assert!(checked.is_err() || checked == viewed, "byte {at}");
            }
        }
    }
}
