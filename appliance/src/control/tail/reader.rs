//! The reader's side of the tap: it allocates the memory, hands it over, and empties the rings.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xdnsd_core::dns::header::Header;

use crate::control::readers;
use crate::control::socket::handover::hand_over;
use crate::os::clock;
use crate::os::shared_memory::SharedMemory;
use crate::store::tap::entry::{TapEntry, TapKind};
use crate::store::tap::ring::{RingLayout, RingReader};

/// Maximum number of queries that wait for their answer. When full, those older than a minute are forgotten; if there are none,
/// new queries are not remembered.
const WAITING_MAX: usize = 16_384;
/// Time after which a waiting query may be forgotten, in seconds.
const WAITING_SECS: u64 = 60;

/// An entry of the tap, with what the reader adds.
#[derive(Clone, Debug)]
pub struct SeenEntry {
    /// Entry as the worker wrote it.
    pub entry: TapEntry,
    /// Message or frame, possibly truncated.
    pub bytes: Vec<u8>,
    /// Time since 1970.
    pub wall: Duration,
    /// Time that the client has waited, if this is an answer.
    pub waited: Option<Duration>,
}

/// Reader of a daemon's tap.
#[derive(Debug)]
pub struct TapReader {
    rings: RingReader,
    connection: UnixStream,
    /// Arrival times of waiting queries, by client and ID: a late answer does not carry them.
    waiting: HashMap<(SocketAddr, u16), u64>,
    /// Lost entries that were reported.
    lost: u64,
}

impl TapReader {
    /// Attaches to the daemon at `socket` and reads the entries that these bits of [`wanted`](crate::store::tap::entry::wanted)
    /// select.
    ///
    /// # Errors
    /// No daemon answers there, or the daemon refuses.
    pub fn attach(socket: &Path, wanted: u8, shape: RingLayout) -> io::Result<Self> {
        let (file, memory) = SharedMemory::make(shape.bytes())?;
        let request = readers::request(wanted, shape);
        let connection = hand_over(socket, &request, file.as_fd())?;
        Ok(Self {
            rings: RingReader::new(memory, shape),
            connection,
            waiting: HashMap::new(),
            lost: 0,
        })
    }

    /// Entries since the last call, in order.
    pub fn read(&mut self) -> Vec<SeenEntry> {
        let now = (clock::monotonic_ns(), SystemTime::now());
        let read = self.rings.drain();
        read.into_iter()
            .map(|(entry, bytes)| self.seen(entry, bytes, now))
            .collect()
    }

    /// Number of entries lost since the last call.
    pub fn newly_lost(&mut self) -> u64 {
        let lost = self.rings.lost();
        lost - std::mem::replace(&mut self.lost, lost)
    }

    /// Connection to the daemon, closed by the daemon when it ends.
    pub const fn connection(&self) -> &UnixStream {
        &self.connection
    }

    fn seen(&mut self, entry: TapEntry, bytes: Vec<u8>, now: (u64, SystemTime)) -> SeenEntry {
        let ago = Duration::from_nanos(now.0.saturating_sub(entry.time_ns));
        let wall = now.1.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let waited = match entry.kind {
            TapKind::Waiting => {
                self.remember(&entry, &bytes);
                None
            }
            TapKind::Late => self.waited(&entry, &bytes),
            TapKind::Answer => Some(Duration::from_micros(entry.micros.into())),
            TapKind::Query | TapKind::Silence | TapKind::FrameIn | TapKind::FrameOut => None,
        };
        SeenEntry {
            entry,
            bytes,
            wall: wall.duration_since(UNIX_EPOCH).unwrap_or_default(),
            waited,
        }
    }

    fn remember(&mut self, entry: &TapEntry, bytes: &[u8]) {
        let Some(header) = Header::parse(bytes) else {
            return;
        };
        if self.waiting.len() >= WAITING_MAX {
            let since = entry.time_ns.saturating_sub(WAITING_SECS * 1_000_000_000);
            self.waiting.retain(|_, at| *at >= since);
        }
        if self.waiting.len() < WAITING_MAX {
            let began = entry
                .time_ns
                .saturating_sub(u64::from(entry.micros) * 1_000);
            self.waiting.insert((entry.client, header.id), began);
        }
    }

    fn waited(&mut self, entry: &TapEntry, bytes: &[u8]) -> Option<Duration> {
        let header = Header::parse(bytes)?;
        let began = self.waiting.remove(&(entry.client, header.id))?;
        Some(Duration::from_nanos(entry.time_ns.saturating_sub(began)))
    }
}
