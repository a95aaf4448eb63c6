//! The forwarder as a state machine: queries come in, answers and upstream questions go out.
//!
//! ```text
//!            query(call, …)                        response(call, …)
//!  client ───────────────► cache ─ hit ─► Outcome::Reply
//!                            │ miss
//!                            ▼
//!                         pending ─────► Effects::ask ───► upstream
//!                            ▲                               │
//!             timeout(call) ─┘ ◄─────────────────────────────┘
//!                            └─► Effects::reply ─► every client that waits
//! ```
//! It does no I/O, reads no clock and makes no random numbers: all of that is the caller's.

mod alias;
mod ask;
mod attempt;
mod cookie;
mod deliver;
mod filter;
mod hit;
mod local;
mod lookup;
mod miss;
mod nxdomain;
mod query;
mod rate;
mod reject;
mod request;
mod response;
mod sub;
#[cfg(test)]
mod tests;

pub use cookie::{CookieSecrets, SecretRotations};

use crate::answer::{Fresh, TtlBounds};
use crate::cache::Shard;
use crate::counters::Counters;
use crate::dns::Name;
use crate::dns::edns::ede;
use crate::forward::pending::PendingTable;
use crate::forward::pending::crowd::CrowdLimits;
use crate::forward::question::Scene;
use crate::forward::upstreams::{TooManyUpstreams, UpstreamConfig, Upstreams};
use crate::forward::via::{NoPort, Via};
use crate::limits::{PENDING, TCP_MESSAGE_MAX};
use crate::policy::{Decision, Labels, Policy, Views};
use crate::rate::{Accounts, RateLimits};
use crate::time::Instant;
use core::net::{IpAddr, SocketAddr};

/// How a query came, and so how large its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: 512 bytes, or what EDNS says, at most [`crate::limits::UDP_MESSAGE_MAX`].
    Udp,
    /// A stream: up to 65,535 bytes.
    Tcp,
}

/// Who asks. `R` is the caller's own way back to the client.
#[derive(Clone, Copy, Debug)]
pub struct Client<R> {
    /// Handed back with an answer that comes later.
    pub reply_path: R,
    /// The source address of its query, canonical.
    pub address: IpAddr,
    /// The index of the device that its query came by; 0: nobody knows.
    pub device: u32,
    /// How it asked.
    pub transport: Transport,
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer stands in the query's own buffer and is this long.
    Reply(usize),
    /// It comes later, through [`Effects::reply`].
    Pending,
    /// There will be none.
    Silence,
}

/// What holds for a while: the time, and the policy in force.
#[derive(Clone, Copy, Debug)]
pub struct Context<'p> {
    /// The present moment by the caller's monotonic clock.
    pub now: Instant,
    /// Seconds since 1970 by the wall clock, for the age of DNS cookies (RFC 9018 section 4.3).
    pub unix_secs: u32,
    /// Local data, lists, routes, access: of all clients who are in no view.
    pub policy: &'p Policy<'p>,
    /// Whose policy is another one.
    pub views: &'p Views<'p>,
}

impl<'p> Context<'p> {
    /// One call of the engine under it.
    pub const fn call<'c, E>(&'c self, effects: &'c mut E) -> Call<'c, E>
    where
        'p: 'c,
    {
        Call {
            context: self,
            effects,
        }
    }

    /// What holds for this client.
    #[inline(always)]
    fn of_client<R>(&self, client: &Client<R>) -> Self {
        let found = if self.views.is_empty() {
            None
        } else {
            self.views.of(client.address, client.device)
        };
        self.under(found)
    }

    /// What holds for those who wait for a question of this view, whoever the present call is for.
    fn of_view(&self, view: u8) -> Self {
        self.under(self.views.by_number(view))
    }

    const fn under(&self, policy: Option<&'p Policy<'p>>) -> Self {
        let policy = match policy {
            Some(policy) => policy,
            None => self.policy,
        };
        Self { policy, ..*self }
    }
}

/// What one call of the engine has to do with: what holds for it, and who carries out what it asks for.
#[derive(Debug)]
pub struct Call<'c, E> {
    /// The time, and the policy in force.
    pub context: &'c Context<'c>,
    /// The caller's [`Effects`].
    pub effects: &'c mut E,
}

/// What the operator should read in the log, beside the counter: rarely, not per packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An answer from upstream had a private address (DNS rebinding) and was withheld.
    Rebind,
}

/// What the engine asks its caller to do.
pub trait Effects<R> {
    /// Opens a source port for one datagram to `to` and its answer, drawn at random from those that are free, and returns
    /// its name.
    /// `question` comes back with what arrives there.
    ///
    /// # Errors
    /// None can be had.
    fn open_port(&mut self, to: SocketAddr, question: u16) -> Result<u16, NoPort>;
    /// Closes a source port: nothing is received through it any more.
    fn close_port(&mut self, port: u16);
    /// Closes a source port before its answer has come. It may still come: no other question has this port for a while, or
    /// it would look like a forged answer to that one.
    fn leave_port(&mut self, port: u16);
    /// Sends `message` to an upstream. Returns whether it went out; a failure counts as an upstream that did not answer.
    fn ask(&mut self, via: Via, to: SocketAddr, message: &[u8]) -> bool;
    /// Sends `message` to a client.
    fn reply(&mut self, reply_path: &R, message: &[u8]);
    /// Takes a place in a stream to an upstream, for one question whose answer did not fit a datagram, and returns its slot.
    /// `bucket` is the fair share bucket of the client that asked.
    ///
    /// # Errors
    /// None can be had.
    fn open_stream(&mut self, to: SocketAddr, bucket: u8) -> Result<u16, NoPort>;
    /// Gives the place in a stream back: its answer is not waited for any more.
    fn leave_stream(&mut self, slot: u16);
    /// Remembers `notice` about `name` for the log.
    fn notice(&mut self, notice: Notice, name: &Name);
    /// Random bits from the operating system's generator: message IDs and ports must not be guessed.
    fn random(&mut self) -> u32;
}

/// The cache as the engine reaches it: shards behind the caller's locks.
pub trait CacheAccess {
    /// Runs `f` on the shard that `hash` belongs to.
    fn with_shard<T>(&self, hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T;
    /// The key of the hash, chosen at start.
    fn seed(&self) -> [u8; 16];
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// TTLs of what is kept.
    pub ttl: TtlBounds,
    /// Serve answers past their TTL when no upstream answers (RFC 8767).
    pub serve_stale: bool,
    /// For how long after its TTL an answer may be served, in seconds.
    pub stale_max_secs: u32,
    /// After how long without an upstream's answer a stale one is given, in milliseconds.
    pub stale_after_ms: u64,
    /// After how long without any answer SERVFAIL is given, in milliseconds.
    pub give_up_ms: u64,
    /// For how long a failure is kept, in seconds (RFC 9520: at least 1, at most 300).
    pub failure_ttl_secs: u32,
    /// Ask again in the last tenth of a TTL when a client asks.
    pub prefetch: bool,
    /// Rotate the addresses of an RRset from answer to answer.
    pub rotate: bool,
    /// How many questions may be in flight under one domain, and for one group of servers.
    pub bounds: CrowdLimits,
    /// Secret of our DNS cookies (RFC 7873); `None`: cookies are not answered.
    pub cookies: Option<CookieSecrets>,
    /// How much a client may ask over UDP without a valid cookie.
    pub rates: RateLimits,
    /// Answers longer than this many bytes go over UDP only to clients with a valid cookie.
    pub nocookie_udp_size: usize,
    /// How long a TCP connection may be idle, in units of 100 ms (RFC 7828).
    pub tcp_idle_100ms: u16,
    /// What `version.bind` and `version.server` say in class CHAOS; `None`: REFUSED.
    pub version: Option<&'static str>,
    /// What `id.server` and `hostname.bind` say; `None`: REFUSED.
    pub identity: Option<&'static str>,
    /// Ask upstreams with random letter case (draft-vixie-dnsext-dns0x20).
    pub random_case: bool,
}

/// TTL of a stale answer in seconds (RFC 8767 section 5.11).
pub const STALE_TTL_SECS: u32 = 30;

impl Settings {
    /// What holds where the configuration is silent.
    pub const DEFAULT: Self = Self {
        ttl: TtlBounds {
            min_secs: 0,
            max_secs: 86_400,
            negative_max_secs: 3_600,
        },
        serve_stale: true,
        stale_max_secs: 86_400,
        stale_after_ms: 1_800,
        give_up_ms: 4_500,
        failure_ttl_secs: 5,
        prefetch: true,
        rotate: true,
        random_case: true,
        bounds: CrowdLimits::DEFAULT,
        cookies: None,
        rates: RateLimits::NONE,
        nocookie_udp_size: usize::MAX,
        tcp_idle_100ms: 100,
        version: None,
        identity: None,
    };
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The memory of an engine that is too large for a stack: it belongs into a static.
#[derive(Debug)]
pub struct Tables<R> {
    live: Live<R>,
    scratch: [u8; TCP_MESSAGE_MAX],
}

/// What every step of the engine may change.
#[derive(Debug)]
struct Live<R> {
    /// Questions in flight.
    pending: PendingTable<R>,
    /// The reply being written.
    reply: [u8; TCP_MESSAGE_MAX],
}

impl<R: Copy + PartialEq> Tables<R> {
    /// With no question in flight.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            live: Live {
                pending: PendingTable::new(),
                reply: [0; TCP_MESSAGE_MAX],
            },
            scratch: [0; TCP_MESSAGE_MAX],
        }
    }
}

impl<R: Copy + PartialEq> Default for Tables<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// The forwarder of one worker.
#[derive(Debug)]
pub struct Engine<'a, R, C> {
    tables: &'a mut Live<R>,
    /// Where an answer from upstream is written: header, question, body. Lent to the code that works on it, and empty meanwhile.
    scratch: &'a mut [u8],
    cache: C,
    counters: &'a Counters,
    upstreams: Upstreams,
    settings: Settings,
    /// Where it stands what clients have had.
    accounts: fn() -> Accounts<'a>,
    /// Counts replies, so that RRsets rotate.
    rotation: u16,
    /// Whether hits are noted.
    notes_hits: bool,
    /// The latest query's answer, if it is one that others get as well.
    noted: Option<Fresh>,
}

impl<'a, R: Copy + PartialEq, C: CacheAccess> Engine<'a, R, C> {
    /// An engine with nothing in flight, that asks nobody.
    #[must_use]
    pub fn new(
        tables: &'a mut Tables<R>,
        cache: C,
        counters: &'a Counters,
        settings: Settings,
    ) -> Self {
        Self {
            tables: &mut tables.live,
            scratch: &mut tables.scratch,
            cache,
            counters,
            upstreams: Upstreams::new(),
            settings,
            accounts: || Accounts::NONE,
            rotation: 0,
            notes_hits: false,
            noted: None,
        }
    }

    /// Whether what it gives from the cache is noted for [`take_noted`](Self::take_noted) from now on. At first it is not.
    pub const fn note_hits(&mut self, notes_hits: bool) {
        self.notes_hits = notes_hits;
    }

    /// The same, that keeps the limits of [`Settings::rates`] by these accounts. Others may come to be there.
    #[must_use]
    pub fn with_accounts(self, accounts: fn() -> Accounts<'a>) -> Self {
        Self { accounts, ..self }
    }

    /// What was noted of the latest query: `None`, it was not answered as everybody else is.
    pub const fn take_noted(&mut self) -> Option<Fresh> {
        self.noted.take()
    }

    /// The same, that asks these servers. [`take_servers`](Self::take_servers) replaces them later.
    #[must_use]
    pub fn with_upstreams(self, upstreams: Upstreams) -> Self {
        Self { upstreams, ..self }
    }

    /// Takes over other settings. What clients and connections rely on stays: cookies, how long a connection may be idle, and
    /// who we say that we are.
    pub const fn take_settings(&mut self, settings: &Settings) {
        let Settings {
            cookies,
            tcp_idle_100ms,
            version,
            identity,
            ..
        } = self.settings;
        self.settings = Settings {
            cookies,
            tcp_idle_100ms,
            version,
            identity,
            ..*settings
        };
    }

    /// The upstream servers.
    #[must_use]
    pub const fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Takes over other upstream servers. What is known of those that stay is kept; questions in flight begin anew, with
    /// the servers that policy names for them, at the next [`timeout`](Self::timeout).
    ///
    /// # Errors
    /// There are more than fit; nothing has changed.
    pub fn take_servers<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        servers: &[UpstreamConfig],
    ) -> Result<(), TooManyUpstreams> {
        let present = self.upstreams.as_slice().iter();
        if present.map(|upstream| &upstream.config).eq(servers) {
            return Ok(());
        }
        self.upstreams.configure(servers)?;
        let now = call.context.now;
        for index in 0..PENDING as u16 {
            // What is still answered is the answer of a server that may be another's by now.
            self.leave_ports(index, call.effects);
            let pending = &mut self.tables.pending;
            let Some(group) = pending.get(index).map(|question| {
                let name = pending.asked_name(index).unwrap_or(&question.name);
                let policy = call.context.of_view(question.view).policy;
                // Policy may not ask for it any more. Somebody waits for an answer nevertheless.
                let group = group_of(policy, name, question.qtype);
                group.unwrap_or(policy.default_group as u8)
            }) else {
                continue;
            };
            pending.restart(index, group, now);
        }
        Ok(())
    }

    /// Ends all questions of views: the numbers of views are those of others from now on. Who waits gets a stale answer or
    /// SERVFAIL, and may ask again.
    pub fn leave_views<E: Effects<R>>(&mut self, call: &mut Call<'_, E>) {
        for index in 0..PENDING as u16 {
            let question = self.tables.pending.get(index);
            let failure = question
                .filter(|question| question.view != 0)
                .map(|question| question.failure(ede::NOT_READY));
            if let Some(failure) = failure {
                self.fail(call, index, failure);
            }
        }
    }

    /// Questions in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.tables.pending.len()
    }

    /// Nothing has to be done before this instant unless a message comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.tables.pending.is_empty() {
            None
        } else {
            Some(self.tables.pending.next_wake())
        }
    }

    /// What a question sees when something happens to it, and the table that it stands in.
    const fn scene(&mut self, now: Instant) -> (&mut PendingTable<R>, Scene<'_>) {
        let scene = Scene {
            upstreams: &mut self.upstreams,
            counters: self.counters,
            now,
        };
        (&mut self.tables.pending, scene)
    }

    /// By how many places addresses are moved in the next answer.
    const fn next_rotation(&mut self) -> u16 {
        next_rotation(&mut self.rotation, &self.settings)
    }
}

const fn next_rotation(rotation: &mut u16, settings: &Settings) -> u16 {
    *rotation = rotation.wrapping_add(1);
    if settings.rotate { *rotation } else { 0 }
}

/// The group that upstream is asked in for `name`; `None`: policy asks nobody.
fn group_of(policy: &Policy<'_>, name: &Name, qtype: u16) -> Option<u8> {
    match policy.decide(&Labels::new(name.as_wire())?, qtype) {
        Decision::Forward { group } => Some(group as u8),
        Decision::Local(_) | Decision::Special(_) | Decision::Blocked(_) | Decision::PlainName => {
            None
        }
    }
}
