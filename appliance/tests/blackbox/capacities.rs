//! Capacities that the config chooses: what it has room for is what it says, and what it has no memory for is refused.

use std::fs;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_core::limits;

use crate::bridge::lan::{BRIDGE, Lan, setup};
use crate::support::client::Family;
use crate::support::daemon::{run, write};
use crate::support::message::{addresses, query};
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Directory, Setup, scene};
use crate::support::script::Rule;

const LEAST: &str = "[[interface]]\nname = \"lo\"\n[upstream]\nservers = [\"192.0.2.1\"]\n";

#[test]
fn what_takes_more_than_its_memory_is_refused_at_the_key_and_what_fits_is_counted() -> Result<()> {
    only!(ONCE, "no query is asked");
    let directory = Directory::new()?;
    let most = limits::CACHE_ENTRIES_MAX;
    let text = format!("{LEAST}[cache]\nentries = {most}\n");
    let file = write(directory.path(), "config.toml", &text)?;
    let file = file.to_str().context("a path in UTF-8")?;
    for command in ["run", "check"] {
        let output = run(None, &[command, file])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code().is_some_and(|code| code > 0),
            "{command}: {said}"
        );
        let begin = format!("{file}:6:1: cache.entries: ");
        ensure!(
            said.contains(&begin) && said.contains(" more than 16 MiB; allowed: memory.mib of "),
            "{said}"
        );
    }
    let needed = |file: &str| -> Result<(u64, u64)> {
        let output = run(None, &["memory", "--json", file])?;
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let number = |key: &str| told[key].as_u64().context("a number");
        Ok((number("total")?, number("budget")?))
    };
    let (total, budget) = needed(file)?;
    ensure!(total > budget && budget == 16 << 20, "{total} of {budget}");
    let mib = total.div_ceil(1 << 20);
    write(
        directory.path(),
        "config.toml",
        &format!("{text}[memory]\nmib = {mib}\n"),
    )?;
    ensure!(needed(file)? == (total, mib << 20));
    let output = run(None, &["check", "--offline", file])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// A config that the next start would refuse is not taken over.
#[test]
fn a_reload_refuses_what_a_start_refuses() -> Result<()> {
    only!(ONCE, "no query is asked");
    let directory = Directory::new()?;
    let scene = scene!(Setup::default());
    let path = scene.directory.path().join("config.toml");
    let before = fs::read_to_string(&path)?;
    let text = format!("{before}[cache]\nentries = {}\n", limits::CACHE_ENTRIES_MAX);
    let file = write(directory.path(), "config.toml", &text)?;
    let output = run(
        None,
        &["check", "--offline", file.to_str().context("UTF-8")?],
    )?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let fault = said.split_once(": cache.entries: ").context("a fault")?.1;
    let fault = fault.lines().next().context("a line")?;
    fs::write(&path, &text)?;
    let told = scene.daemon.control("reload");
    let told = format!("{told:?}");
    ensure!(
        told.contains("not reloaded, all stays as it was: ") && told.contains(fault),
        "{told}, not {fault}"
    );
    Ok(())
}

/// One worker on however many processors, and one address of two over AF_XDP: the kernel's sockets serve the other.
#[test]
fn there_are_as_many_workers_and_addresses_as_the_config_says() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let sections = "[memory]\nworkers = 1\naddresses = 1\n";
    let by_the_kernel = scene!(Setup::default().xdp("off").sections(sections));
    let log = by_the_kernel.daemon.log();
    ensure!(log.contains("ready: 2 endpoints, 1 worker\n"), "{log}");
    drop(by_the_kernel);
    let scene = scene!(Setup::default().sections(sections));
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.daemon.wait_log_count(
        "lan0: capacity: 1 addresses over AF_XDP (memory.addresses); the kernel's sockets alone serve 1\n",
        1,
    )?;
    let before = scene.daemon.metrics()?;
    for family in Family::ALL {
        let answer = scene
            .udp_client(family)?
            .ask(&query("www.test.", RecordType::A))?;
        ensure!(addresses(&answer) == ["192.0.2.1"]);
    }
    let counted: [(&dyn Metric, u64); 2] = [(&Counter::QueriesXdp, 1), (&Counter::QueriesUdp, 1)];
    scene.daemon.wait_growth(&before, &counted)?;
    Ok(())
}

/// The bridge serves what comes by its second port, as it would without a program.
#[test]
fn a_port_beyond_the_programs_is_the_bridges_until_there_is_room() -> Result<()> {
    only!(ONCE, "each port says its own way");
    let scene = scene!(setup().sections("[memory]\nprograms = 1\n"));
    let mut lan = Lan::make(&scene, 1, "")?;
    let other = lan.connect(2)?;
    lan.wait_port(&other.port, "no_seat")?;
    let before = lan.count(&Counter::AnswersUdp)?;
    other.ask()?;
    ensure!(lan.count(&Counter::AnswersUdp)? == before + 2);
    lan.stations[0].ask()?;
    let first = lan.stations.remove(0);
    lan.ip(&format!("link set {} nomaster\n", first.port))?;
    lan.wait_port(&other.port, "")?;
    let before = lan.count(&Counter::AnswersXdp)?;
    other.ask()?;
    other.ask()?;
    ensure!(lan.count(&Counter::AnswersXdp)? > before, "{BRIDGE}");
    Ok(())
}
