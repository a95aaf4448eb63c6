//! Views over the headers of a frame, and one function that parses a whole query frame.
//!
//! Each view is opened by `new_checked`, the single gate: afterwards no accessor can read past the buffer. Lengths, fields
//! and masks are those of `xdnsd_abi::headers`, which the XDP program reads too. There are setters only for the fields that
//! a reply needs.
//! Nothing here knows DNS, allocates, or trusts a length because the XDP program has checked it before.

/// Defines a view over a buffer that begins with a header of the given length.
macro_rules! view {
    ($(#[doc = $doc:literal])+ pub struct $name:ident: $header_len:expr;) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T> {
            buffer: T,
        }

        impl<T: AsRef<[u8]>> $name<T> {
            /// A view over a buffer whose length the caller has checked. Accessors panic if it is shorter than the header.
            pub const fn new_unchecked(buffer: T) -> Self {
                Self { buffer }
            }

            /// A view, if the buffer holds the header.
            ///
            /// # Errors
            /// [`Truncated`](crate::wire::Truncated) if it does not.
            pub fn new_checked(buffer: T) -> Result<Self, $crate::wire::Truncated> {
                if buffer.as_ref().len() < $header_len {
                    Err($crate::wire::Truncated)
                } else {
                    Ok(Self::new_unchecked(buffer))
                }
            }
        }
    };
}

pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
mod path;
pub mod udp;
pub mod vlan;

use xdnsd_abi::headers::Field;

pub use path::{Addresses, Path, Reject, parse};

/// The buffer is shorter than the header, or than the length in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// TTL and hop limit of our packets: the default of RFC 1700, enough for any client.
pub const HOP_LIMIT: u8 = 64;

/// 16-bit big-endian number at `field`.
fn read_u16(bytes: &[u8], field: Field) -> u16 {
    let mut value = [0; 2];
    value.copy_from_slice(&bytes[field]);
    u16::from_be_bytes(value)
}

/// Writes `value` at `field` in big-endian order.
fn write_u16(bytes: &mut [u8], field: Field, value: u16) {
    bytes[field].copy_from_slice(&value.to_be_bytes());
}

/// Bytes at `field`, whose length is `N`.
fn read_array<const N: usize>(bytes: &[u8], field: Field) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[field]);
    value
}

#[cfg(test)]
mod tests {
    use crate::testing::{QUERY_IPV4, QUERY_IPV6};
    use xdnsd_abi::checksum::{Sum, pseudo_header};

    #[test]
    fn captured_queries_add_up() {
        let header = &QUERY_IPV4[14..34];
        assert_eq!(Sum::new().add_bytes(header).fold(), 0xffff);
        let sum = pseudo_header(&header[12..16], &header[16..], 48).add_bytes(&QUERY_IPV4[34..]);
        assert_eq!(sum.fold(), 0xffff);
        let header = &QUERY_IPV6[14..54];
        let sum = pseudo_header(&header[8..24], &header[24..], 48).add_bytes(&QUERY_IPV6[54..]);
        assert_eq!(sum.fold(), 0xffff);
    }
}
