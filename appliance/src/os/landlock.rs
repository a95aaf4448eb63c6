//! The fence around Landlock: restricts where a thread and those that it starts may write, forbids executing programs, and keeps
//! their signals and abstract UNIX sockets among themselves.
//!
//! Without a crate: it is three system calls on numbers and descriptors. Reading is left to file permissions: a reload may name
//! files that were unknown at the start.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::ptr;

use nix::sys::prctl;

/// linux/landlock.h: access rights, one bit each.
mod right {
    pub const EXECUTE: u64 = 1 << 0;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const REMOVE_DIR: u64 = 1 << 4;
    pub const REMOVE_FILE: u64 = 1 << 5;
    pub const MAKE_CHAR: u64 = 1 << 6;
    pub const MAKE_DIR: u64 = 1 << 7;
    pub const MAKE_REG: u64 = 1 << 8;
    pub const MAKE_SOCK: u64 = 1 << 9;
    pub const MAKE_FIFO: u64 = 1 << 10;
    pub const MAKE_BLOCK: u64 = 1 << 11;
    pub const MAKE_SYM: u64 = 1 << 12;
    /// From version 3 on.
    pub const TRUNCATE: u64 = 1 << 14;
}

/// Rights that every Landlock version can restrict.
const HANDLED: u64 = right::EXECUTE
    | right::WRITE_FILE
    | right::REMOVE_DIR
    | right::REMOVE_FILE
    | right::MAKE_CHAR
    | right::MAKE_DIR
    | right::MAKE_REG
    | right::MAKE_SOCK
    | right::MAKE_FIFO
    | right::MAKE_BLOCK
    | right::MAKE_SYM;
/// Rights in a folder of ours: files that are written beside the one that they replace, and the control socket.
const FOLDER: u64 = right::WRITE_FILE
    | right::TRUNCATE
    | right::REMOVE_FILE
    | right::MAKE_REG
    | right::MAKE_SOCK
    | right::MAKE_DIR;
/// Rights on a file that exists and stays.
const FILE: u64 = right::WRITE_FILE | right::TRUNCATE;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
/// First version with [`right::TRUNCATE`].
const TRUNCATE_FROM: libc::c_long = 3;
/// First version with scopes: Linux 6.12.
const SCOPES_FROM: libc::c_long = 6;

/// linux/landlock.h: what stays among the restricted, one bit each.
mod scope {
    pub const ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
    pub const SIGNAL: u64 = 1 << 1;
}

/// What others can be reached by, from [`SCOPES_FROM`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// UNIX sockets with a path.
    Paths,
    /// Abstract UNIX sockets as well: the service manager listens at one.
    AbstractSockets,
}

impl Reach {
    const fn scoped(self) -> u64 {
        match self {
            Self::Paths => scope::SIGNAL | scope::ABSTRACT_UNIX_SOCKET,
            Self::AbstractSockets => scope::SIGNAL,
        }
    }
}

/// A path that stays writable.
#[derive(Debug)]
pub struct WritablePath {
    descriptor: OwnedFd,
    rights: u64,
}

impl WritablePath {
    /// The folder of `file`, made if it is missing. If that fails, the nearest existing one above: another account may make the
    /// folder later.
    ///
    /// # Errors
    /// None of them can be opened.
    pub fn folder_of(file: &Path) -> io::Result<Self> {
        let mut folder = file.parent().unwrap_or(Path::new("/"));
        let _ = fs::create_dir_all(folder);
        loop {
            match open(folder, libc::O_DIRECTORY) {
                Ok(descriptor) => {
                    return Ok(Self {
                        descriptor,
                        rights: FOLDER,
                    });
                }
                Err(error) => folder = folder.parent().ok_or(error)?,
            }
        }
    }

    /// A file that the kernel provides. It is kept open for good: once its inode is dropped, the name leads to a new one, without
    /// the right.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn file_of_the_kernel(file: &Path) -> io::Result<Self> {
        let descriptor = open(file, 0)?;
        std::mem::forget(descriptor.try_clone()?);
        Ok(Self {
            descriptor,
            rights: FILE,
        })
    }
}

/// Opens a path as a reference only.
fn open(path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | flags);
    options.open(path).map(OwnedFd::from)
}

/// Restricts writes of the calling thread, and of those that it starts from here on, to `places`, and forbids executing programs.
/// Signals to other processes are forbidden, and connections to others' abstract sockets, as `reach` says.
///
/// # Errors
/// The kernel has no Landlock ([`is_missing`]), or the call failed: nothing is restricted.
pub fn restrict(places: &[WritablePath], reach: Reach) -> io::Result<()> {
    let version = version()?;
    let known = |rights: u64| match version {
        TRUNCATE_FROM.. => rights,
        _ => rights & !right::TRUNCATE,
    };
    let rules = Ruleset {
        files: known(HANDLED | right::TRUNCATE),
        network: 0,
        scoped: reach.scoped(),
    };
    let rules = rules.create(version)?;
    for place in places {
        let rule = PathBeneath {
            rights: known(place.rights).to_ne_bytes(),
            parent: place.descriptor.as_raw_fd().to_ne_bytes(),
        };
        // SAFETY: the kernel reads one `struct landlock_path_beneath_attr`, which `rule` is, and which outlives the call.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        };
        checked(added)?;
    }
    prctl::set_no_new_privs()?;
    // SAFETY: takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) })?;
    Ok(())
}

/// The version of Landlock that the kernel has.
fn version() -> io::Result<libc::c_long> {
    // SAFETY: without attributes the kernel returns its version, and reads no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u64>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    checked(version)
}

/// struct landlock_ruleset_attr of linux/landlock.h.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scoped: u64,
}

impl Ruleset {
    /// An earlier version than [`SCOPES_FROM`] knows the first field, or the first two: it gets the first.
    fn create(&self, version: libc::c_long) -> io::Result<OwnedFd> {
        let known = match version {
            SCOPES_FROM.. => size_of::<Self>(),
            _ => size_of::<u64>(),
        };
        // SAFETY: the kernel reads the first `known` bytes of `self`, which outlives the call.
        let made = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const *self,
                known,
                0_u32,
            )
        };
        let made = libc::c_int::try_from(checked(made)?).map_err(io::Error::other)?;
        // SAFETY: the call has just returned this descriptor, so we are its only owner.
        Ok(unsafe { OwnedFd::from_raw_fd(made) })
    }
}

/// True if the kernel was built or booted without Landlock.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    let missing = [libc::ENOSYS, libc::EOPNOTSUPP];
    error
        .raw_os_error()
        .is_some_and(|code| missing.contains(&code))
}

/// struct landlock_path_beneath_attr of linux/landlock.h, which is packed.
#[repr(C)]
struct PathBeneath {
    rights: [u8; 8],
    parent: [u8; 4],
}

const _: () = assert!(size_of::<PathBeneath>() == 12);

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::io::ErrorKind::PermissionDenied;
    use std::process::Command;
    use std::thread;

    /// Applies to every account, root too, and to this thread only.
    #[test]
    fn what_is_written_is_in_the_places_and_nothing_is_started() {
        let ours = Folder::new();
        let other = Folder::new();
        let kept = other.write("kept", "as it was");
        let places =
            vec![WritablePath::folder_of(&ours.path().join("new/file")).expect("it is there")];
        let file = ours.path().join("new/file");
        let restricted = thread::spawn(move || {
            match restrict(&places, Reach::Paths) {
                Err(error) if is_missing(&error) => return false,
                done => done.expect("the kernel has it"),
            }
            fs::write(&file, "one").expect("a folder of ours");
            fs::write(file.with_extension("tmp"), "two").expect("another file there");
            fs::rename(file.with_extension("tmp"), &file).expect("in its place");
            assert_eq!(fs::read_to_string(&file).expect("it is read"), "two");
            assert_eq!(
                fs::read_to_string(&kept).expect("read anywhere"),
                "as it was"
            );
            let refused = |done: io::Result<()>| {
                assert_eq!(done.expect_err("not ours").kind(), PermissionDenied);
            };
            refused(fs::write(&kept, "other"));
            refused(fs::write(kept.with_extension("new"), "new"));
            refused(fs::remove_file(&kept));
            refused(fs::rename(&file, &kept));
            refused(fs::create_dir(kept.with_extension("folder")));
            refused(std::os::unix::fs::symlink(
                &kept,
                file.with_extension("link"),
            ));
            refused(Command::new("/bin/true").status().map(drop));
            refused(fs::write("/proc/self/comm", "other"));
            true
        });
        if restricted.join().expect("it ends") {
            fs::write(other.path().join("kept"), "this thread").expect("it is not restricted");
        }
    }

    /// The program that the test runs waits outside, and so does its socket.
    #[test]
    fn signals_and_abstract_sockets_of_others_are_out_of_reach() {
        use nix::errno::Errno;
        use nix::sys::signal::kill;
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

        if version().is_ok_and(|version| version < SCOPES_FROM) {
            eprintln!("LEFT OUT: scopes need Linux 6.12");
            return;
        }
        let mut other = Command::new("sleep").arg("60").spawn().expect("sleep");
        let id = nix::unistd::Pid::from_raw(other.id().cast_signed());
        let name = format!("xdnsd-scope-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let _listener = UnixListener::bind_addr(&address).expect("a socket");
        for (reach, is_reached) in [(Reach::Paths, false), (Reach::AbstractSockets, true)] {
            let address = address.clone();
            let tried = thread::spawn(move || {
                match restrict(&[], reach) {
                    Err(error) if is_missing(&error) => return None,
                    done => done.expect("the kernel has it"),
                }
                let connected = UnixStream::connect_addr(&address).map(drop);
                Some((kill(id, None), connected.map_err(|error| error.kind())))
            });
            let Some((signalled, connected)) = tried.join().expect("it ends") else {
                break;
            };
            assert_eq!(signalled, Err(Errno::EPERM), "{reach:?}");
            let refused = Err(PermissionDenied);
            assert_eq!(connected, if is_reached { Ok(()) } else { refused });
        }
        other.kill().expect("this thread may");
        other.wait().expect("it ends");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_the_nearest_above() {
        let folder = Folder::new();
        folder.write("file", "no folder");
        let place = WritablePath::folder_of(&folder.path().join("file/below/new"));
        assert_eq!(place.expect("the nearest").rights, FOLDER);
        assert!(WritablePath::file_of_the_kernel(Path::new("/proc/sys/net/none")).is_err());
    }
}
