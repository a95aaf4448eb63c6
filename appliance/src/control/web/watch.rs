//! Polls the daemon while somebody looks at the page, and only then.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::control::memory::{self, Capacities};
use crate::control::tail::live::{FadingCounts, LiveRates};
use crate::control::tail::reader::TapReader;
use crate::control::tail::top::ask;
use crate::store::tap::entry::wanted;
use crate::store::tap::ring::RingLayout;
use crate::text::json;

/// Time between two readings of the counters.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks at the rings.
const READ: Duration = Duration::from_millis(20);
/// Time after the last request for which polling goes on.
const LINGER: Duration = Duration::from_secs(10);
/// Time that a request waits for the first data.
const FIRST_MAX: Duration = Duration::from_secs(4);
/// Rows of a table.
const ROWS: usize = 12;

/// Latest data, and the time of the last request.
#[derive(Debug, Default)]
struct StatusBoard {
    asked_at: Option<Instant>,
    data: Option<Result<String, String>>,
}

/// Polls the daemon on request.
#[derive(Debug)]
pub struct StatusPoller {
    socket: PathBuf,
    /// The daemon's capacities, by its config.
    capacities: Capacities,
    board: Mutex<StatusBoard>,
    changed: Condvar,
}

impl StatusPoller {
    /// For the daemon at `socket`, which has these capacities.
    pub fn new(socket: PathBuf, capacities: Capacities) -> Self {
        Self {
            socket,
            capacities,
            board: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Data of the page.
    ///
    /// # Errors
    /// The daemon does not answer; in words.
    pub fn data(&self) -> Result<String, String> {
        let mut board = self.board();
        board.asked_at = Some(Instant::now());
        self.changed.notify_all();
        let waited = self
            .changed
            .wait_timeout_while(board, FIRST_MAX, |board| board.data.is_none());
        let (board, _) = waited.unwrap_or_else(PoisonError::into_inner);
        board
            .data
            .clone()
            .unwrap_or_else(|| Err("the daemon does not answer".into()))
    }

    /// Polls whenever there are requests, as long as the process lives.
    pub fn run(&self) {
        loop {
            let board = self.board();
            let waited = self.changed.wait_while(board, |board| !board.is_wanted());
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            let looked = self.look();
            self.board().data = looked.err().map(Err);
            self.changed.notify_all();
            if self.board().data.is_some() {
                thread::sleep(LOOK);
            }
        }
    }

    /// Polls until there were no requests for [`LINGER`].
    fn look(&self) -> Result<(), String> {
        let reader = TapReader::attach(&self.socket, wanted::ANSWERS, RingLayout::QUESTIONS);
        let mut reader = reader.map_err(|error| error.to_string())?;
        let mut live = LiveRates::default();
        live.count(ask(&self.socket, "stats")?, LOOK);
        let mut since = Instant::now();
        while self.board().is_wanted() {
            thread::sleep(READ);
            reader.read().iter().for_each(|seen| live.take(seen));
            if since.elapsed() < LOOK {
                continue;
            }
            live.lost += reader.newly_lost();
            live.count(ask(&self.socket, "stats")?, since.elapsed());
            since = Instant::now();
            let data = data(&live, &self.socket, &self.capacities)?;
            self.board().data = Some(Ok(data));
            self.changed.notify_all();
            live.fade();
        }
        Ok(())
    }

    fn board(&self) -> MutexGuard<'_, StatusBoard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusBoard {
    fn is_wanted(&self) -> bool {
        self.asked_at.is_some_and(|at| at.elapsed() < LINGER)
    }
}

/// Data of the page as JSON.
fn data(live: &LiveRates, socket: &Path, of: &Capacities) -> Result<String, String> {
    let upstreams = ask(socket, "json upstreams")?;
    let upstreams: Value = serde_json::from_str(&upstreams).unwrap_or_default();
    let rates = live.rates();
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    let rows = |tally: &FadingCounts| json!(tally.most(ROWS));
    let [xdp_program, afxdp, udp, tcp] = rates.ways;
    let memory = memory::total(of) as f64 * 100.0 / of.budget() as f64;
    Ok(json::line(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "queries": rates.queries,
        "xdp_program": xdp_program,
        "afxdp": afxdp,
        "udp": udp,
        "tcp": tcp,
        "hit_percent": percent(rates.hits),
        "blocked_percent": percent(rates.blocked),
        "servfail": rates.servfail,
        "memory_percent": memory,
        "not_seen": live.lost,
        "names": rows(&live.names),
        "clients": rows(&live.clients),
        "reasons": rows(&live.reasons),
        "codes": rows(&live.codes),
        "upstreams": upstreams,
    })))
}
