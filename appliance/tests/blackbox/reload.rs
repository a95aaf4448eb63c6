//! A config that changes while the daemon runs: what is taken over; a fault changes nothing.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use xdnsd_lab::lab::{LAN, UPSTREAM_V4};
use xdnsd_lab::process::Process;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::daemon::{BINARY, Daemon};
use crate::support::message::{addresses, query, read_answer, wire};
use crate::support::preload;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{ask_all, assert_answer, check_all, ede};
use crate::support::upstream::SECOND_V4;
use crate::support::ways::{Way, Ways};

const OK: ResponseCode = ResponseCode::NoError;

const GROUP: &str = "[[upstream]]\nname = \"corp\"\nservers = [\"10.54.0.3\"]\ndomains = ";

fn setup(sections: &str, domains: &str) -> Setup {
    Setup::three_ways().sections(&format!("{sections}\n{GROUP}{domains}\n"))
}

/// Rewrites the config and reloads.
fn reload(scene: &Scene, setup: &Setup) -> Result<()> {
    let path = scene.directory.path();
    fs::write(path.join("config.toml"), setup.config(path))?;
    scene.daemon.signal(Signal::SIGHUP)
}

#[test]
fn rules_are_taken_over_and_hold_for_what_is_cached() -> Result<()> {
    let scene = scene!(setup("", "[\"corp.test\"]"));
    scene
        .upstream
        .on("*.test.", Rule::addresses(3600, &["192.168.1.1"]));
    scene
        .upstream
        .on_server(SECOND_V4, "*.test.", Rule::addresses(3600, &["192.0.2.3"]));
    let ways = Ways::open(&scene)?;
    let private = "www.test. 3600 A 192.168.1.1";
    check_all(
        &ways,
        &[
            ("www.test. A", OK, &[private]),
            (
                "kept.corp.test. A",
                OK,
                &["kept.corp.test. 3600 A 192.0.2.3"],
            ),
            (
                "moved.other.test. A",
                OK,
                &["moved.other.test. 3600 A 192.168.1.1"],
            ),
        ],
    )?;
    let rules = "[rebind]\nranges = [\"private\"]\n[local]\nrecords = [\"new.test A 192.0.2.9\"]\n\
                 [filter]\nblock = [\"ads.test\"]\n";
    let changed = setup(rules, "[\"corp.test\", \"other.test\"]");
    reload(&scene, &changed)?;
    scene.daemon.wait_log_count("reloaded:", 1)?;
    let withheld = ask_all(&ways, "www.test. A edns")?;
    assert_answer(&withheld, OK, &[]);
    assert_eq!(ede(&withheld), Some(15));
    let blocked = ask_all(&ways, "ads.test. A edns")?;
    assert_eq!(
        (blocked.response_code(), ede(&blocked)),
        (ResponseCode::NXDomain, Some(15))
    );
    check_all(
        &ways,
        &[
            ("new.test. A", OK, &["new.test. 60 A 192.0.2.9"]),
            (
                "kept.corp.test. A",
                OK,
                &["kept.corp.test. 3600 A 192.0.2.3"],
            ),
            (
                "moved.other.test. A",
                OK,
                &["moved.other.test. 3600 A 192.0.2.3"],
            ),
        ],
    )?;
    let kept = scene.upstream.asked("kept.corp.test.").len();
    assert_eq!(kept, 1, "what is as it was is not asked again");
    // And back: what was blocked is served again.
    reload(&scene, &setup("", "[\"corp.test\"]"))?;
    scene.daemon.wait_log_count("reloaded:", 2)?;
    check_all(&ways, &[("www.test. A", OK, &[private])])
}

/// `xdnsd reload` returns when the config is in force, and prints the changes.
#[test]
fn who_has_asked_for_a_reload_is_answered_by_it_from_then_on() -> Result<()> {
    let scene = scene!(setup("", "[\"corp.test\"]"));
    scene
        .upstream
        .on("*.test.", Rule::addresses(3600, &["192.0.2.9"]));
    let ways = Ways::open(&scene)?;
    let path = scene.directory.path();
    for number in 1..=20 {
        let sections =
            format!("[local]\nrecords = [\"a.test A 192.0.2.{number}\"]\n[tcp]\nidle_secs = 7\n");
        let changed = setup(&sections, "[\"corp.test\"]").config(path);
        let changed = changed.replace("[cache]", &format!("[cache]\nmax_ttl = {number}"));
        fs::write(path.join("config.toml"), changed)?;
        let told = scene.daemon.control("reload")?;
        ensure!(
            told.contains("from the next start on: tcp.idle_secs\n")
                && told.contains("changed in the config: cache.max_ttl, local.records\n"),
            "{told}"
        );
        let answer = ask_all(&ways, "a.test. A")?;
        assert_answer(&answer, OK, &[&format!("a.test. 60 A 192.0.2.{number}")]);
        let name = format!("b{number}.test.");
        let answer = ask_all(&ways, &format!("{name} A"))?;
        assert_answer(&answer, OK, &[&format!("{name} {number} A 192.0.2.9")]);
    }
    Ok(())
}

#[test]
fn a_fault_changes_nothing() -> Result<()> {
    let right = setup(
        "[local]\nrecords = [\"a.test A 192.0.2.1\"]\n",
        "[\"corp.test\"]",
    );
    let scene = scene!(right);
    let ways = Ways::open(&scene)?;
    let old = [("a.test. A", OK, &["a.test. 60 A 192.0.2.1"][..])];
    check_all(&ways, &old)?;
    let other = "[local]\nrecords = [\"a.test A 192.0.2.2\"]\n";
    let faulty = setup(
        "[local]\nrecords = [\"a.test A 192.0.2.999\"]\n",
        "[\"corp.test\"]",
    );
    reload(&scene, &faulty)?;
    scene.daemon.wait_log_count("not reloaded", 1)?;
    check_all(&ways, &old)?;
    reload(&scene, &setup(other, "[\"corp.test\"]"))?;
    wait_until("it is reloaded", TIMEOUT, || {
        scene.daemon.log().contains("reloaded: ")
    })?;
    check_all(&ways, &[("a.test. A", OK, &["a.test. 60 A 192.0.2.2"])])
}

/// Another server for everything, and groups in another order. A question that waits for a removed server is asked anew, and what
/// that one has said is not given any more; what another group's has said is.
#[test]
fn other_servers_are_taken_over_and_no_question_is_lost() -> Result<()> {
    let group = |name: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nservers = [\"10.54.0.3\"]\ndomains = [\"{name}.test\"]\n"
        )
    };
    let scene = scene!(Setup::three_ways().sections(&group("corp")));
    let everything = |server: IpAddr, address| {
        let rule = Rule::addresses(3600, &[address]);
        scene.upstream.on_server(server, "*.test.", rule);
    };
    everything(UPSTREAM_V4.into(), "192.0.2.2");
    everything(SECOND_V4, "192.0.2.3");
    scene
        .upstream
        .on_server(UPSTREAM_V4, "waits.test.", Rule::silence());
    scene.upstream.on_server(
        UPSTREAM_V4,
        "fails.test.",
        Rule::code(ResponseCode::ServFail),
    );
    let ways = Ways::open(&scene)?;
    let is = |name: &str, address: &str| {
        let record = format!("{name} 3600 A {address}");
        check_all(&ways, &[(&format!("{name} A"), OK, &[&record])])
    };
    is("old.test.", "192.0.2.2")?;
    is("a.corp.test.", "192.0.2.3")?;
    check_all(&ways, &[("fails.test. A", ResponseCode::ServFail, &[])])?;
    scene.upstream.on_server(
        SECOND_V4,
        "*.corp.test.",
        Rule::addresses(3600, &["192.0.2.4"]),
    );
    let asked = |name: &str| !scene.upstream.asked(name).is_empty();
    let query = wire(&query("waits.test.", RecordType::A));
    let frame = ways.frame(Way::Xdp, Family::V4, &query)?;
    ways.raw().send(&frame.to_bytes())?;
    wait_until("it is asked", TIMEOUT, || asked("waits.test."))?;
    let path = scene.directory.path();
    let replaced = Setup::three_ways()
        .servers(&[&SECOND_V4.to_string()])
        .sections(&group("corp"));
    fs::write(path.join("config.toml"), replaced.config(path))?;
    scene.daemon.control("reload")?;
    let answer = read_answer(&query, &ways.raw().answer_to(&frame)?)?;
    assert_eq!(addresses(&answer), ["192.0.2.3"]);
    is("old.test.", "192.0.2.3")?;
    is("fails.test.", "192.0.2.3")?;
    is("new.test.", "192.0.2.3")?;
    is("a.corp.test.", "192.0.2.3")?;
    // Cached answers name their group by number, and number 1 is another group.
    let other = group("corp")
        .replace("name = \"corp\"", "name = \"other\"")
        .replace("10.54.0.3", "10.54.0.2");
    reload(&scene, &Setup::three_ways().sections(&other))?;
    scene.daemon.wait_log_count("reloaded:", 2)?;
    is("old.test.", "192.0.2.2")?;
    is("newer.test.", "192.0.2.2")?;
    is("a.corp.test.", "192.0.2.2")
}

/// A FIFO without a writer, and then a list that turned into an error page.
#[test]
fn a_file_that_fails_is_named_and_stops_nothing_else() -> Result<()> {
    let scene = scene!(setup("", "[\"corp.test\"]"));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    let path = scene.directory.path();
    let (fifo, list) = (path.join("fifo"), path.join("list"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    fs::write(&list, "ads.test\n")?;
    let sections = |record: &str| {
        let sections = format!(
            "[filter]\nblock_files = [{fifo:?}, {list:?}]\n[local]\nrecords = [\"{record}\"]\n"
        );
        setup(&sections, "[\"corp.test\"]").config(path)
    };
    let reload = |record: &str| -> Result<String> {
        fs::write(path.join("config.toml"), sections(record))?;
        // Partly refused: the status of `xdnsd reload` is 1.
        let refused = scene.daemon.control("reload").expect_err("a file failed");
        Ok(format!("{refused:#}"))
    };
    let said = reload("new.test A 192.0.2.8")?;
    assert!(said.contains("is a FIFO, not a file"), "{said}");
    check_all(&ways, &[("new.test. A", OK, &["new.test. 60 A 192.0.2.8"])])?;
    let blocked = |blocked: bool| -> Result<()> {
        let code = ask_all(&ways, "ads.test. A")?.response_code();
        assert_eq!(code == ResponseCode::NXDomain, blocked);
        Ok(())
    };
    blocked(true)?;
    fs::write(&list, "<html>\n")?;
    let said = reload("new.test A 192.0.2.9")?;
    assert!(said.contains("is it a blocklist?"), "{said}");
    check_all(&ways, &[("new.test. A", OK, &["new.test. 60 A 192.0.2.9"])])?;
    blocked(true)
}

/// The file system under a list stops answering: service goes on, and so does everything but the reading of files.
#[test]
fn a_file_that_does_not_answer_holds_up_neither_addresses_nor_requests_nor_the_end() -> Result<()> {
    let list = "[filter]\nblock_files = [\"{directory}/list\"]\n";
    let setup = setup(list, "[\"corp.test\"]").on_all_addresses();
    let mut scene = scene!(setup);
    let folder = scene.directory.path().to_owned();
    let [config, list, hang] = ["config.toml", "list", "hang"].map(|name| folder.join(name));
    scene.daemon.terminate()?;
    fs::write(&list, "ads.test\n")?;
    let mut command = scene.lab.router.command(BINARY);
    command.arg("run").arg(&config).env("HANG", &hang);
    command.env("HUNG", &list);
    command.env("LD_PRELOAD", preload::compile("hung_file", &folder)?);
    scene.daemon = Daemon::start_command(command, &config, &folder.join("sock"))?;
    let ways = Ways::open(&scene)?;
    let is_blocked = |name: &str| -> Result<bool> {
        let reply = ask_all(&ways, &format!("{name} A"))?;
        Ok(reply.response_code() == ResponseCode::NXDomain)
    };
    assert!(is_blocked("ads.test.")?);
    fs::write(&hang, "")?;
    fs::write(&list, "ads.test\nmore.test\n")?;
    scene.daemon.wait_log_count("read: does not come back", 1)?;
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    assert!(is_blocked("ads.test.")? && !is_blocked("more.test.")?);
    let router = &scene.lab.router;
    router.ip(&format!("address add 10.53.0.99/24 dev {LAN}\n"))?;
    scene
        .daemon
        .wait_log_count("listening on 10.53.0.99:53, too", 1)?;
    scene.daemon.signal(Signal::SIGHUP)?;
    scene.daemon.metrics()?;
    // A client that asks for a reload waits for the result, which is not there yet.
    let mut reload = router.command(BINARY);
    reload.args(["reload", "--socket"]).arg(folder.join("sock"));
    let mut reload = Process::spawn(reload, &folder.join("reload.log"))?;
    for number in 0..3 {
        ask_all(&ways, &format!("n{number}.test. A"))?;
    }
    assert!(reload.is_running(), "{}", reload.log());
    // Other requests meanwhile do not wait behind it.
    scene.daemon.metrics()?;
    let ended = scene.daemon.terminate()?;
    assert!(ended.success(), "{ended}");
    let told = reload.wait_exit(TIMEOUT)?;
    assert!(!told.success(), "{told} {}", reload.log());
    Ok(())
}

#[test]
fn a_start_goes_on_without_a_file_that_does_not_answer() -> Result<()> {
    let files = "[filter]\nblock_files = [\"{directory}/list\"]\n[local]\nrecords = [\"a.test A 192.0.2.1\"]\n";
    let mut scene = scene!(setup(files, "[\"corp.test\"]"));
    let folder = scene.directory.path().to_owned();
    let [config, list] = ["config.toml", "list"].map(|name| folder.join(name));
    scene.daemon.terminate()?;
    fs::write(&list, "ads.test\n")?;
    let mut command = scene.lab.router.command(BINARY);
    command.arg("run").arg(&config).env("HANG", &config);
    command.env("HUNG", &list);
    command.env("LD_PRELOAD", preload::compile("hung_file", &folder)?);
    scene.daemon = Daemon::start_command(command, &config, &folder.join("sock"))?;
    scene.daemon.wait_log_count("read: does not come back", 1)?;
    let ways = Ways::open(&scene)?;
    check_all(&ways, &[("a.test. A", OK, &["a.test. 60 A 192.0.2.1"])])?;
    let ended = scene.daemon.terminate()?;
    assert!(ended.success(), "{ended}");
    Ok(())
}

#[test]
fn an_old_name_of_a_key_is_warned_of_at_the_start_and_by_a_reload() -> Result<()> {
    let scene = scene!(setup("[access]\nsilent_ports = [1900]", "[\"corp.test\"]"));
    let told = "access.silent_ports: is called reflector_ports now";
    let at_start = scene.daemon.log();
    assert!(at_start.contains(told), "{at_start}");
    let said = scene.daemon.control("reload")?;
    assert!(said.contains(told), "{said}");
    scene.daemon.wait_log_count(told, 2)
}

/// A USB stick, a data partition or a tmpfs that is mounted after the start, and unmounted.
#[test]
fn what_is_mounted_later_is_read() -> Result<()> {
    let hosts = "[local]\nzones = [\"test\"]\nhosts = [\"{directory}/mnt/hosts\"]\n";
    let scene = scene!(setup(hosts, "[\"corp.test\"]"));
    let ways = Ways::open(&scene)?;
    let pid = scene.daemon.pid();
    let folder = scene.directory.path().join("mnt");
    // The daemon sees other mounts than the test.
    let in_its_eyes = |command: &[&str]| -> Result<()> {
        let target = format!("--target={pid}");
        let mut nsenter = Command::new("nsenter");
        let status = nsenter
            .arg(target)
            .arg("--mount")
            .args(command)
            .arg(&folder)
            .status()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    };
    let is_known = |known: bool| {
        wait_until("the name comes and goes with the mount", TIMEOUT, || {
            let answer = ask_all(&ways, "stick.test. A");
            answer.is_ok_and(|answer| (answer.response_code() == OK) == known)
        })
    };
    fs::create_dir(&folder)?;
    is_known(false)?;
    in_its_eyes(&["mount", "-t", "tmpfs", "none"])?;
    let hosts = format!("/proc/{pid}/root{}/hosts", folder.display());
    fs::write(hosts, "192.0.2.7 stick.test\n")?;
    is_known(true)?;
    in_its_eyes(&["umount"])?;
    is_known(false)
}
