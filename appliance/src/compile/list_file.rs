//! Compiled lists as files: `xdnsd lists compile` writes them, the daemon maps them.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use xdnsd_core::policy::list::{
    CLAUSES_MAX, List, ListError, MAGIC, NAMES_MAX, VERSION, check_header, field,
};

use super::lists::{Built, ListBuilder, ListPurpose, ListTally, SOURCES_MAX};
use super::problem::Problem;
use super::room;
use crate::os::files;
use crate::os::sealed_memory::Sealed;
use crate::text;

/// Maximum size of a compiled list, in bytes. A longer file is refused.
const BYTES_MAX: usize = field::HEADER_LEN + NAMES_MAX * 17;

/// A compiled list in sealed memory, checked there when it was loaded.
#[derive(Debug)]
pub struct ListImage(Sealed);

impl ListImage {
    /// Copies a compiled list into memory and checks the copy.
    ///
    /// # Errors
    /// The file cannot be read, is not a compiled list of this version, is truncated or damaged; or there is not enough memory
    /// for it.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let wrong = |error: io::Error| Problem::with_file(path, &error);
        let file = files::open(path).map_err(wrong)?;
        Self::read(path, file)
    }

    /// Reads an open file in the same way.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(path: &Path, file: File) -> Result<Self, Problem> {
        Self::read_within(path, file, room::available())
    }

    /// Reads it if it fits the `available` memory.
    fn read_within(path: &Path, mut file: File, available: Option<u64>) -> Result<Self, Problem> {
        let wrong = |error: io::Error| Problem::with_file(path, &error);
        let no_list = |error| Problem::of(path.display().to_string(), explain(error));
        let before = file.metadata().map_err(wrong)?;
        // The header is checked before there is memory for the list.
        let mut head = [0; field::HEADER_LEN];
        let head_len = before.len().min(head.len() as u64) as usize;
        file.read_exact(&mut head[..head_len]).map_err(wrong)?;
        if let Some(what) = files::no_text(&head[..head_len]) {
            return Err(Problem::of(path.display().to_string(), what));
        }
        check_header(&head[..head_len], before.len()).map_err(no_list)?;
        let len = usize::try_from(before.len())
            .ok()
            .filter(|&len| len <= BYTES_MAX);
        let len = len
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| no_list(ListError::Inconsistent))?;
        room::check(before.len(), available).map_err(wrong)?;
        let image = Sealed::read_from((&head[..head_len]).chain(&mut file), len).map_err(wrong)?;
        let after = file.metadata().map_err(wrong)?;
        if files::Stamp::of(&before) != files::Stamp::of(&after) {
            return Err(wrong(files::changes()));
        }
        List::check(image.as_ref()).map_err(no_list)?;
        Ok(Self(image))
    }

    /// Seals an image from the compiler.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn of(image: &[u8]) -> Result<Self, Problem> {
        let no_memory = |error: io::Error| Problem::of("lists", error.to_string());
        let len = NonZeroUsize::new(image.len()).ok_or_else(|| Problem::of("lists", "is empty"))?;
        Ok(Self(Sealed::read_from(image, len).map_err(no_memory)?))
    }

    /// The list.
    #[must_use]
    pub fn list(&self) -> List<'_> {
        List::view(self.bytes()).unwrap_or(List::EMPTY)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

fn explain(error: ListError) -> String {
    match error {
        ListError::Foreign => {
            "is not a compiled list; `xdnsd lists compile` makes one from text".into()
        }
        ListError::Version { found } => {
            format!(
                "is a compiled list of format version {found}; this release reads version {VERSION}: compile it again"
            )
        }
        ListError::Torn { written, found } => {
            format!("is torn: {written} bytes were written, {found} are there; compile it again")
        }
        ListError::Damaged => "is damaged: a CRC does not match; compile it again".into(),
        ListError::Inconsistent => {
            "is not what `xdnsd lists compile` writes, although its CRCs match".into()
        }
    }
}

/// Summary of a compilation.
#[derive(Clone, Debug)]
pub struct Report {
    /// Sources with their tallies.
    pub sources: Vec<(PathBuf, ListTally)>,
    /// Names in the compiled list: rules about the same name count once.
    pub names: usize,
    /// Those that are allowed.
    pub allowed: u32,
    /// Bytes of the compiled list.
    pub bytes: usize,
    /// Rules that did not fit, see [`no_place`].
    pub left_out: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, tally) in &self.sources {
            writeln!(formatter, "{}: {tally}", path.display())?;
            if let Some(reasons) = tally.reasons_in_words() {
                writeln!(formatter, "{}: {reasons}", path.display())?;
            }
            if let Some((line, what)) = tally.beyond_in_words() {
                writeln!(formatter, "{}", Problem::in_line(path, line, what))?;
            }
        }
        if let Some(problem) = no_place(self.left_out) {
            writeln!(formatter, "{problem}")?;
        }
        write!(
            formatter,
            "{} ({} allowed) in {} bytes",
            text::count(self.names, "name"),
            self.allowed,
            self.bytes
        )
    }
}

/// Compiles lists from text files.
///
/// # Errors
/// A source cannot be read or is no list.
pub fn compile(sources: &[(PathBuf, ListPurpose)]) -> Result<(Vec<u8>, Report), Problem> {
    if sources.len() > SOURCES_MAX {
        return Err(Problem::of(
            "lists",
            format!("more than {SOURCES_MAX} sources"),
        ));
    }
    let mut builder = ListBuilder::default();
    let mut tallies = Vec::new();
    for (index, (path, purpose)) in sources.iter().enumerate() {
        tallies.push((
            path.clone(),
            builder.add_file(path, index as u16, *purpose)?,
        ));
    }
    let Built {
        image, left_out, ..
    } = finish(builder)?;
    let list = List::view(&image).map_err(|error| Problem::of("lists", explain(error)))?;
    let report = Report {
        sources: tallies,
        names: list.count(),
        allowed: list.allows(),
        bytes: image.len(),
        left_out,
    };
    Ok((image, report))
}

/// Builds the image, with what is needed to find each source's names in it again.
pub(super) fn finish(builder: ListBuilder) -> Result<Built, Problem> {
    let crowded = || {
        let what = "too many names fall together under this key; compile again";
        Problem::of("lists", what)
    };
    builder.build_to_keep().ok_or_else(crowded)
}

/// Problem about rules that did not fit: those for names that have also rules with options, or of another rank.
pub(super) fn no_place(left_out: usize) -> Option<Problem> {
    let rules = text::count(left_out, "rule");
    let what = format!(
        "names that have options, or rules with and without `$important`, have more than {CLAUSES_MAX} rules in all: {rules} left out"
    );
    (left_out > 0).then(|| Problem::of("lists", what))
}

/// Writes a compiled list so that a reader, or a power cut, sees either the old file or the new one.
///
/// # Errors
/// The file cannot be written, or is something other than a compiled list.
pub fn write(path: &Path, image: &[u8]) -> Result<(), Problem> {
    let path = &target(path).map_err(|error| Problem::with_file(path, &error))?;
    let mut temporary = OsString::from(path);
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = write_whole(&temporary, image).and_then(|()| std::fs::rename(&temporary, path));
    written.and_then(|()| sync_folder(path)).map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        Problem::with_file(path, &error)
    })
}

/// Resolves links to the file that a list is to replace. Only an empty file or a compiled list is replaced: no device, and no
/// text that comes first because the output's name was forgotten.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path.into()),
        Err(error) => return Err(error),
    };
    let mut head = Vec::new();
    (&mut file)
        .take(MAGIC.len() as u64)
        .read_to_end(&mut head)?;
    if !head.is_empty() && head != MAGIC {
        let what = "exists and is not a compiled list: not replaced";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    path.canonicalize()
}

fn write_whole(path: &Path, image: &[u8]) -> std::io::Result<()> {
    let mut file = files::create_own(path, 0o644)?;
    file.write_all(image)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Carries out `xdnsd lists compile [--allow FILE]… OUT IN…`.
///
/// # Errors
/// What is wrong with the arguments, with a source, or with writing `OUT`.
pub fn compile_command(arguments: &[OsString]) -> Result<Report, Problem> {
    let usage = || Problem::of("usage", "xdnsd lists compile [--allow FILE]... OUT IN...");
    let mut allow = Vec::new();
    let mut rest = arguments.iter();
    let mut files = Vec::new();
    while let Some(argument) = rest.next() {
        if argument == "--allow" {
            allow.push((
                PathBuf::from(rest.next().ok_or_else(usage)?),
                ListPurpose::Allow,
            ));
        } else if argument.as_encoded_bytes().starts_with(b"--") {
            return Err(usage());
        } else {
            files.push(PathBuf::from(argument));
        }
    }
    let (out, sources) = files.split_first().ok_or_else(usage)?;
    if sources.is_empty() {
        return Err(usage());
    }
    let mut sources: Vec<_> = sources
        .iter()
        .map(|path| (path.clone(), ListPurpose::Block))
        .collect();
    target(out).map_err(|error| Problem::with_file(out, &error))?;
    sources.extend(allow);
    let (image, report) = compile(&sources)?;
    write(out, &image)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, Writer};
    use std::fmt::Write as _;
    use std::io::SeekFrom;
    use std::time::Duration;
    use xdnsd_core::policy::list::Listing;
    use xdnsd_core::policy::name::Labels;
    use xdnsd_lab::wait::wait_until;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn listing(list: &List<'_>, name: &str) -> Listing {
        let name = super::super::name::parse(name).expect("a name");
        list.listing(&Labels::new(&name).expect("well-formed"), 1)
    }

    fn arguments(words: &[&Path]) -> Vec<OsString> {
        words
            .iter()
            .map(|word| word.as_os_str().to_owned())
            .collect()
    }

    #[test]
    fn the_command_writes_what_the_daemon_maps() {
        let folder = Folder::new();
        let ads = folder.write("ads.txt", "ads.example\n||cdn.example^$script\n");
        let hosts = folder.write("hosts", "0.0.0.0 tracker.example\n");
        let allow = folder.write("allow.txt", "ok.ads.example\n");
        let out = folder.path().join("out.list");
        let words = arguments(&[Path::new("--allow"), &allow, &out, &ads, &hosts]);
        let report = compile_command(&words).expect("compiled");
        assert_eq!((report.names, report.allowed), (3, 1));
        assert_eq!(
            report.bytes as u64,
            std::fs::metadata(&out).expect("written").len()
        );
        assert!(
            report
                .to_string()
                .contains("ads.txt: 1 rule, 1 line skipped"),
            "{report}"
        );
        let image = ListImage::open(&out).expect("a list");
        assert_eq!(
            listing(&image.list(), "x.ads.example"),
            Listing::Blocked { list: 0 }
        );
        assert_eq!(
            listing(&image.list(), "tracker.example"),
            Listing::Blocked { list: 1 }
        );
        assert_eq!(listing(&image.list(), "ok.ads.example"), Listing::Allowed);
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .collect();
        assert_eq!(left.len(), 4, "no temporary file is left");
    }

    #[test]
    fn a_list_outlives_the_file_that_replaces_it() {
        let folder = Folder::new();
        let out = folder.path().join("out.list");
        let source = folder.write("a.txt", "old.example");
        compile_command(&arguments(&[&out, &source])).expect("compiled");
        let old = ListImage::open(&out).expect("a list");
        folder.write("a.txt", "new.example");
        compile_command(&arguments(&[&out, &source])).expect("compiled");
        let new = ListImage::open(&out).expect("a list");
        assert_eq!(
            listing(&old.list(), "old.example"),
            Listing::Blocked { list: 0 }
        );
        assert_eq!(listing(&old.list(), "new.example"), Listing::None);
        assert_eq!(
            listing(&new.list(), "new.example"),
            Listing::Blocked { list: 0 }
        );
    }

    /// `cp` over a list in use.
    #[test]
    fn a_list_in_use_does_not_change_whatever_happens_to_its_file() {
        let folder = Folder::new();
        let out = folder.path().join("out.list");
        let text: String = (0..10_000)
            .map(|number| format!("ads{number}.example\n"))
            .collect();
        let source = folder.write("a.txt", text);
        compile_command(&arguments(&[&out, &source])).expect("compiled");
        let image = ListImage::open(&out).expect("a list");
        let are_all_blocked = || {
            let list = image.list();
            let blocked = |number| listing(&list, &format!("ads{number}.example")) != Listing::None;
            (0..10_000).all(blocked)
        };
        let file = File::options().write(true).open(&out).expect("opened");
        file.set_len(5_000).expect("shortened");
        assert!(are_all_blocked(), "shortened");
        file.set_len(200_000).expect("grown again, by zeros");
        assert!(are_all_blocked(), "overwritten");
        std::fs::remove_file(&out).expect("removed");
        assert!(are_all_blocked(), "removed");
    }

    #[test]
    fn a_list_that_leaves_no_memory_is_refused() {
        let folder = Folder::new();
        let (out, source) = (
            folder.path().join("out"),
            folder.write("a.txt", "a.example"),
        );
        compile_command(&arguments(&[&out, &source])).expect("compiled");
        let read = |available| {
            let file = files::open(&out).expect("opened");
            ListImage::read_within(&out, file, Some(available)).is_ok()
        };
        let bytes = std::fs::metadata(&out).expect("written").len();
        let least = bytes + room::LEFT_FREE;
        assert!(read(least) && !read(least - 1));
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = Folder::new();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for (path, kind) in [
            (fifo.as_path(), "FIFO"),
            (folder.path(), "folder"),
            (Path::new("/dev/zero"), "device"),
        ] {
            let error = ListImage::open(path).expect_err(kind).to_string();
            assert_eq!(
                error,
                format!("{}: is a {kind}, not a file", path.display())
            );
        }
        let huge = folder.write("huge", "XDNSLIST");
        File::options()
            .write(true)
            .open(&huge)
            .and_then(|file| file.set_len(1 << 40))
            .expect("sparse");
        assert!(ListImage::open(&huge).is_err());
    }

    /// Otherwise root would turn `/dev/null` into a file.
    #[test]
    fn only_a_compiled_list_is_replaced() {
        let folder = Folder::new();
        let source = folder.write("ads.txt", "ads.example\n");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for (out, why) in [
            (
                source.as_path(),
                "exists and is not a compiled list: not replaced",
            ),
            (fifo.as_path(), "is a FIFO, not a file"),
            (folder.path(), "is a folder, not a file"),
        ] {
            let error = compile_command(&arguments(&[out, &source])).expect_err(why);
            assert_eq!(error.to_string(), format!("{}: {why}", out.display()));
            let error = write(out, b"XDNSLIST").expect_err(why).to_string();
            assert!(error.ends_with(why), "{error}");
        }
        let text = std::fs::read_to_string(&source).expect("as it was");
        assert_eq!(text, "ads.example\n");
        let (out, link) = (folder.write("out", ""), folder.path().join("link"));
        std::os::unix::fs::symlink(&out, &link).expect("a link");
        for _ in 0..2 {
            compile_command(&arguments(&[&link, &source])).expect("an empty file, then a list");
            assert!(link.is_symlink(), "a link stays one");
            assert!(ListImage::open(&out).is_ok());
        }
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        let (out, no) = (Path::new("/nonexistent/out"), Path::new("/nonexistent/in"));
        for words in [
            &[][..],
            &[out],
            &[out, Path::new("--alow"), no],
            &[out, no, Path::new("--allow")],
        ] {
            let error = compile_command(&arguments(words))
                .expect_err("wrong")
                .to_string();
            assert!(error.starts_with("usage"), "{error}");
        }
        let error = compile_command(&arguments(&[out, no]))
            .expect_err("no such file")
            .to_string();
        assert!(error.starts_with("/nonexistent/in: "), "{error}");
    }

    #[test]
    fn a_file_that_is_no_list_says_so() {
        let folder = Folder::new();
        let cases = [
            ("empty", &b""[..], "is not a compiled list"),
            ("text", b"ads.example", "is not a compiled list"),
        ];
        for (name, content, what) in cases {
            let error = ListImage::open(&folder.write(name, content))
                .expect_err("no list")
                .to_string();
            assert!(error.contains(what), "{error}");
        }
        let source = folder.write("a.txt", "ads.example");
        let (image, _) = compile(&[(source, ListPurpose::Block)]).expect("compiled");
        let torn = folder.write("torn", &image[..image.len() - 1]);
        let error = ListImage::open(&torn).expect_err("torn").to_string();
        assert!(
            error.contains("is torn") && error.starts_with(&torn.display().to_string()),
            "{error}"
        );
        let mut damaged = image;
        *damaged.last_mut().expect("bytes") ^= 1;
        let error = ListImage::open(&folder.write("damaged", &damaged))
            .expect_err("damaged")
            .to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    /// The bytes are the same and the stamp differs: the writer has not finished.
    #[test]
    fn a_list_that_is_written_to_while_it_is_read_is_refused() {
        let folder = Folder::new();
        let (source, out) = (folder.path().join("ads.txt"), folder.path().join("list"));
        let names: String = million().take(20_000).collect::<Vec<_>>().join("\n");
        std::fs::write(&source, names).expect("written");
        compile_command(&arguments(&[&out, &source])).expect("compiled");
        let magic = std::fs::read(&out).expect("a list");
        let first = magic[..8].to_vec().leak();
        let writer = Writer::start(&out, first, SeekFrom::Start(0));
        let refused = wait_until("it changes while it is read", TIMEOUT, || {
            let read = ListImage::open(&out).map(drop);
            read.is_err_and(|problem| problem.to_string().ends_with("changes while it is read"))
        });
        drop(writer);
        refused.expect("refused");
        assert!(ListImage::open(&out).is_ok(), "it was left alone");
    }

    /// A million distinct names as lists have them: two to four labels, 8 to 40 letters.
    fn million() -> impl Iterator<Item = String> {
        const NAMES: u32 = 1_000_000;
        (0..NAMES).map(|number| {
            let spread = number.wrapping_mul(2_654_435_761);
            match number % 3 {
                0 => format!("ads{number}.net{}", spread % 97),
                1 => format!("t{number}.tracker{}.example", spread % 1009),
                _ => format!("x{number}.metrics.{spread:08x}-analytics.co{}", spread % 13),
            }
        })
    }

    #[test]
    fn a_million_names_fit_in_sixteen_mebibytes_and_each_is_found() {
        let folder = Folder::new();
        let mut text = String::new();
        million().for_each(|name| writeln!(text, "{name}").expect("memory"));
        let source = folder.write("million.txt", &text);
        let out = folder.path().join("million.list");
        let report = compile_command(&arguments(&[&out, &source])).expect("compiled");
        assert_eq!(report.names, 1_000_000);
        let len = std::fs::metadata(&out).expect("written").len();
        assert!(len <= 16_000_000, "{len} bytes: more than 16 per name");
        let image = ListImage::open(&out).expect("a list");
        let list = image.list();
        for name in million() {
            assert_eq!(
                listing(&list, &name),
                Listing::Blocked { list: 0 },
                "{name}"
            );
        }
        // Names that differ in one letter, and names below.
        for name in million().step_by(8) {
            assert_eq!(
                listing(&list, &format!("y{name}")),
                Listing::None,
                "y{name}"
            );
            assert_eq!(
                listing(&list, &format!("www.{name}")),
                Listing::Blocked { list: 0 },
                "www.{name}"
            );
        }
    }
}
