//! Paths of the workspace and of the build directory.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace: the nearest folder above the running package that has a `Cargo.lock`.
#[must_use]
pub fn root() -> PathBuf {
    // Cargo sets the variable when it runs a program, even if the checkout has moved since the build.
    let package = env::var_os("CARGO_MANIFEST_DIR");
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut folders = Path::new(&package).ancestors();
    folders
        .find(|folder| folder.join("Cargo.lock").is_file())
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's build directory.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::root;

    #[test]
    fn root_is_that_of_the_workspace() {
        for part in ["ebpf/object", "appliance/core", "qemu-test/lab"] {
            assert!(root().join(part).is_dir(), "{part}");
        }
    }
}
