//! What the machine's own tools show of a flood of SYNs: tcpdump at both ends of the link, and ss. Without cookies the same tools
//! show the same flood, so what they do not show with them is not there.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{CLIENT_V4, CLIENT_V6, HOST_INTERFACE, LAN};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::Process;

use super::{always, ask_over_tcp, forged, prepare, setup, wait_state, with_program};
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::run::only;
use crate::support::scene::{Scene, scene};

const FORGED: u32 = 400;
const BURST: usize = 50;

/// tcpdump of segments to and from port 53, one line for each.
struct Capture(Process, PathBuf);

impl Capture {
    fn begin(scene: &Scene, host: &Namespace, interface: &str, direction: &str) -> Result<Self> {
        let mut command = host.command("tcpdump");
        // Short ones: of the longest packets its buffer holds no more than 16.
        command.args(["-s", "128", "-nn", "-l", "--immediate-mode", "-Z", "root"]);
        command.args(["-i", interface, "-Q", direction, "tcp", "port", "53"]);
        let log = scene.directory.path().join(format!("{interface}.tcpdump"));
        let mut process = Process::spawn(command, &log)?;
        process.wait_for_log("listening on", TIMEOUT)?;
        Ok(Self(process, log))
    }

    /// How many of them have these flags.
    fn count(&self, flags: &str) -> usize {
        count(&self.0.log(), flags)
    }

    /// Waits until so many with these flags are shown.
    fn wait_count(&mut self, flags: &str, most: usize) -> Result<()> {
        let what = format!("{most} segments with flags {flags}");
        let log = self.1.clone();
        let shown = || fs::read_to_string(&log).is_ok_and(|log| count(&log, flags) >= most);
        self.0.wait_until(&what, TIMEOUT, shown)
    }
}

fn count(log: &str, flags: &str) -> usize {
    let flags = format!(" Flags [{flags}],");
    log.lines().filter(|line| line.contains(&flags)).count()
}

/// What there is after a flood.
struct Seen {
    /// SYNs that came to the router's stack, the real clients' among them.
    syns: usize,
    /// The router's TCP sockets before and after it.
    sockets: [String; 2],
    /// Connection requests that it keeps.
    requests: usize,
}

/// Floods the router until the client's side has seen an answer to each SYN, and opens a connection.
fn flood(scene: &Scene) -> Result<Seen> {
    let router = &scene.lab.router;
    // The kernel answers nobody to whom it has no route.
    router.ip(&format!(
        "route add 100.64.0.0/10 via {CLIENT_V4} dev {LAN}\nroute add 2001:db8::/32 via {CLIENT_V6} dev {LAN}\n"
    ))?;
    let mut at_router = Capture::begin(scene, router, LAN, "inout")?;
    let mut at_client = Capture::begin(scene, &scene.lab.client, HOST_INTERFACE, "in")?;
    let client = scene.raw_client()?;
    let sockets = || router.output(&["ss", "-tanH"]);
    let before = sockets()?;
    for number in 0..FORGED {
        client.send(&forged(&client, number)?)?;
        // No more than the link has room for.
        let sent = number as usize + 1;
        if sent.is_multiple_of(BURST) {
            at_client.wait_count("S.", sent)?;
        }
    }
    let after = sockets()?;
    let requests = router.output(&["ss", "-tnH", "state", "syn-recv"])?;
    for (family, address) in [
        (Family::V4, CLIENT_V4.to_string()),
        (Family::V6, CLIENT_V6.to_string()),
    ] {
        let _open = ask_over_tcp(scene, family)?;
        // What came before it has been shown by then.
        at_router.0.wait_for_log(&address, TIMEOUT)?;
    }
    Ok(Seen {
        syns: at_router.count("S"),
        sockets: [before, after],
        requests: requests.lines().count(),
    })
}

fn seen(scene: &Scene, state: &'static str) -> Result<Seen> {
    prepare(scene);
    wait_state(&scene.daemon, state)?;
    flood(scene)
}

#[test]
fn tcpdump_and_ss_show_nothing_of_a_flood_that_the_program_answers() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    let _program = with_program(&scene.lab.client)?;
    let before = scene.daemon.metrics()?;
    let seen = seen(&scene, "")?;
    assert_eq!(seen.syns, 0, "SYNs came to the stack");
    assert_eq!(seen.requests, 0, "connection requests are kept");
    let [before_it, after_it] = seen.sockets;
    assert_eq!(before_it, after_it, "sockets");
    let answered = u64::from(FORGED) + 2;
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, answered)])
}

#[test]
fn without_cookies_they_show_all_of_it() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(setup(""));
    let _program = with_program(&scene.lab.client)?;
    let seen = seen(&scene, "off")?;
    assert!(seen.syns >= FORGED as usize, "{} SYNs", seen.syns);
    assert!(seen.requests > 0, "no connection request is kept");
    let [before_it, after_it] = seen.sockets;
    assert_ne!(before_it, after_it, "no sockets");
    Ok(())
}
