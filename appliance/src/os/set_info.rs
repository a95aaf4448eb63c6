//! What a request to the keeper says of a set of nf_tables: a place below both.

use std::net::IpAddr;

/// What decides how an address is added to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetInfo {
    /// True if its keys are IPv6 addresses, else IPv4's.
    pub is_v6: bool,
    /// True if its elements are ranges.
    pub is_interval: bool,
    /// True if its elements end by themselves.
    pub has_timeout: bool,
}

impl SetInfo {
    /// As three bits, for a request.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        self.is_v6 as u8 | (self.is_interval as u8) << 1 | (self.has_timeout as u8) << 2
    }

    /// Of three bits. `None` if there is another one.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits >= 1 << 3 {
            return None;
        }
        Some(Self {
            is_v6: bits & 1 != 0,
            is_interval: bits & 2 != 0,
            has_timeout: bits & 4 != 0,
        })
    }

    /// True if it has place for addresses of this kind.
    #[must_use]
    pub const fn takes(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_v6
    }
}
