//! Opens the files that the config names.
//!
//! Another account that may write to the folder can put anything in the file's place: a FIFO without a writer, a device that acts
//! when it is opened, a folder, a link. So the path is checked before opening (stat(2) opens nothing), opened with O_NONBLOCK,
//! and checked again by its descriptor, which cannot be exchanged.
//!
//! Two levels of trust:
//! - *Policy* (config, lists, hosts files, leases) is read through symbolic links, because people have them:
//!   `/var` on OpenWrt, a list with the date in its name. Doubtful owners and permissions are reported, see [`doubt`].
//! - *Our own* files ([`open_own`]) are regular files of root or of our account, writable by their owner alone. Anything
//!   else is refused.

pub mod place;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::unistd::{Uid, getegid, geteuid};

/// How often a file is read that changes meanwhile.
const ATTEMPTS: usize = 4;
/// Time for a writer to finish before the file is read again.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest tick of a file system's clock, and one more (FAT: 2 s).
const TICK_SECS: i64 = 3;

/// Most bytes read of a file that states no length or a shorter one.
const UNSIZED_BYTES_MAX: u64 = 1 << 20;

/// Write permission of the group, and of all others (inode(7)).
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Only its owner may remove an entry from the folder (inode(7)).
const STICKY: u32 = 0o1000;

/// Identifies one state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Stamp of an open or inspected file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// True if the file is so old that a further change would alter the stamp: timestamps have ticks, which on some file systems
    /// are seconds long.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_secs = now.map_or(0, |now| now.as_secs().cast_signed());
        now_secs - self.changed.0.max(self.modified.0) > TICK_SECS
    }
}

/// Opens a file of policy for reading. Never waits for another process.
///
/// # Errors
/// It is missing, unreadable, or of another kind than a regular file: then the error names the kind.
pub fn open(path: &Path) -> io::Result<File> {
    check_regular(&fs::metadata(path)?)?;
    open_checked(path, 0)
}

/// Opens a file that only this program writes.
///
/// # Errors
/// As [`open`]; or it is a link, belongs to another account, or is writable for others.
pub fn open_own(path: &Path) -> io::Result<File> {
    check_regular(&fs::symlink_metadata(path)?)?;
    open_own_now(path)
}

/// Opens whatever has the name by now.
fn open_own_now(path: &Path) -> io::Result<File> {
    let file = open_checked(path, libc::O_NOFOLLOW)?;
    let metadata = file.metadata()?;
    let others = GROUP_WRITES | OTHERS_WRITE;
    let doubt = if is_stranger(metadata.uid()) {
        format!("belongs to user {}", metadata.uid())
    } else if metadata.mode() & others != 0 {
        format!(
            "others may write to it (mode {:o})",
            metadata.mode() & 0o7777
        )
    } else {
        return Ok(file);
    };
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{doubt}: not believed"),
    ))
}

/// Creates a new file for writing. An existing entry of that name is removed, since it may be a link to another account's file.
///
/// # Errors
/// The file cannot be made, or the name is a folder's.
pub fn create_own(path: &Path, mode: u32) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err(not_a_file("folder")),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // O_EXCL: fails even for a link that was made since.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path)
}

fn open_checked(path: &Path, flags: i32) -> io::Result<File> {
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    let mut opened = options.open(path);
    for _ in 1..ATTEMPTS {
        // A file server such as Samba has a lease on the file, and gives it up now (fcntl(2), F_SETLEASE).
        if !opened
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            break;
        }
        thread::sleep(PAUSE);
        opened = options.open(path);
    }
    let file = opened?;
    // The name may have changed hands between check and opening.
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(not_a_file(place::kind_name(kind)))
}

fn not_a_file(kind: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("is a {kind}, not a file"),
    )
}

/// True for an account other than root and ours.
fn is_stranger(uid: u32) -> bool {
    uid != Uid::from_raw(0).as_raw() && uid != geteuid().as_raw()
}

/// Reports which other accounts can change the content of a policy file. `owner_counts` is false for leases, which belong to the
/// DHCP server's account. `None` if there are none, or if the file cannot be inspected.
#[must_use]
pub fn doubt(path: &Path, owner_counts: bool) -> Option<String> {
    let target = fs::metadata(path).ok()?;
    let link = fs::symlink_metadata(path).ok()?;
    if !target.is_file() && !target.is_dir() {
        // Not read, and reported as what it is.
        return None;
    }
    let strange_group = target.gid() != 0 && target.gid() != getegid().as_raw();
    let mode = target.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && !target.is_dir() {
        Some(format!("anybody may write to it (mode {mode:o})"))
    } else if target.is_dir() && mode & OTHERS_WRITE != 0 {
        Some(format!("anybody may put files there (mode {mode:o})"))
    } else if owner_counts && mode & GROUP_WRITES != 0 && strange_group {
        let group = target.gid();
        Some(format!("group {group} may write to it (mode {mode:o})"))
    } else if owner_counts && is_stranger(target.uid()) {
        Some(format!("belongs to user {}", target.uid()))
    } else if link.is_symlink() && is_stranger(link.uid()) {
        Some(format!("is a symbolic link of user {}", link.uid()))
    } else {
        doubt_of_folder(path)
    }
}

/// Reports a folder in which anybody may replace the file.
fn doubt_of_folder(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    let folder = real.parent()?;
    let mode = fs::metadata(folder).ok()?.mode();
    let is_open = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
    let folder = folder.display();
    is_open.then(|| {
        format!(
            "anybody may put another file in its place: {folder} has mode {:o}",
            mode & 0o7777
        )
    })
}

/// Words for why a file cannot be read or written.
#[must_use]
pub fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "is not there".to_owned()
    } else {
        error.to_string()
    }
}

/// Names the format of a file that does not begin as ASCII or UTF-8 text, and what to do about it.
#[must_use]
pub fn no_text(first: &[u8]) -> Option<String> {
    const PACKED: [(&[u8], &str, &str); 6] = [
        (b"\x1f\x8b", "gzip", "gunzip"),
        (b"PK\x03\x04", "zip", "unzip"),
        (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
        (b"\xfd7zXZ\0", "xz", "unxz"),
        (b"BZh91AY&SY", "bzip2", "bunzip2"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"),
    ];
    if first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
        return Some("is UTF-16; save it as UTF-8".into());
    }
    let mut packed = PACKED.iter();
    let (_, format, program) = packed.find(|(magic, ..)| first.starts_with(magic))?;
    Some(format!(
        "is compressed ({format}): unpack it with `{program}`, and name the text file that comes out"
    ))
}

/// Reads a whole policy file of at most `bytes_max` bytes. One that changes meanwhile is read again, a few times.
///
/// # Errors
/// It cannot be opened or read, is larger, or keeps changing.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    for _ in 1..ATTEMPTS {
        if let Some(bytes) = read_once(path, bytes_max)? {
            return Ok(bytes);
        }
        thread::sleep(PAUSE);
    }
    read_once(path, bytes_max)?.ok_or_else(changes)
}

/// Reader of an open file up to its present length and one byte more, which shows growth: a writer that is faster than we read
/// must not keep us reading. For files shorter than [`UNSIZED_BYTES_MAX`], such as those of /proc with length 0, up to that.
///
/// # Errors
/// fstat(2) failed.
pub fn bytes_of(file: &File) -> io::Result<io::Take<&File>> {
    let len = file.metadata()?.len().max(UNSIZED_BYTES_MAX);
    Ok(file.take(len.saturating_add(1)))
}

/// Error for a file that changed while it was read.
#[must_use]
pub fn changes() -> io::Error {
    io::Error::other("changes while it is read")
}

/// Reads the file. `None` if it changed meanwhile.
fn read_once(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut file = open(path)?;
    let before = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    (&mut file).take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("is larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    let is_same = before == Stamp::of(&file.metadata()?);
    Ok(is_same.then_some(bytes))
}

#[cfg(test)]
mod tests;
