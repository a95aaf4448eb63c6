//! The table of open ports that the sk_lookup program reads, and the program, loaded once for all workers.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xdnsd_abi::ports;

use crate::os::bpf_array::MappedWords;
use crate::os::random;
use crate::os::xdp::PortsProgram;
use crate::text::Sentence;

/// Bytes of the table and of the map of sockets, for the memory budget.
pub const BYTES: usize = (ports::SLOTS as usize + 1) * size_of::<u64>()
    + ports::RECEIVERS_MAX as usize * size_of::<usize>();

/// The program, attached to this network namespace by a link that ends with the process.
pub struct LookupProgram {
    table: Arc<PortTable>,
    program: PortsProgram,
}

impl LookupProgram {
    /// Loads and attaches the program. All ports are closed.
    ///
    /// # Errors
    /// The kernel lacks such programs (before Linux 5.17), or this process may not load them.
    pub fn start() -> Result<Self, Sentence> {
        let (program, words) = PortsProgram::start().map_err(|error| error.innermost())?;
        let key = random::bytes().map_err(|error| format!("getrandom: {error}"))?;
        let table = Arc::new(PortTable::new(words, u64::from_ne_bytes(key)));
        Ok(Self { table, program })
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
        let set = self
            .program
            .receive_with(ports::receiver(worker, v6), socket);
        set.map_err(|error| error.innermost())
    }
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
