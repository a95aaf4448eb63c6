//! Whether a file or a socket can be made at a path of the config, known before it is tried.

use std::fs::{self, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statfs::statfs;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use crate::text;

/// File systems in which only the kernel makes files: magic numbers (statfs(2)) and names.
const OF_THE_KERNEL: [(u32, &str); 17] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x1cd1, "devpts"),
    (0xcafe_4a11, "bpf"),
    (0x6265_6570, "configfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6573_5543, "fusectl"),
    (0xde5e_81e4, "efivarfs"),
    (0x6165_676c, "pstore"),
    (0x1980_0202, "mqueue"),
];

/// Why a file or socket cannot be made at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The path, and what is wrong with it.
    pub what: String,
    /// Error kind that the attempt itself would give.
    pub kind: ErrorKind,
}

impl Obstacle {
    /// An obstacle for every account.
    #[must_use]
    pub fn of(path: &Path, what: impl std::fmt::Display) -> Self {
        Self {
            what: format!("{}: {what}", text::path(path)),
            kind: ErrorKind::Other,
        }
    }

    /// An obstacle from a failed system call.
    #[must_use]
    pub fn with(path: &Path, error: &io::Error) -> Self {
        let what = if error.kind() == ErrorKind::PermissionDenied {
            format!("Permission denied for user {}", geteuid())
        } else {
            super::why(error)
        };
        Self {
            kind: error.kind(),
            ..Self::of(path, what)
        }
    }

    /// True if this account lacks a permission that another account may have.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.kind == ErrorKind::PermissionDenied
    }

    /// The obstacle with its consequence appended.
    #[must_use]
    pub fn so(self, consequence: &str) -> Self {
        Self {
            what: format!("{}; {consequence}", self.what),
            ..self
        }
    }
}

/// The word for a kind of directory entry.
#[must_use]
pub fn kind_name(kind: FileType) -> &'static str {
    if kind.is_file() {
        "file"
    } else if kind.is_dir() {
        "folder"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

/// Metadata of `path` itself; `None` if it does not exist.
///
/// # Errors
/// The path cannot be inspected.
pub fn found(path: &Path) -> Result<Option<Metadata>, Obstacle> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        // A missing folder is reported by [`folder_obstacle`].
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(Obstacle::with(path, &error)),
    }
}

/// The obstacle if the path is of another kind than a file. A link is no file: it would be replaced, and may not be renamed where
/// Landlock holds.
#[must_use]
pub fn no_file(path: &Path) -> Option<Obstacle> {
    let kind = found(path).ok()??.file_type();
    (!kind.is_file()).then(|| of_kind(path, kind, "file"))
}

/// The obstacle that the path is of a kind, and not what is `wanted`.
#[must_use]
pub fn of_kind(path: &Path, kind: FileType, wanted: &str) -> Obstacle {
    let hint = if kind.is_symlink() {
        ": name what it leads to"
    } else {
        ""
    };
    let kind = kind_name(kind);
    Obstacle::of(path, format!("is a {kind}, not a {wanted}{hint}"))
}

/// The obstacle if the file system is full.
#[must_use]
pub fn full(path: &Path) -> Option<Obstacle> {
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir())?;
    let system = statfs(folder).ok()?;
    let free = if geteuid().is_root() {
        system.blocks_free()
    } else {
        system.blocks_available()
    };
    // Some file systems report 0 for both totals.
    let is_full =
        system.blocks() > 0 && free == 0 || system.files() > 0 && system.files_free() == 0;
    let full = || Obstacle {
        kind: ErrorKind::StorageFull,
        ..Obstacle::of(folder, nix::errno::Errno::ENOSPC.desc())
    };
    is_full.then(full)
}

/// Names folders that would have to be made, if more than one: likely a typing error.
#[must_use]
pub fn far_folder(path: &Path) -> Option<String> {
    let mut missing = path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.exists());
    let last = missing.next()?;
    let first = missing.last()?;
    Some(format!(
        "{}: is not there, nor is {}; a start makes both",
        text::path(last),
        text::path(first)
    ))
}

/// Why nothing can be made in the folder of `path`. Missing folders are made, so this is about the nearest one that exists.
#[must_use]
pub fn folder_obstacle(path: &Path) -> Option<Obstacle> {
    let mut folder = path.parent()?;
    loop {
        match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => return closed(folder),
            Ok(_) => return Some(Obstacle::of(folder, "this is not a folder")),
            Err(error) if error.kind() == ErrorKind::NotFound && is_link(folder) => {
                return Some(Obstacle::of(folder, "is a symbolic link to nowhere"));
            }
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                folder = folder.parent()?;
            }
            Err(error) => return Some(Obstacle::with(folder, &error)),
        }
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Why nothing can be made in a folder.
fn closed(folder: &Path) -> Option<Obstacle> {
    let magic = statfs(folder).ok()?.filesystem_type().0 as u32;
    let kernels = OF_THE_KERNEL.iter().find(|(known, _)| *known == magic);
    if let Some((_, name)) = kernels {
        let what = format!("{name} is a file system of the kernel: others cannot make files there");
        return Some(Obstacle::of(folder, what));
    }
    let rights = AccessFlags::W_OK | AccessFlags::X_OK;
    let refused = faccessat(AT_FDCWD, folder, rights, AtFlags::AT_EACCESS).err()?;
    Some(if refused == nix::Error::EACCES {
        Obstacle::with(folder, &refused.into())
    } else {
        Obstacle {
            kind: io::Error::from(refused).kind(),
            ..Obstacle::of(folder, refused.desc())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn where_no_file_can_be_made_is_known_before_and_named_once() {
        let folder = Folder::new();
        let here = folder.path();
        folder.write("file", "");
        std::os::unix::fs::symlink("/nonexistent", here.join("link")).expect("a link");
        let long = "x".repeat(300);
        let of = |path: &Path| folder_obstacle(path).map(|obstacle| obstacle.what);
        for free in ["new", "not/there/yet/new", "file"] {
            assert_eq!(of(&here.join(free)), None, "{free}");
        }
        for (path, at, what) in [
            ("file/new", "file", "this is not a folder"),
            ("file/not/there/new", "file", "this is not a folder"),
            ("link/new", "link", "is a symbolic link to nowhere"),
            (
                "link/not/there/new",
                "link",
                "is a symbolic link to nowhere",
            ),
        ] {
            let expected = format!("{}: {what}", here.join(at).display());
            assert_eq!(of(&here.join(path)), Some(expected));
        }
        for path in [
            "/proc/new",
            "/proc/self/new",
            "/proc/sys/net/new",
            "/proc/not/there",
        ] {
            let said = of(Path::new(path)).expect("the kernel's");
            assert!(
                said.contains("proc is a file system of the kernel"),
                "{said}"
            );
        }
        let said = of(Path::new("/sys/kernel/new")).expect("the kernel's");
        assert!(
            said.contains("sysfs is a file system of the kernel"),
            "{said}"
        );
        let said = of(&here.join(&long).join("new")).expect("too long");
        assert!(said.contains("File name too long"), "{said}");
    }

    #[test]
    fn a_right_is_told_from_what_nobody_can_do() {
        let path = Path::new("/x/y");
        let denied = Obstacle::with(path, &ErrorKind::PermissionDenied.into());
        let expected = format!("/x/y: Permission denied for user {}", geteuid());
        assert_eq!(
            (denied.what.as_str(), denied.is_right()),
            (&*expected, true)
        );
        let other = Obstacle::with(path, &io::Error::from_raw_os_error(libc::EROFS));
        assert!(!other.is_right(), "{other:?}");
        assert!(other.what.starts_with("/x/y: Read-only"), "{other:?}");
        let so = denied.so("so it is");
        assert!(so.is_right(), "{so:?}");
        assert_eq!(so.what, expected + "; so it is");
    }

    #[test]
    fn folders_that_a_start_would_make_are_named_where_they_are_many() {
        let folder = Folder::new();
        let at = |path: &str| far_folder(&folder.path().join(path));
        assert_eq!(at("cache"), None);
        assert_eq!(at("one/cache"), None, "as in a system that was just set up");
        let here = folder.path().display();
        assert_eq!(
            at("nonexist/a/cache"),
            Some(format!(
                "{here}/nonexist/a: is not there, nor is {here}/nonexist; a start makes both"
            ))
        );
    }

    #[test]
    fn what_is_no_file_is_named_and_a_full_file_system() {
        let folder = Folder::new();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let of = |path: &Path| no_file(path).map(|obstacle| obstacle.what);
        assert_eq!(
            of(&fifo),
            Some(format!("{}: is a FIFO, not a file", fifo.display()))
        );
        assert!(of(folder.path()).is_some_and(|what| what.ends_with("is a folder, not a file")));
        let file = folder.write("file", "");
        assert_eq!(of(&file), None);
        for to in [file.as_path(), Path::new("/nonexistent")] {
            let link = folder.path().join("link");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(to, &link).expect("a link");
            let told = format!(
                "{}: is a symbolic link, not a file: name what it leads to",
                link.display()
            );
            assert_eq!(of(&link), Some(told));
        }
        assert_eq!(of(&folder.path().join("missing")), None);
        assert_eq!(full(&fifo), None);
    }
}
