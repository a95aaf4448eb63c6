//! The log of the shield: verdicts on frames as text and as JSON, while a client asks for it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use xdnsd_abi::headers::{ethernet::ethertype, protocol, vlan};

use crate::control::socket::{CommandError, Commands};
use crate::os::xdp::FrameEvent;
use crate::os::{clock, device};
use crate::text::json;

/// Frames since the last request.
#[derive(Debug, Default)]
pub struct SeenFrames {
    /// Frames, in order.
    pub events: Vec<FrameEvent>,
    /// Number of frames that each stands for.
    pub every: u32,
    /// Further records that were lost.
    pub lost: u64,
}

/// The shield's log, as requests read it.
pub trait LogSwitch: Clone + Send + Sync + 'static {
    /// Records since the last request. A client that does not ask again within three seconds is no longer a reader.
    ///
    /// # Errors
    /// The kernel refuses.
    fn watch(&self) -> Result<SeenFrames, String>;
}

/// Adds the requests for the log.
#[must_use]
pub fn with_watcher(commands: Commands, watcher: &impl LogSwitch) -> Commands {
    let show = |is_json: bool| {
        let watcher = watcher.clone();
        move |words: &[&str], out: &mut dyn Write| {
            crate::control::commands::no_more(words)?;
            let told = watcher.watch().map_err(CommandError::Refused)?;
            let now = ClockPair::read();
            for event in &told.events {
                let seen = ShownFrame::of(event, &now, told.every);
                let line = match is_json {
                    true => json::line(&seen.json()),
                    false => seen.line(),
                };
                writeln!(out, "{line}")?;
            }
            if told.lost > 0 {
                let line = match is_json {
                    true => json::line(&json!({ "lost": told.lost })),
                    false => format!("{} more had no room", told.lost),
                };
                writeln!(out, "{line}")?;
            }
            Ok(())
        }
    };
    commands
        .with("shield log", show(false))
        .with("json shield log", show(true))
}

/// Readings of two clocks at one moment.
struct ClockPair {
    monotonic_ns: u64,
    wall: SystemTime,
}

impl ClockPair {
    fn read() -> Self {
        Self {
            monotonic_ns: clock::monotonic_ns(),
            wall: SystemTime::now(),
        }
    }

    /// Wall-clock time of a monotonic time, in milliseconds since 1970.
    fn wall_ms(&self, time_ns: u64) -> u64 {
        let ago = Duration::from_nanos(self.monotonic_ns.saturating_sub(time_ns));
        let then = self.wall.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A frame as it is shown.
struct ShownFrame {
    ms: u64,
    interface: String,
    reason: &'static str,
    bytes: u32,
    every: u32,
    head: Head,
}

/// Contents of its first bytes, from the client to us.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    vlans: Vec<u16>,
    protocol: Option<u8>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    ports: Option<(u16, u16)>,
}

impl Head {
    /// Reads as far as the bytes are understood.
    fn parse(bytes: &[u8]) -> Self {
        let mut head = Self::default();
        // `None` is the end of what can be read.
        let _ = head.read(bytes);
        head
    }

    fn read(&mut self, bytes: &[u8]) -> Option<()> {
        let (mut kind, mut rest) = (be16(bytes.get(12..)?)?, bytes.get(14..)?);
        while vlan::is_tag(kind) && self.vlans.len() < 2 {
            self.vlans.push(be16(rest)? & vlan::ID);
            (kind, rest) = (be16(rest.get(2..)?)?, rest.get(4..)?);
        }
        let (next, behind) = match kind {
            ethertype::IPV4 => {
                let header: &[u8; 20] = rest.first_chunk()?;
                self.source = Some(Ipv4Addr::from(*header[12..].first_chunk::<4>()?).into());
                self.destination = Some(Ipv4Addr::from(*header[16..].first_chunk::<4>()?).into());
                (header[9], usize::from(header[0] & 0x0f) * 4)
            }
            ethertype::IPV6 => {
                let header: &[u8; 40] = rest.first_chunk()?;
                self.source = Some(Ipv6Addr::from(*header[8..].first_chunk::<16>()?).into());
                self.destination = Some(Ipv6Addr::from(*header[24..].first_chunk::<16>()?).into());
                (header[6], header.len())
            }
            _ => return None,
        };
        self.protocol = Some(next);
        if next == protocol::UDP || next == protocol::TCP {
            let rest = rest.get(behind..)?;
            self.ports = Some((be16(rest)?, be16(rest.get(2..)?)?));
        }
        Some(())
    }

    /// The same with both directions swapped.
    fn turned(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: self.ports.map(|(one, other)| (other, one)),
            ..self
        }
    }

    fn protocol(&self) -> Option<String> {
        self.protocol.map(|number| match number {
            protocol::UDP => "udp".to_owned(),
            protocol::TCP => "tcp".to_owned(),
            number => number.to_string(),
        })
    }
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// An address with its port, if it has one.
fn end(address: Option<IpAddr>, port: Option<u16>) -> String {
    match (address, port) {
        (None, _) => "?".to_owned(),
        (Some(address), None) => address.to_string(),
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    }
}

impl ShownFrame {
    fn of(event: &FrameEvent, now: &ClockPair, every: u32) -> Self {
        let head = Head::parse(&event.head[..event.head_len]);
        let name = device::name(event.ifindex);
        Self {
            ms: now.wall_ms(event.time_ns),
            interface: name.unwrap_or_else(|| event.ifindex.to_string()),
            reason: event.reason.name(),
            bytes: event.len,
            every,
            head: match event.reason.is_answer() {
                true => head.turned(),
                false => head,
            },
        }
    }

    fn line(&self) -> String {
        let Head {
            vlans,
            source,
            destination,
            ports,
            ..
        } = &self.head;
        let (from, to) = (ports.map(|(from, _)| from), ports.map(|(_, to)| to));
        let vlans: String = vlans.iter().map(|vlan| format!(" vlan {vlan}")).collect();
        let share = match self.every {
            0 | 1 => String::new(),
            every => format!(" (1 of {every})"),
        };
        format!(
            "{}.{:03} {} {} {} {} > {}{vlans}{share}",
            self.ms / 1_000,
            self.ms % 1_000,
            self.interface,
            self.reason,
            self.head.protocol().unwrap_or_else(|| "?".into()),
            end(*source, from),
            end(*destination, to),
        )
    }

    fn json(&self) -> Value {
        let address = |address: Option<IpAddr>| address.map(|address| address.to_string());
        json!({
            "time_ms": self.ms,
            "interface": self.interface,
            "reason": self.reason,
            "protocol": self.head.protocol(),
            "source": address(self.head.source),
            "source_port": self.head.ports.map(|(from, _)| from),
            "destination": address(self.head.destination),
            "destination_port": self.head.ports.map(|(_, to)| to),
            "vlans": self.head.vlans,
            "bytes": self.bytes,
            "every": self.every,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use xdnsd_abi::Reason;

    /// From 192.0.2.1, port 40000, to 192.0.2.53, port 53.
    const V4: [u8; 38] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 192,
        0, 2, 1, 192, 0, 2, 53, 0x9c, 0x40, 0, 53,
    ];

    #[test]
    fn a_head_is_read_as_far_as_it_is_there() {
        let whole = Head::parse(&V4);
        let expected = Head {
            protocol: Some(6),
            source: Some([192, 0, 2, 1].into()),
            destination: Some([192, 0, 2, 53].into()),
            ports: Some((40_000, 53)),
            vlans: Vec::new(),
        };
        assert_eq!(whole, expected);
        let mut tagged = V4.to_vec();
        tagged.splice(12..12, [0x88, 0xa8, 0xe0, 5, 0x81, 0, 0, 7]);
        assert_eq!(Head::parse(&tagged).vlans, [5, 7]);
        assert_eq!(Head::parse(&tagged).ports, Some((40_000, 53)));
        for len in 0..V4.len() {
            let head = Head::parse(&V4[..len]);
            assert_eq!(head.ports, None, "{len}");
            assert_eq!(head.source.is_some(), len >= 34, "{len}");
        }
        let mut v6 = vec![0; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend(Ipv6Addr::UNSPECIFIED.octets());
        v6.extend([0, 1, 0, 2]);
        let head = Head::parse(&v6);
        assert_eq!(head.source, Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!((head.protocol, head.ports), (Some(17), Some((1, 2))));
        // Fragments and unknown protocols have no ports.
        assert_eq!(Head::parse(&[0xff; 60]), Head::default());
    }

    /// Returns its frames once.
    #[derive(Clone, Default)]
    struct Once(Arc<Mutex<SeenFrames>>);

    impl LogSwitch for Once {
        fn watch(&self) -> Result<SeenFrames, String> {
            Ok(std::mem::take(&mut *self.0.lock().expect("whole")))
        }
    }

    fn shown(request: &str, told: SeenFrames) -> String {
        let watcher = Once(Arc::new(Mutex::new(told)));
        let mut out = Vec::new();
        let asked = with_watcher(Commands::default(), &watcher).carry_out(request, &mut out);
        assert!(asked.is_ok(), "{asked:?}");
        String::from_utf8(out).expect("text")
    }

    fn told(reason: Reason) -> SeenFrames {
        let mut head = [0; 72];
        head[..V4.len()].copy_from_slice(&V4);
        let event = FrameEvent {
            time_ns: clock::monotonic_ns(),
            reason,
            ifindex: u32::MAX,
            len: 60,
            head_len: V4.len(),
            head,
        };
        SeenFrames {
            events: vec![event],
            every: 4,
            lost: 3,
        }
    }

    #[test]
    fn frames_are_shown_as_they_came_and_what_had_no_room_is_counted() {
        let text = shown("shield log", told(Reason::DropStray));
        let (first, last) = text.split_once('\n').expect("two lines");
        let tail = " 4294967295 drop_stray tcp 192.0.2.1:40000 > 192.0.2.53:53 (1 of 4)";
        assert!(first.ends_with(tail), "{first}");
        assert_eq!(last, "3 more had no room\n");
        // The frame is an answer already: it is shown in the direction of the question.
        let text = shown("shield log", told(Reason::SynCookie));
        let tail = " syn_cookie tcp 192.0.2.53:53 > 192.0.2.1:40000 (1 of 4)";
        assert!(
            text.lines().next().is_some_and(|line| line.ends_with(tail)),
            "{text}"
        );
        let text = shown("json shield log", told(Reason::DropStray));
        let values: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(values[1], json!({ "lost": 3 }));
        for (key, value) in [
            ("reason", json!("drop_stray")),
            ("protocol", json!("tcp")),
            ("source", json!("192.0.2.1")),
            ("source_port", json!(40_000)),
            ("destination", json!("192.0.2.53")),
            ("destination_port", json!(53)),
            ("vlans", json!([])),
            ("bytes", json!(60)),
            ("every", json!(4)),
        ] {
            assert_eq!(values[0][key], value, "{key}");
        }
        assert!(
            values[0]["time_ms"]
                .as_u64()
                .is_some_and(|ms| ms > 1_600_000_000_000)
        );
        assert_eq!(shown("shield log", SeenFrames::default()), "");
    }
}
