//! Datagrams whose answers would come back as queries, or go to many.

use std::net::SocketAddr;

use xdnsd_core::policy::Policy;

use super::listener::Places;

/// Where no answer goes to, besides the ports that policy names.
#[derive(Debug)]
pub struct Sources {
    /// Where we listen.
    own: Places<SocketAddr>,
}

impl Sources {
    /// Of a worker that listens nowhere yet, and at `count` addresses from the start.
    pub fn new(count: usize) -> Self {
        Self {
            own: Places::new(count),
        }
    }

    /// The worker does not listen there any more.
    pub fn remove(&mut self, place: u16) {
        self.own.remove(place);
    }

    /// The worker listens at `own`.
    pub fn put(&mut self, place: u16, own: SocketAddr) {
        self.own.put(place, own);
    }

    /// Whether a query that the kernel delivered is answered. Processes of this machine may ask from any port that we do
    /// not listen on; from the wire the kernel delivers nothing that names an address of ours.
    pub fn may_answer(&self, policy: &Policy<'_>, client: SocketAddr) -> bool {
        let is_own = |own: &SocketAddr| own.ip() == client.ip() && own.port() == client.port();
        !policy.is_silent_port(client.port()) && !self.own.iter().any(is_own)
    }
}

/// Whether a query from the wire is answered. What comes from there and names an address of ours, or a broadcast address,
/// is forged. The kernel drops most of it; AF_XDP stands before that.
pub fn may_answer_frame(policy: &Policy<'_>, client: SocketAddr) -> bool {
    !policy.is_silent_port(client.port()) && !policy.is_martian(client.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_no_answer() {
        let mut sources = Sources::new(2);
        for (place, own) in ["192.0.2.1:53", "[2001:db8::1]:53"].iter().enumerate() {
            sources.put(place as u16, own.parse().expect("an address"));
        }
        let martian_sources = ["192.0.2.1", "192.0.2.255", "2001:db8::1"]
            .map(|address| address.parse().expect("an address"));
        let policy = Policy {
            reflector_ports: &[7],
            martian_sources: &martian_sources,
            ..Policy::OPEN
        };
        for (client, by_kernel, by_frame) in [
            ("192.0.2.2:53", true, true),
            ("192.0.2.2:4000", true, true),
            ("192.0.2.2:7", false, false),
            ("[2001:db8::2]:7", false, false),
            ("192.0.2.2:0", false, false),
            ("192.0.2.1:53", false, false),
            ("[2001:db8::1]:53", false, false),
            ("192.0.2.1:4000", true, false),
            ("[2001:db8::1]:4000", true, false),
            ("192.0.2.255:4000", true, false),
        ] {
            let address = client.parse().expect("an address");
            assert_eq!(sources.may_answer(&policy, address), by_kernel, "{client}");
            let by_wire = may_answer_frame(&policy, address);
            assert_eq!(by_wire, by_frame, "{client}");
        }
    }
}
