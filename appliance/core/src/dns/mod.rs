//! DNS messages (RFC 1035, RFC 6891): views over bytes, never a copy of what the wire already holds.

pub mod build;
pub mod edns;
pub mod header;
pub mod name;
pub mod query;
pub mod record;

pub use header::Header;
pub use name::Name;
pub use query::Query;

/// Resource record types that the forwarder treats by name (IANA DNS parameters).
pub mod rtype {
    /// IPv4 address (RFC 1035).
    pub const A: u16 = 1;
    /// Name server (RFC 1035).
    pub const NS: u16 = 2;
    /// Canonical name (RFC 1035).
    pub const CNAME: u16 = 5;
    /// Start of authority (RFC 1035).
    pub const SOA: u16 = 6;
    /// Pointer (RFC 1035).
    pub const PTR: u16 = 12;
    /// Host information (RFC 1035, RFC 8482).
    pub const HINFO: u16 = 13;
    /// Mail exchange (RFC 1035).
    pub const MX: u16 = 15;
    /// Text (RFC 1035).
    pub const TXT: u16 = 16;
    /// IPv6 address (RFC 3596).
    pub const AAAA: u16 = 28;
    /// Service location (RFC 2782).
    pub const SRV: u16 = 33;
    /// Naming authority pointer (RFC 3403).
    pub const NAPTR: u16 = 35;
    /// Delegation of names (RFC 6672).
    pub const DNAME: u16 = 39;
    /// EDNS (RFC 6891).
    pub const OPT: u16 = 41;
    /// Delegation signer (RFC 4034).
    pub const DS: u16 = 43;
    /// Signature (RFC 4034).
    pub const RRSIG: u16 = 46;
    /// Authenticated denial (RFC 4034).
    pub const NSEC: u16 = 47;
    /// Key of a zone (RFC 4034 section 2).
    pub const DNSKEY: u16 = 48;
    /// Hashed authenticated denial (RFC 5155).
    pub const NSEC3: u16 = 50;
    /// Service binding (RFC 9460).
    pub const SVCB: u16 = 64;
    /// Service binding for HTTPS (RFC 9460).
    pub const HTTPS: u16 = 65;
    /// Key agreement, a meta type (RFC 2930).
    pub const TKEY: u16 = 249;
    /// Transaction signature, a meta type (RFC 8945).
    pub const TSIG: u16 = 250;
    /// Incremental zone transfer (RFC 1995).
    pub const IXFR: u16 = 251;
    /// All records (RFC 8482).
    pub const ANY: u16 = 255;
}

/// Classes (RFC 1035 section 3.2.4).
pub mod class {
    /// The Internet.
    pub const IN: u16 = 1;
    /// Chaos: server identification.
    pub const CH: u16 = 3;
}

/// Response codes (RFC 1035, RFC 6891).
pub mod rcode {
    /// No error.
    pub const NOERROR: u8 = 0;
    /// The query could not be understood.
    pub const FORMERR: u8 = 1;
    /// The server failed.
    pub const SERVFAIL: u8 = 2;
    /// The name does not exist.
    pub const NXDOMAIN: u8 = 3;
    /// Not implemented.
    pub const NOTIMP: u8 = 4;
    /// Refused by policy.
    pub const REFUSED: u8 = 5;
    /// A name exists that should not; from a DNAME: the name that it makes is too long (RFC 6672 section 2.2).
    pub const YXDOMAIN: u8 = 6;
    /// BADVERS (16): low four bits in the header, the high bits in the OPT record.
    pub const BADVERS: u16 = 16;
    /// BADCOOKIE (RFC 7873), in the same form.
    pub const BADCOOKIE: u16 = 23;
}

pub use xdnsd_abi::headers::dns::QUESTION_FIXED_LEN;

/// Reads a big-endian u16 at `offset`.
#[must_use]
pub fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..offset + 2)
        .map(|two| u16::from_be_bytes([two[0], two[1]]))
}

/// Reads a big-endian u32 at `offset`.
#[must_use]
pub fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..offset + 4)
        .map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}
