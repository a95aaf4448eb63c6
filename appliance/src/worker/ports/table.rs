//! The table of open ports that the sk_lookup program reads, and the program, loaded once for all workers.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aya::EbpfLoader;
use aya::maps::{Map, MapData, SockMap};
use aya::programs::SkLookup;
use xdnsd_abi::ports;

use crate::os::bpf_array::MappedWords;
use crate::os::{random, seal};
use crate::text::Sentence;

/// The object built by `cargo xtask ebpf`.
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/object/xdnsd-ports.bpf.o");
/// Bytes of the table and of the map of sockets, for the memory budget.
pub const BYTES: usize = (ports::SLOTS as usize + 1) * size_of::<u64>()
    + ports::RECEIVERS_MAX as usize * size_of::<usize>();
/// Limit for aya's loader, as for the XDP program: it would read the kernel's type information, and has no use for it.
const LOADER_PIECE_MAX: usize = 64 * 1024;
/// The network namespace of this process.
const NAMESPACE: &str = "/proc/self/ns/net";

/// The program, attached to this network namespace by a link that ends with the process.
pub struct LookupProgram {
    table: Arc<PortTable>,
    receivers: SockMap<MapData>,
    /// Owns program and link.
    _ebpf: aya::Ebpf,
}

impl LookupProgram {
    /// Loads and attaches the program. All ports are closed.
    ///
    /// # Errors
    /// The kernel lacks such programs (before Linux 5.17), or this process may not load them.
    pub fn start() -> Result<Self, Sentence> {
        let mut loader = seal::with_pieces_up_to(LOADER_PIECE_MAX, EbpfLoader::new);
        let loaded = loader.load(OBJECT);
        let mut ebpf = loaded.map_err(|error| innermost(&error))?;
        let Some(Map::Array(array)) = ebpf.take_map(ports::TABLE) else {
            return Err("the object has no table".into());
        };
        let words = MappedWords::map(array.fd().as_fd(), ports::SLOTS as usize + 1);
        let words = words.map_err(|error| format!("mmap of the table: {error}"))?;
        let key = random::bytes().map_err(|error| format!("getrandom: {error}"))?;
        let table = Arc::new(PortTable::new(words, u64::from_ne_bytes(key)));
        let receivers = ebpf.take_map(ports::RECEIVERS);
        let receivers = receivers.and_then(|map| SockMap::try_from(map).ok());
        let receivers = receivers.ok_or("the object has no map of sockets")?;
        let program = ebpf.program_mut(ports::PROGRAM);
        let program: Option<&mut SkLookup> = program.and_then(|found| found.try_into().ok());
        let program = program.ok_or("the object has no program")?;
        program.load().map_err(|error| innermost(&error))?;
        let namespace = File::open(NAMESPACE).map_err(|error| format!("{NAMESPACE}: {error}"))?;
        program
            .attach(namespace)
            .map_err(|error| innermost(&error))?;
        Ok(Self {
            table,
            receivers,
            _ebpf: ebpf,
        })
    }

    /// The table in which ports are opened.
    pub(super) fn table(&self) -> Arc<PortTable> {
        Arc::clone(&self.table)
    }

    /// Puts the receiving socket of `worker` for this family into the program's map.
    pub(super) fn receive_with(
        &mut self,
        worker: u8,
        v6: bool,
        socket: &impl AsRawFd,
    ) -> Result<(), Sentence> {
        let set = self.receivers.set(ports::receiver(worker, v6), socket, 0);
        set.map_err(|error| innermost(&error))
    }
}

/// Innermost cause of an error: aya's outer messages only name its own functions.
fn innermost(error: &dyn std::error::Error) -> Sentence {
    let mut cause = error;
    // Bound: errors are nested a handful deep.
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Open ports, with the worker and question of each.
#[derive(Debug)]
pub struct PortTable {
    words: MappedWords,
    key: u64,
}

impl PortTable {
    fn new(words: MappedWords, key: u64) -> Self {
        words.word(ports::KEY).store(key, Ordering::Relaxed);
        Self { words, key }
    }

    /// Entry of `port` for a question to `remote` from `local`. `None` if the families differ.
    #[must_use]
    pub fn entry(&self, port: u16, remote: SocketAddr, local: IpAddr) -> Option<u64> {
        let v4 = |octets| u32::from_ne_bytes(octets);
        let (v6, tag) = match (remote, local) {
            (SocketAddr::V4(remote), IpAddr::V4(local)) => {
                let (address, local) = (v4(remote.ip().octets()), v4(local.octets()));
                (
                    false,
                    ports::tag_v4(self.key, address, local, remote.port()),
                )
            }
            (SocketAddr::V6(remote), IpAddr::V6(local)) => {
                let link = if remote.ip().is_unicast_link_local() {
                    remote.scope_id()
                } else {
                    0
                };
                let server = ports::ServerV6 {
                    address: words(remote.ip().octets()),
                    port: remote.port(),
                    link,
                };
                (true, ports::tag_v6(self.key, server, words(local.octets())))
            }
            (SocketAddr::V4(_), IpAddr::V6(_)) | (SocketAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        Some(ports::open(port, v6, tag))
    }

    /// Opens `port` with its `entry`, for a question of `worker`. True if its place was free.
    #[must_use]
    pub fn open(&self, port: u16, entry: u64, worker: u8, question: u16) -> bool {
        let word = self.words.word(ports::slot(port));
        let entry = ports::owned(entry, worker, question);
        let opened = word.compare_exchange(0, entry, Ordering::Relaxed, Ordering::Relaxed);
        opened.is_ok()
    }

    /// Closes `port`; the caller has opened it.
    pub fn close(&self, port: u16) {
        self.words
            .word(ports::slot(port))
            .store(0, Ordering::Relaxed);
    }

    /// Question for which `worker` opened the port with this `entry`. `None` if it is closed, or open with another entry.
    #[must_use]
    pub fn question(&self, port: u16, entry: u64, worker: u8) -> Option<u16> {
        let found = self.words.word(ports::slot(port)).load(Ordering::Relaxed);
        let is_ours = ports::matches(found, entry) && ports::worker(found) == worker;
        is_ours.then(|| ports::question(found))
    }
}

/// Words of an IPv6 address, as the program reads them.
fn words(octets: [u8; 16]) -> [u32; 4] {
    let (words, _) = octets.as_chunks();
    std::array::from_fn(|at| u32::from_ne_bytes(words[at]))
}
