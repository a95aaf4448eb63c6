//! What of upstream's answers is not passed on: addresses by which a provider says that a name does not exist, and addresses of a
//! family that clients are not to get.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ranges::AddressRanges;
use crate::dns::rtype;

/// The rules as configured.
#[derive(Clone, Copy, Debug)]
pub struct Screen<'a> {
    /// An answer with an address whose byte here is not 0 says that its name does not exist.
    pub bogus: AddressRanges<'a>,
    /// Whether clients get no IPv4 addresses.
    pub without_a: bool,
    /// Whether they get no IPv6 addresses.
    pub without_aaaa: bool,
}

impl Screen<'_> {
    /// Every answer is passed on.
    pub const OFF: Self = Self {
        bogus: AddressRanges::EMPTY,
        without_a: false,
        without_aaaa: false,
    };

    /// Whether answers of this type have to be looked at. To be asked once per answer.
    #[must_use]
    pub const fn looks_at(&self, qtype: u16) -> bool {
        !self.bogus.is_empty() || self.withholds(qtype)
    }

    /// Whether records of this type are not passed on.
    #[must_use]
    pub const fn withholds(&self, rtype: u16) -> bool {
        match rtype {
            rtype::A => self.without_a,
            rtype::AAAA => self.without_aaaa,
            _ => false,
        }
    }

    /// Whether this record says that its name does not exist.
    #[must_use]
    pub fn is_bogus(&self, rtype: u16, rdata: &[u8]) -> bool {
        !self.bogus.is_empty()
            && address(rtype, rdata)
                .is_some_and(|address| self.bogus.value(address).is_some_and(|byte| byte != 0))
    }
}

fn address(rtype: u16, rdata: &[u8]) -> Option<IpAddr> {
    match rtype {
        rtype::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?).into()),
        rtype::AAAA => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?);
            Some(IpAddr::from(address).to_canonical())
        }
        _ => None,
    }
}
