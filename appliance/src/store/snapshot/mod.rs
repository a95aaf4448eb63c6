//! The snapshot on disk, by which the cache survives a restart and a power cut.
//!
//! ```text
//!  PATH      the newest generation            PATH.tmp  being written
//!  PATH.old  the one before
//!
//!  write PATH.tmp, fsync, rename PATH -> PATH.old, rename PATH.tmp -> PATH, fsync the folder
//! ```
//! A PATH.old that is not a snapshot stays, and then no generation is kept beside the newest.
//! The file being written is made anew each time, whatever had its name; a file is read only if root or we own it and nobody else
//! may write to it (`os::files`). At any moment one whole generation has a name that is read. Damage costs at most the damaged
//! records; a failed write is logged and retried. Nothing here stops the start or delays a worker.

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
    Encoder, HeaderError, Marker, RECORD_MAX, ServersTag, SnapshotHeader, SnapshotRecords, open,
};
use xdnsd_core::dns::rcode;
use xdnsd_core::limits;
use xdnsd_core::time::Instant;

use crate::os::files::place::{self, Obstacle};
use crate::os::{clock, files, random};
use crate::store::{STEP, SharedCache, Walk};
use crate::text;

/// Bytes of the longest file of a cache of so many shards, when it is full. No more is read, also of the file of a larger cache. It is
/// in memory only at the start, before the rings and tables of the workers are.
pub const fn file_bytes_max(shards: usize) -> usize {
    let small = RECORD_MAX - limits::CACHE_LARGE_BYTES + limits::CACHE_SMALL_BYTES;
    let sets = limits::CACHE_LARGE_SETS * RECORD_MAX + limits::CACHE_SMALL_SETS * small;
    SnapshotHeader::LEN + shards * limits::CACHE_WAYS * sets
}

/// Bytes buffered between two writes.
pub const BUFFER: usize = 64 * 1024;
const _: () = assert!(BUFFER > STEP * RECORD_MAX);
/// Pause of the writer after each buffer. It keeps its priority: if the scheduler held it back while it had a lock, workers would
/// wait as well.
const PAUSE: Duration = Duration::from_millis(1);

/// The files of a snapshot.
#[derive(Clone, Debug)]
pub struct Store {
    newest: PathBuf,
    before: PathBuf,
    unfinished: PathBuf,
    /// Answers that have been stale for longer are left out.
    stale_max_secs: u32,
    /// Place in the config that names the snapshot, a prefix for obstacles.
    named_at: String,
}

/// Why the age of a snapshot is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownAge {
    /// The header lacks the time of writing.
    Header,
    /// The wall clock is not synchronised (adjtimex(2)).
    NotSynchronised,
    /// The wall clock is earlier than this program.
    NotSet,
    /// The wall clock was not synchronised when it was written.
    NotSynchronisedThen,
    /// It was written in the future.
    Future,
}

impl UnknownAge {
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

impl fmt::Display for UnknownAge {
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

/// Result of restoring, for one log line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The file that was read. `None` if there was none.
    pub file: Option<PathBuf>,
    /// Why its age is unknown, if it is.
    pub doubt: Option<UnknownAge>,
    /// Answers put into the cache.
    pub answers: usize,
    /// Age of the file, if known.
    pub age_secs: Option<u32>,
    /// Stretches of the file that gave no answer.
    pub broken: usize,
    /// Answers that the file should have but lacks, damaged ones included.
    pub missing: usize,
    /// Answers that had been stale for too long.
    pub expired: usize,
    /// Errors of this file, or of a newer generation.
    pub faults: Vec<String>,
}

impl Restored {
    /// True if anything is wrong: then the line is a warning.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.broken + self.missing > 0 || !self.faults.is_empty()
    }

    /// True if no answer of the file was readable.
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
                        let doubt = self.doubt.unwrap_or(UnknownAge::Header);
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

    /// Sets the place in the config that names the snapshot.
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

    /// Why no snapshot could be written, as far as can be known in advance: its folder, or the nearest existing one above, takes
    /// no file from this process; or something other than a snapshot has its name.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        // The folder first, so that a file of /proc is not even opened.
        let obstacle = place::folder_obstacle(&self.newest)
            .or_else(|| in_the_way(&self.newest))
            .or_else(|| in_the_way_of_new(&self.unfinished))
            .or_else(|| place::full(&self.newest));
        Some(obstacle?.so("no snapshot can be written"))
    }

    /// Why the previous snapshot is not kept: something other than a snapshot has its name.
    #[must_use]
    pub fn doubt(&self) -> Option<Obstacle> {
        let obstacle = in_the_way(&self.before)?;
        Some(obstacle.so("the snapshot before the newest is not kept"))
    }

    /// The obstacle, or else the doubt, in words for the log.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let obstacle = self.obstacle().or_else(|| self.doubt())?;
        Some(self.placed(&obstacle.what))
    }

    fn placed(&self, what: &str) -> String {
        format!("{}{what}", self.named_at)
    }

    fn refusal(&self) -> Option<io::Error> {
        let Obstacle { what, kind } = self.obstacle()?;
        Some(io::Error::new(kind, self.placed(&what)))
    }

    /// Loads the newest good generation into `cache`. Never fails: errors are in the result.
    pub fn load(&self, cache: &SharedCache, now: Instant) -> Restored {
        self.load_unless(cache, now, || false)
    }

    /// [`Self::load`], unless `is_late` once a file was read: `cache` then has newer answers.
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
        let (bytes, fault) = read_bounded(path, file_bytes_max(cache.shard_count()))?;
        if is_late() {
            return Err(Unusable::Late);
        }
        let (header, records) = open(&bytes).map_err(Unusable::Header)?;
        let servers = header.map_or(ServersTag::default(), |header| header.servers);
        if servers.differs_from(cache.servers()) {
            return Err(Unusable::OtherServers);
        }
        let age_secs = header
            .and_then(|header| header.age_secs(clock::wall_secs(), clock::wall_is_synchronised()));
        let mut restored = self.restore(records, cache, now, age_secs);
        let promised = header.and_then(|header| header.records).unwrap_or(0) as usize;
        restored.missing = promised.saturating_sub(restored.answers + restored.expired);
        restored.broken += usize::from(header.is_none());
        restored.file = Some(path.to_owned());
        restored.doubt = UnknownAge::of(header.as_ref());
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

    /// Writes a new generation of `cache`; returns the number of answers.
    ///
    /// # Errors
    /// The file cannot be written; earlier generations are unchanged.
    pub fn save(&self, cache: &SharedCache) -> io::Result<usize> {
        if let Some(refused) = self.refusal() {
            return Err(refused);
        }
        let saved = self.write_unfinished(cache);
        let saved = saved.and_then(|answers| self.publish().map(|()| answers));
        saved.map_err(|error| {
            // Frees its space on a full disk; a failure adds nothing to the error.
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
            servers: cache.servers(),
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

    /// Encodes a few slots at a time, and pauses: workers have precedence for locks and CPU.
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
                // A step fits; an answer that does not encode could not be read back either.
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

    /// True if an answer is worth saving: no failure, and not stale for too long.
    fn is_useful(&self, head: &Head, now: Instant) -> bool {
        head.rcode != rcode::SERVFAIL && now.secs_since(head.expires()) <= self.stale_max_secs
    }

    /// Renames the newest file to the previous one, unless another file has that name, and the finished file to the newest.
    fn publish(&self) -> io::Result<()> {
        if in_the_way(&self.before).is_none() {
            match fs::rename(&self.newest, &self.before) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.unfinished, &self.newest)?;
        let folder = self.newest.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

/// The obstacle if `path` is anything but a snapshot, which may be renamed or replaced.
fn in_the_way(path: &Path) -> Option<Obstacle> {
    let kind = match place::found(path) {
        Ok(found) => found?.file_type(),
        Err(obstacle) => return Some(obstacle),
    };
    if !kind.is_file() {
        return Some(place::of_kind(path, kind, "file"));
    }
    match is_of_others(path) {
        Ok(false) => None,
        Ok(true) => Some(Obstacle::of(path, NOT_OURS)),
        Err(error) => Some(Obstacle::with(path, &error)),
    }
}

/// The obstacle if the temporary file's name is a folder's. Anything else there is removed.
fn in_the_way_of_new(path: &Path) -> Option<Obstacle> {
    match place::found(path) {
        Ok(found) => found
            .filter(|found| found.is_dir())
            .map(|_| Obstacle::of(path, "is a folder, not a file")),
        Err(obstacle) => Some(obstacle),
    }
}

/// Why even root may be unable to write.
const LOCKED: &str = "; a folder that was made or mounted anew since the start is written to after the next one (security.landlock)";

/// Advice for a file that may belong to somebody.
const NOT_OURS: &str = "exists and is not a snapshot: remove it, or name another file";

/// True if a file was never a snapshot, and must be kept. Remains of one after a power cut, empty, zeros, or 0xff of erased flash
/// memory, may be replaced.
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

/// Why a file gives no answers at all.
enum Unusable {
    /// It is missing.
    Absent,
    /// It cannot be opened or read.
    Io(io::Error),
    /// Its header is invalid.
    Header(HeaderError),
    /// Its answers are from other servers than those of the config.
    OtherServers,
    /// It was read too late.
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
            Self::OtherServers => {
                formatter.write_str("has answers of servers that are not asked any more")
            }
            Self::Late => formatter.write_str("not read in time"),
        }
    }
}

/// Reads the file up to its bound; with the error that ended it early, if any.
fn read_bounded(path: &Path, most: usize) -> Result<(Vec<u8>, Option<String>), Unusable> {
    let mut bytes = Vec::new();
    // An account that could write the file could forge any answer.
    let read = files::open_own(path)?
        .take(most as u64 + 1)
        .read_to_end(&mut bytes);
    let fault = match read {
        Err(error) if bytes.is_empty() => return Err(error.into()),
        Err(error) => Some(format!("cannot be read further: {error}")),
        Ok(read) if read > most => Some("longer than a snapshot of this cache can be".into()),
        Ok(_) => None,
    };
    bytes.truncate(most);
    Ok((bytes, fault))
}
