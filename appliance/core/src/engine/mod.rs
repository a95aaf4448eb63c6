//! Forwarding engine: a state machine that takes queries and responses, and gives answers and upstream questions.
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
//! The engine does no I/O, reads no clock and makes no random numbers: the caller does all three.

mod alias;
mod ask;
mod attempt;
mod cookie;
mod deliver;
mod dns64;
mod elsewhere;
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
mod sets;
mod sub;
#[cfg(test)]
mod tests;

pub use cookie::{CookieSecrets, SecretRotations};

use crate::answer::{Fresh, Head, TtlBounds};
use crate::cache::Shard;
use crate::counters::{Counters, ViewCounter};
use crate::dns::Name;
use crate::dns::edns::ede;
use crate::forward::in_flight::{InFlight, WaitingEngines};
use crate::forward::pending::PendingTable;
use crate::forward::pending::crowd::CrowdLimits;
use crate::forward::question::QuestionContext;
use crate::forward::upstreams::{TooManyUpstreams, UpstreamConfig, Upstreams};
use crate::forward::via::{Destination, NoPort, Via};
use crate::limits::{PENDING, TCP_MESSAGE_MAX};
use crate::policy::{DEFAULT_GROUP, Decision, Labels, Policy, Views};
use crate::rate::{Accounts, RateLimits};
use crate::time::Instant;
use core::net::IpAddr;

/// Transport of a query, which bounds the size of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP: 512 bytes, or the client's EDNS size up to [`crate::limits::UDP_MESSAGE_MAX`].
    Udp,
    /// TCP: up to 65,535 bytes.
    Tcp,
}

/// Source of a query. `R` is the caller's type for the way back to the client.
#[derive(Clone, Copy, Debug)]
pub struct Client<R> {
    /// Passed to [`Effects::reply`] with an answer that comes later.
    pub reply_path: R,
    /// Source address of the query, in canonical form.
    pub address: IpAddr,
    /// Index of the interface that received the query; 0 if unknown.
    pub device: u32,
    /// Transport of the query.
    pub transport: Transport,
}

/// Result of [`Engine::query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer stands in the query's buffer and has this many bytes.
    Reply(usize),
    /// The answer comes later, through [`Effects::reply`].
    Pending,
    /// The query gets no answer.
    Silence,
}

/// State that stays the same for the length of a call: the time and the policy in force.
#[derive(Clone, Copy, Debug)]
pub struct Context<'p> {
    /// Present time by the caller's monotonic clock.
    pub now: Instant,
    /// Unix time in seconds by the wall clock, for the age of DNS cookies (RFC 9018 section 4.3).
    pub unix_secs: u32,
    /// Policy of all clients that are in no view: local data, lists, routes, access.
    pub policy: &'p Policy<'p>,
    /// Views, whose clients have a policy of their own.
    pub views: &'p Views<'p>,
}

impl<'p> Context<'p> {
    /// A call of the engine under this context.
    pub const fn call<'c, E>(&'c self, effects: &'c mut E) -> Call<'c, E>
    where
        'p: 'c,
    {
        Call {
            context: self,
            effects,
        }
    }

    /// The context with the policy of this client's view.
    #[inline(always)]
    fn of_client<R>(&self, client: &Client<R>) -> Self {
        let found = if self.views.is_empty() {
            None
        } else {
            self.views.of(client.address, client.device)
        };
        self.under(found)
    }

    /// Counts an event of a client with this context's policy, if there are views.
    #[inline(always)]
    fn count(&self, counters: &Counters, counter: ViewCounter) {
        if !self.views.is_empty() {
            counters.count_for(self.policy.view, counter);
        }
    }

    /// The context with the policy of this view, for the clients that wait for a question of it.
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

/// Arguments of one call of the engine: its context, and the receiver of its effects.
#[derive(Debug)]
pub struct Call<'c, E> {
    /// Time and policy in force.
    pub context: &'c Context<'c>,
    /// The caller's [`Effects`].
    pub effects: &'c mut E,
}

/// Event for the operator's log, beside its counter: rare, never one per packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An answer from upstream had a private address (DNS rebinding) and was withheld.
    Rebind,
}

/// Actions that the engine asks of its caller.
pub trait Effects<R> {
    /// Opens a source port for one datagram to `to` and its answer, drawn at random from the free ones, and returns its
    /// name. The caller passes `question` back with each response to that port.
    ///
    /// # Errors
    /// No port can be had.
    fn open_port(&mut self, to: Destination, question: u16) -> Result<u16, NoPort>;
    /// Closes a source port: it receives nothing more.
    fn close_port(&mut self, port: u16);
    /// Closes a source port whose answer may still come. The caller keeps the port from other questions for a while, since
    /// a late answer would look like a forged one to them.
    fn leave_port(&mut self, port: u16);
    /// Sends `message` to an upstream. Returns true if it was sent; a failure counts as a timeout of the upstream.
    fn ask(&mut self, via: Via, to: Destination, message: &[u8]) -> bool;
    /// Sends `message` to a client.
    fn reply(&mut self, reply_path: &R, message: &[u8]);
    /// Takes a slot in a stream to an upstream for one question, and returns its number. `bucket` is the fair share bucket
    /// of the client.
    ///
    /// # Errors
    /// No slot can be had.
    fn open_stream(&mut self, to: Destination, bucket: u8) -> Result<u16, NoPort>;
    /// Releases a slot: its answer is no longer awaited.
    fn leave_stream(&mut self, slot: u16);
    /// Remembers `notice` about `name` for the log.
    fn notice(&mut self, notice: Notice, name: &Name);
    /// Random bits from the operating system's generator, for message IDs and letter case, which must be unpredictable.
    fn random(&mut self) -> u32;
    /// Adds an address of an answer that is about to be given to these sets of the packet filter, see [`AddressSets`].
    ///
    /// [`AddressSets`]: crate::policy::AddressSets
    fn add_to_sets(&mut self, sets: u16, address: IpAddr) {
        let _ = (sets, address);
    }
    /// Has these engines call [`Engine::look_again`]. An engine without others has none.
    fn wake(&mut self, engines: WaitingEngines) {
        let _ = engines;
    }
}

/// Table of the questions of all engines that share a cache, and the number of this one.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    /// Questions of all engines.
    pub in_flight: &'a InFlight,
    /// Number of this engine, below 255.
    pub engine: u8,
}

/// Access to the cache, whose shards are behind locks of the caller.
pub trait CacheAccess {
    /// Runs `f` on the shard of `hash`.
    fn with_shard<T>(&self, hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T;
    /// Key of the name hash, chosen at start.
    fn seed(&self) -> [u8; 16];
}

/// Settings of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bounds of the TTLs of cached answers.
    pub ttl: TtlBounds,
    /// Serve answers past their TTL when no upstream answers (RFC 8767).
    pub serve_stale: bool,
    /// Longest time past its TTL for which an answer may be served, in seconds.
    pub stale_max_secs: u32,
    /// Time after which clients get a stale answer if no upstream has answered, in milliseconds.
    pub stale_after_ms: u64,
    /// Time after which clients get SERVFAIL if no upstream has answered, in milliseconds.
    pub give_up_ms: u64,
    /// Time for which a failure is cached, in seconds (RFC 9520: at least 1, at most 300).
    pub failure_ttl_secs: u32,
    /// Refresh an answer when a client asks for it in the last tenth of its TTL.
    pub prefetch: bool,
    /// Rotate the addresses of an RRset from answer to answer.
    pub rotate: bool,
    /// Most questions in flight under one domain, and for one group of servers.
    pub bounds: CrowdLimits,
    /// Secrets of our DNS cookies (RFC 7873); `None` if cookies are off.
    pub cookies: Option<CookieSecrets>,
    /// Rate limits per client, for queries over UDP without a valid cookie.
    pub rates: RateLimits,
    /// Longest answer in bytes over UDP to a client without a valid cookie.
    pub nocookie_udp_size: usize,
    /// Idle timeout of a TCP connection, in units of 100 ms (RFC 7828).
    pub tcp_idle_100ms: u16,
    /// Text of `version.bind` and `version.server` in class CHAOS; `None` if they are REFUSED.
    pub version: Option<&'static str>,
    /// Text of `id.server` and `hostname.bind`; `None` if they are REFUSED.
    pub identity: Option<&'static str>,
    /// Ask upstreams with random letter case (draft-vixie-dnsext-dns0x20).
    pub random_case: bool,
}

/// TTL of a stale answer in seconds (RFC 8767 section 5.11).
pub const STALE_TTL_SECS: u32 = 30;

impl Settings {
    /// Defaults of the configuration.
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

/// Memory of an engine. Too large for a stack: it belongs in a static.
#[derive(Debug)]
pub struct Tables<R> {
    live: Live<R>,
    scratch: [u8; TCP_MESSAGE_MAX],
}

/// Tables that every step of the engine may change.
#[derive(Debug)]
struct Live<R> {
    /// Questions in flight.
    pending: PendingTable<R>,
    /// Buffer of the reply that is being written.
    reply: [u8; TCP_MESSAGE_MAX],
}

impl<R: Copy + PartialEq> Tables<R> {
    /// Tables without questions in flight.
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

/// Forwarding engine of one worker.
#[derive(Debug)]
pub struct Engine<'a, R, C> {
    tables: &'a mut Live<R>,
    /// Buffer for an answer from upstream: header, question, body. It is lent to the code that works on the answer, and is
    /// empty meanwhile.
    scratch: &'a mut [u8],
    cache: C,
    counters: &'a Counters,
    upstreams: Upstreams,
    settings: Settings,
    /// Returns the rate accounts of clients.
    accounts: fn() -> Accounts<'a>,
    /// Questions of all engines; `None` if there is no other engine.
    sharing: Option<Sharing<'a>>,
    /// Number of replies so far, by which RRsets are rotated.
    rotation: u16,
    /// True if hits are noted for [`take_noted`](Self::take_noted).
    notes_hits: bool,
    /// Validity of the answer to the latest query, if it was noted.
    noted: Option<Fresh>,
}

impl<'a, R: Copy + PartialEq, C: CacheAccess> Engine<'a, R, C> {
    /// An engine without questions in flight and without upstream servers.
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
            sharing: None,
            rotation: 0,
            notes_hits: false,
            noted: None,
        }
    }

    /// Switches the noting of hits for [`take_noted`](Self::take_noted) on or off. It is off at first.
    pub const fn note_hits(&mut self, notes_hits: bool) {
        self.notes_hits = notes_hits;
    }

    /// The engine with these accounts for the limits of [`Settings::rates`]. The function is called anew for each use,
    /// since accounts may come later.
    #[must_use]
    pub fn with_accounts(self, accounts: fn() -> Accounts<'a>) -> Self {
        Self { accounts, ..self }
    }

    /// The engine beside others with the same cache: what one of them asks already, it does not ask.
    #[must_use]
    pub fn beside(self, sharing: Sharing<'a>) -> Self {
        Self {
            sharing: Some(sharing),
            ..self
        }
    }

    /// Takes the note about the latest query; `None` if its answer was not a hit that others get as well.
    pub const fn take_noted(&mut self) -> Option<Fresh> {
        self.noted.take()
    }

    /// The engine with these upstream servers. [`take_servers`](Self::take_servers) replaces them later.
    #[must_use]
    pub fn with_upstreams(self, upstreams: Upstreams) -> Self {
        Self { upstreams, ..self }
    }

    /// Replaces the settings, except those that clients and connections rely on: cookies, the idle timeout of TCP, version
    /// and identity.
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

    /// Upstream servers.
    #[must_use]
    pub const fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Replaces the upstream servers. The state of servers that stay is kept. Questions in flight begin anew at the next
    /// [`timeout`](Self::timeout), with the group that policy names for them.
    ///
    /// # Errors
    /// There are more servers than fit; nothing has changed.
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
            // An answer that still comes may be from a server that has another index by now.
            self.leave_ports(index, call.effects);
            let pending = &mut self.tables.pending;
            let Some(group) = pending.get(index).map(|question| {
                let name = pending.asked_name(index).unwrap_or(&question.name);
                let policy = call.context.of_view(question.view).policy;
                // Policy may no longer forward the question, but a client waits for an answer.
                let group = group_of(policy, name, question.qtype);
                group.unwrap_or(policy.default_group as u8)
            }) else {
                continue;
            };
            pending.restart(index, group, now);
        }
        Ok(())
    }

    /// Ends all questions of views, because the numbers of views change their meaning, and counts for views from 0 on. Waiting
    /// clients get a stale answer or SERVFAIL, and may ask again.
    pub fn leave_views<E: Effects<R>>(&mut self, call: &mut Call<'_, E>) {
        self.counters.forget_views();
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

    /// Number of questions in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.tables.pending.len()
    }

    /// Next time at which [`timeout`](Self::timeout) has work; `None` if no question is in flight.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.tables.pending.is_empty() {
            None
        } else {
            Some(self.tables.pending.next_wake())
        }
    }

    /// The table of questions, and beside it the state that a question needs to handle an event.
    const fn question_context(
        &mut self,
        now: Instant,
    ) -> (&mut PendingTable<R>, QuestionContext<'_>) {
        let question_context = QuestionContext {
            upstreams: &mut self.upstreams,
            counters: self.counters,
            now,
        };
        (&mut self.tables.pending, question_context)
    }

    /// Number of places by which the next answer's addresses are rotated.
    const fn next_rotation(&mut self) -> u16 {
        next_rotation(&mut self.rotation, &self.settings)
    }
}

const fn next_rotation(rotation: &mut u16, settings: &Settings) -> u16 {
    *rotation = rotation.wrapping_add(1);
    if settings.rotate { *rotation } else { 0 }
}

const _: () = assert!(Head::DEFAULT_GROUP as u16 == DEFAULT_GROUP);

/// Group of upstreams for `name`; `None` if policy does not forward it.
fn group_of(policy: &Policy<'_>, name: &Name, qtype: u16) -> Option<u8> {
    match policy.decide(&Labels::new(name.as_wire())?, qtype) {
        Decision::Forward { group } => Some(group as u8),
        Decision::Local(_) | Decision::Special(_) | Decision::Blocked(_) | Decision::PlainName => {
            None
        }
    }
}
