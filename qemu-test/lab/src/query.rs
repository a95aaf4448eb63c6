//! The plainest query, for clients of a lab that time each answer.

/// A query for the address of `name`, which has no final dot: RD, no EDNS.
#[must_use]
pub fn for_address(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::for_address;
    use crate::scripted::Asked;

    #[test]
    fn a_query_is_whole() {
        let bytes = for_address(0x1234, "k7.known.test");
        let server = "192.0.2.53:53".parse().expect("an address");
        let asked = Asked::over_udp(&bytes, server, server).expect("the query is whole");
        assert_eq!(asked.name(), "k7.known.test.");
        assert_eq!(bytes[..2], [0x12, 0x34]);
    }
}
