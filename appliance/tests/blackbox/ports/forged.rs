//! Forged datagrams with the server's own address and port as their source.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::op::{MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, sendto,
    socket,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6, WAN, WAN_V4, WAN_V6};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use super::{ANSWER, each_way, open_question, set};
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::message::{addresses, query, wire};
use crate::support::random::Random;
use crate::support::run::only;
use crate::support::scene::{Scene, WAYS};
use crate::support::script::Rule;
use crate::support::upstream::Asked;
use xdnsd::os::datagrams::{DATAGRAMS_MAX, send_all};

/// Number of forged datagrams in one test, by each way and family.
const FORGED: usize = 1_000_000;
/// Number of names that they claim to answer, one after the other.
const VICTIMS: usize = 10;
/// Number sent before checking whether the question has moved to another port.
const BURST: usize = 10_000;
/// Address in forged answers.
const POISON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);

/// Length of the UDP header; below, the offsets of destination port and checksum.
const UDP_LEN: usize = 8;
const DESTINATION: usize = 2;
const CHECKSUM: usize = 6;
/// Lower ports are never used for questions.
const PORT_MIN: u16 = 1024;

/// Sends datagrams with any source: a raw socket writes the headers.
pub struct Forger {
    socket: OwnedFd,
    from: SocketAddr,
}

impl Forger {
    /// With this source address and port, whoever has them.
    pub fn open(host: &Namespace, from: SocketAddr) -> Result<Self> {
        let family = if from.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket =
            host.run(|| socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw))?;
        Ok(Self { socket, from })
    }

    /// Sends one.
    pub fn send(&self, to: SocketAddr, message: &[u8]) -> Result<()> {
        let (bytes, _) = self.packet(to, message)?;
        // A full queue is no error of the test: what is dropped is not counted as forged.
        let _ = sendto(
            self.socket.as_raw_fd(),
            &bytes,
            &SockaddrStorage::from(SocketAddr::new(to.ip(), 0)),
            MsgFlags::empty(),
        );
        Ok(())
    }

    /// A packet, and the offset of its UDP header.
    fn packet(&self, to: SocketAddr, message: &[u8]) -> Result<(Vec<u8>, usize)> {
        let udp = UdpRepr {
            src_port: self.from.port(),
            dst_port: to.port(),
        };
        let checksums = ChecksumCapabilities::default();
        let payload_len = UDP_LEN + message.len();
        let mut bytes = vec![0; 40 + payload_len];
        let header_len = match (self.from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Repr {
                    src_addr: source,
                    dst_addr: destination,
                    next_header: IpProtocol::Udp,
                    payload_len,
                    hop_limit: 64,
                };
                header.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &checksums);
                20
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Repr {
                    src_addr: source,
                    dst_addr: destination,
                    next_header: IpProtocol::Udp,
                    payload_len,
                    hop_limit: 64,
                };
                header.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
                40
            }
            _ => bail!("two families"),
        };
        bytes.truncate(header_len + payload_len);
        udp.emit(
            &mut UdpPacket::new_unchecked(&mut bytes[header_len..]),
            &self.from.ip().into(),
            &to.ip().into(),
            message.len(),
            |payload| payload.copy_from_slice(message),
            &checksums,
        );
        Ok((bytes, header_len))
    }
}

/// Sends one message many times: to any port of one address, with any ID.
struct Flood {
    /// Connected, so that one call sends several.
    socket: OwnedFd,
    packets: [Vec<u8>; DATAGRAMS_MAX],
    udp_at: usize,
    /// Checksum of the packet with port and ID 0.
    checksum: u16,
    random: Random,
}

impl Flood {
    fn new(host: &Namespace, from: SocketAddr, to: IpAddr, message: &[u8]) -> Result<Self> {
        let Forger { socket, from } = Forger::open(host, from)?;
        let nowhere = SocketAddr::new(to, 0);
        connect(socket.as_raw_fd(), &SockaddrStorage::from(nowhere))?;
        let message = [&[0; 2], &message[2..]].concat();
        let forger = Forger { socket, from };
        let (packet, udp_at) = forger.packet(nowhere, &message)?;
        let checksum = packet[udp_at + CHECKSUM..][..2].try_into()?;
        Ok(Self {
            socket: forger.socket,
            packets: std::array::from_fn(|_| packet.clone()),
            udp_at,
            checksum: u16::from_be_bytes(checksum),
            random: Random::new(0x2545_f491_4f6c_dd1d),
        })
    }

    /// Sends `count` messages, none of them with a port and an ID that are `right` together.
    fn send(&mut self, count: usize, right: &[(u16, u16)]) {
        for _ in 0..count.div_ceil(DATAGRAMS_MAX) {
            for packet in &mut self.packets {
                let (port, id) = loop {
                    let drawn = self.random.next();
                    let port = (drawn as u16).max(PORT_MIN);
                    let guess = (port, (drawn >> 16) as u16);
                    if !right.contains(&guess) {
                        break guess;
                    }
                };
                let datagram = &mut packet[self.udp_at..];
                let sum = with_words(self.checksum, [port, id]);
                datagram[DESTINATION..][..2].copy_from_slice(&port.to_be_bytes());
                datagram[CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
                datagram[UDP_LEN..][..2].copy_from_slice(&id.to_be_bytes());
            }
            // A full queue is no error of the test: the router counts arrivals.
            let _ = send_all(&self.socket, self.packets.iter().map(Vec::as_slice));
        }
    }
}

/// Checksum of a datagram in which these words were 0 before.
fn with_words(checksum: u16, words: [u16; 2]) -> u16 {
    let sum = u32::from(!checksum) + words.map(u32::from).iter().sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    // 0 would mean no checksum.
    if sum == 0 { u16::MAX } else { sum }
}

/// Forged answer to a question: correct except for its address.
fn forged_answer(asked: &Asked) -> Vec<u8> {
    let mut forged = asked.query.clone();
    forged.set_message_type(MessageType::Response);
    let owner = forged.queries()[0].name().clone();
    let address = RData::A(A::from(POISON));
    forged.add_answer(Record::from_rdata(owner, 300, address));
    wire(&forged)
}

/// Addresses that a client gets for `name`, now that its server answers.
fn answer_at_last(scene: &Scene, name: &str) -> Result<Vec<String>> {
    scene.upstream.on(name, Rule::addresses(300, &[ANSWER]));
    let client = scene.udp_client(Family::V4)?;
    let mut found = Vec::new();
    wait_until("it is answered", TIMEOUT, || {
        let answer = client.ask(&query(name, RecordType::A));
        let answer = answer
            .ok()
            .filter(|answer| answer.response_code() == ResponseCode::NoError);
        found = answer.map(|answer| addresses(&answer)).unwrap_or_default();
        !found.is_empty()
    })?;
    Ok(found)
}

/// The local address is a part of what an attacker has to guess, or a host with many would be as easy to hit as one with many
/// ports. With ID, question and port correct, such an answer is still refused, as if the port were closed.
#[test]
fn an_answer_to_another_of_our_addresses_is_nobodys() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let (second, len, ours): (IpAddr, _, [IpAddr; 2]) = if server.is_ipv4() {
            ("10.54.0.9".parse()?, "32", [WAN_V4.into(), LAN_V4.into()])
        } else {
            (
                "fd54::9".parse()?,
                "128 nodad",
                [WAN_V6.into(), LAN_V6.into()],
            )
        };
        let router = &scene.lab.router;
        router.ip(&format!("address add {second}/{len} dev {WAN}\n"))?;
        let forger = Forger::open(&scene.lab.upstream, SocketAddr::new(server, 53))?;
        let from = open_question(scene, "local")?;
        let name = "local.open.test.";
        let bytes = forged_answer(&scene.upstream.asked(name)[0]);
        let before = scene.daemon.metrics()?;
        let ours = [second, ours[0], ours[1]];
        for other in ours.into_iter().filter(|other| *other != from.ip()) {
            forger.send(SocketAddr::new(other, from.port()), &bytes)?;
        }
        // A datagram to the port itself comes after that.
        forger.send(from, b"\x12\x34\x80\x00\0\0\0\0\0\0\0\0")?;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::UpstreamForged, 1)])?;
        let now = scene.daemon.metrics()?;
        for counter in [Counter::UpstreamAnswers, Counter::UpstreamUnmatched] {
            assert_eq!(now.growth(&before, &counter), 0, "{way}: {counter:?}");
        }
        assert_eq!(answer_at_last(scene, name)?, [ANSWER], "{way}");
        Ok(())
    })
}

/// Packets on their way to a port that was closed by the ones before: a server, or a network, that sends all twice. A closed
/// socket discards its queue, so only the way without sockets sees them.
#[test]
fn what_comes_behind_the_answer_is_unmatched_and_neither_late_nor_forged() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    fn here() {}
    let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
    let server = IpAddr::from(UPSTREAM_V4);
    let Some(scene) = set("sk_lookup", server, test)? else {
        return Ok(());
    };
    let forger = Forger::open(&scene.lab.upstream, SocketAddr::new(server, 53))?;
    let from = open_question(&scene, "twice")?;
    let bytes = forged_answer(&scene.upstream.asked("twice.open.test.")[0]);
    let before = scene.daemon.metrics()?;
    // Both wait for the worker.
    scene.daemon.stop()?;
    for _ in 0..2 {
        forger.send(from, &bytes)?;
    }
    scene.daemon.signal(Signal::SIGCONT)?;
    scene.daemon.wait_growth(
        &before,
        &[
            (&Counter::UpstreamAnswers, 1),
            (&Counter::UpstreamUnmatched, 1),
            (&Counter::UpstreamForged, 0),
            (&Counter::UpstreamLate, 0),
        ],
    )
}

/// Datagrams to this host without a socket, counted by its kernel, of this family.
fn refused(host: &Namespace, is_v4: bool) -> Result<u64> {
    if is_v4 {
        return host.snmp("Udp", "NoPorts");
    }
    let text = host.output(&["cat", "/proc/net/snmp6"])?;
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("Udp6NoPorts"));
    Ok(lines.next().context("Udp6NoPorts")?.trim().parse()?)
}

/// Port and ID of each question for `name`.
fn asked_with(scene: &Scene, name: &str) -> Vec<(u16, u16)> {
    let asked = scene.upstream.asked(name).into_iter();
    asked
        .map(|asked| (asked.from.port(), asked.query.id()))
        .collect()
}

/// Off-path attack with known server, port, local address, name and time: the attacker guesses ports and IDs. One pair of four
/// billion is correct, and one run in 4,000 would hit it with a million guesses: it is excluded here.
#[test]
fn a_million_forged_answers_from_the_servers_own_address_and_port_poison_nothing() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let begun = Instant::now();
        let (router, is_v4) = (&scene.lab.router, server.is_ipv4());
        let (before, refused_before) = (scene.daemon.metrics()?, refused(router, is_v4)?);
        for victim in 0..VICTIMS {
            let name = format!("victim{victim}.open.test.");
            let from = open_question(scene, &format!("victim{victim}"))?;
            let bytes = forged_answer(&scene.upstream.asked(&name)[0]);
            let host = &scene.lab.upstream;
            let mut flood = Flood::new(host, SocketAddr::new(server, 53), from.ip(), &bytes)?;
            for _ in 0..FORGED / VICTIMS / BURST {
                flood.send(BURST, &asked_with(scene, &name));
            }
            assert_eq!(answer_at_last(scene, &name)?, [ANSWER], "{way}: {name}");
        }
        let came = refused(router, is_v4)? - refused_before;
        let metrics = scene.daemon.metrics()?;
        let grown = |counter| metrics.growth(&before, &counter);
        let told = [Counter::UpstreamForged, Counter::UpstreamUnmatched].map(grown);
        eprintln!(
            "{way}, {server}: {came} refused, {told:?} told, {:?}",
            begun.elapsed()
        );
        // The kernel refused those to closed ports; a busy one loses some.
        ensure!(came > FORGED as u64 * 9 / 10, "{came} of {FORGED} arrived");
        ensure!(
            grown(Counter::UpstreamAnswers) == VICTIMS as u64,
            "{}",
            metrics.text()
        );
        ensure!(
            !scene
                .daemon
                .control("cache dump")?
                .contains(&POISON.to_string())
        );
        Ok(())
    })
}

/// An attacker who knows the port as well tries its IDs: it is closed before that succeeds.
#[test]
fn all_ids_but_the_right_one_at_the_port_of_a_question_poison_nothing() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let name = "seen.open.test.";
        let from = open_question(scene, "seen")?;
        let mut bytes = forged_answer(&scene.upstream.asked(name)[0]);
        let forger = Forger::open(&scene.lab.upstream, SocketAddr::new(server, 53))?;
        let right = asked_with(scene, name);
        let before = scene.daemon.metrics()?;
        scene.upstream.on(name, Rule::addresses(300, &[ANSWER]));
        for id in (0..=u16::MAX).filter(|id| !right.contains(&(from.port(), *id))) {
            bytes[..2].copy_from_slice(&id.to_be_bytes());
            forger.send(from, &bytes)?;
        }
        assert_eq!(answer_at_last(scene, name)?, [ANSWER], "{way}");
        let now = scene.daemon.metrics()?;
        let hits = now.growth(&before, &Counter::UpstreamForged);
        ensure!(hits > 0, "{way}: the port was hit");
        let asked = asked_with(scene, name);
        let moved = asked.iter().filter(|(port, _)| *port != from.port());
        ensure!(moved.count() > 0, "{way}: asked from another port");
        Ok(())
    })
}
