//! EDNS(0): the OPT record of queries and responses (RFC 6891), with the options that we support.

use super::record::Record;
use super::{read_u16, rtype};
use crate::limits::UDP_MESSAGE_MAX;

/// Option codes (IANA DNS EDNS0 option codes).
pub mod option {
    /// DNS cookie (RFC 7873).
    pub const COOKIE: u16 = xdnsd_abi::headers::dns::opt::COOKIE;
    /// edns-tcp-keepalive (RFC 7828).
    pub const TCP_KEEPALIVE: u16 = 11;
    /// Extended DNS error (RFC 8914).
    pub const EDE: u16 = 15;
}

/// Extended DNS error codes (RFC 8914).
pub mod ede {
    /// No extended error; the value is unassigned.
    pub const NONE: u16 = u16::MAX;
    /// Other: here, aliases that form a loop or are too long.
    pub const OTHER: u16 = 0;
    /// Stale answer: served past its TTL, since upstream does not answer (section 4.4).
    pub const STALE: u16 = 3;
    /// Not ready: here, no room for another question or client (section 4.15).
    pub const NOT_READY: u16 = 14;
    /// Blocked by a list of the operator, or withheld by rebind protection (section 4.16).
    pub const BLOCKED: u16 = 15;
    /// Prohibited: the client may not ask here (section 4.19).
    pub const PROHIBITED: u16 = 18;
    /// NXDOMAIN that is served past its TTL (section 4.20).
    pub const STALE_NXDOMAIN: u16 = 19;
    /// Not authoritative: RD is clear, and the answer is not in the cache (section 4.21).
    pub const NOT_AUTHORITATIVE: u16 = 20;
    /// Not supported: a class or type that is never forwarded (section 4.22).
    pub const NOT_SUPPORTED: u16 = 21;
    /// No reachable authority: here, no upstream gave a useful answer.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;

    /// True for the codes of an answer that was not believed: from DNSSEC Indeterminate to NSEC Missing (sections 4.6 to 4.13).
    #[must_use]
    pub const fn is_of_validation(code: u16) -> bool {
        matches!(code, 5..=12)
    }
}

/// Bit of DO in the OPT record's TTL.
pub(super) const DNSSEC_OK: u32 = 0x8000;
/// Length of an OPT record without options in bytes: root name, type, size, flags, length.
pub const OPT_LEN: usize = xdnsd_abi::headers::dns::opt::LEN;
/// Length of an OPT record of ours with all of its options, in bytes: extended error, cookie, keepalive.
pub const OPT_LEN_MAX: usize = OPT_LEN + 6 + 28 + 6;
/// Longest server cookie in bytes (RFC 7873 section 4).
const SERVER_COOKIE_MAX: usize = 32;

/// Content of a DNS cookie option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Client cookie.
    pub client: [u8; 8],
    /// Server cookie, in the first `server_len` bytes.
    pub server: [u8; SERVER_COOKIE_MAX],
    /// Length of the server cookie in bytes: 0, or 8 to 32.
    pub server_len: u8,
}

impl Cookie {
    fn parse(data: &[u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk::<8>()?;
        if !server.is_empty() && !(8..=SERVER_COOKIE_MAX).contains(&server.len()) {
            return None;
        }
        let mut cookie = Self {
            client: *client,
            server: [0; SERVER_COOKIE_MAX],
            server_len: server.len() as u8,
        };
        cookie.server[..server.len()].copy_from_slice(server);
        Some(cookie)
    }
}

/// Content of an OPT record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP message that the sender can receive, in bytes.
    pub udp_size: u16,
    /// High eight bits of the RCODE.
    pub extended_rcode: u8,
    /// EDNS version; ours is 0.
    pub version: u8,
    /// DO (RFC 3225).
    pub dnssec_ok: bool,
    /// The first cookie option; further ones are ignored (RFC 7873 section 5.2).
    pub cookie: Option<Cookie>,
    /// True if the first cookie option has an invalid length.
    pub cookie_is_malformed: bool,
    /// True if there is an edns-tcp-keepalive option.
    pub keepalive: bool,
    /// Info code of the first extended error.
    pub ede: Option<u16>,
}

/// The OPT record is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedOpt;

impl Edns {
    /// Reads the OPT record `record` of `message`. Unknown options are ignored (RFC 6891 section 6.1.2), and so is the
    /// RDATA of other versions, whose format is unknown.
    ///
    /// # Errors
    /// The owner is not the root, or an option extends past the end.
    pub fn parse(message: &[u8], record: &Record) -> Result<Self, MalformedOpt> {
        debug_assert_eq!(record.rtype, rtype::OPT);
        if message.get(record.owner) != Some(&0) {
            return Err(MalformedOpt);
        }
        let mut edns = Self {
            udp_size: record.class,
            extended_rcode: (record.ttl_secs >> 24) as u8,
            version: (record.ttl_secs >> 16) as u8,
            dnssec_ok: record.ttl_secs & DNSSEC_OK != 0,
            ..Self::default()
        };
        if edns.version != 0 {
            return Ok(edns);
        }
        let mut rest = message.get(record.rdata()).ok_or(MalformedOpt)?;
        // Bound: every option takes at least four bytes of a 16-bit length.
        while !rest.is_empty() {
            let code = read_u16(rest, 0).ok_or(MalformedOpt)?;
            let len = usize::from(read_u16(rest, 2).ok_or(MalformedOpt)?);
            let data = rest.get(4..4 + len).ok_or(MalformedOpt)?;
            edns.take_option(code, data);
            rest = &rest[4 + len..];
        }
        Ok(edns)
    }

    fn take_option(&mut self, code: u16, data: &[u8]) {
        let has_cookie = self.cookie.is_some() || self.cookie_is_malformed;
        match code {
            option::COOKIE if !has_cookie => {
                self.cookie = Cookie::parse(data);
                self.cookie_is_malformed = self.cookie.is_none();
            }
            option::TCP_KEEPALIVE => self.keepalive = true,
            option::EDE => self.ede = self.ede.or(read_u16(data, 0)),
            _ => {}
        }
    }

    /// Longest UDP message for the sender in bytes: at least 512, at most [`UDP_MESSAGE_MAX`].
    #[must_use]
    pub fn udp_limit(&self) -> usize {
        usize::from(self.udp_size).clamp(512, UDP_MESSAGE_MAX)
    }
}

/// Content of the OPT record of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptReply {
    /// High eight bits of the RCODE.
    pub extended_rcode: u8,
    /// DO of the query (RFC 3225 section 3).
    pub dnssec_ok: bool,
    /// Info code of an extended error (RFC 8914), without text.
    pub ede: Option<u16>,
    /// Cookie option: eight bytes of the client and sixteen of ours (RFC 9018 section 4).
    pub cookie: Option<[u8; 24]>,
    /// Idle timeout in units of 100 ms (RFC 7828).
    pub keepalive: Option<u16>,
}

impl OptReply {
    /// Length of the record in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        OPT_LEN
            + if self.ede.is_some() { 6 } else { 0 }
            + if self.cookie.is_some() { 28 } else { 0 }
            + if self.keepalive.is_some() { 6 } else { 0 }
    }

    /// Always false: the record has a fixed part.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes the record at `at`. Returns its end; `None` if it does not fit.
    #[must_use]
    pub fn emit(&self, message: &mut [u8], at: usize) -> Option<usize> {
        let end = at + self.len();
        let bytes = message.get_mut(at..end)?;
        let flags = if self.dnssec_ok { 0x80 } else { 0 };
        let size = (UDP_MESSAGE_MAX as u16).to_be_bytes();
        let options = ((self.len() - OPT_LEN) as u16).to_be_bytes();
        bytes[..OPT_LEN].copy_from_slice(&[
            0,
            0,
            rtype::OPT as u8,
            size[0],
            size[1],
            self.extended_rcode,
            0,
            flags,
            0,
            options[0],
            options[1],
        ]);
        let mut rest = &mut bytes[OPT_LEN..];
        if let Some(code) = self.ede {
            rest = emit_option(rest, option::EDE, &code.to_be_bytes());
        }
        if let Some(cookie) = self.cookie {
            rest = emit_option(rest, option::COOKIE, &cookie);
        }
        if let Some(idle) = self.keepalive {
            rest = emit_option(rest, option::TCP_KEEPALIVE, &idle.to_be_bytes());
        }
        debug_assert!(rest.is_empty());
        Some(end)
    }
}

/// Writes an option at the beginning of `bytes`, and returns the rest.
fn emit_option<'a>(bytes: &'a mut [u8], code: u16, data: &[u8]) -> &'a mut [u8] {
    let (now, rest) = bytes.split_at_mut(4 + data.len());
    now[..2].copy_from_slice(&code.to_be_bytes());
    now[2..4].copy_from_slice(&(data.len() as u16).to_be_bytes());
    now[4..].copy_from_slice(data);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let reply = OptReply {
            extended_rcode: 1,
            dnssec_ok: true,
            ede: Some(ede::STALE),
            cookie: Some([7; 24]),
            keepalive: Some(100),
        };
        let mut buffer = [0xa5; 128];
        let end = reply.emit(&mut buffer, 3).expect("fits");
        let record = Record::parse(&buffer[..end], 3).expect("well-formed");
        assert_eq!(
            (record.end, record.rtype, record.class),
            (end, rtype::OPT, 1232)
        );
        let edns = Edns::parse(&buffer[..end], &record).expect("well-formed");
        assert!(edns.dnssec_ok && edns.keepalive && edns.version == 0 && edns.extended_rcode == 1);
        assert_eq!(edns.ede, Some(ede::STALE));
        let cookie = edns.cookie.expect("a cookie");
        assert_eq!((cookie.client, cookie.server_len), ([7; 8], 16));
        assert_eq!(reply.emit(&mut [0; 20], 0), None);
        assert_eq!(reply.len(), OPT_LEN_MAX);
    }

    #[test]
    fn options_that_reach_over_the_end_are_malformed() {
        // An option longer than RDATA; half an option; an owner other than the root.
        for (bytes, at) in [
            (&b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0a\0\x08"[..], 0),
            (&b"\0\0\x29\x04\xd0\0\0\0\0\0\x03\0\x0a\0"[..], 0),
            (&b"\x01a\0\0\x29\x04\xd0\0\0\0\0\0\0"[..], 0),
        ] {
            let record = Record::parse(bytes, at).expect("a record");
            assert_eq!(Edns::parse(bytes, &record), Err(MalformedOpt));
        }
    }

    #[test]
    fn the_first_cookie_counts() {
        let parse = |options: &[u8]| {
            let len = u8::try_from(options.len()).expect("short");
            let bytes = [b"\0\0\x29\x04\xd0\0\0\0\0\0", &[len][..], options].concat();
            let record = Record::parse(&bytes, 0).expect("a record");
            let edns = Edns::parse(&bytes, &record).expect("OPT");
            (
                edns.cookie.map(|cookie| cookie.client),
                edns.cookie_is_malformed,
            )
        };
        let (good, other, bad) = (
            b"\0\x0a\0\x08abcdefgh",
            b"\0\x0a\0\x08ABCDEFGH",
            b"\0\x0a\0\x07abcdefg",
        );
        assert_eq!(parse(b""), (None, false));
        assert_eq!(
            parse(&[&good[..], other].concat()),
            (Some(*b"abcdefgh"), false)
        );
        assert_eq!(
            parse(&[&good[..], bad].concat()),
            (Some(*b"abcdefgh"), false)
        );
        assert_eq!(parse(&[&bad[..], good].concat()), (None, true));
        // A client cookie of 8 bytes, and a server cookie of none or of 8 to 32.
        for len in 0..48 {
            let option = [&[0, 10, 0, len][..], &[7; 48][..usize::from(len)]].concat();
            let is_good = matches!(len, 8 | 16..=40);
            assert_eq!(parse(&option).1, !is_good, "{len}");
        }
    }

    #[test]
    fn options_of_another_version_are_not_read() {
        let bytes = b"\0\0\x29\x04\xd0\0\x01\0\0\0\x01\xff";
        let record = Record::parse(bytes, 0).expect("a record");
        assert_eq!(Edns::parse(bytes, &record).expect("OPT").version, 1);
    }
}
