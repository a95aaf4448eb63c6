//! A LAN that is a bridge: stations, each in a namespace of its own behind a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use xdnsd_lab::bpf::Link;
use xdnsd_lab::lab::HOST_INTERFACE;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use crate::shield::with_program;
use crate::support::TIMEOUT;
use crate::support::client::{DNS_PORT, RawClient, mac};
use crate::support::frame::UdpFrame;
use crate::support::message::{query, wire};
use crate::support::metrics::Metric;
use crate::support::scene::{Scene, Setup};

/// The bridge, which has the addresses.
pub const BRIDGE: &str = "br9";
pub const BRIDGE_V4: Ipv4Addr = Ipv4Addr::new(10, 56, 0, 1);
pub const BRIDGE_V6: Ipv6Addr = Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 1);

/// Its own MAC address: else it would be the lowest of its ports', and change with them.
const BRIDGE_MAC: &str = "02:00:00:00:56:01";

/// A setup that serves only the bridge, so that its ports have all workers.
pub fn setup() -> Setup {
    let section = format!("[[interface]]\nname = \"{BRIDGE}\"\n");
    Setup::default().xdp("off").sections(&section)
}

/// Metric: whether a port is served by its program, and if not, why not.
#[derive(Debug)]
pub struct Port<'p>(pub &'p str, pub &'static str);

impl Metric for Port<'_> {
    fn family(&self) -> String {
        "xdnsd_bridge_port".to_owned()
    }

    fn label(&self) -> String {
        let Self(port, reason) = self;
        match *reason {
            "" => format!("interface=\"{BRIDGE}/{port}\""),
            _ => format!("interface=\"{BRIDGE}/{port}\",reason=\"{reason}\""),
        }
    }
}

/// The bridge of a scene.
pub struct Lan<'s> {
    pub scene: &'s Scene,
    pub stations: Vec<Station>,
}

/// A host behind a port of its own.
pub struct Station {
    pub host: Namespace,
    pub port: String,
    pub client: RawClient,
    pub addresses: [IpAddr; 2],
    /// On a veth pair frames that XDP sends arrive only if there is a program at this end as well.
    _program: Link,
}

impl<'s> Lan<'s> {
    /// Makes the bridge with this number of ports, and waits until each is served. `knobs` are options of the bridge.
    pub fn make(scene: &'s Scene, ports: u8, knobs: &str) -> Result<Self> {
        scene.lab.router.ip(&format!(
            "link add name {BRIDGE} address {BRIDGE_MAC} type bridge {knobs}
             link set {BRIDGE} up
             address add {BRIDGE_V4}/24 dev {BRIDGE}
             address add {BRIDGE_V6}/64 dev {BRIDGE} nodad\n"
        ))?;
        let mut lan = Self {
            scene,
            stations: Vec::new(),
        };
        for number in 1..=ports {
            let station = lan.connect(number)?;
            lan.stations.push(station);
        }
        for station in &lan.stations {
            lan.wait_port(&station.port, "")?;
        }
        Ok(lan)
    }

    /// Makes a station behind a new port.
    pub fn connect(&self, number: u8) -> Result<Station> {
        let host = Namespace::unnamed()?;
        for scope in ["all", "default"] {
            let folder = format!("/proc/sys/net/ipv6/conf/{scope}");
            host.write(&format!("{folder}/disable_ipv6"), "0")?;
        }
        let router = &self.scene.lab.router;
        let port = format!("p{number}");
        let v4 = Ipv4Addr::new(10, 56, 0, 10 + number);
        let v6 = Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 10 + u16::from(number));
        router.ip(&format!(
            "link add name {port} type veth peer name {HOST_INTERFACE} netns {}\n",
            host.path()
        ))?;
        for (namespace, interface) in [(router, port.as_str()), (&host, HOST_INTERFACE)] {
            namespace.output(&["ethtool", "-K", interface, "tx", "off"])?;
        }
        host.ip(&format!(
            "link set {HOST_INTERFACE} up
             address add {v4}/24 dev {HOST_INTERFACE}
             address add {v6}/64 dev {HOST_INTERFACE} nodad\n"
        ))?;
        let program = with_program(&host)?;
        router.ip(&format!(
            "link set {port} master {BRIDGE}\nlink set {port} up\n"
        ))?;
        let addresses = [v4.into(), v6.into()];
        let client = RawClient::open_at(&host, addresses, mac(router, BRIDGE)?)?;
        Ok(Station {
            host,
            port,
            client,
            addresses,
            _program: program,
        })
    }

    /// Waits until the port is served by its program, or is not for this reason.
    pub fn wait_port(&self, port: &str, reason: &'static str) -> Result<()> {
        let expected = Some(u64::from(reason.is_empty()));
        wait_until(&format!("{port}: {reason:?}"), TIMEOUT, || {
            let metrics = self.scene.daemon.metrics();
            metrics.is_ok_and(|metrics| metrics.get(&Port(port, reason)) == expected)
        })
    }

    /// Runs lines of `ip` in the router.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.scene.lab.router.ip(script)
    }

    /// Sets the port's state of the spanning tree (linux/if_bridge.h).
    pub fn set_state(&self, port: &str, state: u8) -> Result<()> {
        let router = &self.scene.lab.router;
        let state = state.to_string();
        let set = router.output(&["bridge", "link", "set", "dev", port, "state", &state]);
        set.map(drop)
    }

    /// Port by which the bridge knows a station; `None` if it does not.
    pub fn known_by(&self, station: [u8; 6]) -> Result<Option<String>> {
        let octets = station.map(|octet| format!("{octet:02x}")).join(":");
        let router = &self.scene.lab.router;
        let shown = router.output(&["bridge", "fdb", "show", "br", BRIDGE])?;
        let line = shown.lines().find(|line| line.starts_with(&octets));
        line.map(|line| {
            let mut words = line.split(' ').skip_while(|word| *word != "dev");
            Ok(words.nth(1).context("a device")?.to_owned())
        })
        .transpose()
    }

    /// Value of this metric in the scene.
    pub fn count(&self, metric: &dyn Metric) -> Result<u64> {
        Ok(self.scene.daemon.metrics()?.get(metric).unwrap_or(0))
    }
}

impl Station {
    /// A query for a name that needs no upstream, over each family.
    pub fn queries(&self) -> Result<[UdpFrame; 2]> {
        let message = wire(&query("localhost.", RecordType::A));
        let frame = |address: IpAddr| {
            let to = SocketAddr::new(address, DNS_PORT);
            self.client.frame(to, &message)
        };
        Ok([frame(BRIDGE_V4.into())?, frame(BRIDGE_V6.into())?])
    }

    /// Asks over both families.
    pub fn ask(&self) -> Result<()> {
        for frame in self.queries()? {
            self.client.exchange(&frame)?;
        }
        Ok(())
    }

    /// Asserts that a query over IPv4 is not answered.
    pub fn ask_in_vain(&self, from: Option<[u8; 6]>) -> Result<()> {
        let [mut frame, _] = self.queries()?;
        frame.source_mac = from.unwrap_or(frame.source_mac);
        self.client.send(&frame.to_bytes())?;
        ensure!(self.client.gets_nothing(&frame)?, "{}: answered", self.port);
        Ok(())
    }
}
