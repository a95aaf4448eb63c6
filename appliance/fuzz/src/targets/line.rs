//! An engine with its caller's effects and a clock: one for each input, so that what one does is the same each time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use xdnsd_core::cache::Shard;
use xdnsd_core::counters::Counters;
use xdnsd_core::dns::Name;
use xdnsd_core::engine::{
    CacheAccess, Call, Client, Context, Effects, Engine, Notice, Outcome, Settings, Tables,
    Transport,
};
use xdnsd_core::forward::upstreams::{Strategy, UpstreamConfig, Upstreams};
use xdnsd_core::forward::via::{Destination, NoPort, ResponseOrigin, Via};
use xdnsd_core::limits::{TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use xdnsd_core::policy::Policy;
use xdnsd_core::time::Instant;

/// The servers that are asked.
const SERVERS: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 53), ([192, 0, 2, 2], 53)];
/// Streams that can be had at the same time.
const STREAMS: u16 = 2;

/// What the engine sent to a server.
#[derive(Clone, Debug)]
pub struct Asked {
    pub via: Via,
    pub to: SocketAddr,
    pub message: Vec<u8>,
}

/// What the engine wanted done.
#[derive(Debug, Default)]
pub struct Recorder {
    pub asked: Vec<Asked>,
    pub replies: Vec<(u32, Vec<u8>)>,
    /// The question of each port that is open.
    pub ports: HashMap<u16, u16>,
    pub streams: Vec<u16>,
    last_port: u16,
    random: u32,
}

impl Effects<u32> for Recorder {
    fn open_port(&mut self, _to: Destination, question: u16) -> Result<u16, NoPort> {
        loop {
            self.last_port = self.last_port.wrapping_add(1).max(1_024);
            if !self.ports.contains_key(&self.last_port) {
                break;
            }
        }
        self.ports.insert(self.last_port, question);
        Ok(self.last_port)
    }
    fn close_port(&mut self, port: u16) {
        assert!(self.ports.remove(&port).is_some(), "{port} was open");
    }
    fn leave_port(&mut self, port: u16) {
        self.close_port(port);
    }
    fn ask(&mut self, via: Via, to: Destination, message: &[u8]) -> bool {
        let (to, message) = (to.address, message.to_vec());
        self.asked.push(Asked { via, to, message });
        true
    }
    fn reply(&mut self, reply_path: &u32, message: &[u8]) {
        self.replies.push((*reply_path, message.to_vec()));
    }
    fn open_stream(&mut self, _to: Destination, _bucket: u8) -> Result<u16, NoPort> {
        let free = (0..STREAMS).find(|slot| !self.streams.contains(slot));
        let slot = free.ok_or(NoPort::Full)?;
        self.streams.push(slot);
        Ok(slot)
    }
    fn leave_stream(&mut self, slot: u16) {
        self.streams.retain(|other| *other != slot);
    }
    fn notice(&mut self, _notice: Notice, _name: &Name) {}
    fn random(&mut self) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        // The low bits of such a generator repeat soon.
        self.random.rotate_left(16)
    }
}

/// One shard.
struct OneShard(Mutex<Box<Shard>>);

impl CacheAccess for &OneShard {
    fn with_shard<T>(&self, _hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn seed(&self) -> [u8; 16] {
        *b"not so random..."
    }
}

/// An engine at a line to its servers.
pub struct Line<'a> {
    engine: Engine<'a, u32, &'a OneShard>,
    pub effects: Recorder,
    pub now: Instant,
    /// In force for all clients.
    pub policy: &'static Policy<'static>,
}

/// Runs `scenario` with a new engine. An engine takes more room than a stack has where nothing is optimised.
pub fn with_engine<T>(settings: Settings, scenario: impl FnOnce(&mut Line<'_>) -> T) -> T {
    let mut tables = Box::new(Tables::new());
    let cache = OneShard(Mutex::new(Box::new(Shard::new())));
    let counters = Counters::new();
    let mut upstreams = Upstreams::new();
    let servers = SERVERS.map(|address| UpstreamConfig {
        to: SocketAddr::from(address).into(),
        group: 0,
        trusted: false,
        edns: true,
        strategy: Strategy::Ordered,
    });
    upstreams.configure(&servers).expect("two servers");
    scenario(&mut Line {
        engine: Engine::new(&mut tables, &cache, &counters, settings).with_upstreams(upstreams),
        effects: Recorder::default(),
        now: Instant::from_millis(1_000_000),
        policy: &Policy::OPEN,
    })
}

impl Line<'_> {
    fn context(&self) -> Context<'static> {
        Context {
            now: self.now,
            unix_secs: 1_700_000_000,
            policy: self.policy,
            views: &xdnsd_core::policy::Views::NONE,
        }
    }

    /// A client asks. The reply, if there is one at once.
    pub fn ask(
        &mut self,
        reply_path: u32,
        transport: Transport,
        query: &[u8],
    ) -> (Outcome, Vec<u8>) {
        let room = match transport {
            Transport::Udp => UDP_MESSAGE_MAX,
            Transport::Tcp => TCP_MESSAGE_MAX,
        };
        let mut buffer = vec![0xa5; room.max(query.len())];
        buffer[..query.len()].copy_from_slice(query);
        let client = Client {
            reply_path,
            address: IpAddr::from([10, 0, 0, reply_path as u8]),
            transport,
            device: 0,
        };
        let context = self.context();
        let call: &mut Call<'_, _> = &mut context.call(&mut self.effects);
        let outcome = self.engine.query(call, &client, &mut buffer, query.len());
        if let Outcome::Reply(len) = outcome {
            buffer.truncate(len);
        }
        (outcome, buffer)
    }

    /// What was asked is answered. What comes to a port that is not open is not ours.
    pub fn answer(&mut self, asked: &Asked, message: &[u8]) {
        let question = match asked.via {
            Via::Datagram { port } => self.effects.ports.get(&port).copied(),
            Via::Stream { slot } => {
                // The place is free for another question before the engine hears of the answer.
                let is_open = self.effects.streams.contains(&slot);
                self.effects.streams.retain(|other| *other != slot);
                is_open.then_some(u16::MAX)
            }
        };
        let Some(question) = question else {
            return;
        };
        let origin = ResponseOrigin {
            via: asked.via,
            question,
            from: asked.to,
        };
        let context = self.context();
        let call = &mut context.call(&mut self.effects);
        self.engine.response(call, &origin, &mut message.to_vec());
    }

    /// Time passes, in the steps that a worker makes.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(deadline) = self.engine.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(deadline);
            self.timeout();
        }
        self.now = end;
        self.timeout();
    }

    fn timeout(&mut self) {
        let context = self.context();
        self.engine.timeout(&mut context.call(&mut self.effects));
    }

    /// After a minute nobody waits any more, and nothing is held.
    pub fn assert_ends(&mut self) {
        self.pass(60_000);
        assert_eq!(self.engine.in_flight(), 0, "a question is in flight");
        assert!(self.effects.ports.is_empty(), "a port stays open");
        assert!(self.effects.streams.is_empty(), "a stream is held");
    }
}
