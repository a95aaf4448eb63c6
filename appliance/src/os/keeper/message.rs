//! Requests to the keeper and its replies, each of one size.
//!
//! ```text
//!  request | kind | a | b | c | number (4) | name or address (16) | scope (4) | port (2) | 0 (2) |
//!  reply   | errno (4) | value (4) | length (2) | text ...                                       |
//! ```
//! Both sides are one program, so numbers are in its own byte order. The server may have been taken over: what is no request is
//! refused, and so is one with a bit where none belongs.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::errno::Errno;

use crate::os::set_info::SetInfo;

/// Bytes of a request.
pub const REQUEST_BYTES: usize = 32;
/// Bytes of a reply.
pub const REPLY_BYTES: usize = 512;
/// Bytes of a reply before its text.
const HEAD: usize = 10;
/// Most bytes of a reply's text.
const TEXT_MAX: usize = REPLY_BYTES - HEAD;
/// Bytes of an interface's name with its closing zero (IFNAMSIZ).
const NAME_BYTES: usize = libc::IFNAMSIZ;

/// A BPF object that this program is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// The programs of an interface.
    Xdp,
    /// The program for hot names.
    Hot,
    /// The program for source ports.
    Ports,
}

/// A map that programs of several interfaces share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Prefixes.
    Prefixes,
    /// The ring of the shield's log.
    Events,
    /// Accounts of clients.
    Accounts,
    /// Stations of bridges.
    Stations,
}

/// A socket that takes CAP_NET_RAW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// AF_XDP, with a send buffer for a full TX ring.
    Xdp,
    /// Sends IPv4 packets as they are (IPPROTO_RAW), and receives none.
    Sender4,
    /// The same for IPv6.
    Sender6,
    /// Receives ICMP.
    Icmp4,
    /// Receives ICMPv6.
    Icmp6,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachPoint {
    /// In the driver of this interface.
    Native(InterfaceName),
    /// On this interface, for an skb per frame.
    Generic(InterfaceName),
    /// The sk_lookup program, in the network namespace of the process.
    Namespace,
}

impl AttachPoint {
    /// The interface, if it is one.
    #[must_use]
    pub const fn interface(self) -> Option<InterfaceName> {
        match self {
            Self::Native(name) | Self::Generic(name) => Some(name),
            Self::Namespace => None,
        }
    }
}

/// Name of an interface, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InterfaceName([u8; NAME_BYTES]);

impl InterfaceName {
    /// `None` if no interface can have the name: it is empty or too long, or has a zero or a slash.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut padded = [0; NAME_BYTES];
        padded
            .get_mut(..name.len())?
            .copy_from_slice(name.as_bytes());
        Self::parse(padded)
    }

    fn parse(padded: [u8; NAME_BYTES]) -> Option<Self> {
        let len = padded.iter().position(|byte| *byte == 0)?;
        let (name, rest) = padded.split_at(len);
        let is_dots = [&b"."[..], b".."].contains(&name);
        let is_name = !name.is_empty() && !name.contains(&b'/') && !is_dots;
        let is_padded = rest.iter().all(|byte| *byte == 0);
        (is_name && is_padded && std::str::from_utf8(name).is_ok()).then_some(Self(padded))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0);
        let name = self.0.get(..len.unwrap_or(NAME_BYTES));
        name.and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ways of requests and replies, one thread of the keeper each, so that none waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Sockets, which a worker may wait for.
    Sockets,
    /// What may take long: the kernel checks a program.
    Objects,
    /// Sets of nf_tables: a change waits while other programs change theirs.
    Sets,
}

/// Number of lanes.
pub const LANES: usize = 3;

/// All that the server can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Makes the maps of an object, with room for so many addresses. Gives its number, and the maps in their order.
    Open {
        /// Which.
        object: ObjectKind,
        /// Room of the maps of addresses.
        addresses: u32,
    },
    /// Loads a program of an object, by its index.
    Load {
        /// Number of the object.
        held: u8,
        /// Index of the program.
        program: u8,
    },
    /// Puts a loaded program into a slot for tail calls of an object.
    HandOn {
        /// Number of the object with the slot.
        into: u8,
        /// The slot.
        place: u8,
        /// Number of the object with the program, and its index there.
        of: (u8, u8),
    },
    /// Attaches a loaded program. Gives the link.
    Attach {
        /// Number of the object.
        held: u8,
        /// Index of the program.
        program: u8,
        /// Where.
        to: AttachPoint,
    },
    /// Forgets an object.
    Close {
        /// Number of the object.
        held: u8,
    },
    /// Makes a map. Gives it.
    Map(MapKind),
    /// Makes a socket. Gives it.
    Socket(SocketKind),
    /// Binds the socket that came with it to a port of the config.
    Bind(SocketAddr),
    /// Turns rx-vlan-offload of an interface off. Gives 0 if it was off, 1 if it was turned off, else the driver's errno
    /// plus 2.
    ShowTags(InterfaceName),
    /// Whether the other end of a veth device receives frames of XDP_TX. Gives 1 if so.
    TakesFrames(InterfaceName),
    /// Sets a kernel setting for SYN cookies, by its index.
    Set {
        /// Index of the setting.
        setting: u8,
        /// Its value.
        value: u8,
    },
    /// Gives the control socket to the group that the config names.
    AdmitGroup,
    /// Looks at a set of nf_tables that the config named at the start, by its index. Gives [`SetInfo::to_bits`], or a fault
    /// (`SetFault::to_number`).
    LookAtSet {
        /// Index of the set.
        set: u16,
    },
    /// Adds an address to such a set. Gives 0, or a fault.
    AddToSet {
        /// Index of the set.
        set: u16,
        /// What the set is.
        info: SetInfo,
        /// Of the kind that the set takes.
        address: IpAddr,
    },
}

/// A request in parts.
#[derive(Default)]
struct Parts {
    kind: u8,
    /// Small numbers.
    small: [u8; 3],
    number: u32,
    name: [u8; 16],
    scope: u32,
    port: u16,
}

impl Parts {
    fn to_bytes(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0] = self.kind;
        bytes[1..4].copy_from_slice(&self.small);
        bytes[4..8].copy_from_slice(&self.number.to_ne_bytes());
        bytes[8..24].copy_from_slice(&self.name);
        bytes[24..28].copy_from_slice(&self.scope.to_ne_bytes());
        bytes[28..30].copy_from_slice(&self.port.to_ne_bytes());
        bytes
    }

    fn of(bytes: &[u8; REQUEST_BYTES]) -> Self {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let mut name = [0; 16];
        name.copy_from_slice(&bytes[8..24]);
        Self {
            kind: bytes[0],
            small: [bytes[1], bytes[2], bytes[3]],
            number: u32::from_ne_bytes(word(4)),
            name,
            scope: u32::from_ne_bytes(word(24)),
            port: u16::from_ne_bytes([bytes[28], bytes[29]]),
        }
    }
}

impl Request {
    /// The lane that it goes by.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Socket(_) | Self::Bind(_) => Lane::Sockets,
            Self::LookAtSet { .. } | Self::AddToSet { .. } => Lane::Sets,
            Self::Open { .. }
            | Self::Load { .. }
            | Self::HandOn { .. }
            | Self::Attach { .. }
            | Self::Close { .. }
            | Self::Map(_)
            | Self::ShowTags(_)
            | Self::TakesFrames(_)
            | Self::Set { .. }
            | Self::AdmitGroup => Lane::Objects,
        }
    }

    /// The request as it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; REQUEST_BYTES] {
        let parts = |kind, small| Parts {
            kind,
            small,
            ..Parts::default()
        };
        let parts = match self {
            Self::Open { object, addresses } => Parts {
                number: addresses,
                ..parts(1, [object as u8, 0, 0])
            },
            Self::Load { held, program } => parts(2, [held, program, 0]),
            Self::HandOn { into, place, of } => Parts {
                number: u32::from(of.1),
                ..parts(3, [into, place, of.0])
            },
            Self::Attach { held, program, to } => {
                let (point, name) = match to {
                    AttachPoint::Native(name) => (0, name.0),
                    AttachPoint::Generic(name) => (1, name.0),
                    AttachPoint::Namespace => (2, [0; NAME_BYTES]),
                };
                Parts {
                    name,
                    ..parts(4, [held, program, point])
                }
            }
            Self::Close { held } => parts(5, [held, 0, 0]),
            Self::Map(kind) => parts(6, [kind as u8, 0, 0]),
            Self::Socket(kind) => parts(7, [kind as u8, 0, 0]),
            Self::Bind(address) => bind_parts(address),
            Self::ShowTags(InterfaceName(name)) => Parts {
                name,
                ..parts(9, [0; 3])
            },
            Self::TakesFrames(InterfaceName(name)) => Parts {
                name,
                ..parts(10, [0; 3])
            },
            Self::Set { setting, value } => parts(11, [setting, value, 0]),
            Self::AdmitGroup => parts(12, [0; 3]),
            Self::LookAtSet { set } => Parts {
                number: set.into(),
                ..parts(13, [0; 3])
            },
            Self::AddToSet { set, info, address } => Parts {
                number: set.into(),
                small: [family(address), info.to_bits(), 0],
                name: octets(address),
                ..parts(14, [0; 3])
            },
        };
        parts.to_bytes()
    }

    /// Reads a request. `None`: it is none, or has something where nothing belongs.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let parts = Parts::of(bytes);
        let [first, second, third] = parts.small;
        let name = || InterfaceName::parse(parts.name);
        let request = match parts.kind {
            1 => Self::Open {
                object: object_kind(first)?,
                addresses: parts.number,
            },
            2 => Self::Load {
                held: first,
                program: second,
            },
            3 => Self::HandOn {
                into: first,
                place: second,
                of: (third, u8::try_from(parts.number).ok()?),
            },
            4 => Self::Attach {
                held: first,
                program: second,
                to: match third {
                    0 => AttachPoint::Native(name()?),
                    1 => AttachPoint::Generic(name()?),
                    2 => AttachPoint::Namespace,
                    _ => return None,
                },
            },
            5 => Self::Close { held: first },
            6 => Self::Map(map_kind(first)?),
            7 => Self::Socket(socket_kind(first)?),
            8 => Self::Bind(address_of(&parts)?),
            9 => Self::ShowTags(name()?),
            10 => Self::TakesFrames(name()?),
            11 => Self::Set {
                setting: first,
                value: second,
            },
            12 => Self::AdmitGroup,
            13 => Self::LookAtSet {
                set: u16::try_from(parts.number).ok()?,
            },
            14 => Self::AddToSet {
                set: u16::try_from(parts.number).ok()?,
                info: SetInfo::from_bits(second)?,
                address: ip_of(&parts)?,
            },
            _ => return None,
        };
        (request.to_bytes() == *bytes).then_some(request)
    }
}

/// A request to bind: in the first small number 4 or 6, the family.
fn bind_parts(address: SocketAddr) -> Parts {
    let scope = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    Parts {
        kind: 8,
        small: [family(address.ip()), 0, 0],
        name: octets(address.ip()),
        scope,
        port: address.port(),
        ..Parts::default()
    }
}

fn address_of(parts: &Parts) -> Option<SocketAddr> {
    Some(match ip_of(parts)? {
        IpAddr::V4(v4) => (v4, parts.port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, parts.port, 0, parts.scope).into(),
    })
}

/// An address in a request: IPv4's is mapped, and marked by its family.
const fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

fn ip_of(parts: &Parts) -> Option<IpAddr> {
    let ip = Ipv6Addr::from(parts.name);
    match parts.small[0] {
        4 => Some(ip.to_ipv4_mapped()?.into()),
        6 => Some(ip.into()),
        _ => None,
    }
}

fn object_kind(number: u8) -> Option<ObjectKind> {
    let kinds = [ObjectKind::Xdp, ObjectKind::Hot, ObjectKind::Ports];
    kinds.into_iter().find(|kind| *kind as u8 == number)
}

fn map_kind(number: u8) -> Option<MapKind> {
    let kinds = [
        MapKind::Prefixes,
        MapKind::Events,
        MapKind::Accounts,
        MapKind::Stations,
    ];
    kinds.into_iter().find(|kind| *kind as u8 == number)
}

fn socket_kind(number: u8) -> Option<SocketKind> {
    let kinds = [
        SocketKind::Xdp,
        SocketKind::Sender4,
        SocketKind::Sender6,
        SocketKind::Icmp4,
        SocketKind::Icmp6,
    ];
    kinds.into_iter().find(|kind| *kind as u8 == number)
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kernel's error, or EPERM: the config does not allow it; EPIPE: the keeper has ended.
    pub errno: Errno,
    /// More about it. Empty for sockets, so that a worker that is refused one allocates nothing.
    pub text: Box<str>,
}

impl Refusal {
    /// One without a text.
    #[must_use]
    pub fn of(errno: Errno) -> Self {
        Self {
            errno,
            text: Box::default(),
        }
    }

    /// One with as much of a text as fits into a reply.
    #[must_use]
    pub fn with(errno: Errno, text: &str) -> Self {
        let mut end = text.len().min(TEXT_MAX);
        // Bound: a character has four bytes at most.
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text[..end].into();
        Self { errno, text }
    }

    /// The refusal as it is sent.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; REPLY_BYTES] {
        let mut bytes = [0; REPLY_BYTES];
        bytes[..4].copy_from_slice(&(self.errno as i32).to_ne_bytes());
        let len = self.text.len();
        bytes[8..HEAD].copy_from_slice(&(len as u16).to_ne_bytes());
        bytes[HEAD..HEAD + len].copy_from_slice(self.text.as_bytes());
        bytes
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.text {
            "" => f.write_str(self.errno.desc()),
            text => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}

/// The reply to a request that was carried out, but for the descriptors that come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// As [`Request`] says.
    pub value: u32,
}

impl Reply {
    /// The reply as it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; REPLY_BYTES] {
        let mut bytes = [0; REPLY_BYTES];
        bytes[4..8].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// It is a refusal.
    pub fn from_bytes(bytes: &[u8; REPLY_BYTES]) -> Result<Self, Refusal> {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        match i32::from_ne_bytes(word(0)) {
            0 => Ok(Self {
                value: u32::from_ne_bytes(word(4)),
            }),
            errno => {
                let len = u16::from_ne_bytes([bytes[8], bytes[9]]);
                let text = bytes[HEAD..].get(..usize::from(len)).unwrap_or_default();
                let text = std::str::from_utf8(text).unwrap_or_default();
                Err(Refusal::with(Errno::from_raw(errno), text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let lan = InterfaceName::new("lan0").expect("a name");
        let to_lan = |to| Request::Attach {
            held: 1,
            program: 2,
            to,
        };
        let to_set = |text: &str| Request::AddToSet {
            set: 258,
            info: SetInfo::from_bits(5).expect("three bits"),
            address: text.parse().expect("an address"),
        };
        vec![
            Request::Open {
                object: ObjectKind::Ports,
                addresses: 70_000,
            },
            Request::Load {
                held: 3,
                program: 9,
            },
            Request::HandOn {
                into: 1,
                place: 5,
                of: (2, 7),
            },
            to_lan(AttachPoint::Native(lan)),
            to_lan(AttachPoint::Generic(lan)),
            to_lan(AttachPoint::Namespace),
            Request::Close { held: 255 },
            Request::Map(MapKind::Stations),
            Request::Socket(SocketKind::Icmp6),
            Request::Bind("192.0.2.1:53".parse().expect("an address")),
            Request::Bind("[2001:db8::1]:5353".parse().expect("an address")),
            Request::Bind(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 53, 0, 7).into()),
            Request::ShowTags(lan),
            Request::TakesFrames(lan),
            Request::Set {
                setting: 1,
                value: 2,
            },
            Request::AdmitGroup,
            Request::LookAtSet { set: 511 },
            to_set("192.0.2.7"),
            to_set("2001:db8::7"),
        ]
    }

    #[test]
    fn a_request_is_read_as_it_was_made() {
        for request in requests() {
            let bytes = request.to_bytes();
            assert_eq!(Request::from_bytes(&bytes), Some(request));
        }
    }

    /// Whoever has the server can send any bytes.
    #[test]
    fn what_is_no_request_is_none_and_no_bit_is_overlooked() {
        assert_eq!(Request::from_bytes(&[0; REQUEST_BYTES]), None);
        assert_eq!(Request::from_bytes(&[0xff; REQUEST_BYTES]), None);
        for request in requests() {
            for bit in 0..REQUEST_BYTES * 8 {
                let mut bytes = request.to_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let read = Request::from_bytes(&bytes);
                assert_ne!(read, Some(request), "{bit}");
                assert!(read.is_none_or(|read| read.to_bytes() == bytes), "{bit}");
            }
        }
        for name in ["", "..", ".", "a/b", "sixteen-letters0", "a\0b"] {
            assert_eq!(InterfaceName::new(name), None, "{name:?}");
        }
        assert!(InterfaceName::new("fifteen-letters").is_some());
    }

    #[test]
    fn a_reply_is_a_number_or_a_reason_as_long_as_it_fits() {
        let reply = Reply { value: 7 };
        assert_eq!(Reply::from_bytes(&reply.to_bytes()), Ok(reply));
        for text in ["", "no such interface", &"ö".repeat(400)] {
            let refusal = Refusal::with(Errno::ENODEV, text);
            assert_eq!(Reply::from_bytes(&refusal.to_bytes()), Err(refusal.clone()));
            assert!(text.starts_with(&*refusal.text), "{refusal}");
        }
        assert_eq!(Refusal::of(Errno::EPIPE).to_string(), "Broken pipe");
    }
}
