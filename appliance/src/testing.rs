//! Helpers for the tests of several wings.

use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use crate::config::Plan;

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("xdnsd-unit-{}-{count}", std::process::id()));
        // An earlier process of this number was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in the folder and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A plan with one server, which the first group asks.
pub(crate) fn plan_with(server: &str) -> Plan {
    let server: SocketAddr = server.parse().expect("an address and a port");
    Plan {
        servers: vec![vec![server.into()]],
        ..Plan::default()
    }
}

/// Size at which the growing file starts anew, in bytes.
const WRITTEN_MAX: u64 = 16 << 20;

/// Writes to a file again and again until it is dropped.
pub(crate) struct Writer {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes `bytes` at the start of the file, which keeps its length, or at its end.
    pub(crate) fn start(path: &Path, bytes: &'static [u8], at: SeekFrom) -> Self {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("the file is there");
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let place = file.seek(at).expect("a place in it");
                if place > WRITTEN_MAX {
                    file.set_len(0).expect("cut");
                }
                file.write_all(bytes).expect("written");
            }
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        assert!(joined.is_some_and(|joined| joined.is_ok()), "it wrote");
    }
}
