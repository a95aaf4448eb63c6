//! An upstream with one answer: every name has the address 192.0.2.1 for a day.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::scripted::{self, A, Asked, Record, Rule};

use super::pair::Pair;

const DAY_SECS: u32 = 86_400;

/// The server, until it is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    _server: scripted::Upstream,
}

impl Upstream {
    /// Starts it on the server's loopback. It keeps no record, so that it affects the measurement as little as possible.
    pub fn start(pair: &Pair) -> Result<Self> {
        Self::start_at(&pair.server, Ipv4Addr::new(127, 0, 0, 53))
    }

    /// Starts it on port 53 of an address of `host`.
    pub fn start_at(host: &Namespace, address: Ipv4Addr) -> Result<Self> {
        let mut server = scripted::Upstream::without_record(Rule::answer(answer));
        let address = host.run(|| server.serve((address, 53).into()));
        Ok(Self {
            address: address.context("start the upstream")?,
            _server: server,
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer(asked: &Asked) -> Vec<u8> {
    asked.response(&[Record {
        kind: A,
        ttl_secs: DAY_SECS,
        data: vec![192, 0, 2, 1],
    }])
}

#[cfg(test)]
mod tests {
    use super::answer;
    use crate::bench::query::{ANSWER, message};
    use xdnsd_lab::scripted::Asked;

    #[test]
    fn a_response_has_the_question_and_one_answer() {
        let query = message(5, 0x1234);
        let server = "192.0.2.53:53".parse().expect("an address");
        let asked = Asked::over_udp(&query, server, server).expect("the query is whole");
        let response = answer(&asked);
        assert_eq!(response[..4], [0x12, 0x34, 0x81, 0x80]);
        assert_eq!(response[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(response[12..query.len()], query[12..]);
        // The QNAME, A, IN, a day, 192.0.2.1.
        let record = ANSWER;
        assert_eq!(response[query.len()..], record);
        for len in 0..query.len() {
            let cut = Asked::over_udp(&query[..len], server, server);
            assert!(cut.is_none(), "cut at {len}");
        }
    }
}
