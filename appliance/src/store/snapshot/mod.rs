//! The snapshot on disk: how the cache survives a restart and a power cut.
//!
//! ```text
//!  PATH      the newest generation            PATH.tmp  being written
//!  PATH.old  the one before
//!
//!  write PATH.tmp, fsync, rename PATH -> PATH.old, rename PATH.tmp -> PATH, fsync the folder
//! ```
//! The file being written is made anew each time, whatever had its name, and what is read belongs to root or to us and
//! nobody else may write to it (`os::files`). At any moment one whole generation stands under a name that is read. What cannot be read costs at most what is broken
//! in it; what cannot be written is said in the log and tried again. Nothing here stops the start or delays a worker.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use xdnsd_core::answer::{Answer, Head};
use xdnsd_core::cache::snapshot::{
    Encoder, HeaderError, Marker, RECORD_MAX, SnapshotHeader, SnapshotRecords, open,
};
use xdnsd_core::dns::rcode;
use xdnsd_core::limits;
use xdnsd_core::time::Instant;

use crate::os::files::place::{self, Obstacle};
use crate::os::{clock, files, random};
use crate::store::{STEP, SharedCache, Walk};
use crate::text;

/// Bytes of the longest file that the fullest cache makes; no more is read. It is in memory only at the start, before
/// the rings and tables of the workers are.
pub const FILE_BYTES_MAX: usize = SnapshotHeader::LEN
    + limits::CACHE_SHARDS
        * limits::CACHE_WAYS
        * (limits::CACHE_LARGE_SETS * RECORD_MAX
            + limits::CACHE_SMALL_SETS
                * (RECORD_MAX - limits::CACHE_LARGE_BYTES + limits::CACHE_SMALL_BYTES));

/// Bytes that are collected before they are written.
pub const BUFFER: usize = 64 * 1024;
const _: () = assert!(BUFFER > STEP * RECORD_MAX);
/// How long the writer steps aside after each buffer. Not a lower priority: a thread that the scheduler holds back while
/// it has a lock holds back the workers with it.
const PAUSE: Duration = Duration::from_millis(1);

/// The files of a snapshot.
#[derive(Clone, Debug)]
pub struct Store {
    newest: PathBuf,
    before: PathBuf,
    unfinished: PathBuf,
    /// Answers that have been stale for longer are not kept.
    stale_max_secs: u32,
    /// Where the config names it, in front of what stands in its way.
    named_at: String,
}

/// Why the age of a snapshot cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It does not say when it was written.
    Header,
    /// adjtimex(2) says so.
    NotSynchronised,
    /// The wall clock is before this program.
    NotSet,
    /// The same when it was written.
    NotSynchronisedThen,
    /// It was written later than now.
    Future,
}

impl Doubt {
    fn of(header: Option<&SnapshotHeader>) -> Option<Self> {
        let Some(header) = header else {
            return Some(Self::Header);
        };
        let now = clock::wall_secs();
        if header
            .age_secs(now, clock::wall_is_synchronised())
            .is_some()
        {
            None
        } else if clock::own_wall_secs().is_none() {
            Some(Self::NotSet)
        } else if !clock::wall_is_synchronised() {
            Some(Self::NotSynchronised)
        } else if header.saved_secs > now {
            Some(Self::Future)
        } else {
            Some(Self::NotSynchronisedThen)
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Header => "its header is damaged",
            Self::NotSynchronised => "the kernel says that the clock is not synchronised",
            Self::NotSet => "the clock was never set",
            Self::NotSynchronisedThen => "the clock was not synchronised when it was written",
            Self::Future => "it was written in the future",
        })
    }
}

/// What was brought back, for one line in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Where it came from. `None`: there was nothing to read.
    pub file: Option<PathBuf>,
    /// Why its age cannot be known.
    pub doubt: Option<Doubt>,
    /// Answers put into the cache.
    pub answers: usize,
    /// How long ago the file was written, if that can be known.
    pub age_secs: Option<u32>,
    /// Stretches of the file that gave no answer.
    pub broken: usize,
    /// Answers that the file should have had and has not, the broken ones among them.
    pub missing: usize,
    /// Answers that were stale for too long.
    pub expired: usize,
    /// What is wrong with the file, or with a newer generation.
    pub faults: Vec<String>,
}

impl Restored {
    /// Whether anything is wrong: then the line is a warning.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.broken + self.missing > 0 || !self.faults.is_empty()
    }

    /// The file lost everything that it had.
    fn is_useless(&self) -> bool {
        self.answers + self.expired == 0 && self.broken + self.missing > 0
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            None => formatter.write_str("no snapshot to restore")?,
            Some(file) => {
                write!(
                    formatter,
                    "restored {} from {}",
                    text::count(self.answers, "answer"),
                    file.display()
                )?;
                match self.age_secs {
                    Some(age_secs) => write!(formatter, ", {age_secs} s old")?,
                    None => {
                        let doubt = self.doubt.unwrap_or(Doubt::Header);
                        write!(
                            formatter,
                            ", of unknown age ({doubt}), to be served as stale"
                        )?;
                    }
                }
            }
        }
        for (count, what) in [
            (self.broken, "broken"),
            (self.missing, "missing"),
            (self.expired, "expired"),
        ] {
            if count > 0 {
                write!(formatter, ", {count} {what}")?;
            }
        }
        for fault in &self.faults {
            write!(formatter, "; {fault}")?;
        }
        Ok(())
    }
}

impl Store {
    /// The snapshot at `path`.
    #[must_use]
    pub fn new(path: &Path, stale_max_secs: u32) -> Self {
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self {
            newest: path.to_owned(),
            before: beside(".old"),
            unfinished: beside(".tmp"),
            stale_max_secs,
            named_at: String::new(),
        }
    }

    /// The same, which `place` of the config names.
    #[must_use]
    pub fn named_at(self, place: &str) -> Self {
        Self {
            named_at: format!("{place}: "),
            ..self
        }
    }

    /// All files that it writes.
    #[must_use]
    pub fn paths(&self) -> [PathBuf; 3] {
        [&self.newest, &self.before, &self.unfinished].map(Clone::clone)
    }

    /// Why no snapshot could be written, as far as that shows before: its folder, or the nearest above it that there is, takes
    /// no file from this process; or something else than a snapshot has one of its names.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        let names = [&self.newest, &self.before];
        // The folder first: a file of /proc is not even opened.
        let obstacle = place::folder_obstacle(&self.newest)
            .or_else(|| names.into_iter().find_map(|path| in_the_way(path)))
            .or_else(|| in_the_way_of_new(&self.unfinished))
            .or_else(|| place::full(&self.newest));
        Some(obstacle?.so("no snapshot can be written"))
    }

    /// The obstacle as the log has it.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.refusal().map(|error| error.to_string())
    }

    fn refusal(&self) -> Option<io::Error> {
        let Obstacle { what, kind } = self.obstacle()?;
        Some(io::Error::new(kind, format!("{}{what}", self.named_at)))
    }

    /// Puts the newest good generation into `cache`. Never fails: what is wrong is in the result.
    pub fn load(&self, cache: &SharedCache, now: Instant) -> Restored {
        self.load_unless(cache, now, || false)
    }

    /// The same, unless `is_late` when a file was read: then others have put newer answers into `cache`.
    pub fn load_unless(
        &self,
        cache: &SharedCache,
        now: Instant,
        is_late: impl Fn() -> bool,
    ) -> Restored {
        let mut faults = Vec::new();
        for file in [&self.newest, &self.before] {
            match self.load_file(file, cache, now, &is_late) {
                Ok(restored) if restored.is_useless() => {
                    faults.push(format!("{}: nothing but broken records", file.display()));
                }
                Ok(mut restored) => {
                    restored.faults.extend(faults);
                    return restored;
                }
                Err(Unusable::Absent) => {}
                Err(error) => faults.push(format!("{}: {error}", file.display())),
            }
        }
        Restored {
            faults,
            ..Restored::default()
        }
    }

    fn load_file(
        &self,
        path: &Path,
        cache: &SharedCache,
        now: Instant,
        is_late: &impl Fn() -> bool,
    ) -> Result<Restored, Unusable> {
        let (bytes, fault) = read_bounded(path)?;
        if is_late() {
            return Err(Unusable::Late);
        }
        let (header, records) = open(&bytes).map_err(Unusable::Header)?;
        let age_secs = header
            .and_then(|header| header.age_secs(clock::wall_secs(), clock::wall_is_synchronised()));
        let mut restored = self.restore(records, cache, now, age_secs);
        let promised = header.and_then(|header| header.records).unwrap_or(0) as usize;
        restored.missing = promised.saturating_sub(restored.answers + restored.expired);
        restored.broken += usize::from(header.is_none());
        restored.file = Some(path.to_owned());
        restored.doubt = Doubt::of(header.as_ref());
        restored.faults.extend(fault);
        Ok(restored)
    }

    fn restore(
        &self,
        records: SnapshotRecords<'_>,
        cache: &SharedCache,
        now: Instant,
        age_secs: Option<u32>,
    ) -> Restored {
        let mut restored = Restored {
            age_secs,
            ..Restored::default()
        };
        for record in records {
            let Ok(record) = record else {
                restored.broken += 1;
                continue;
            };
            let head = record.head(now, age_secs);
            if !self.is_useful(&head, now) {
                restored.expired += 1;
                continue;
            }
            cache.insert(&record.key, &head, record.body);
            restored.answers += 1;
        }
        restored
    }

    /// Writes a new generation of what is in `cache`; says how many answers that were.
    ///
    /// # Errors
    /// The file cannot be written; the generations before it are as they were.
    pub fn save(&self, cache: &SharedCache) -> io::Result<usize> {
        if let Some(refused) = self.refusal() {
            return Err(refused);
        }
        let saved = self.write_unfinished(cache);
        let saved = saved.and_then(|answers| self.publish().map(|()| answers));
        saved.map_err(|error| {
            // On a full disk the room is wanted back; that it cannot be removed adds nothing to the error.
            let _ = fs::remove_file(&self.unfinished);
            let is_locked = error.kind() == ErrorKind::PermissionDenied;
            let hint = if is_locked { LOCKED } else { "" };
            let what = format!("{}: {error}{hint}", self.newest.display());
            io::Error::new(error.kind(), what)
        })
    }

    fn write_unfinished(&self, cache: &SharedCache) -> io::Result<usize> {
        if let Some(folder) = self.newest.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = files::create_own(&self.unfinished, 0o600)?;
        let header = SnapshotHeader {
            marker: Marker(random::bytes()?),
            records: None,
            saved_secs: clock::wall_secs(),
            clock_synchronised: clock::wall_is_synchronised(),
        };
        file.write_all(&header.encode())?;
        let answers = self.write_records(&mut file, cache, header.marker)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(
            &SnapshotHeader {
                records: u32::try_from(answers).ok(),
                ..header
            }
            .encode(),
        )?;
        file.sync_all()?;
        Ok(answers)
    }

    /// Encodes a few slots after the other, and pauses: workers want the locks and the CPU more.
    fn write_records(
        &self,
        file: &mut File,
        cache: &SharedCache,
        marker: Marker,
    ) -> io::Result<usize> {
        let now = clock::now();
        let encoder = Encoder { marker, now };
        let (mut answers, mut filled, mut buffer) = (0, 0, vec![0; BUFFER]);
        let mut walk = Walk::new(cache);
        while walk.step() {
            for (key, head, body) in walk
                .entries()
                .filter(|(_, head, _)| self.is_useful(head, now))
            {
                // A step fits; what does not encode is an answer that would not be read back either.
                let answer = Answer { head: &head, body };
                if let Ok(len) = encoder.encode(&mut buffer[filled..], &key, &answer) {
                    filled += len;
                    answers += 1;
                }
            }
            if filled > BUFFER - STEP * RECORD_MAX {
                file.write_all(&buffer[..filled])?;
                filled = 0;
                thread::sleep(PAUSE);
            }
        }
        file.write_all(&buffer[..filled])?;
        Ok(answers)
    }

    /// Whether an answer is worth a place in the file: no failure, and not stale for too long.
    fn is_useful(&self, head: &Head, now: Instant) -> bool {
        head.rcode != rcode::SERVFAIL && now.secs_since(head.expires()) <= self.stale_max_secs
    }

    /// Gives the finished file its name, and the newest so far the name of the one before.
    fn publish(&self) -> io::Result<()> {
        match fs::rename(&self.newest, &self.before) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&self.unfinished, &self.newest)?;
        let folder = self.newest.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

/// Nothing but a file of ours, or a link, is given another name, or loses its own.
fn in_the_way(path: &Path) -> Option<Obstacle> {
    let kind = match place::found(path) {
        Ok(found) => found?.file_type(),
        Err(obstacle) => return Some(obstacle),
    };
    if !kind.is_file() && !kind.is_symlink() {
        let what = format!("is a {}, not a file", place::kind_name(kind));
        return Some(Obstacle::of(path, what));
    }
    match kind.is_file().then(|| is_of_others(path)) {
        None | Some(Ok(false)) => None,
        Some(Ok(true)) => Some(Obstacle::of(path, NOT_OURS)),
        Some(Err(error)) => Some(Obstacle::with(path, &error)),
    }
}

/// What has the name of the file that is being written is removed, unless it is a folder.
fn in_the_way_of_new(path: &Path) -> Option<Obstacle> {
    match place::found(path) {
        Ok(found) => found
            .filter(|found| found.is_dir())
            .map(|_| Obstacle::of(path, "is a folder, not a file")),
        Err(obstacle) => Some(obstacle),
    }
}

/// Why even root may not write.
const LOCKED: &str = "; a folder that was made or mounted anew since the start is written to after the next one (security.landlock)";

/// What is said of a file that somebody may want.
const NOT_OURS: &str = "exists and is not a snapshot: remove it, or name another file";

/// Whether a file was never a snapshot: somebody wants it as it is. What a power cut may leave of one, nothing, zeros, or the ones of
/// flash memory that was erased, is not of others.
fn is_of_others(path: &Path) -> io::Result<bool> {
    let mut bytes = [0; SnapshotHeader::LEN];
    let mut len = 0;
    let mut file = File::open(path)?;
    while len < bytes.len() {
        match file.read(&mut bytes[len..])? {
            0 => break,
            more => len += more,
        }
    }
    let is_foreign = matches!(
        SnapshotHeader::decode(&bytes[..len]),
        Err(HeaderError::Foreign)
    );
    let is_blank = |blank: u8| bytes[..len].iter().all(|byte| *byte == blank);
    Ok(is_foreign && !is_blank(0) && !is_blank(0xff))
}

/// Why a file gives nothing at all.
enum Unusable {
    /// There is none.
    Absent,
    /// It cannot be opened or read.
    Io(io::Error),
    /// Its header is not that of a snapshot of ours.
    Header(HeaderError),
    /// It was not read in time.
    Late,
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::NotFound {
            Self::Absent
        } else {
            Self::Io(error)
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("absent"),
            Self::Io(error) => error.fmt(formatter),
            Self::Header(HeaderError::Foreign) => formatter.write_str("not a snapshot"),
            Self::Header(HeaderError::Version(version)) => {
                write!(
                    formatter,
                    "a snapshot of format {version}, which this version does not read"
                )
            }
            Self::Header(HeaderError::Truncated) => formatter.write_str("cut short"),
            Self::Header(HeaderError::Damaged) => formatter.write_str("damaged"),
            Self::Late => formatter.write_str("not read in time"),
        }
    }
}

/// What can be read of a file, and what kept the rest from being read.
fn read_bounded(path: &Path) -> Result<(Vec<u8>, Option<String>), Unusable> {
    let mut bytes = Vec::new();
    // Whoever could have written it could have any name answered as he likes.
    let read = files::open_own(path)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes);
    let fault = match read {
        Err(error) if bytes.is_empty() => return Err(error.into()),
        Err(error) => Some(format!("cannot be read further: {error}")),
        Ok(read) if read > FILE_BYTES_MAX => Some("longer than a snapshot can be".into()),
        Ok(_) => None,
    };
    bytes.truncate(FILE_BYTES_MAX);
    Ok((bytes, fault))
}
