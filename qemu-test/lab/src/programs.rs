//! Locates programs and files of Debian packages on this machine.

use std::env;
use std::path::PathBuf;

use crate::workspace;

/// Path of the program `name`, in PATH or in root's directories.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = env::split_paths(&path).chain(system);
    places.find_map(|place| Some(place.join(name)).filter(|file| file.is_file()))
}

/// Root directory of an unpacked package, if this machine has not installed it.
#[must_use]
pub fn unpacked_root(package: &str) -> PathBuf {
    workspace::target().join("unpacked").join(package)
}

/// Path of a package's file, installed or unpacked.
#[must_use]
pub fn find_unpacked(package: &str, path: &str) -> Option<PathBuf> {
    let roots = [PathBuf::from("/"), unpacked_root(package)];
    // Since Debian 13 all of `/lib` is below `/usr`.
    let mut files = roots
        .iter()
        .flat_map(|root| [root.join(path), root.join("usr").join(path)]);
    files.find(|file| file.exists())
}

#[cfg(test)]
mod tests {
    use super::{find_program, find_unpacked, unpacked_root};

    #[test]
    fn program_is_found_by_its_name() {
        assert!(find_program("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(find_program("no-such-program"), None);
    }

    #[test]
    fn file_of_a_package_is_found_where_it_is_installed() {
        let passwd = find_unpacked("base-passwd", "etc/passwd");
        assert_eq!(passwd, Some("/etc/passwd".into()));
        assert_eq!(find_unpacked("no-such-package", "no/such/file"), None);
        let root = unpacked_root("no-such-package");
        assert!(root.ends_with("unpacked/no-such-package"), "{root:?}");
    }
}
