//! Kernel modules in the order in which they have to be inserted.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::tool::bytes;

/// Most modules of one kernel, which bounds the worklist.
const MODULES_MAX: usize = 64;

/// A module, uncompressed, as busybox's insmod requires.
#[derive(Debug)]
pub struct Module {
    /// Its name in the kernel, with underscores.
    pub name: String,
    /// The ELF object.
    pub object: Vec<u8>,
}

/// Reads `wanted` and their dependencies below `tree`, each after those that it needs. Built-in and missing modules are left out.
pub fn collect(tree: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let files = index(tree)?;
    let mut ordered: Vec<Module> = Vec::new();
    let mut stack: Vec<String> = wanted.iter().rev().map(|name| (*name).to_owned()).collect();
    let mut read: HashMap<String, Module> = HashMap::new();
    while let Some(name) = stack.last().cloned() {
        ensure!(
            ordered.len() + read.len() <= MODULES_MAX,
            "more than {MODULES_MAX} modules for {wanted:?}"
        );
        let is_placed = ordered.iter().any(|module| module.name == name);
        let Some(path) = files.get(&name).filter(|_| !is_placed) else {
            stack.pop();
            continue;
        };
        if let Some(module) = read.remove(&name) {
            // Its dependencies were pushed when it was read, and are placed now.
            ordered.push(module);
            stack.pop();
            continue;
        }
        let module = Module {
            object: decompress(path)?,
            name: name.clone(),
        };
        stack.extend(needs(&module.object));
        read.insert(name, module);
    }
    Ok(ordered)
}

/// Every module below `tree`, by name.
fn index(tree: &Path) -> Result<HashMap<String, PathBuf>> {
    let mut found = HashMap::new();
    let mut directories = vec![tree.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        for entry in entries {
            let path = entry.context("read a directory")?.path();
            if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            } else if let Some(name) = module_name(&path) {
                found.insert(name, path);
            }
        }
    }
    Ok(found)
}

fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, _) = file.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let is_compressed = path.extension().is_some_and(|extension| extension == "xz");
    if is_compressed {
        return bytes(Command::new("xz").arg("-dc").arg(path));
    }
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Modules in the `depends=` entry of the object's `.modinfo` section, whose strings end with NUL.
fn needs(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &object[start + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(&value[..end]);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_its_modinfo() {
        let object = b"\x7fELF\0license=GPL\0depends=net_failover,crc-t10dif\0name=virtio_net\0";
        assert_eq!(needs(object), ["net_failover", "crc_t10dif"]);
        assert!(needs(b"\x7fELF\0license=GPL\0depends=\0").is_empty());
        assert!(needs(b"no module").is_empty());
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let tree = std::env::temp_dir().join(format!("xdnsd-modules-{}", std::process::id()));
        fs::create_dir_all(tree.join("net")).expect("create");
        let write = |name: &str, needs: &str| {
            fs::write(
                tree.join("net").join(name),
                format!("ELF\0depends={needs}\0"),
            )
            .expect("write");
        };
        write("virtio-net.ko", "net_failover");
        write("net_failover.ko", "failover");
        write("failover.ko", "");
        let found = collect(&tree, &["virtio_net", "failover", "absent"]).expect("collect");
        let names: Vec<&str> = found.iter().map(|module| module.name.as_str()).collect();
        fs::remove_dir_all(&tree).expect("remove");
        assert_eq!(names, ["failover", "net_failover", "virtio_net"]);
    }
}
