//! Requirements of RFCs on messages, EDNS, streams and protection, by all three ways in and over both families.

mod access;
mod counted;
mod dnssec;
mod edns;
mod messages;
mod moved;
mod neighbours;
mod sources;
mod streams;

/// Response codes (IANA DNS RCODEs) and extended error codes (RFC 8914).
mod code {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
    pub const BADCOOKIE: u16 = 23;
    /// Extended errors.
    pub const BLOCKED: u16 = 15;
    pub const PROHIBITED: u16 = 18;
    pub const NOT_SUPPORTED: u16 = 21;
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
}
