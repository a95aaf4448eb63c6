//! What a household brings along that had dnsmasq: a config of several files, servers that the way out names, answers that a
//! provider makes up.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use xdnsd_lab::lab::UPSTREAM_V4;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient};
use crate::support::daemon::{BINARY, write};
use crate::support::message::{addresses, query};
use crate::support::scene::{Directory, Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::upstream::SECOND_V4;

const SECTIONS: &str = "[[upstream]]\nname = \"wan\"\ndomains = [\"test\"]\nresolv_file = \"{directory}/resolv.conf\"\n\
    [forward]\nbogus_nxdomain = [\"192.0.2.66\"]\nfilter_aaaa = true\n[include]\nfiles = [\"more*.toml\"]\n";

/// Waits until a new name is answered by the server that gives this address.
fn wait_for(client: &RawClient, address: &str) -> Result<()> {
    let mut number = 0;
    wait_until("that server is asked", TIMEOUT, || {
        number += 1;
        let name = format!("{number}.{address}.test.");
        let answer = client.ask(Family::V4, &query(&name, RecordType::A));
        answer.is_ok_and(|answer| {
            answer.response_code() == ResponseCode::NoError && addresses(&answer) == [address]
        })
    })
}

fn code(client: &RawClient, name: &str, rtype: RecordType) -> Result<(ResponseCode, usize)> {
    let answer = client.ask(Family::V4, &query(name, rtype))?;
    Ok((answer.response_code(), answer.answers().len()))
}

#[test]
fn the_way_out_names_servers_and_what_a_provider_makes_up_is_not_passed_on() -> Result<()> {
    let scene = scene!(Setup::default().sections(SECTIONS));
    let upstream = &scene.upstream;
    for (server, address) in [(SECOND_V4, "192.0.2.3"), (UPSTREAM_V4.into(), "192.0.2.2")] {
        upstream.on_server(server, "*.test.", Rule::addresses(300, &[address]));
    }
    upstream.on("gone.test.", Rule::addresses(300, &["192.0.2.66"]));
    upstream.on("v6.test.", Rule::addresses(300, &["2001:db8::1"]));
    let client = scene.raw_client()?;

    // A script of a DHCP client writes it in place, others put a new one there.
    let file = scene.directory.path().join("resolv.conf");
    fs::write(&file, format!("search lan\nnameserver {SECOND_V4}\n"))?;
    wait_for(&client, "192.0.2.3")?;
    let other = scene.directory.path().join("resolv.conf.new");
    fs::write(&other, format!("nameserver {UPSTREAM_V4}\n"))?;
    fs::rename(&other, &file)?;
    wait_for(&client, "192.0.2.2")?;
    fs::remove_file(&file)?;
    scene
        .daemon
        .wait_log_count("asked are those that it named last", 1)?;
    wait_for(&client, "192.0.2.2")?;

    // Twice: as it comes, and out of the cache.
    for _ in 0..2 {
        assert_eq!(
            code(&client, "gone.test.", RecordType::A)?,
            (ResponseCode::NXDomain, 0)
        );
        assert_eq!(
            code(&client, "v6.test.", RecordType::AAAA)?,
            (ResponseCode::NoError, 0)
        );
    }
    included(&scene, &client)
}

/// A reload reads what is included by then, and is refused with both places where two files say one thing.
fn included(scene: &Scene, client: &RawClient) -> Result<()> {
    let blocked = "[filter]\nblock = [\"ads.test\"]\n";
    write(scene.directory.path(), "more1.toml", blocked)?;
    scene.daemon.signal(Signal::SIGHUP)?;
    scene.daemon.wait_log_count("reloaded:", 1)?;
    let ads = code(client, "ads.test.", RecordType::A)?;
    assert_eq!(ads, (ResponseCode::NXDomain, 0));
    write(scene.directory.path(), "more2.toml", blocked)?;
    scene.daemon.signal(Signal::SIGHUP)?;
    let here = scene.directory.path().display();
    let twice = format!(
        "{here}/more2.toml:2:1: filter.block: `block` stands twice, first in {here}/more1.toml:2"
    );
    scene.daemon.wait_log_count(&twice, 1)
}

/// What comes out of standard output is a config, and what has no key stands on standard error.
#[test]
fn dnsmasqs_configuration_is_imported() -> Result<()> {
    let directory = Directory::new()?;
    let text = "interface=br-lan\nserver=192.0.2.1\nlocal=/lan/\ndhcp-range=192.168.1.50,192.168.1.99\nlog-queries\n";
    let file = write(directory.path(), "dnsmasq.conf", text)?;
    let output = Command::new(BINARY).arg("import").arg(&file).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let file = file.display();
    assert_eq!(said.lines().count(), 3, "{said}");
    for begin in [
        "names of special use (home.arpa, test and more) and reverse names of private addresses"
            .into(),
        format!("{file}:4: dhcp-range: "),
        format!("{file}:5: log-queries: "),
    ] {
        assert!(said.lines().any(|line| line.starts_with(&begin)), "{said}");
    }
    let config = directory.path().join("xdnsd.toml");
    fs::write(&config, &output.stdout)?;
    let output = Command::new(BINARY)
        .args(["check", "--offline"])
        .arg(&config)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let missing = Command::new(BINARY)
        .args(["import", "/nonexist/dnsmasq.conf"])
        .output()?;
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(1), 0));
    Ok(())
}
