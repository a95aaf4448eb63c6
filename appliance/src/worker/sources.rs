//! Sources of datagrams that are never answered: answers to them would come back as queries, or go to many hosts.

use std::net::SocketAddr;

use xdnsd_core::policy::Policy;

use super::listener::ListenerTable;

/// Addresses that get no answer, besides the ports that the policy names.
#[derive(Debug)]
pub struct Sources {
    /// Addresses that the worker listens on.
    own: ListenerTable<SocketAddr>,
}

impl Sources {
    /// For a worker without listeners yet; `count` addresses are expected at the start.
    pub fn new(count: usize) -> Self {
        Self {
            own: ListenerTable::new(count),
        }
    }

    /// The listener at `place` is closed.
    pub fn remove(&mut self, place: u16) {
        self.own.remove(place);
    }

    /// A listener on `own` is opened.
    pub fn put(&mut self, place: u16, own: SocketAddr) {
        self.own.put(place, own);
    }

    /// True if a query that the kernel delivered may be answered. Processes of this machine may ask from any port that we do not
    /// listen on; the kernel drops packets from the wire with a source address of ours.
    pub fn may_answer(&self, policy: &Policy<'_>, client: SocketAddr) -> bool {
        let is_own = |own: &SocketAddr| own.ip() == client.ip() && own.port() == client.port();
        !policy.is_silent_port(client.port()) && !self.own.iter().any(is_own)
    }
}

/// True if a query from the wire may be answered. A source from there that is an address of ours, or a broadcast address, is
/// forged. The kernel drops most of these; AF_XDP receives before it does.
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
