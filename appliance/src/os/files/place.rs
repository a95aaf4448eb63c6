//! Whether a file, or a socket, can be made where the config wants one: known before it is.

use std::fs::{self, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statfs::statfs;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use crate::text;

/// File systems in which the kernel alone makes files: their magic numbers (statfs(2)) and names.
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

/// What stands in the way of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The path that is meant, and what is wrong with it.
    pub what: String,
    /// As whoever tried would be told.
    pub kind: ErrorKind,
}

impl Obstacle {
    /// Something that stands in the way of every account.
    #[must_use]
    pub fn of(path: &Path, what: impl std::fmt::Display) -> Self {
        Self {
            what: format!("{}: {what}", text::path(path)),
            kind: ErrorKind::Other,
        }
    }

    /// A system call that failed.
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

    /// Whether it is a right that this account has not: another one may have it.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.kind == ErrorKind::PermissionDenied
    }

    /// The same, and what comes of it.
    #[must_use]
    pub fn so(self, consequence: &str) -> Self {
        Self {
            what: format!("{}; {consequence}", self.what),
            ..self
        }
    }
}

/// The word for what has a name in a folder.
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

/// What has the name `path`, if anything does.
///
/// # Errors
/// It cannot be looked at.
pub fn found(path: &Path) -> Result<Option<Metadata>, Obstacle> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        // Of the folder is spoken elsewhere.
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(Obstacle::with(path, &error)),
    }
}

/// Why nothing can be made in the folder of `path`. Folders that are not there yet are made; so it is about the nearest one that
/// is.
#[must_use]
pub fn folder_obstacle(path: &Path) -> Option<Obstacle> {
    let mut folder = path.parent()?;
    loop {
        match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => return closed(folder),
            Ok(_) => return Some(Obstacle::of(folder, "this is no folder")),
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

/// Why a folder takes nothing.
fn closed(folder: &Path) -> Option<Obstacle> {
    let magic = statfs(folder).ok()?.filesystem_type().0 as u32;
    let kernels = OF_THE_KERNEL.iter().find(|(known, _)| *known == magic);
    if let Some((_, name)) = kernels {
        let what = format!("in a file system of the kernel ({name}) nobody else makes files");
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
            ("file/new", "file", "this is no folder"),
            ("file/not/there/new", "file", "this is no folder"),
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
            assert!(said.contains("of the kernel (proc)"), "{said}");
        }
        let said = of(Path::new("/sys/kernel/new")).expect("the kernel's");
        assert!(said.contains("of the kernel (sysfs)"), "{said}");
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
}
