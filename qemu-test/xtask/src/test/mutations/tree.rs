//! A copy of the workspace with its own build directory, in which one file at a time is mutated.

use std::fs::{self, Permissions};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::list::Mutation;
use crate::workspace;

/// The copy, and the files as they were copied. Later edits of the workspace do not affect it.
pub struct Tree {
    root: PathBuf,
    files: Vec<Original>,
}

/// A file in its original state.
struct Original {
    path: PathBuf,
    bytes: Vec<u8>,
    permissions: Permissions,
}

impl Tree {
    /// Makes the copy, or updates that of an earlier run: unchanged files are not built again.
    pub fn copy() -> Result<Self> {
        let root = workspace::target().join("mutations");
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        let mut files = Vec::new();
        for path in workspace::files()? {
            let place = workspace::root().join(&path);
            let read = || -> std::io::Result<_> {
                Ok((fs::read(&place)?, fs::metadata(&place)?.permissions()))
            };
            let (bytes, permissions) =
                read().with_context(|| format!("read {}", place.display()))?;
            files.push(Original {
                path,
                bytes,
                permissions,
            });
        }
        let tree = Self { root, files };
        for path in workspace::files_below(&tree.root)? {
            if !tree.files.iter().any(|file| file.path == path) {
                let place = tree.root.join(path);
                fs::remove_file(&place).with_context(|| format!("remove {}", place.display()))?;
            }
        }
        tree.restore()?;
        Ok(tree)
    }

    /// Restores every file. Unmodified ones keep their times, by which cargo decides what to build.
    pub fn restore(&self) -> Result<()> {
        for Original {
            path,
            bytes,
            permissions,
        } in &self.files
        {
            let place = self.root.join(path);
            if fs::read(&place).is_ok_and(|there| there == *bytes) {
                continue;
            }
            let write = || {
                fs::create_dir_all(place.parent().unwrap_or(Path::new("/")))?;
                fs::write(&place, bytes)?;
                fs::set_permissions(&place, permissions.clone())
            };
            write().with_context(|| format!("write {}", place.display()))?;
        }
        Ok(())
    }

    /// The source of a mutation with its replacement.
    pub fn mutated(&self, mutation: &Mutation) -> Result<String> {
        let is_its = |file: &&Original| file.path == Path::new(&mutation.file);
        let original = self.files.iter().find(is_its);
        let original = original.with_context(|| format!("{mutation}: no {}", mutation.file))?;
        let source = std::str::from_utf8(&original.bytes);
        mutation.apply(source.with_context(|| format!("{} is text", mutation.file))?)
    }

    /// Restores all files and applies this mutation.
    pub fn apply(&self, mutation: &Mutation) -> Result<()> {
        self.restore()?;
        let place = self.root.join(&mutation.file);
        let written = fs::write(&place, self.mutated(mutation)?);
        written.with_context(|| format!("write {}", place.display()))
    }

    /// Cargo in the copy.
    pub fn cargo(&self) -> Command {
        let mut command = workspace::cargo();
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.root.join("target"));
        command
    }
}
