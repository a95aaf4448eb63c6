//! A lab with a scripted upstream and a running daemon, for one test.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use xdnsd_lab::bpf::Link;
use xdnsd_lab::lab::{
    CLIENT_V4, CLIENT_V6, HOST_INTERFACE, LAN, LAN_V4, LAN_V6, Lab, Spec, UPSTREAM_V4,
};
use xdnsd_lab::privilege::root_or_skip;

use crate::shield::with_program;

use super::client::{Family, RawClient, UdpClient};
use super::daemon::{self, Daemon};
use super::run::Run;
use super::upstream::Upstream;

/// Requirements of a test.
#[derive(Clone, Debug)]
pub struct Setup {
    pub lab: Spec,
    /// The line `listen` of the `[[interface]]` section.
    pub listen: String,
    /// XDP mode; `None`: that of the [`Run`].
    pub xdp: Option<&'static str>,
    /// More lines of the `[[interface]]` section.
    pub interface: String,
    /// The upstream servers, in order.
    pub servers: Vec<String>,
    /// More sections; `{directory}` is the directory of the test's files.
    pub sections: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            lab: Spec::default(),
            listen: format!("listen = [\"{LAN_V4}\", \"{LAN_V6}\"]"),
            xdp: None,
            interface: String::new(),
            servers: vec![UPSTREAM_V4.to_string()],
            sections: String::new(),
        }
    }
}

impl Setup {
    /// The default for [`Ways`](super::ways::Ways): answers whose records keep their order.
    pub fn three_ways() -> Self {
        Self::default().sections("[cache]\nrotate = false\n")
    }

    /// With source ports towards upstreams by this way, one of [`WAYS`].
    pub fn ports(self, way: &str) -> Self {
        self.sections(&format!("[forward]\nupstream_ports = \"{way}\"\n"))
    }

    /// With this XDP mode.
    pub fn xdp(self, xdp: &'static str) -> Self {
        Self {
            xdp: Some(xdp),
            ..self
        }
    }

    /// Listening on all addresses of the interface.
    pub fn on_all_addresses(self) -> Self {
        let listen = String::new();
        Self { listen, ..self }
    }

    /// With these sections added.
    pub fn sections(self, sections: &str) -> Self {
        let sections = format!("{}\n{sections}", self.sections);
        Self { sections, ..self }
    }

    /// With these servers.
    pub fn servers(self, servers: &[&str]) -> Self {
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        Self { servers, ..self }
    }

    /// In another lab.
    pub fn lab(self, lab: Spec) -> Self {
        Self { lab, ..self }
    }

    /// The config file.
    pub fn config(&self, directory: &Path) -> String {
        let Self {
            listen,
            xdp,
            interface,
            servers,
            sections,
            ..
        } = self;
        let directory = directory.display().to_string();
        let run = Run::this();
        let xdp = xdp.unwrap_or_else(|| run.xdp());
        let mut sections = sections.clone();
        if let Some(way) = run.ports() {
            let value = format!("{way:?}");
            sections = with_line(&sections, "[forward]\n", "upstream_ports", &value);
        }
        if let Some(word) = run.tier0() {
            let value = format!("{word:?}");
            sections = with_line(&sections, "[cache]\n", "tier0", &value);
        }
        if let Some(word) = run.keeper() {
            sections = with_line(&sections, "[security]\n", "keeper", word);
        }
        format!(
            "[[interface]]
name = \"lan0\"
{listen}
xdp = \"{xdp}\"
{interface}
[[upstream]]
servers = {servers:?}
[control]
socket = \"{directory}/{SOCKET}\"
{}",
            sections.replace("{directory}", &directory)
        )
    }
}

/// `sections` with this key below this heading, unless they have it.
fn with_line(sections: &str, heading: &str, key: &str, value: &str) -> String {
    if sections.contains(key) {
        return sections.to_owned();
    }
    let line = format!("{heading}{key} = {value}\n");
    if sections.contains(heading) {
        return sections.replacen(heading, &line, 1);
    }
    format!("{sections}\n{line}")
}

const SOCKET: &str = "sock";

/// The ways to source ports towards upstreams.
pub const WAYS: [&str; 2] = ["sk_lookup", "connected"];

/// A running lab with everything in it. Dropped in the order of its fields.
#[derive(Debug)]
pub struct Scene {
    pub daemon: Daemon,
    pub upstream: Upstream,
    /// Program at the client's end of the link, if hot names are answered.
    _program: Option<Link>,
    pub lab: Lab,
    pub directory: Directory,
}

thread_local! {
    /// Start of the latest scene of this thread's test.
    static SET_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Age of this thread's scene, in seconds.
pub fn age_secs() -> u32 {
    SET_AT.get().map_or(0, |at| at.elapsed().as_secs() as u32)
}

impl Scene {
    /// Makes it; `None` if `test` has to be skipped.
    pub fn set(test: &str, setup: &Setup) -> Result<Option<Self>> {
        if !root_or_skip(test) {
            return Ok(None);
        }
        SET_AT.set(Some(Instant::now()));
        let lab = Lab::up(&setup.lab)?;
        // So the kernel's own answers carry full checksums on the veth pair, too, and can be verified.
        lab.router.output(&["ethtool", "-K", LAN, "tx", "off"])?;
        let run = Run::this();
        let program = run.tier0().map(|_| with_program(&lab.client)).transpose()?;
        let upstream = Upstream::start(&lab)?;
        let directory = Directory::new()?;
        let config = daemon::write(
            directory.path(),
            "config.toml",
            &setup.config(directory.path()),
        )?;
        let daemon = Daemon::start(&lab, &config, &directory.path().join(SOCKET))?;
        Ok(Some(Self {
            daemon,
            upstream,
            _program: program,
            lab,
            directory,
        }))
    }

    /// Deletes the link between client and router, both ends of it.
    pub fn unplug(&self) -> Result<()> {
        self.lab.router.ip(&format!("link delete {LAN}\n"))
    }

    /// Makes it again, with the same names and addresses.
    pub fn plug(&self) -> Result<()> {
        let Lab { client, router, .. } = &self.lab;
        router.ip(&format!(
            "link add name {LAN} numrxqueues 1 numtxqueues 1 type veth peer name {HOST_INTERFACE} numrxqueues 1 numtxqueues 1 netns {}
             link set {LAN} up
             address add {LAN_V4}/24 dev {LAN}
             address add {LAN_V6}/64 dev {LAN} nodad\n",
            client.path()
        ))?;
        client.ip(&format!(
            "link set {HOST_INTERFACE} up
             address add {CLIENT_V4}/24 dev {HOST_INTERFACE}
             address add {CLIENT_V6}/64 dev {HOST_INTERFACE} nodad
             route add default via {LAN_V4}
             route add ::/0 via {LAN_V6}\n"
        ))?;
        for (host, interface) in [(client, HOST_INTERFACE), (router, LAN)] {
            host.output(&["ethtool", "-K", interface, "tx", "off"])?;
        }
        Ok(())
    }

    /// How `ip link` shows the XDP program of the router's interface: `xdp`, `xdpgeneric` or nothing.
    pub fn attached(&self) -> Result<String> {
        let shown = self.lab.router.output(&["ip", "link", "show", LAN])?;
        let word = shown
            .split_whitespace()
            .find(|word| word.starts_with("xdp") && !word.contains(':'));
        Ok(word.unwrap_or("").to_owned())
    }

    /// A client with raw frames.
    pub fn raw_client(&self) -> Result<RawClient> {
        RawClient::open(&self.lab)
    }

    /// A client with a UDP socket.
    pub fn udp_client(&self, family: Family) -> Result<UdpClient> {
        UdpClient::open(&self.lab, family)
    }
}

/// A directory of the test, removed on drop. Its path is short: a UNIX socket's name has 108 bytes.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes a new one.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xdnsd-blackbox-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // An earlier process of this number was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// Sets the scene for the calling test, or ends the test as skipped.
macro_rules! scene {
    ($setup:expr) => {{
        fn here() {}
        let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
        match $crate::support::scene::Scene::set(test, &$setup)? {
            Some(scene) => scene,
            None => return Ok(()),
        }
    }};
}
pub(crate) use scene;
