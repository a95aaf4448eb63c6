//! Floods: frames as an attacker sends them, millions a second, bounded in number and in time, and only inside namespaces.
//!
//! Every frame is complete: lengths and checksums are right, and sources are drawn from 65,536 addresses of a benchmarking prefix
//! (RFC 2544, RFC 5180) or of one that the caller names, as are source ports. So only its content reveals it.

mod frame;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;

use crate::bpf::{self, Link};
use crate::frames::parse_mac;
use crate::lab::{CLIENT_V4, CLIENT_V6, LAN};
use crate::live::{ENDLESS, Live, Running};
use crate::netns::Namespace;

pub use frame::{Ends, Pace, Template};

/// Default sources, of 198.18.0.0/15 (RFC 2544 appendix C.2.2).
pub const SOURCES_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0));
/// Default sources, of 2001:2::/48 (RFC 5180 section 8).
pub const SOURCES_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0));
/// Time between two looks at a flood.
const LOOK: Duration = Duration::from_millis(10);
/// Attempts to attach a program while another is attached.
const TRIES: usize = 20;

/// Kind of frames in a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SYNs of connections that are never completed.
    Syn,
    /// ACKs without a connection.
    Ack,
    /// RSTs without a connection.
    Rst,
    /// Queries for one name.
    Query,
    /// Queries for a different name each, below one name.
    Names,
    /// DNS responses without a query.
    Response,
    /// Datagrams shorter than a message's header.
    Garbage,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Syn,
        Self::Ack,
        Self::Rst,
        Self::Query,
        Self::Names,
        Self::Response,
        Self::Garbage,
    ];

    /// Name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::Rst => "rst",
            Self::Query => "query",
            Self::Names => "names",
            Self::Response => "response",
            Self::Garbage => "garbage",
        }
    }

    const fn is_tcp(self) -> bool {
        match self {
            Self::Syn | Self::Ack | Self::Rst => true,
            Self::Query | Self::Names | Self::Response | Self::Garbage => false,
        }
    }
}

/// The sending device, and the other end of its veth pair.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    /// Sending device.
    pub from: (&'a Namespace, &'a str),
    /// Flooded device.
    pub to: (&'a Namespace, &'a str),
}

/// Frames to send.
#[derive(Clone, Debug)]
pub struct Order {
    /// Kind of the frames.
    pub kind: Kind,
    /// Source; its last 16 bits are drawn. Of the same family as `to`.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Destination port.
    pub port: u16,
    /// The name of queries, as text.
    pub qname: String,
    /// Most frames a second; `None`: as many as the core makes.
    pub rate: Option<u32>,
}

/// Bounds of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most frames.
    pub count: u32,
    /// Longest time.
    pub length: Duration,
    /// Core that sends, and receives at the other end; `None`: any.
    pub core: Option<usize>,
}

/// Result of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Frames that arrived.
    pub arrived: u64,
    /// Frames for which the pair had no room.
    pub lost: u64,
    /// Duration.
    pub took: Duration,
}

/// A prepared flood.
#[derive(Debug)]
pub struct Flood<'a> {
    live: Live,
    sample: Vec<u8>,
    rate: Option<u32>,
    path: Path<'a>,
    /// A veth pair takes such frames only if there is a program at the other end.
    #[expect(dead_code, reason = "held for its drop, which detaches")]
    link: Option<Link>,
}

impl<'a> Flood<'a> {
    /// Prepares a flood. If the flooded device has no program, one that passes every frame is attached for as long as the flood
    /// lives.
    ///
    /// # Errors
    /// A device is missing, the families differ, the name is invalid, or the kernel refused a program.
    pub fn new(path: Path<'a>, order: &Order) -> Result<Self> {
        ensure!(
            order.from.is_ipv4() == order.to.is_ipv4(),
            "{} and {} are of one family",
            order.from,
            order.to
        );
        let (sender, interface) = path.from;
        let index = sender.run(|| if_nametoindex(interface));
        let index = index.with_context(|| format!("find {interface}"))?;
        let ends = Ends {
            from_mac: mac(path.from)?,
            to_mac: mac(path.to)?,
            from: order.from,
            to: order.to,
            port: order.port,
        };
        let template = Template::new(order.kind, &ends, &wire_name(&order.qname)?);
        let sample = template.sample();
        let pace = order.rate.map(Pace::new).transpose();
        let pace = pace.context("make a map")?;
        let live = Live::new(&template.program(index, pace.as_ref()), template.frame)?;
        let link = attach_pass(path.to)?;
        Ok(Self {
            live,
            sample,
            rate: order.rate,
            path,
            link,
        })
    }

    /// One of the flood's frames.
    #[must_use]
    pub fn sample(&self) -> &[u8] {
        &self.sample
    }

    /// Sends from `core` until stopped.
    #[must_use]
    pub fn start(&self, core: usize) -> Running {
        let (sender, _) = self.path.from;
        self.live.start(sender, Some(core), ENDLESS)
    }

    /// Sends until a bound is reached, or `is_over` is true.
    ///
    /// # Errors
    /// The kernel refused to send.
    pub fn run(&self, bounds: Bounds, is_over: impl Fn() -> bool) -> Result<Report> {
        let before = self.counted()?;
        let started = Instant::now();
        let (sender, _) = self.path.from;
        // With a rate most runs make no frame: its number is turned into a time.
        let (count, length) = match self.rate {
            Some(rate) => {
                let length = Duration::from_secs_f64(f64::from(bounds.count) / f64::from(rate));
                (ENDLESS, bounds.length.min(length))
            }
            None => (bounds.count, bounds.length),
        };
        let running = self.live.start(sender, bounds.core, count);
        while !running.has_ended() && started.elapsed() < length && !is_over() {
            sleep(LOOK.min(length));
        }
        running.stop()?;
        let took = started.elapsed();
        let after = self.counted()?;
        let [arrived, lost] = [0, 1].map(|which| after[which] - before[which]);
        Ok(Report {
            arrived,
            lost,
            took,
        })
    }

    /// Frames sent by the device, and those for which there was no room.
    fn counted(&self) -> Result<[u64; 2]> {
        let (namespace, interface) = self.path.from;
        let counter = |name| -> Result<u64> {
            let path = format!("/sys/class/net/{interface}/statistics/{name}");
            let text = namespace.read(&path)?;
            text.trim()
                .parse()
                .with_context(|| format!("{path} is a number"))
        };
        Ok([counter("tx_packets")?, counter("tx_dropped")?])
    }
}

/// Routes [`SOURCES_V4`] and [`SOURCES_V6`] back to the client, on a lab's router: a kernel drops a SYN whose answer it could not
/// send.
///
/// # Errors
/// `ip` failed.
pub fn learn_routes(router: &Namespace) -> Result<()> {
    router.ip(&format!(
        "route replace {SOURCES_V4}/16 via {CLIENT_V4} dev {LAN}\n\
         route replace {SOURCES_V6}/48 via {CLIENT_V6} dev {LAN}\n"
    ))
}

fn mac((namespace, interface): (&Namespace, &str)) -> Result<[u8; 6]> {
    parse_mac(&namespace.read(&format!("/sys/class/net/{interface}/address"))?)
}

/// Attaches a passing program; `None` if one is attached already.
fn attach_pass((namespace, interface): (&Namespace, &str)) -> Result<Option<Link>> {
    let is_taken =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
    // A dropped link persists while a child has it that another thread has just forked.
    let mut attached = bpf::attach_pass(namespace, interface);
    for _ in 0..TRIES {
        if !attached.as_ref().is_err_and(is_taken) {
            break;
        }
        sleep(LOOK);
        attached = bpf::attach_pass(namespace, interface);
    }
    match attached {
        Ok(link) => Ok(Some(link)),
        Err(error) if is_taken(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("attach a program to {interface}")),
    }
}

/// Encodes a name in wire format (RFC 1035 section 3.1).
fn wire_name(text: &str) -> Result<Vec<u8>> {
    const LABEL_MAX: usize = 63;
    /// 255 bytes less the label of a random name.
    const NAME_MAX: usize = 242;
    let mut name = Vec::new();
    for label in text.trim_end_matches('.').split('.') {
        ensure!(
            (1..=LABEL_MAX).contains(&label.len()),
            "{text:?}: a label has 1 to {LABEL_MAX} bytes"
        );
        name.push(label.len() as u8);
        name.extend(label.as_bytes());
    }
    name.push(0);
    ensure!(
        name.len() <= NAME_MAX,
        "{text:?}: {} bytes, {NAME_MAX} at most",
        name.len()
    );
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_labels_with_their_lengths() {
        let wire = |text: &str| wire_name(text).ok();
        assert_eq!(wire("a.test").as_deref(), Some(&b"\x01a\x04test\0"[..]));
        assert_eq!(wire("a.test."), wire("a.test"));
        for bad in ["", "a..b", ".a", &"x".repeat(64), &"x.".repeat(125)] {
            assert_eq!(wire(bad), None, "{bad}");
        }
    }
}
