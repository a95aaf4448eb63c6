//! The lists of a set: one image of all text, and one of each compiled file. A file that cannot be read, or that lost most of
//! its rules, keeps those of the previous set, and all others are taken as they are.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xdnsd_core::policy::List;
use xdnsd_core::policy::list::CLAUSES_MAX;

use super::{COMPILED_MAX, ListsInput};
use crate::compile::list_file::{ListImage, finish, no_place};
use crate::compile::lists::{Built, KeptRules, ListBuilder, ListPurpose, ListTally, SOURCES_MAX};
use crate::compile::problem::{Notes, Problem};
use crate::compile::room;
use crate::os::files::{self, Stamp};
use crate::text;

/// Lists with fewer rules than this may shrink freely: they are edited by hand.
const SHRINKS_FROM: usize = 8;

/// A list with its sources.
#[derive(Debug)]
pub(super) struct NamedList {
    pub(super) image: Arc<ListImage>,
    /// Names by source index; a compiled file is one source.
    pub(super) sources: Vec<String>,
    /// Purpose and number of rules of each file; `None` if it could never be read.
    files: Vec<(ListPurpose, Option<usize>)>,
    /// State of the compiled file that was read; `None` for text, and for a file that was written a moment before.
    stamp: Option<Stamp>,
    /// Finds the rules of each source again. `None` for a single source.
    kept: Option<KeptRules>,
}

impl NamedList {
    /// The same compiled list.
    fn again(&self) -> Self {
        Self {
            image: Arc::clone(&self.image),
            sources: self.sources.clone(),
            files: self.files.clone(),
            stamp: self.stamp,
            kept: None,
        }
    }

    /// True if it was made from text.
    pub(super) const fn is_of_text(&self) -> bool {
        self.kept.is_some()
    }

    /// Its files, what each is for, and the number of rules.
    pub(super) fn rules_by_file(&self) -> impl Iterator<Item = (String, &'static str, u64)> {
        let files = self.sources.iter().zip(&self.files);
        files.filter_map(|(source, (purpose, rules))| {
            let purpose = match purpose {
                ListPurpose::Block => "block",
                ListPurpose::Allow => "allow",
            };
            Some((source.clone(), purpose, (*rules)? as u64))
        })
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.image.bytes().len() + self.kept.as_ref().map_or(0, KeptRules::bytes)
    }
}

/// Which lists are taken although they lost rules.
#[derive(Debug, Default)]
pub struct Taking {
    /// A reload was asked for: lists that lost no more than half.
    pub is_asked: bool,
    /// Lists in this state that have not been written to for a while.
    pub settled: HashSet<(PathBuf, Stamp)>,
}

/// A file in the previous set.
struct PreviousList<'a> {
    list: &'a NamedList,
    source: u16,
    rules: usize,
}

impl<'a> PreviousList<'a> {
    fn of(
        lists: &'a [NamedList],
        path: &Path,
        purpose: ListPurpose,
        is_compiled: bool,
    ) -> Option<Self> {
        let name = path.display().to_string();
        lists.iter().find_map(|list| {
            let mut sources = list.sources.iter().zip(&list.files);
            let source = sources.position(|(source, file)| *source == name && file.0 == purpose)?;
            let rules = list.files[source].1?;
            (list.kept.is_none() == is_compiled).then_some(Self {
                list,
                source: source as u16,
                rules,
            })
        })
    }
}

/// Decision about a file that was read.
enum FileDecision {
    Taken,
    /// It lost rules, and may still be written.
    Waits,
    /// It lost so many rules that something is wrong with it.
    Refused(Problem),
}

/// Decides by the numbers of rules, now and before, whether a file is taken.
fn judge(path: &Path, has: usize, had: Option<usize>, is_settled: bool) -> FileDecision {
    let Some(had) = had.filter(|&had| has < had) else {
        return FileDecision::Taken;
    };
    if has == 0 || had >= SHRINKS_FROM && has * 2 < had {
        // More likely half a download, or a mistake of its publisher, than intended.
        let what = format!(
            "has {} and had {had}: those stay in force, until it has grown again; \
             `filter.take_shrunk = true`, or a restart, takes it as it is",
            text::count(has, "rule")
        );
        return FileDecision::Refused(Problem::of(path.display().to_string(), what));
    }
    if had >= SHRINKS_FROM && has * 4 < had * 3 && !is_settled {
        return FileDecision::Waits;
    }
    FileDecision::Taken
}

/// The list of the config's own names, if there are any.
pub(super) fn build_own(input: &ListsInput) -> Result<Vec<NamedList>, Problem> {
    check_counts(input)?;
    let text = TextList {
        builder: ListBuilder::default(),
        sources: Vec::new(),
        files: Vec::new(),
    };
    let built = text.finish(input, &mut Notes::default())?;
    Ok(built.into_iter().collect())
}

/// Builds all lists. Files that cannot be taken keep their rules from `before`.
pub(super) fn build(
    input: &ListsInput,
    before: &[NamedList],
    taking: &Taking,
    notes: &mut Notes,
) -> Result<Vec<NamedList>, Problem> {
    check_counts(input)?;
    let reading = Reading {
        input,
        before,
        taking,
    };
    let mut lists = Vec::from_iter(reading.text(notes)?);
    for path in &input.compiled {
        lists.extend(reading.compiled(path, notes));
    }
    Ok(lists)
}

/// The lists of a view: the files that `input` names, from the lists of the set, and its own names. Reads no file.
pub(super) fn build_of(input: &ListsInput, base: &[NamedList]) -> Result<Vec<NamedList>, Problem> {
    check_counts(input)?;
    let reading = Reading {
        input,
        before: base,
        taking: &Taking::default(),
    };
    let mut text = reading.empty();
    // Notes about these files were made when they were read.
    let mut notes = Notes::default();
    for (path, purpose) in input.texts() {
        let before = PreviousList::of(base, path, purpose, false);
        let rules = Reading::keep(&mut text, path, before, &mut notes)?;
        text.sources.push(path.display().to_string());
        text.files.push((purpose, rules));
    }
    let mut lists = Vec::from_iter(text.finish(input, &mut notes)?);
    for path in &input.compiled {
        let before = PreviousList::of(base, path, ListPurpose::Block, true);
        lists.extend(before.map(|before| before.list.again()));
    }
    Ok(lists)
}

/// Inputs of a build.
struct Reading<'a> {
    input: &'a ListsInput,
    before: &'a [NamedList],
    taking: &'a Taking,
}

impl Reading<'_> {
    /// A list without rules that can take kept ones.
    fn empty(&self) -> TextList {
        let kept = self.before.iter().find_map(|list| list.kept.as_ref());
        TextList {
            builder: kept.map_or_else(ListBuilder::default, KeptRules::builder),
            sources: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The list of the text files and of the config's own names; `None` if there are neither.
    fn text(&self, notes: &mut Notes) -> Result<Option<NamedList>, Problem> {
        let mut text = self.empty();
        for (path, purpose) in self.input.texts() {
            let rules = self.add(&mut text, path, purpose, notes)?;
            text.sources.push(path.display().to_string());
            text.files.push((purpose, rules));
        }
        text.finish(self.input, notes)
    }

    /// Adds the rules of a file, or its previous ones. Returns their number.
    fn add(
        &self,
        text: &mut TextList,
        path: &Path,
        purpose: ListPurpose,
        notes: &mut Notes,
    ) -> Result<Option<usize>, Problem> {
        let before = PreviousList::of(self.before, path, purpose, false);
        if before.is_some() && notes.is_busy(path) {
            self.say_busy(path, notes);
            return Self::keep(text, path, before, notes);
        }
        let (mark, source) = (text.builder.mark(), text.sources.len() as u16);
        let stamp = fs::metadata(path).ok().map(|found| Stamp::of(&found));
        let tally = text.builder.add_file(path, source, purpose);
        let had = before.as_ref().map(|before| before.rules);
        if let Some(tally) = self.take(path, stamp, tally, had, notes) {
            notes.told.push(format!("{}: {tally}", path.display()));
            let reasons = tally.reasons_in_words();
            let reasons = reasons.map(|reasons| format!("{}: {reasons}", path.display()));
            notes.told.extend(reasons);
            if let Some((line, what)) = tally.beyond_in_words() {
                notes.push(Problem::in_line(path, line, what));
            }
            return Ok(Some(tally.rules));
        }
        text.builder.forget(&mark);
        Self::keep(text, path, before, notes)
    }

    /// Adds the previous rules of a file, and returns their number.
    fn keep(
        text: &mut TextList,
        path: &Path,
        before: Option<PreviousList<'_>>,
        notes: &mut Notes,
    ) -> Result<Option<usize>, Problem> {
        let to = text.sources.len() as u16;
        let Some(PreviousList {
            list,
            source,
            rules,
        }) = before
        else {
            return Ok(None);
        };
        if let Some(kept) = &list.kept {
            let added = text.builder.add_kept(kept, list.image.bytes(), source, to);
            let left_out = added.map_err(|error| Problem::with_file(path, &error))?;
            if left_out > 0 {
                let what = format!(
                    "of what it said last {} with options left out: more than {CLAUSES_MAX} in all lists",
                    text::count(left_out, "rule")
                );
                notes.push(Problem::of(path.display().to_string(), what));
            }
        }
        Ok(Some(rules))
    }

    /// After a request for a reload, notes that a list is still being written: half of it would be worse than the previous one.
    fn say_busy(&self, path: &Path, notes: &mut Notes) {
        if self.taking.is_asked {
            let what =
                "a list is being written; what it said last stays in force until that is done";
            notes
                .failures
                .push(Problem::of(path.display().to_string(), what));
        }
    }

    /// Returns what was read of a file, if it is taken. `had` is its number of rules in the previous set.
    fn take<T: Rules>(
        &self,
        path: &Path,
        stamp: Option<Stamp>,
        read: Result<T, Problem>,
        had: Option<usize>,
        notes: &mut Notes,
    ) -> Option<T> {
        let read = read.map_err(|mut problem| {
            if let Some(had) = had.filter(|&had| had > 0) {
                let stay = if had == 1 { "stays" } else { "stay" };
                let rules = text::count(had, "rule");
                problem.what = format!("{}; {rules} of it {stay} in force", problem.what);
            }
            problem
        });
        let read = notes.or_fail(read)?;
        let state = stamp.map(|stamp| (path.to_path_buf(), stamp));
        let is_settled = self.taking.is_asked
            || state
                .as_ref()
                .is_none_or(|state| self.taking.settled.contains(state));
        let had = had.filter(|_| !self.input.take_shrunk);
        match judge(path, read.rules(), had, is_settled) {
            FileDecision::Taken => {
                notes.load(path, read.rules());
                Some(read)
            }
            FileDecision::Waits => {
                notes.told.push(format!(
                    "{}: has {} and had {}: taken when nobody writes to it any more",
                    path.display(),
                    text::count(read.rules(), "rule"),
                    had.unwrap_or(0)
                ));
                notes.smaller.extend(state);
                None
            }
            FileDecision::Refused(problem) => {
                notes.failures.push(problem);
                None
            }
        }
    }

    /// A compiled list, or its previous one.
    fn compiled(&self, path: &Path, notes: &mut Notes) -> Option<NamedList> {
        let before = PreviousList::of(self.before, path, ListPurpose::Block, true);
        let had = before.as_ref().map(|before| before.rules);
        if let Some(before) = before.as_ref().filter(|_| notes.is_busy(path)) {
            self.say_busy(path, notes);
            return Some(before.list.again());
        }
        let read = open_compiled(path, self.before);
        // An invalid file is refused at once, without waiting for its writer.
        if let Some(list) = self.take(path, None, read, had, notes) {
            let names = text::count(list.rules(), "name");
            notes.told.push(format!("{}: {names}", path.display()));
            return Some(list);
        }
        before.map(|before| before.list.again())
    }
}

/// Number of rules in what was read.
trait Rules {
    fn rules(&self) -> usize;
}

impl Rules for ListTally {
    fn rules(&self) -> usize {
        self.rules
    }
}

impl Rules for NamedList {
    fn rules(&self) -> usize {
        self.image.list().count()
    }
}

/// Opens a compiled list. If its file is unchanged, the one in memory is shared, so that it is not there twice.
fn open_compiled(path: &Path, before: &[NamedList]) -> Result<NamedList, Problem> {
    let wrong = |error: std::io::Error| Problem::with_file(path, &error);
    let file = files::open(path).map_err(wrong)?;
    let stamp = Stamp::of(&file.metadata().map_err(wrong)?);
    let name = path.display().to_string();
    let is_same = |list: &&NamedList| list.stamp == Some(stamp) && list.sources == [name.as_str()];
    let image = match before.iter().find(is_same) {
        Some(list) => Arc::clone(&list.image),
        None => Arc::new(ListImage::read(path, file)?),
    };
    Ok(NamedList {
        files: vec![(ListPurpose::Block, Some(image.list().count()))],
        image,
        sources: vec![name],
        stamp: stamp.is_settled().then_some(stamp),
        kept: None,
    })
}

/// The list of text, while it is made.
struct TextList {
    builder: ListBuilder,
    sources: Vec<String>,
    files: Vec<(ListPurpose, Option<usize>)>,
}

impl TextList {
    /// Adds the config's own names and builds; `None` if there are no rules.
    fn finish(
        mut self,
        input: &ListsInput,
        notes: &mut Notes,
    ) -> Result<Option<NamedList>, Problem> {
        let keys = [
            ("filter.block", &input.block_names, ListPurpose::Block),
            ("filter.allow", &input.allow_names, ListPurpose::Allow),
        ];
        for (key, names, purpose) in keys {
            for text in names {
                let wrong = |error| Problem::of(key, format!("`{text}` {error}"));
                self.builder
                    .add_name(text, self.sources.len() as u16, purpose)
                    .map_err(wrong)?;
            }
            self.sources.push(key.into());
        }
        if self.builder.is_empty() {
            return Ok(None);
        }
        // Memory for two: it is made, and then copied to sealed memory. What it is made from is freed by then.
        let no_room = |error: std::io::Error| Problem::of("lists", error.to_string());
        room::check_now(self.builder.image_bytes_max()).map_err(no_room)?;
        let Built {
            image,
            kept,
            left_out,
        } = finish(self.builder)?;
        no_place(left_out)
            .into_iter()
            .for_each(|said| notes.push(said));
        room::check_now(image.len() as u64).map_err(no_room)?;
        let image = Arc::new(ListImage::of(&image)?);
        debug_assert!(
            List::check(image.bytes()).is_ok(),
            "what was compiled can be read"
        );
        Ok(Some(NamedList {
            image,
            sources: self.sources,
            files: self.files,
            stamp: None,
            kept: Some(kept),
        }))
    }
}

/// Checks that all lists of a config fit.
fn check_counts(input: &ListsInput) -> Result<(), Problem> {
    if input.compiled.len() > COMPILED_MAX {
        let what = format!(
            "{} compiled lists are too many; allowed: {COMPILED_MAX}",
            input.compiled.len()
        );
        return Err(Problem::of("filter.compiled", what));
    }
    // The config's own names are two more sources.
    if input.block.len() + input.allow.len() + 2 > SOURCES_MAX {
        return Err(Problem::of(
            "lists",
            format!("more than {} files", SOURCES_MAX - 2),
        ));
    }
    Ok(())
}
