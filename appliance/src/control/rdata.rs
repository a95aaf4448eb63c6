//! Records in the presentation format of zone files (RFC 1035 section 5.1, RFC 9460 section 2.1, RFC 3597 section 5).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use xdnsd_core::dns::record::Record;
use xdnsd_core::dns::{Name, rtype};

use super::presentation::type_text;

/// SSHFP, TLSA and CAA: numbers that only this file uses (RFC 4255, RFC 6698, RFC 8659).
const SSHFP: u16 = 44;
const TLSA: u16 = 52;
const CAA: u16 = 257;

/// The record of `message` with `ttl_secs` as its TTL: `www.example. 287 IN A 192.0.2.1`. A record that is malformed or of an
/// unknown type is written in hexadecimal, which any reader of zone files takes.
#[must_use]
pub fn record_text(message: &[u8], record: &Record, ttl_secs: u32) -> String {
    let owner = Name::parse(message, record.owner);
    let owner = owner.map_or_else(|_| "?".to_owned(), |(name, _)| name.to_string());
    let class = match record.class {
        1 => "IN".to_owned(),
        class => format!("CLASS{class}"),
    };
    let rtype = type_text(record.rtype);
    let known = RdataFields::new(message, record).text(record.rtype);
    let rdata = known.unwrap_or_else(|| generic(message.get(record.rdata()).unwrap_or_default()));
    format!("{owner} {ttl_secs} {class} {rtype} {rdata}")
}

/// Unknown RDATA (RFC 3597 section 5).
fn generic(rdata: &[u8]) -> String {
    let text = format!("\\# {} {}", rdata.len(), hex(rdata));
    text.trim_end().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// Base64 (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const PAD: char = '=';
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 0x3f;
            let is_there = digit as usize <= chunk.len();
            text.push(if is_there {
                char::from(ALPHABET[index as usize])
            } else {
                PAD
            });
        }
    }
    text
}

/// Bytes in quotes.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = match byte {
            b'"' | b'\\' => write!(text, "\\{}", char::from(byte)),
            0x20..=0x7e => write!(text, "{}", char::from(byte)),
            _ => write!(text, "\\{byte:03}"),
        };
    }
    text.push('"');
    text
}

/// Cursor over a record's RDATA. Its functions return `None` if the RDATA ends too early.
struct RdataFields<'m> {
    message: &'m [u8],
    at: usize,
    end: usize,
}

impl<'m> RdataFields<'m> {
    fn new(message: &'m [u8], record: &Record) -> Self {
        let rdata = record.rdata();
        Self {
            message,
            at: rdata.start,
            end: rdata.end,
        }
    }

    /// Text of all RDATA of `rtype`. `None` if it is malformed, or the type is unknown here.
    fn text(mut self, rtype: u16) -> Option<String> {
        let text = match rtype {
            rtype::A => Ipv4Addr::from(self.bytes::<4>()?).to_string(),
            rtype::AAAA => Ipv6Addr::from(self.bytes::<16>()?).to_string(),
            rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => self.name()?,
            rtype::MX => format!("{} {}", self.u16()?, self.name()?),
            rtype::SRV => {
                let [priority, weight, port] = [self.u16()?, self.u16()?, self.u16()?];
                format!("{priority} {weight} {port} {}", self.name()?)
            }
            rtype::SOA => {
                let mut words = vec![self.name()?, self.name()?];
                for _ in 0..5 {
                    words.push(u32::from_be_bytes(self.bytes()?).to_string());
                }
                words.join(" ")
            }
            rtype::TXT => self.strings()?,
            CAA => {
                let flags = self.u8()?;
                let tag = self.string()?;
                let is_word = !tag.is_empty() && tag.iter().all(u8::is_ascii_alphanumeric);
                let tag = String::from_utf8_lossy(tag).into_owned();
                let value = quoted(self.rest()?);
                is_word.then(|| format!("{flags} {tag} {value}"))?
            }
            rtype::DS => format!(
                "{} {} {} {}",
                self.u16()?,
                self.u8()?,
                self.u8()?,
                self.hex()?
            ),
            TLSA => format!(
                "{} {} {} {}",
                self.u8()?,
                self.u8()?,
                self.u8()?,
                self.hex()?
            ),
            SSHFP => format!("{} {} {}", self.u8()?, self.u8()?, self.hex()?),
            rtype::SVCB | rtype::HTTPS => {
                let mut words = vec![self.u16()?.to_string(), self.name()?];
                while self.at < self.end {
                    words.push(self.param()?);
                }
                words.join(" ")
            }
            _ => return None,
        };
        (self.at == self.end).then_some(text)
    }

    fn take(&mut self, len: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.end)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn rest(&mut self) -> Option<&'m [u8]> {
        self.take(self.end - self.at)
    }

    /// The rest in hexadecimal, at least a byte.
    fn hex(&mut self) -> Option<String> {
        self.rest().filter(|rest| !rest.is_empty()).map(hex)
    }

    fn name(&mut self) -> Option<String> {
        let (name, end) = Name::parse(self.message, self.at).ok()?;
        self.at = Some(end).filter(|end| *end <= self.end)?;
        Some(name.to_string())
    }

    /// Reads a character-string (RFC 1035 section 3.3).
    fn string(&mut self) -> Option<&'m [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// Reads all character-strings that are left, at least one.
    fn strings(&mut self) -> Option<String> {
        let mut words = vec![quoted(self.string()?)];
        while self.at < self.end {
            words.push(quoted(self.string()?));
        }
        Some(words.join(" "))
    }

    /// Reads a SvcParam (RFC 9460 section 14.3.2). A value without a valid form of its own is written like that of an unnamed
    /// key.
    fn param(&mut self) -> Option<String> {
        let (key, len) = (self.u16()?, self.u16()?);
        let value = self.take(len.into())?;
        let known = match key {
            1 => alpn(value).map(|list| format!("alpn={list}")),
            2 if value.is_empty() => Some("no-default-alpn".to_owned()),
            3 => value
                .try_into()
                .ok()
                .map(|port| format!("port={}", u16::from_be_bytes(port))),
            4 => hints::<4, Ipv4Addr>(value).map(|list| format!("ipv4hint={list}")),
            5 if !value.is_empty() => Some(format!("ech={}", base64(value))),
            6 => hints::<16, Ipv6Addr>(value).map(|list| format!("ipv6hint={list}")),
            _ => None,
        };
        let by_number = || match value {
            [] => format!("key{key}"),
            value => format!("key{key}={}", quoted(value)),
        };
        Some(known.unwrap_or_else(by_number))
    }
}

/// Protocol names, unless one has a letter that would have to be escaped twice (RFC 9460 appendix A.1).
fn alpn(value: &[u8]) -> Option<String> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b",\"\\;()".contains(byte);
    let mut names = Vec::new();
    let mut rest = value;
    while let Some((&len, behind)) = rest.split_first() {
        let (name, behind) = behind.split_at_checked(len.into())?;
        if name.is_empty() || !name.iter().all(is_plain) {
            return None;
        }
        names.push(String::from_utf8_lossy(name));
        rest = behind;
    }
    (!names.is_empty()).then(|| names.join(","))
}

/// Addresses of `N` bytes, at least one.
fn hints<const N: usize, A: From<[u8; N]> + ToString>(value: &[u8]) -> Option<String> {
    let (addresses, rest) = value.as_chunks::<N>();
    let texts: Vec<String> = addresses
        .iter()
        .map(|address| A::from(*address).to_string())
        .collect();
    (rest.is_empty() && !texts.is_empty()).then(|| texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::rdata;
    use hickory_proto::rr::{RData, RecordType};
    use hickory_proto::serialize::binary::BinEncodable;
    use hickory_proto::serialize::txt::RDataParser;

    /// A message with one record, as text.
    fn told(rtype: u16, rdata: &[u8]) -> String {
        let mut message = b"\x01a\x04test\0".to_vec();
        message.extend(rtype.to_be_bytes());
        message.extend([0, 1, 0, 0, 1, 0x2c]);
        message.extend((rdata.len() as u16).to_be_bytes());
        message.extend(rdata);
        let record = Record::parse(&message, 0).expect("a record");
        record_text(&message, &record, 7)
    }

    /// The part after the type.
    fn rdata_told(rtype: u16, rdata: &[u8]) -> String {
        let prefix = format!("a.test. 7 IN {} ", type_text(rtype));
        let text = told(rtype, rdata);
        let rest = text.strip_prefix(&prefix);
        rest.unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    /// RDATA that our own config reads from these words.
    fn compiled(rtype: u16, text: &str) -> Vec<u8> {
        let words = crate::compile::zonefile::split(text).expect("words");
        rdata::parse(rtype, &words).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    #[test]
    fn what_is_told_is_read_as_the_same_bytes() {
        for (number, text) in [
            (rtype::A, "192.0.2.1"),
            (rtype::AAAA, "2001:db8::1"),
            (rtype::NS, "ns.a.test."),
            (rtype::CNAME, "\\(a\\.b\\032c.test."),
            (rtype::PTR, "."),
            (rtype::MX, "10 mail.a.test."),
            (rtype::SRV, "1 2 853 dns.a.test."),
            (rtype::TXT, "\"v=spf1 -all\" \"\" \"a\\\"b\\\\\\200\""),
            (rtype::HTTPS, "0 other.test."),
            (
                rtype::HTTPS,
                "1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1,192.0.2.2 ech=AQID ipv6hint=2001:db8::1",
            ),
            (
                rtype::SVCB,
                "2 svc.test. alpn=h2 no-default-alpn key7=\"/q{?dns}\" key65000",
            ),
            (65280, "\\# 3 010AFF"),
            (64999, "\\# 0"),
        ] {
            let wire = compiled(number, text);
            assert_eq!(rdata_told(number, &wire), text);
        }
    }

    /// Types that the config takes only as bytes: compared with another reader of zone files.
    #[test]
    fn others_read_the_same_bytes() {
        for (number, wire) in [
            (
                rtype::SOA,
                &b"\x02ns\0\x01x\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05"[..],
            ),
            (CAA, b"\x80\x05issueca.example; a=b"),
            (TLSA, b"\x03\x01\x01\xab\xcd\xef"),
            (SSHFP, b"\x04\x02\x01\x02\x03"),
        ] {
            let text = rdata_told(number, wire);
            assert!(!text.contains('#'), "{text}");
            let kind = RecordType::from(number);
            let read = RData::try_from_str(kind, &text);
            let read = read.unwrap_or_else(|error| panic!("{kind} {text}: {error}"));
            assert_eq!(read.to_bytes().expect("wire"), wire, "{kind} {text}");
        }
    }

    /// RFC 6672 section 2.2, RFC 4034 section 5.3: types that neither can read.
    #[test]
    fn aliases_of_trees_and_digests_of_keys_are_told_as_their_rfcs_have_them() {
        assert_eq!(rdata_told(rtype::DNAME, b"\x01b\x04test\0"), "b.test.");
        let digest = b"\xec\x45\x05\x01\x2b\xb1\x83";
        assert_eq!(rdata_told(rtype::DS, digest), "60485 5 1 2BB183");
    }

    #[test]
    fn what_breaks_its_types_rules_is_told_as_bytes() {
        for (number, wire) in [
            (rtype::A, &b"\xc0\0\x02"[..]),
            (rtype::A, b"\xc0\0\x02\x01\0"),
            (rtype::MX, b"\0\x0a"),
            (rtype::NS, b"\x01a\0\0"),
            (rtype::TXT, b""),
            (rtype::TXT, b"\x05ab"),
            (rtype::SOA, b"\0\0\0"),
            (CAA, b"\x80\x02i\"ca"),
            (CAA, b"\x80\0ca"),
            (TLSA, b"\x03\x01\x01"),
            (rtype::HTTPS, b"\0\x01\0\0\x01\0\x09\x02h2"),
        ] {
            let expected = format!("\\# {} {}", wire.len(), hex(wire));
            assert_eq!(rdata_told(number, wire), expected.trim_end());
        }
        // Values without a form of their own.
        let https = |param: &[u8]| rdata_told(rtype::HTTPS, &[b"\0\x01\0", param].concat());
        assert_eq!(https(b"\0\x01\0\x03\x02h,"), "1 . key1=\"\\002h,\"");
        assert_eq!(https(b"\0\x03\0\x01\x09"), "1 . key3=\"\\009\"");
        assert_eq!(https(b"\0\x04\0\x03abc"), "1 . key4=\"abc\"");
        assert_eq!(https(b"\0\x05\0\0"), "1 . key5");
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
