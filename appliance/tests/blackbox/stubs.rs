//! Real stub resolvers as clients: glibc's, musl's and systemd-resolved ask for each kind of local name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use xdnsd_lab::lab::{LAN_V4, LAN_V6, Lab};
use xdnsd_lab::process::{End, Process, output_of};
use xdnsd_lab::programs::find_unpacked;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::run::only;
use crate::support::scene::{Directory, Scene, Setup, scene};

const HOUSE: &str = r#"
[local]
zones = ["lan"]
search = ["lan"]
forward_plain_names = false
lease_ttl = 1
records = [
    "router.lan A 10.53.0.1",
    "router.lan AAAA fd53::1",
    "four.lan A 192.168.1.4",
    "six.lan AAAA fd00::6",
    "WWW.lan CNAME Four.LAN",
    "*.dev.lan A 192.168.1.80",
    "text.lan TXT hello",
]
hosts = ["{directory}/hosts"]
dnsmasq_leases = ["{directory}/leases"]
"#;
const HOSTS: &str = "192.168.1.5 nas\nfd00::5 nas\n";
const LEASES: &str = "0 02:00:00:00:00:07 192.168.1.7 Phone *\n0 02:00:00:00:00:08 192.168.1.8 router *\n\
                      0 02:00:00:00:00:09 192.168.1.9 localhost *\n";

/// Names as a user types them, with the output of `getent ahosts`. Empty: no such name.
const NAMES: &[(&str, &[&str])] = &[
    ("router", &["10.53.0.1", "fd53::1"]),
    ("router.lan", &["10.53.0.1", "fd53::1"]),
    ("router.lan.", &["10.53.0.1", "fd53::1"]),
    ("ROUTER.Lan", &["10.53.0.1", "fd53::1"]),
    ("four", &["192.168.1.4"]),
    ("four.lan", &["192.168.1.4"]),
    ("four.", &["192.168.1.4"]),
    ("six", &["fd00::6"]),
    ("six.lan", &["fd00::6"]),
    ("www", &["192.168.1.4"]),
    ("www.lan", &["192.168.1.4"]),
    ("nas", &["192.168.1.5", "fd00::5"]),
    ("nas.lan", &["192.168.1.5", "fd00::5"]),
    ("phone", &["192.168.1.7"]),
    ("phone.lan", &["192.168.1.7"]),
    ("x.dev.lan", &["192.168.1.80"]),
    ("text.lan", &[]),
    ("nobody", &[]),
    ("nobody.lan", &[]),
    ("nobody.", &[]),
    ("nas.internal", &[]),
    ("printer.local.", &[]),
];

/// The client machine: its files in `/etc`.
struct Client<'s> {
    lab: &'s Lab,
    etc: PathBuf,
    /// The program, with its arguments before the name.
    program: Vec<String>,
}

impl<'s> Client<'s> {
    fn new(lab: &'s Lab, directory: &Path, server: &str, program: &[&str]) -> Result<Self> {
        let etc = directory.join(format!("etc-{}", server.replace(':', "_")));
        fs::create_dir_all(&etc)?;
        let write = |file: &str, text: &str| {
            fs::write(etc.join(file), text).with_context(|| format!("write {file}"))
        };
        write(
            "resolv.conf",
            &format!("nameserver {server}\nsearch lan\noptions timeout:2\n"),
        )?;
        write("nsswitch.conf", "hosts: dns\npasswd: files\ngroup: files\n")?;
        write(
            "passwd",
            "root:x:0:0::/:/bin/sh\nsystemd-resolve:x:998:998::/:/bin/false\n",
        )?;
        write("group", "root:x:0:\nsystemd-resolve:x:998:\n")?;
        write("hosts", "")?;
        let program = program.iter().map(|&word| word.to_owned()).collect();
        Ok(Self { lab, etc, program })
    }

    /// A command on that machine, in a mount namespace of its own.
    fn command(&self, script: &str) -> Command {
        let mut command = self.lab.client.command("unshare");
        let script = format!("mount --bind \"$0\" /etc && {script}");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        command.arg(&self.etc);
        command
    }

    /// Addresses of a name. Empty: the resolver says that there are none.
    fn ahosts(&self, name: &str) -> Result<BTreeSet<String>> {
        let mut command = self.command("exec \"$@\"");
        command.args(&self.program).arg(name).stdin(Stdio::null());
        let output = command
            .output()
            .context("run unshare (package util-linux)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(0) || output.status.code() == Some(2),
            "{name}: {said}"
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let addresses = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(addresses.map(str::to_owned).collect())
    }

    /// Asks for all names. systemd-resolved asks no server for a name of one label, with or without a final dot.
    fn check(&self, asks_for_labels: bool) -> Result<()> {
        let is_label = |name: &str| name.find('.') == Some(name.len() - 1);
        let asked = NAMES.iter();
        for (name, expected) in asked.filter(|(name, _)| asks_for_labels || !is_label(name)) {
            let expected: BTreeSet<String> = expected.iter().map(|&text| text.into()).collect();
            let found = self.ahosts(name)?;
            ensure!(
                found == expected,
                "{name}: {found:?} in place of {expected:?}"
            );
        }
        Ok(())
    }
}

/// Setup of a home network, with its files in `folder`.
fn house(folder: &Directory) -> Result<Setup> {
    fs::write(folder.path().join("hosts"), HOSTS)?;
    fs::write(folder.path().join("leases"), LEASES)?;
    let sections = HOUSE.replace("{directory}", &folder.path().display().to_string());
    Ok(Setup::default().sections(&sections))
}

fn is_nothing_asked_outside(scene: &Scene) -> Result<()> {
    let asked = scene.upstream.asked_all();
    let asked: Vec<String> = asked.iter().map(|asked| asked.name()).collect();
    ensure!(asked.is_empty(), "asked outside: {asked:?}");
    Ok(())
}

#[test]
fn glibc_finds_every_local_name() -> Result<()> {
    only!(IN_DATAGRAMS, "resolvers that ask over UDP by themselves");
    let folder = Directory::new()?;
    let scene = scene!(house(&folder)?);
    for server in [LAN_V4.to_string(), LAN_V6.to_string()] {
        let client = Client::new(&scene.lab, folder.path(), &server, &["getent", "ahosts"])?;
        client
            .check(true)
            .with_context(|| format!("glibc by {server}"))?;
    }
    is_nothing_asked_outside(&scene)
}

#[test]
fn musl_finds_every_local_name() -> Result<()> {
    only!(IN_DATAGRAMS, "resolvers that ask over UDP by themselves");
    let folder = Directory::new()?;
    let scene = scene!(house(&folder)?);
    let program = folder.path().join("ahosts").display().to_string();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/blackbox/support/ahosts.c"
    );
    let mut compiler = Command::new("musl-gcc");
    compiler.args(["-static", "-o", &program, source]);
    output_of(&mut compiler).context("compile for musl (package musl-tools)")?;
    for server in [LAN_V4.to_string(), LAN_V6.to_string()] {
        let client = Client::new(&scene.lab, folder.path(), &server, &[&program])?;
        client
            .check(true)
            .with_context(|| format!("musl by {server}"))?;
    }
    is_nothing_asked_outside(&scene)
}

/// It caches denials for the TTL of their SOA: a new machine still has its name at once.
#[test]
fn systemd_resolved_finds_every_local_name_and_new_ones_at_once() -> Result<()> {
    only!(IN_DATAGRAMS, "resolvers that ask over UDP by themselves");
    let folder = Directory::new()?;
    let scene = scene!(house(&folder)?);
    let client = Client::new(
        &scene.lab,
        folder.path(),
        "127.0.0.53",
        &["getent", "ahosts"],
    )?;
    let mut resolved = start_resolved(&client, folder.path())?;
    let is_up = || {
        client
            .ahosts("router.lan")
            .is_ok_and(|found| !found.is_empty())
    };
    resolved.wait_until("it answers", TIMEOUT, is_up)?;
    client.check(false).with_context(|| resolved.log())?;
    for name in ["new", "new.lan"] {
        ensure!(client.ahosts(name)?.is_empty(), "{name} is nobody's yet");
    }
    let more = format!("{LEASES}0 02:00:00:00:00:10 192.168.1.10 new *\n");
    fs::write(folder.path().join("leases"), more)?;
    let has_come = |name: &str| {
        client
            .ahosts(name)
            .is_ok_and(|found| found.contains("192.168.1.10"))
    };
    for name in ["new.lan", "new"] {
        wait_until(&format!("{name} has come"), TIMEOUT, || has_come(name))?;
    }
    is_nothing_asked_outside(&scene)
}

fn start_resolved(client: &Client<'_>, directory: &Path) -> Result<Process> {
    let program = find_unpacked("systemd-resolved", "lib/systemd/systemd-resolved");
    let program = program.context("systemd-resolved: `cargo xtask setup lab` unpacks it")?;
    fs::create_dir_all(client.etc.join("systemd"))?;
    let config = format!(
        "[Resolve]\nDNS={LAN_V4}\nFallbackDNS=\nDNSSEC=no\nDNSOverTLS=no\nLLMNR=no\nMulticastDNS=no\nReadEtcHosts=no\n"
    );
    fs::write(client.etc.join("systemd/resolved.conf"), config)?;
    fs::write(
        client.etc.join("machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )?;
    let mut command = client.command(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/resolve && chown 998:998 /run/systemd/resolve && exec \"$1\"",
    );
    command.arg(program);
    Process::spawn_with_end(command, &directory.join("resolved.log"), End::Kill)
}
