//! UDP headers.

use super::{read_u16, write_u16};
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::udp::field;

pub use xdnsd_abi::headers::udp::HEADER_LEN;

view! {
    /// View over a datagram.
    pub struct Datagram: HEADER_LEN;
}

impl<T: AsRef<[u8]>> Datagram<T> {
    /// Source port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SOURCE_PORT)
    }

    /// Destination port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DESTINATION_PORT)
    }

    /// Length of header and payload in bytes, from the header.
    #[must_use]
    pub fn length(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::LENGTH)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Datagram<T> {
    /// Writes the whole header over a payload that fills the rest of the buffer, with the checksum over both.
    /// `pseudo_header` is the sum over addresses, protocol and `length` ([`xdnsd_abi::checksum::pseudo_header`]).
    pub fn fill(
        &mut self,
        source_port: u16,
        destination_port: u16,
        length: u16,
        pseudo_header: Sum,
    ) {
        let datagram = self.buffer.as_mut();
        write_u16(datagram, field::SOURCE_PORT, source_port);
        write_u16(datagram, field::DESTINATION_PORT, destination_port);
        write_u16(datagram, field::LENGTH, length);
        write_u16(datagram, field::CHECKSUM, 0);
        let checksum = pseudo_header.add_bytes(datagram).finish_udp();
        write_u16(datagram, field::CHECKSUM, checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::QUERY_IPV4;
    use crate::wire::Truncated;
    use xdnsd_abi::checksum::pseudo_header;

    #[test]
    fn deconstruct() {
        let datagram = Datagram::new_checked(&QUERY_IPV4[34..]).expect("a datagram");
        assert_eq!(
            (datagram.source_port(), datagram.destination_port()),
            (59_820, 53)
        );
        assert_eq!(datagram.length(), 48);
    }

    #[test]
    fn construct() {
        let mut bytes = QUERY_IPV4[34..].to_vec();
        bytes[..HEADER_LEN].fill(0xa5);
        let sum = pseudo_header(&[192, 0, 2, 77], &[192, 0, 2, 1], 48);
        Datagram::new_unchecked(&mut bytes).fill(59_820, 53, 48, sum);
        assert_eq!(bytes, QUERY_IPV4[34..]);
    }

    #[test]
    fn too_short() {
        for len in 0..HEADER_LEN {
            assert_eq!(
                Datagram::new_checked(&QUERY_IPV4[34..][..len]).err(),
                Some(Truncated)
            );
        }
    }
}
