//! The three ways in, over both families: one message is sent by all of them, and the replies are compared.
//!
//! ```text
//!  Way::Xdp  a plain frame: the XDP program hands it to the worker     counted as queries_xdp
//!  Way::Udp  the same datagram behind IP options (IPv6: a destination  counted as queries_udp
//!            options header), which the program leaves to the kernel
//!  Way::Tcp  a connection of its own                                   counted as queries_tcp
//! ```
//!
//! Without an XDP program the first of them is counted as the second.
//!
//! A test with the usual scene needs three lines:
//!
//! ```text
//!  let scene = scene!(Setup::three_ways());              rotation off: RRsets keep their order
//!  let ways = Ways::open(&scene)?;
//!  let reply = ways.same(&Ask::of("www.test.", rtype::A).bytes())?;   six replies, one View
//!  ...
//!  ways.check_tiers()?;                                  every message came in by the way it was meant for
//! ```
//!
//! [`Ways::same`] asks by all six; the first one misses the cache, the others hit, so a hit is compared with a miss as well.
//! Replies are the same if header, question, records and options are, byte for byte, except for what the RFCs let differ: TTLs
//! by an age of a second or two, the server's part of a cookie (which depends on the client's address), and edns-tcp-keepalive,
//! which is for streams only. If datagrams are too short, [`Ways::truncated`] compares datagrams with datagrams, streams with
//! streams, and datagrams with what may be missing of the stream's message. [`Ways::silent`] asserts that nothing answers.
//! [`Ways::ask`] uses one way.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use xdnsd_core::counters::Counter;

use super::SILENCE;
use super::ask::{Ask, flag, option, rtype};
use super::client::{Family, RawClient, client_address, listen};
use super::frame::UdpFrame;
use super::message::{HEADER_LEN, UDP_LEN_MAX};
use super::metrics::{Metric, Metrics};
use super::run::Run;
use super::scene::Scene;
use super::stream::{Next, Stream};
use super::text::age_max;
use super::view::{Opt, Rr, View};

/// IPv4 options that do nothing (RFC 791 section 3.1).
const NO_OPERATIONS: [u8; 4] = [1; 4];
/// An IPv6 destination options header before UDP: six octets of padding (RFC 8200 section 4.6).
const DESTINATION_OPTIONS: [u8; 8] = [17, 0, 1, 4, 0, 0, 0, 0];
/// Maximum length of a message that the XDP program takes, in bytes.
const XDP_MESSAGE_MAX: usize = xdnsd_abi::MESSAGE_MAX;

/// Way of a query into the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over AF_XDP, in a raw frame.
    Xdp,
    /// Through the kernel's UDP socket, in a raw frame that the XDP program passes.
    Udp,
    /// Through a TCP connection of its own.
    Tcp,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::Udp, Self::Tcp];
    /// Ways with answers that may be truncated.
    pub const DATAGRAMS: [Self; 2] = [Self::Xdp, Self::Udp];
}

/// A client in a scene that asks by all ways.
#[derive(Debug)]
pub struct Ways<'s> {
    scene: &'s Scene,
    /// True if an XDP program was attached at the start.
    has_program: bool,
    raw: RawClient,
    /// Expected growth of the daemon's counters since `before`, by way of arrival.
    sent: [Cell<u64>; 3],
    before: RefCell<Metrics>,
}

impl<'s> Ways<'s> {
    /// Opens the client. From here on the scene's queries are counted.
    pub fn open(scene: &'s Scene) -> Result<Self> {
        Ok(Self {
            scene,
            has_program: !scene.attached()?.is_empty(),
            raw: scene.raw_client()?,
            sent: Default::default(),
            before: RefCell::new(scene.daemon.metrics()?),
        })
    }

    /// Sends `message` by all ways over both families, that of this run first, and returns the reply that all of them got.
    pub fn same(&self, message: &[u8]) -> Result<View> {
        let mut ways = Way::ALL;
        // Stable: the others keep their order.
        ways.sort_by_key(|way| *way != Run::this().way());
        let mut replies = Vec::new();
        for family in Family::ALL {
            for way in ways {
                replies.push((way, family, self.ask(way, family, message)?));
            }
        }
        all_the_same(&replies)?;
        Ok(replies.swap_remove(0).2)
    }

    /// For an answer too long for a datagram: returns the datagram, which has TC and only whole RRsets of the stream's message,
    /// and the stream's message.
    pub fn truncated(&self, message: &[u8]) -> Result<(View, View)> {
        let (mut datagrams, mut streams) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            for way in Way::DATAGRAMS {
                datagrams.push((way, family, self.ask(way, family, message)?));
            }
            streams.push((Way::Tcp, family, self.ask(Way::Tcp, family, message)?));
        }
        all_the_same(&datagrams)?;
        all_the_same(&streams)?;
        let (short, long) = (datagrams.swap_remove(0).2, streams.swap_remove(0).2);
        check_truncated(&short, &long).with_context(|| format!("{short:?}\n{long:?}"))?;
        Ok((short, long))
    }

    /// Asks by one way over one family. The reply has to be a whole message with the query's ID, opcode and question.
    pub fn ask(&self, way: Way, family: Family, message: &[u8]) -> Result<View> {
        let reply = match way {
            Way::Xdp | Way::Udp => self.raw.exchange(&self.frame(way, family, message)?),
            Way::Tcp => self.stream(family)?.exchange(message),
        };
        let reply = reply.with_context(|| format!("{way:?} {family:?} {message:02x?}"))?;
        self.count(way, message);
        let view = View::parse(&reply)?;
        let checked = check_reply(message, &view, way);
        checked.with_context(|| format!("{way:?} {family:?} {message:02x?}: {view:?}"))?;
        Ok(view)
    }

    /// Sends `message` by all ways and asserts that nothing answers it, while the daemon has counted it and a connection is
    /// still served.
    pub fn silent(&self, message: &[u8]) -> Result<()> {
        let mut frames = Vec::new();
        for family in Family::ALL {
            let mut stream = self.stream(family)?;
            stream.send(message)?;
            self.count(Way::Tcp, message);
            let sentinel = Ask::of("sentinel.invalid.", rtype::A).bytes();
            let next = stream.exchange(&sentinel).context("the sentinel")?;
            self.count(Way::Tcp, &sentinel);
            ensure!(
                next.get(..2) == sentinel.get(..2),
                "TCP {family:?}: {message:02x?} was answered: {next:02x?}"
            );
            for way in Way::DATAGRAMS {
                let frame = self.frame(way, family, message)?;
                self.raw.send(&frame.to_bytes())?;
                self.count(way, message);
                frames.push(frame);
            }
        }
        let answer = self.raw.any_answer_to(&frames, SILENCE)?;
        ensure!(
            answer.is_none(),
            "{message:02x?} was answered: {answer:02x?}"
        );
        Ok(())
    }

    /// Sends any `message` by all ways over one family: either all are silent, or all give the same answer.
    pub fn same_or_silent(&self, family: Family, message: &[u8]) -> Result<Option<View>> {
        // On a loaded machine an answer may be late once; a rule holds each time.
        let tried = (0..3).find_map(|_| self.fate(family, message).transpose());
        let fate = tried.transpose()?;
        fate.with_context(|| format!("{family:?} {message:02x?}: not all ways answer"))
    }

    /// Fate of `message`: `Some(None)` is silence everywhere; `None` if some ways answer and some do not.
    fn fate(&self, family: Family, message: &[u8]) -> Result<Option<Option<View>>> {
        let mut replies = Vec::new();
        for way in Way::ALL {
            let bytes = match way {
                Way::Xdp | Way::Udp => {
                    let frame = self.frame(way, family, message)?;
                    self.raw.send(&frame.to_bytes())?;
                    self.raw.next_for(&frame, SILENCE)?
                }
                Way::Tcp => {
                    let mut stream = self.stream(family)?;
                    stream.send(message)?;
                    match stream.next(SILENCE)? {
                        Next::Message(bytes) => Some(bytes),
                        Next::Nothing => None,
                        Next::Closed => anyhow::bail!("closed for {message:02x?}"),
                    }
                }
            };
            self.count(way, message);
            if let Some(bytes) = bytes {
                replies.push((way, family, View::parse(&bytes)?));
            }
        }
        all_the_same(&replies).with_context(|| format!("{message:02x?}"))?;
        let answered = replies.len();
        let is_one = answered == 0 || answered == Way::ALL.len();
        Ok(is_one.then(|| replies.into_iter().next().map(|(.., view)| view)))
    }

    /// Frame that brings `message` in by a datagram way.
    pub fn frame(&self, way: Way, family: Family, message: &[u8]) -> Result<UdpFrame> {
        let mut frame = self.raw.frame(listen(family), message)?;
        frame.extra = match (way, family) {
            (Way::Udp, Family::V4) => NO_OPERATIONS.to_vec(),
            (Way::Udp, Family::V6) => DESTINATION_OPTIONS.to_vec(),
            (Way::Xdp | Way::Tcp, _) => Vec::new(),
        };
        Ok(frame)
    }

    /// The client with raw frames.
    pub fn raw(&self) -> &RawClient {
        &self.raw
    }

    /// A new connection from a chosen port.
    pub fn stream_from(&self, family: Family, port: u16) -> Result<Stream> {
        Stream::open_from(&self.scene.lab, client_address(family), port)
    }

    /// A new connection from another address of the client host.
    pub fn stream_at(&self, local: IpAddr) -> Result<Stream> {
        Stream::open_from(&self.scene.lab, local, 0)
    }

    /// A new connection. Questions on it have to be counted with [`Ways::count`].
    pub fn stream(&self, family: Family) -> Result<Stream> {
        Stream::open(&self.scene.lab, family)
    }

    /// Notes that `message` was sent by `way`.
    pub fn count(&self, way: Way, message: &[u8]) {
        if let Some(arrival) = self.arrival(way, message) {
            let sent = &self.sent[arrival as usize];
            sent.set(sent.get() + 1);
        }
    }

    /// Way on which a message sent by `way` arrives: the XDP program leaves longer ones to the kernel, and drops what is no
    /// query (`shield.drop_garbage`).
    fn arrival(&self, way: Way, message: &[u8]) -> Option<Way> {
        match way {
            Way::Xdp if !self.has_program || message.len() > XDP_MESSAGE_MAX => Some(Way::Udp),
            Way::Xdp if message.len() < HEADER_LEN || message[2] & 0x80 != 0 => None,
            Way::Xdp | Way::Udp | Way::Tcp => Some(way),
        }
    }

    /// Waits until the daemon has counted every message on its intended way, and starts again from there.
    pub fn check_tiers(&self) -> Result<()> {
        let counters = [
            Counter::QueriesXdp,
            Counter::QueriesUdp,
            Counter::QueriesTcp,
        ];
        let pairs = counters.iter().zip(&self.sent);
        let expected: Vec<(&dyn Metric, u64)> = pairs
            .map(|(counter, sent)| (counter as &dyn Metric, sent.take()))
            .collect();
        let daemon = &self.scene.daemon;
        daemon.wait_growth(&self.before.borrow(), &expected)?;
        self.before.replace(daemon.metrics()?);
        Ok(())
    }
}

/// Checks what holds for every reply.
fn check_reply(query: &[u8], reply: &View, way: Way) -> Result<()> {
    ensure!(query.get(..2) == reply.bytes.get(..2), "another ID");
    ensure!(reply.has(flag::QR), "QR is not set");
    ensure!(
        (reply.bytes[2] ^ query[2]) & 0x79 == 0,
        "another opcode, or another RD"
    );
    ensure!(!reply.has(flag::Z), "Z is set (RFC 1035 section 4.1.1)");
    let behind = HEADER_LEN + reply.question.len();
    ensure!(
        query.get(HEADER_LEN..behind) == Some(&reply.question[..]),
        "another question, or another letter case"
    );
    ensure!(
        way == Way::Tcp || reply.bytes.len() <= UDP_LEN_MAX,
        "a datagram of {} bytes",
        reply.bytes.len()
    );
    Ok(())
}

/// The compared part of a reply.
#[derive(Debug, PartialEq)]
struct Essence {
    flags: u16,
    question: Vec<u8>,
    sections: [Vec<Rr>; 3],
    opt: Option<Opt>,
    /// Length without the options: compression has to be the same.
    len: usize,
}

impl Essence {
    fn of(view: &View) -> Self {
        let mut sections = view.sections.clone();
        sections
            .iter_mut()
            .flatten()
            .for_each(|record| record.ttl = 0);
        let mut opt = view.opt.clone();
        let mut len = view.bytes.len();
        if let Some(opt) = &mut opt {
            len -= opt
                .options
                .iter()
                .map(|(_, data)| 4 + data.len())
                .sum::<usize>();
            opt.options.retain(|(code, _)| *code != option::KEEPALIVE);
            for (code, data) in &mut opt.options {
                if *code == option::COOKIE && data.len() == 24 {
                    data.truncate(8);
                }
            }
        }
        Self {
            flags: view.flags,
            question: view.question.clone(),
            sections,
            opt,
            len,
        }
    }
}

fn all_the_same(replies: &[(Way, Family, View)]) -> Result<()> {
    let ttls = |view: &View| -> Vec<u32> {
        let records = view.sections.iter().flatten();
        records.map(|record| record.ttl).collect()
    };
    let [(way, family, first), others @ ..] = replies else {
        return Ok(());
    };
    for (other_way, other_family, other) in others {
        let near = |(one, other): (u32, u32)| one.abs_diff(other) <= age_max();
        let is_same = Essence::of(first) == Essence::of(other)
            && ttls(first).into_iter().zip(ttls(other)).all(near);
        ensure!(
            is_same,
            "{way:?} {family:?}: {first:?}\n{other_way:?} {other_family:?}: {other:?}"
        );
    }
    Ok(())
}

/// A truncated message has only whole RRsets (RFC 2181 section 9).
fn check_truncated(short: &View, long: &View) -> Result<()> {
    ensure!(short.has(flag::TC) && !long.has(flag::TC), "TC");
    ensure!(short.flags ^ flag::TC == long.flags, "other flags");
    ensure!(short.question == long.question, "another question");
    for (short, long) in short.sections.iter().zip(&long.sections) {
        for record in short {
            let of_set = |other: &&Rr| (&other.owner, other.rtype) == (&record.owner, record.rtype);
            let there = short.iter().filter(of_set).count();
            ensure!(
                there == long.iter().filter(of_set).count(),
                "a part of the RRset {} {}",
                record.owner,
                record.rtype
            );
        }
    }
    Ok(())
}
