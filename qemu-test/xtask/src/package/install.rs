//! `cargo xtask package --install`: README's way from a bare Debian to a serving LAN, carried out.
//!
//! ```text
//!   client                   router: a bare Debian            upstream
//!  ┌─────────────┐          ┌──────────────────────┐         ┌──────────────────────┐
//!  │ udhcpc      │          │ systemd, apt         │         │ 9.9.9.9, … :53       │
//!  │ dig, curl   ├── eth0 ──┤ lan0            wan0 ├─────────┤ lists.example :80    │
//!  │             │          │ dnsmasq, xdnsd       │         │                      │
//!  └─────────────┘          └──────────────────────┘         └──────────────────────┘
//! ```
//! The commands are read out of README, so that they cannot say anything else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::machine::Machine;
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, Lab, Spec, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::process::{Process, output_of};
use xdnsd_lab::scripted::{A, Asked, Record, Rule, Upstream};
use xdnsd_lab::wait::wait_until;

/// Heading in README.
const HEADING: &str = "### Five minutes from a bare Debian";
/// What it promises.
const LIMIT: Duration = Duration::from_secs(300);
/// Time for an answer to become right.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time for the service manager to end a server that is stopped, and to start it again: WatchdogSec, RestartSec, and some.
const WATCHDOG_MAX: Duration = Duration::from_secs(60);
/// The router by README, and its status page.
const ROUTER: &str = "192.168.1.1";
const PAGE: &str = "http://192.168.1.1:9153";
/// Servers that config/home-router.toml asks.
const SERVERS: [&str; 3] = ["9.9.9.9", "149.112.112.112", "2620:fe::fe"];
/// Content of the blocklist that README fetches.
const LIST: &str = "! a list\nads.example\n";
/// A DHCP client's script that configures the address and writes down what the server said.
const BOUND: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
echo "$ip $dns" > "$0.said"
"#;

/// Installs `package` by README on a bare Debian, and looks from the LAN whether it does what README says.
pub fn try_out(package: &Path, signals: &Signals) -> Result<()> {
    let folder = workspace::logs().join("install");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let home = folder.join("home");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let name = package.file_name().context("a package has a name")?;
    fs::copy(package, home.join(name)).context("copy the package")?;
    let readme = fs::read_to_string(workspace::root().join("README.md")).context("README.md")?;
    fs::write(home.join("README.sh"), commands(&readme)?).context("write the commands")?;

    let lab = Lab::up(&Spec::default())?;
    let _upstream = provider(&lab)?;
    let machine = Machine::boot(&lab.router, &home, &folder.join("machine"), signals)?;
    // As the provider's DHCP has it.
    machine.output(&["sh", "-c", "echo nameserver 9.9.9.9 > /etc/resolv.conf"])?;
    let began = Instant::now();
    let script = machine.command(&["sh", "-eux", "README.sh"])?;
    let mut script = Process::spawn(script, &folder.join("README.log"))?;
    let status = script.wait_exit(LIMIT)?;
    ensure!(
        status.success(),
        "README.sh: {status}\n{}\n{}",
        script.log(),
        log(&machine)
    );
    let lan = Client {
        lab: &lab,
        folder: &folder,
    };
    let served = lan.is_served();
    served.with_context(|| format!("the router's log:\n{}", log(&machine)))?;
    let taken = began.elapsed().as_secs();
    warns_by_priority(&machine)?;
    println!(
        "from a bare Debian to a serving LAN: {taken} s of {} s, without downloads",
        LIMIT.as_secs()
    );
    is_kept_alive(&machine, &lan)
}

/// The shell commands below [`HEADING`].
fn commands(readme: &str) -> Result<String> {
    let (_, chapter) = readme
        .split_once(HEADING)
        .context("README has the chapter")?;
    // A line with one `#` is a comment of the shell.
    let chapter = chapter.split("\n##").next().unwrap_or_default();
    let blocks = chapter.split("\n```sh\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split_once("\n```"));
    let commands: Vec<_> = blocks.map(|(block, _)| block).collect();
    ensure!(!commands.is_empty(), "{HEADING}: no commands");
    Ok(commands.join("\n") + "\n")
}

/// The world outside: the example's servers, and a blocklist over HTTP. Takes away what a lab gives to its LAN.
fn provider(lab: &Lab) -> Result<Upstream> {
    lab.router.ip(&format!(
        "address flush dev {LAN}\nroute add default via {UPSTREAM_V4} dev {WAN}\nroute add ::/0 via {UPSTREAM_V6} dev {WAN}\n"
    ))?;
    lab.client
        .ip(&format!("address flush dev {HOST_INTERFACE}\n"))?;
    let mut upstream = Upstream::new(Rule::answer(answer));
    for server in SERVERS {
        let address: IpAddr = server.parse()?;
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        lab.upstream.ip(&format!(
            "address add {server} dev {HOST_INTERFACE}{nodad}\n"
        ))?;
        lab.upstream
            .run(|| upstream.serve(SocketAddr::new(address, 53)))?;
    }
    let listener = lab.upstream.run(|| TcpListener::bind((UPSTREAM_V4, 80)));
    let listener = listener.context("listen for HTTP")?;
    thread::spawn(move || serve_list(&listener));
    Ok(upstream)
}

/// Addresses of names outside.
fn answer(asked: &Asked) -> Vec<u8> {
    let address = match asked.name().to_ascii_lowercase().as_str() {
        "lists.example." => UPSTREAM_V4,
        "www.example." => Ipv4Addr::new(192, 0, 2, 1),
        "ads.example." => Ipv4Addr::new(192, 0, 2, 66),
        _ => return asked.response(&[]),
    };
    let record = Record {
        kind: A,
        ttl_secs: 300,
        data: address.octets().to_vec(),
    };
    let is_address = asked.kind() == A;
    asked.response(if is_address {
        std::slice::from_ref(&record)
    } else {
        &[]
    })
}

/// Answers each request with the list, as long as this program runs.
fn serve_list(listener: &TcpListener) {
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", LIST.len());
    for mut client in listener.incoming().flatten() {
        // A request is shorter, and comes at once.
        let _ = client.read(&mut [0; 2048]);
        let _ = client.write_all((head.clone() + LIST).as_bytes());
    }
}

/// A machine of the LAN.
struct Client<'a> {
    lab: &'a Lab,
    folder: &'a Path,
}

impl Client<'_> {
    /// A lease and its name, a name from outside, a blocked one, and the page that shows it.
    fn is_served(&self) -> Result<()> {
        let address = self.lease("laptop")?;
        self.wait_for("laptop.lan", &address)?;
        self.wait_for("laptop", &address)?;
        self.wait_for("www.example", "192.0.2.1")?;
        let blocked = self.dig(&["ads.example"])?;
        ensure!(blocked.contains("NXDOMAIN"), "ads.example: {blocked}");
        let page = self.get("/")?;
        ensure!(page.contains("<title>xdnsd</title>"), "{page}");
        let mut data = String::new();
        let shown = wait_until("the page shows the blocked name", PATIENCE, || {
            let _ = self.dig(&["ads.example"]);
            data = self
                .get("/data.json")
                .unwrap_or_else(|error| format!("{error:#}"));
            data.contains("ads.example. A") && data.contains(&address)
        });
        shown.with_context(|| data)
    }

    /// Takes a lease under this name, and the name server that the lease says.
    fn lease(&self, name: &str) -> Result<String> {
        let script = self.folder.join("bound");
        fs::write(&script, BOUND).context("write the client's script")?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let mut udhcpc = self.lab.client.command("udhcpc");
        udhcpc.args([
            "-i",
            HOST_INTERFACE,
            "-f",
            "-q",
            "-n",
            "-t",
            "10",
            "-T",
            "1",
        ]);
        udhcpc.args(["-x", &format!("hostname:{name}"), "-s"]);
        output_of(udhcpc.arg(&script))?;
        let said = fs::read_to_string(script.with_extension("said")).context("a lease")?;
        let (address, servers) = said.trim().split_once(' ').context("a name server")?;
        ensure!(servers == ROUTER, "name servers of the lease: {servers}");
        Ok(address.to_owned())
    }

    fn dig(&self, words: &[&str]) -> Result<String> {
        let mut dig = self.lab.client.command("dig");
        dig.arg(format!("@{ROUTER}")).args(["+tries=1", "+time=2"]);
        output_of(dig.args(words))
    }

    /// Waits until the name has the address.
    fn wait_for(&self, name: &str, address: &str) -> Result<()> {
        let mut said = String::new();
        let waited = wait_until("a name has its address", PATIENCE, || {
            let answer = self.dig(&["+short", name]);
            said = answer.unwrap_or_else(|error| format!("{error:#}"));
            said.trim() == address
        });
        waited.with_context(|| format!("{name} is not {address}, but: {said}"))
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut curl = self.lab.client.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
        output_of(curl.arg(format!("{PAGE}{path}")))
    }
}

/// Nothing of what README says is a warning, and what is one has that priority in the journal.
fn warns_by_priority(machine: &Machine) -> Result<()> {
    let warnings = || {
        let words = ["journalctl", "--no-pager", "--quiet", "--output=cat"];
        machine.output(&[&words[..], &["--priority=warning", "--unit=xdnsd*"]].concat())
    };
    let said = warnings()?;
    ensure!(said.is_empty(), "{said}");
    let list = "/var/lib/xdnsd/block.txt";
    machine.output(&["mv", list, "kept"])?;
    wait_until("a lost list is a warning", PATIENCE, || {
        warnings().is_ok_and(|said| said.contains(list))
    })?;
    machine.output(&["mv", "kept", list]).map(drop)
}

/// The service manager knows when it serves, and starts a server that stands still again.
fn is_kept_alive(machine: &Machine, lan: &Client<'_>) -> Result<()> {
    let show = |what: &str| {
        let property = format!("--property={what}");
        let said = machine.output(&["systemctl", "show", "--value", &property, "xdnsd"])?;
        Ok::<_, anyhow::Error>(said.trim().to_owned())
    };
    ensure!(show("StatusText")? == "ready", "{}", log(machine));
    ensure!(show("NRestarts")? == "0", "{}", log(machine));
    machine.output(&["systemctl", "is-active", "dnsmasq", "xdnsd-web"])?;
    let reloaded = machine.output(&["sh", "-c", "systemctl reload xdnsd && xdnsd reload"]);
    reloaded.with_context(|| log(machine))?;
    machine.output(&["kill", "-STOP", &show("MainPID")?])?;
    wait_until("it is started again", WATCHDOG_MAX, || {
        show("NRestarts").is_ok_and(|restarts| restarts == "1")
    })?;
    lan.wait_for("www.example", "192.0.2.1")
}

/// Log of the server on the machine.
fn log(machine: &Machine) -> String {
    let words = [
        "journalctl",
        "--no-pager",
        "--unit=xdnsd*",
        "--unit=dnsmasq",
    ];
    machine
        .output(&words)
        .unwrap_or_else(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::{HEADING, commands};

    #[test]
    fn commands_are_those_of_the_chapter() {
        let readme = format!(
            "# x\n```sh\nbefore\n```\n{HEADING}\n\nText.\n\n```sh\none\ntwo <<END\n# no heading\nEND\n```\n\n```sh\nthree\n```\n\n\
             ### Next\n\n```sh\nbehind\n```\n"
        );
        let found = commands(&readme).expect("commands");
        assert_eq!(found, "one\ntwo <<END\n# no heading\nEND\nthree\n");
        assert!(commands("# x\n```sh\nbefore\n```\n").is_err());
    }

    #[test]
    fn readme_has_them() {
        let found = commands(include_str!("../../../../README.md")).expect("commands");
        for word in ["apt", "dnsmasq", "xdnsd check", "systemctl enable"] {
            assert!(found.contains(word), "{word}: {found}");
        }
    }
}
