//! Record types that policy treats by name (IANA DNS parameters).

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
/// IPv6 address (RFC 3596).
pub const AAAA: u16 = 28;
/// Delegation signer (RFC 4034).
pub const DS: u16 = 43;
/// Service binding (RFC 9460).
pub const SVCB: u16 = 64;
/// Service binding for HTTPS (RFC 9460).
pub const HTTPS: u16 = 65;
