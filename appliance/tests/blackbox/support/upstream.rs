//! The scripted upstream in the lab, with messages as the independent DNS implementation reads them.
//!
//! ```text
//!  upstream host: eth0  10.54.0.2  fd54::2   asked: UDP and TCP port 53 of each address
//!                       10.54.0.3  fd54::3   asked, where a test wants a second server
//!                       10.54.0.66 fd54::66  never asked: forged answers come from here
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use xdnsd_lab::lab::{HOST_INTERFACE, Lab, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::scripted;

use super::script::{Rule, read};

/// A second server.
pub const SECOND_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 54, 0, 3));
/// Address that is never asked.
const FORGER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 54, 0, 66));
const FORGER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd54, 0, 0, 0, 0, 0, 0, 0x66));
const PORT: u16 = 53;

/// One question as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub server: IpAddr,
    pub from: SocketAddr,
    pub is_tcp: bool,
    pub query: Message,
}

impl Asked {
    fn of(asked: &scripted::Asked) -> Self {
        Self {
            at: asked.at,
            server: asked.server.ip(),
            from: asked.from,
            is_tcp: asked.is_tcp,
            query: read(asked),
        }
    }

    /// QNAME in its letter case.
    pub fn name(&self) -> String {
        let question = self.query.queries().first();
        question.map_or_else(String::new, |question| question.name().to_ascii())
    }
}

/// The running server. Stopped on drop.
#[derive(Debug)]
pub struct Upstream(scripted::Upstream);

impl Upstream {
    /// Serves in the lab's upstream host: at its own addresses and at [`SECOND_V4`]. A name without a rule is refused.
    pub fn start(lab: &Lab) -> Result<Self> {
        lab.upstream.ip(&format!(
            "address add {SECOND_V4}/24 dev {HOST_INTERFACE}
             address add {FORGER_V4}/24 dev {HOST_INTERFACE}
             address add {FORGER_V6}/64 dev {HOST_INTERFACE} nodad\n"
        ))?;
        let refused = Rule::code(ResponseCode::Refused);
        let mut upstream = Self(scripted::Upstream::new(refused.into()));
        for address in [UPSTREAM_V4.into(), UPSTREAM_V6.into(), SECOND_V4] {
            upstream.serve(lab, address)?;
        }
        Ok(upstream)
    }

    /// Adds an address to the upstream host and serves there.
    pub fn serve_also(&mut self, lab: &Lab, address: IpAddr) -> Result<()> {
        let len = if address.is_ipv4() { "32" } else { "128" };
        let flags = if address.is_ipv4() { "" } else { "nodad" };
        lab.upstream.ip(&format!(
            "address add {address}/{len} dev {HOST_INTERFACE} {flags}\n"
        ))?;
        self.serve(lab, address)
    }

    fn serve(&mut self, lab: &Lab, address: IpAddr) -> Result<()> {
        let forger = if address.is_ipv4() {
            FORGER_V4
        } else {
            FORGER_V6
        };
        let [address, forger] = [address, forger].map(|address| SocketAddr::new(address, PORT));
        let serve = || self.0.serve_with_forger(address, forger);
        let started = lab.upstream.run(serve);
        started.with_context(|| format!("serve at {address}"))
    }

    /// Sets the reaction to questions for `name`. A leading `*.` covers every name below.
    pub fn on(&self, name: &str, rule: Rule) {
        self.0.on(name, rule);
    }

    /// Sets it for one address only.
    pub fn on_server(&self, server: impl Into<IpAddr>, name: &str, rule: Rule) {
        self.0.on_server(server.into(), name, rule);
    }

    /// The questions for `name` so far.
    pub fn asked(&self, name: &str) -> Vec<Asked> {
        let asked = self.asked_all().into_iter();
        let of_name = asked.filter(|asked| asked.name().eq_ignore_ascii_case(name));
        of_name.collect()
    }

    /// All questions so far.
    pub fn asked_all(&self) -> Vec<Asked> {
        self.0.asked().iter().map(Asked::of).collect()
    }
}
