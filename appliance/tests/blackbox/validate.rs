//! Validating clients (RFC 4035) behind us: unbound with a trust anchor, and delv. Signed data is secure in any kind of answer;
//! modified data is bogus.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{CLIENT_V4, LAN_V4, LAN_V6, Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::nsd::{Upstream, Zone};
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::process::Process;
use xdnsd_lab::sign::{Denial, Signed, sign};

use crate::support::daemon::{self, Daemon};
use crate::support::run::only;
use crate::support::scene::{Directory, Setup};

/// Port of the validating forwarder, in the client's host.
const VALIDATOR_PORT: u16 = 5300;
/// The signed address of `bogus`; below, the one that is served.
const SIGNED: &str = "192.0.2.66";
const SERVED: &str = "192.0.2.67";
/// Name, type, the response code, and how many records of that type the answer has.
const SECURE: &[(&str, &str, &str, usize)] = &[
    ("", "SOA", "NOERROR", 1),
    ("", "DNSKEY", "NOERROR", 1),
    ("www", "A", "NOERROR", 2),
    ("WWW", "AAAA", "NOERROR", 1),
    ("www", "HTTPS", "NOERROR", 1),
    // An alias, a chain, one without a target.
    ("alias", "A", "NOERROR", 2),
    ("chain", "A", "NOERROR", 2),
    ("dangling", "A", "NXDOMAIN", 0),
    ("alias", "CNAME", "NOERROR", 1),
    // Made from a DNAME: only that is signed.
    ("host.dname", "A", "NOERROR", 1),
    // Not its CNAME: unbound 1.17 and delv 9.18 do not follow that, whichever server they ask.
    // From a wildcard: needs the proof that there is nothing closer.
    ("one.wild", "A", "NOERROR", 1),
    ("two.three.wild", "A", "NOERROR", 1),
    ("to-wild", "A", "NOERROR", 1),
    // Denials: of a type, of a name, of a type of an empty non-terminal and of a wildcard.
    ("www", "MX", "NOERROR", 0),
    ("missing", "A", "NXDOMAIN", 0),
    ("below.missing", "A", "NXDOMAIN", 0),
    ("ent", "A", "NOERROR", 0),
    ("one.wild", "MX", "NOERROR", 0),
    ("sub", "DS", "NOERROR", 0),
    // Longer than a datagram, and longer than a slot of the cache.
    ("medium", "TXT", "NOERROR", 6),
    ("big", "TXT", "NOERROR", 20),
];

/// The lab with a signed zone, and the appliance between the upstream and the client.
struct Stage {
    daemon: Daemon,
    _upstream: Upstream,
    lab: Lab,
    directory: Directory,
    signed: Signed,
}

impl Stage {
    fn set(denial: Denial) -> Result<Self> {
        let (lab, directory) = (Lab::up(&Spec::default())?, Directory::new()?);
        let mut signed = sign(&zone(), denial, directory.path())?;
        ensure!(
            signed.zone.text.contains(SIGNED),
            "the zone has what is changed"
        );
        signed.zone.text = signed.zone.text.replace(SIGNED, SERVED);
        let zones = std::slice::from_ref(&signed.zone);
        let upstream = Upstream::start_with(&lab, directory.path(), zones)?;
        let config = Setup::default().config(directory.path());
        let config = daemon::write(directory.path(), "config.toml", &config)?;
        let daemon = Daemon::start(&lab, &config, &directory.path().join("sock"))?;
        Ok(Self {
            daemon,
            _upstream: upstream,
            lab,
            directory,
            signed,
        })
    }

    /// unbound in the client's host: it validates, and asks only us.
    fn validator(&self) -> Result<Process> {
        let anchor = self.directory.path().join("anchor");
        fs::write(&anchor, &self.signed.key)?;
        let server = format!(
            "    module-config: \"validator iterator\"\n    trust-anchor-file: {anchor:?}\n    \
             trust-anchor-signaling: no\n"
        );
        let site = Site {
            host: &self.lab.client,
            address: SocketAddr::new(CLIENT_V4.into(), VALIDATOR_PORT),
            upstream: LAN_V4.into(),
            directory: self.directory.path(),
        };
        Peer::Unbound { threads: 1 }.start(&site, &server)
    }

    /// Output of dig, asking the validator.
    fn dig(&self, name: &str, kind: &str, more: &[&str]) -> Result<String> {
        let (server, port) = (format!("@{CLIENT_V4}"), VALIDATOR_PORT.to_string());
        let mut words = vec![
            "dig", "-r", &server, "-p", &port, "+adflag", "+tries=1", name, kind,
        ];
        words.extend(more);
        self.lab.client.output(&words)
    }

    /// Output of delv, asking us.
    fn delv(&self, server: IpAddr, name: &str, kind: &str) -> Result<String> {
        let anchors = self.directory.path().join("anchors.conf");
        fs::write(&anchors, delv_anchors(&self.signed)?)?;
        let (server, root) = (
            format!("@{server}"),
            format!("+root={}", self.signed.zone.origin),
        );
        let mut command = self.lab.client.command("delv");
        command
            .arg(&server)
            .arg("-a")
            .arg(&anchors)
            .args([&root, name, kind]);
        // Its status does not show a bogus answer in every version.
        let output = command.output().context("delv (package bind9-dnsutils)")?;
        let printed = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

fn zone() -> Zone {
    let mut text = format!(
        "$ORIGIN signed.test.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n\
         ns A {UPSTREAM_V4}\nwww A 192.0.2.1\nwww A 192.0.2.2\nwww AAAA 2001:db8::1\n\
         www HTTPS 1 . alpn=\"h2\"\nalias CNAME www\nchain CNAME alias\ndangling CNAME missing\n\
         to-wild CNAME some.wild\ndname DNAME tree\nhost.tree A 192.0.2.3\n*.wild A 192.0.2.4\n\
         x.ent A 192.0.2.5\nsub NS ns.sub\nns.sub A 192.0.2.6\nbogus A {SIGNED}\n"
    );
    for (owner, count) in [("medium", 6), ("big", 20)] {
        for number in 0..count {
            text += &format!("{owner} TXT \"{}\"\n", format!("{number:03}-").repeat(25));
        }
    }
    Zone {
        origin: "signed.test.".to_owned(),
        text,
    }
}

/// The zone's key in BIND's syntax.
fn delv_anchors(signed: &Signed) -> Result<String> {
    let words: Vec<&str> = signed.key.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| *word == "DNSKEY")
        .context("a DNSKEY record")?;
    let [flags, protocol, algorithm, key] = words[at + 1..at + 5] else {
        anyhow::bail!("a whole DNSKEY record: {}", signed.key);
    };
    let origin = &signed.zone.origin;
    Ok(format!(
        "trust-anchors {{ \"{origin}\" static-key {flags} {protocol} {algorithm} \"{key}\"; }};\n"
    ))
}

/// Number of lines with records of that type.
fn count(printed: &str, kind: &str) -> usize {
    let is_record = |line: &&str| {
        !line.starts_with(';')
            && line
                .split_whitespace()
                .nth(3)
                .is_some_and(|word| word == kind)
    };
    printed.lines().filter(is_record).count()
}

fn full(name: &str) -> String {
    let dot = if name.is_empty() { "" } else { "." };
    format!("{name}{dot}signed.test.")
}

fn unbound_validates(denial: Denial) -> Result<()> {
    let stage = Stage::set(denial)?;
    let _validator = stage.validator()?;
    for &(name, kind, code, records) in SECURE {
        let printed = stage.dig(&full(name), kind, &[])?;
        let header = printed.lines().find(|line| line.starts_with(";; flags:"));
        let is_secure = header.is_some_and(|line| line.split([' ', ';']).any(|flag| flag == "ad"));
        assert!(
            is_secure
                && printed.contains(&format!("status: {code},"))
                && count(&printed, kind) == records,
            "{name} {kind} {denial:?}: {code}, {records} records, AD\n{printed}"
        );
    }
    let printed = stage.dig("bogus.signed.test.", "A", &[])?;
    assert!(printed.contains("status: SERVFAIL"), "{printed}");
    // With CD the client gets the data unchecked.
    let printed = stage.dig("bogus.signed.test.", "A", &["+cdflag"])?;
    assert!(printed.contains(SERVED), "{printed}");
    Ok(())
}

fn delv_validates(denial: Denial) -> Result<()> {
    let stage = Stage::set(denial)?;
    let before = stage.daemon.metrics()?;
    // The second time, and over the other family, the answers are from the cache.
    for server in [IpAddr::V4(LAN_V4), LAN_V6.into()] {
        for &(name, kind, code, records) in SECURE {
            let printed = stage.delv(server, &full(name), kind)?;
            let is_nx = printed.contains("ncache nxdomain") || code != "NXDOMAIN";
            assert!(
                printed.contains("fully validated")
                    && !printed.contains("unsigned answer")
                    && count(&printed, kind) == records
                    && is_nx,
                "{name} {kind} {denial:?}: {records} records, validated\n{printed}"
            );
        }
        let printed = stage.delv(server, "bogus.signed.test.", "A")?;
        assert!(
            !printed.contains("fully validated") && printed.contains("resolution failed"),
            "{printed}"
        );
    }
    let now = stage.daemon.metrics()?;
    let hits = now.growth(&before, &Counter::CacheHits);
    assert!(hits >= SECURE.len() as u64 - 1, "{hits} hits");
    Ok(())
}

#[test]
fn unbound_behind_us_validates_with_nsec() -> Result<()> {
    only!(IN_DATAGRAMS, "validators that ask over UDP by themselves");
    if !root_or_skip("unbound_behind_us_validates_with_nsec") {
        return Ok(());
    }
    unbound_validates(Denial::Nsec)
}

#[test]
fn unbound_behind_us_validates_with_nsec3() -> Result<()> {
    only!(IN_DATAGRAMS, "validators that ask over UDP by themselves");
    if !root_or_skip("unbound_behind_us_validates_with_nsec3") {
        return Ok(());
    }
    unbound_validates(Denial::Nsec3)
}

#[test]
fn delv_behind_us_validates_with_nsec() -> Result<()> {
    only!(IN_DATAGRAMS, "validators that ask over UDP by themselves");
    if !root_or_skip("delv_behind_us_validates_with_nsec") {
        return Ok(());
    }
    delv_validates(Denial::Nsec)
}

#[test]
fn delv_behind_us_validates_with_nsec3() -> Result<()> {
    only!(IN_DATAGRAMS, "validators that ask over UDP by themselves");
    if !root_or_skip("delv_behind_us_validates_with_nsec3") {
        return Ok(());
    }
    delv_validates(Denial::Nsec3)
}
