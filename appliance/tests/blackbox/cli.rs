//! The command line: config faults end the start with helpful messages, and a running daemon can be asked.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{Lab, Spec};
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::daemon::{BINARY, Daemon, run, write};
use crate::support::message::{addresses, query};
use crate::support::run::{Run, only};
use crate::support::scene::{Directory, Setup, scene};
use crate::support::script::Rule;

/// A file that fits the lab's router.
const GOOD: &str = "[interface]\nname = \"lan0\"\n[upstream]\nservers = [\"10.54.0.2\"]\n[control]\nsocket = \"\"\n";

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// In a user namespace of its own, because the limits belong to an account, and other tests need theirs.
#[test]
fn without_inotify_files_are_looked_at_by_time() -> Result<()> {
    if !root_or_skip("without_inotify_files_are_looked_at_by_time") {
        return Ok(());
    }
    let directory = Directory::new()?;
    let list = write(directory.path(), "list", "ads.test\n")?;
    let text = format!(
        "[interface]\nname = \"lo\"\n[upstream]\nservers = [\"192.0.2.1\"]\n[filter]\nblock_files = [{list:?}]\n"
    );
    let file = write(directory.path(), "config.toml", &text)?;
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let script = format!(
            "echo 0 > /proc/sys/user/{limit} && exec {BINARY} check {}",
            file.display()
        );
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", &script])
            .output()?;
        let said = stderr(&output);
        assert!(output.status.success(), "{limit}: {said}");
        assert!(
            said.contains("looked at every 2 s instead: 1 file;"),
            "{limit}: {said}"
        );
    }
    Ok(())
}

/// With a network namespace as well, in which the account may serve.
#[test]
fn it_serves_without_inotify_and_follows_its_files() -> Result<()> {
    if !root_or_skip("it_serves_without_inotify_and_follows_its_files") {
        return Ok(());
    }
    let directory = Directory::new()?;
    let folder = directory.path();
    let list = write(folder, "list", "ads.test\n")?;
    let socket = folder.join("sock");
    let text = format!(
        "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n\
         [control]\nsocket = {socket:?}\n[filter]\nblock_files = [{list:?}]\n"
    );
    let file = write(folder, "config.toml", &text)?;
    let script =
        "ip link set lo up && echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command.args([BINARY, "run"]).arg(&file);
    let daemon = Daemon::start_command(command, &file, &socket)?;
    daemon.wait_log_count("] ready: ", 1)?;
    let log = daemon.log();
    assert_eq!(
        log.matches("looked at every 2 s instead: 1 file;").count(),
        1,
        "{log}"
    );
    let is_blocked = |name: &str| -> bool {
        let mut dig = Command::new("nsenter");
        dig.arg(format!("--target={}", daemon.pid()));
        dig.args(["--user", "--net", "--preserve-credentials"]);
        dig.args(["dig", "+tries=1", "+time=1", "@127.0.0.1", name]);
        let said = dig.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).contains("NXDOMAIN")
    };
    assert!(is_blocked("ads.test"), "{}", daemon.log());
    write(folder, "list", "ads.test\nmore.test\n")?;
    wait_until("the list is followed", 2 * TIMEOUT, || {
        is_blocked("more.test")
    })?;
    let said = daemon.log();
    assert_eq!(
        said.matches("looked at every 2 s").count(),
        1,
        "said once: {said}"
    );
    Ok(())
}

#[test]
fn check_says_where_what_and_what_is_allowed() -> Result<()> {
    let directory = Directory::new()?;
    for (wrong, line, words) in [
        (
            GOOD.replace("name", "nam"),
            2,
            &[
                "nam",
                "unknown key",
                "did you mean \"name\"?",
                "route_check",
            ][..],
        ),
        (
            GOOD.replace("[upstream]", "[upstreem]"),
            3,
            &["upstreem", "unknown section", "\"upstream\"?"],
        ),
        (
            GOOD.replace("10.54.0.2", "10.54.0"),
            4,
            &["upstream.servers", "10.54.0", "allowed", "ADDRESS:PORT"],
        ),
        (
            GOOD.replace("name = \"lan0\"", "name = \"lan0\"\nport = 0"),
            3,
            &["interface.port", "0 is out of range", "1 to 65535"],
        ),
        (GOOD.replace("servers =", "servers"), 4, &["upstream"]),
    ] {
        let file = write(directory.path(), "wrong.toml", &wrong)?;
        let file = file.display().to_string();
        for (command, status) in [("check", 1), ("run", 78)] {
            let output = run(None, &[command, &file])?;
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(status), "{said}");
            assert!(said.contains(&format!("{file}:{line}:")), "{said}");
            for word in words {
                // A fault of the syntax has no key.
                assert!(
                    said.contains(word) || *words == ["upstream"],
                    "{word:?} in {said}"
                );
            }
            assert!(output.stdout.is_empty());
        }
    }
    Ok(())
}

#[test]
fn every_fault_of_a_file_is_said_at_once() -> Result<()> {
    let directory = Directory::new()?;
    let wrong = GOOD.replace("name", "nam").replace("servers", "server");
    let file = write(directory.path(), "wrong.toml", &wrong)?;
    let said = stderr(&run(None, &["check", &file.display().to_string()])?);
    for line in [2, 4] {
        assert!(said.contains(&format!("wrong.toml:{line}:")), "{said}");
    }
    Ok(())
}

#[test]
fn a_group_that_cannot_use_the_control_socket_is_said_before_the_start() -> Result<()> {
    let directory = Directory::new()?;
    let socket = directory.path().join("sock").display().to_string();
    let text = GOOD.replace(
        "socket = \"\"",
        &format!("socket = \"{socket}\"\ngroup = \"nobody-is-in-it\""),
    );
    let file = write(directory.path(), "group.toml", &text)?;
    let said = stderr(&run(None, &["check", &file.display().to_string()])?);
    let wanted = format!(
        "control.group: nobody-is-in-it cannot use {socket}: /etc/group: no group nobody-is-in-it\n"
    );
    assert!(said.contains(&wanted), "{said}");
    Ok(())
}

#[test]
fn an_old_name_of_a_key_is_said_and_is_no_fault() -> Result<()> {
    let directory = Directory::new()?;
    let text = format!("{GOOD}[access]\nsilent_ports = [7]\n");
    let file = write(directory.path(), "old.toml", &text)?;
    let file = file.display().to_string();
    let output = run(None, &["check", "--offline", &file])?;
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let wanted =
        format!("warning: {file}:8:1: access.silent_ports: is called reflector_ports now\n");
    assert_eq!(said, wanted);
    Ok(())
}

#[test]
fn a_file_that_is_missing_is_named() -> Result<()> {
    for (command, status) in [("check", 1), ("run", 78)] {
        let output = run(None, &[command, "/nonexistent/xdnsd.toml"])?;
        assert_eq!(output.status.code(), Some(status));
        let said = stderr(&output);
        assert!(
            said.contains("/nonexistent/xdnsd.toml: is not there"),
            "{said}"
        );
    }
    Ok(())
}

/// As at a start: a warning, and it goes on.
#[test]
fn a_file_of_the_config_that_is_missing_or_wrong_is_worth_a_note() -> Result<()> {
    let scene = scene!(Setup::default());
    let folder = scene.directory.path();
    let absent = folder.join("absent").display().to_string();
    let good = fs::read_to_string(folder.join("config.toml"))?;
    let check = |more: &str| -> Result<Output> {
        let config = write(folder, "checked.toml", &format!("{good}\n{more}\n"))?;
        run(Some(&scene.lab), &["check", &config.display().to_string()])
    };
    for key in [
        "[shield]\ndeny_files",
        "[shield]\nallow_files",
        "[filter]\nblock_files",
        "[local]\nhosts",
    ] {
        let output = check(&format!("{key} = [{absent:?}]"))?;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{key}: {said}");
        assert_eq!(said, format!("note: {absent}: is not there\n"), "{key}");
    }
    let wrong = write(folder, "drop.txt", "192.0.2.0/24\n198.51.100.0/33\n")?;
    let wrong = wrong.display().to_string();
    let output = check(&format!("[shield]\ndeny_files = [{absent:?}, {wrong:?}]"))?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let begin = format!("note: {absent}: is not there\nnote: {wrong}:2: ");
    assert!(said.starts_with(&begin), "{said}");
    Ok(())
}

#[test]
fn an_unknown_command_is_answered_with_those_that_exist() -> Result<()> {
    for arguments in [&["sing"][..], &[], &["help", "sing"]] {
        let output = run(None, arguments)?;
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        for command in ["run", "check", "memory", "stats"] {
            assert!(said.contains(command), "{said}");
        }
    }
    Ok(())
}

#[test]
fn an_unknown_option_is_an_error_and_a_known_one_is_no_name() -> Result<()> {
    for (arguments, status, words) in [
        (
            &["cache", "dump", "--jason"][..],
            2,
            &[
                "no option --jason",
                "xdnsd cache dump [--socket PATH] [--json] [NAME]",
            ][..],
        ),
        (&["cache", "flush", "--al"], 2, &["no option --al"]),
        (&["cache", "flush", ""], 2, &["empty"]),
        (
            &["check"],
            2,
            &["check needs a FILE: xdnsd check [--offline] [--json] [--user NAME] FILE"],
        ),
        (&["stats", "--jason"], 2, &["no option --jason"]),
        (
            &["cache", "flush", "--help"],
            0,
            &["xdnsd cache flush [--socket PATH] [NAME]"],
        ),
        (&["run", "--help"], 0, &["xdnsd run [--user NAME] FILE"]),
    ] {
        let output = run(None, arguments)?;
        let (said, told) = (
            stderr(&output),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        );
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        let (shown, other) = if status == 0 {
            (told, said)
        } else {
            (said, told)
        };
        assert!(other.is_empty(), "{arguments:?}: {other}");
        assert!(words.iter().all(|word| shown.contains(word)), "{shown}");
    }
    Ok(())
}

/// The words are wrong, whether a daemon runs or not. Each command, by one rule.
#[test]
fn wrong_arguments_end_with_2_whether_a_daemon_is_there_or_not() -> Result<()> {
    only!(ONCE, "no daemon is asked");
    let long = format!("/{}", "x".repeat(107));
    for arguments in [
        "run",
        "run a b",
        "check",
        "check --user",
        "health",
        "health a b",
        "reference x",
        "memory a b",
        "lists compile",
        "lists compile out",
        "stats x",
        "stats --json --prometheus",
        &format!("stats --socket {long}"),
        "upstreams x",
        &format!("upstreams --socket {long}"),
        "why",
        "why a..b",
        "why a.b B",
        "why a.b A 192.0.2.1 x",
        "why a.b A fe80::1%",
        "why --json a.b 192.0.2.1 A",
        "cache dump a..b",
        "cache dump a b",
        "cache flush a..b",
        "cache save x",
        "shield status x",
        "shield list x",
        "shield deny",
        "shield deny lan",
        "shield deny 192.0.2.1/24",
        "shield deny 192.0.2.1 0",
        "shield allow 192.0.2.1 x",
        "shield forget x",
        "shield forget 192.0.2.1 1",
        "reload x",
        "version x",
        "help x",
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = run(None, &words)?;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments}: {}",
            stderr(&output)
        );
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{arguments}"
        );
    }
    for arguments in ["why a.b AAAA fe80::50%lan0", "shield deny 192.0.2.1 60"] {
        let arguments = format!("{arguments} --socket /nonexistent/sock");
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = run(None, &words)?;
        let expected = "no xdnsd listens at /nonexistent/sock: not running, or --socket PATH\n";
        assert_eq!(
            (stderr(&output).as_str(), output.status.code()),
            (expected, Some(1))
        );
    }
    Ok(())
}

#[test]
fn memory_prints_a_budget_that_adds_up() -> Result<()> {
    let output = run(None, &["memory"])?;
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout)?;
    let mut lines: Vec<&str> = text.lines().collect();
    let total = lines.pop().expect("a last line");
    let mut sum = 0;
    for line in &lines {
        // BYTES = COUNT x BYTES EACH  WHAT
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert_eq!(numbers[0], numbers[1] * numbers[2], "{line}");
        sum += numbers[0];
    }
    assert!(
        total.starts_with(&format!("  {sum} bytes in all")),
        "{text}"
    );
    Ok(())
}

#[test]
fn what_the_machine_lacks_is_an_error_to_check() -> Result<()> {
    if !root_or_skip("what_the_machine_lacks_is_an_error_to_check") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = Directory::new()?;
    let good = write(directory.path(), "good.toml", GOOD)?
        .display()
        .to_string();
    assert_eq!(run(Some(&lab), &["check", &good])?.status.code(), Some(0));
    for (wrong, line, words) in [
        (
            GOOD.replace("lan0", "lan7"),
            2,
            &["no interface lan7", "lan0"],
        ),
        (
            GOOD.replace("[upstream]", "listen = [\"10.53.0.9\"]\n[upstream]"),
            3,
            &["10.53.0.9 is not an address of lan0", "10.53.0.1"],
        ),
        (
            GOOD.replace("[upstream]", "vlan = 10\n[upstream]"),
            3,
            &["no VLAN device with ID 10 on lan0", "allowed"],
        ),
    ] {
        let file = write(directory.path(), "wrong.toml", &wrong)?
            .display()
            .to_string();
        let output = run(Some(&lab), &["check", &file])?;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{file}:{line}:")), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} in {said}");
        }
    }
    Ok(())
}

#[test]
fn a_second_process_is_refused_and_disturbs_nothing() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    client.ask(Family::V4, &query("www.test.", RecordType::A))?;
    let config = scene.directory.path().join("config.toml");
    let output = run(Some(&scene.lab), &["run", &config.display().to_string()])?;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("another process"),
        "{}",
        stderr(&output)
    );
    assert_eq!(scene.attached()?, Run::this().attached());
    let before = scene.daemon.metrics()?;
    for family in Family::ALL {
        let answer = client.ask(family, &query("www.test.", RecordType::A))?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Run::this().answers(), 2), (&Counter::CacheHits, 2)],
    )
}

/// Another DNS server that still runs is a common cause.
#[test]
fn who_has_the_address_is_named_by_run_and_by_check() -> Result<()> {
    if !root_or_skip("who_has_the_address_is_named_by_run_and_by_check") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = Directory::new()?;
    let text = GOOD.replace(
        "name = \"lan0\"",
        "name = \"lan0\"\nxdp = \"off\"\nlisten = [\"10.53.0.1\"]",
    );
    let file = write(directory.path(), "good.toml", &text)?;
    let file = file.display().to_string();
    let check = || run(Some(&lab), &["check", &file]);
    assert_eq!(check()?.status.code(), Some(0));
    let holder = |address: &str| format!("{} (pid {})", own_name(), std::process::id()) + address;
    for (protocol, address) in [
        ("UDP", "10.53.0.1:53"),
        ("UDP", "0.0.0.0:53"),
        ("TCP", "10.53.0.1:53"),
        ("TCP", "[::]:53"),
    ] {
        let held = hold(&lab, protocol, address)?;
        let expected = format!(
            "{protocol} 10.53.0.1:53: bind: Address already in use: {}",
            holder(" has it")
        );
        // Processes of other tests inherit our descriptors until they exec.
        let mut output = check()?;
        wait_until("nobody else has it", TIMEOUT, || {
            let again = check();
            again.is_ok_and(|again| {
                output = again;
                stderr(&output).trim_end() == expected
            })
        })
        .with_context(|| stderr(&output))?;
        let said = stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{protocol} {address}: {said}"
        );
        assert_eq!(said.trim_end(), expected);
        assert!(output.stdout.is_empty());
        drop(held);
    }
    let held = hold(&lab, "UDP", "10.53.0.1:53")?;
    let expected = format!(
        "UDP 10.53.0.1:53: bind: Address already in use: {}",
        holder(" has it")
    );
    let said = || -> Result<String> {
        let mut command = lab.router.command(BINARY);
        command.args(["run", &file]).stderr(Stdio::piped());
        let mut daemon = command.spawn()?;
        let mut errors = BufReader::new(daemon.stderr.take().expect("it is piped"));
        let mut said = String::new();
        while !said.contains(&expected) && errors.read_line(&mut said)? > 0 {}
        let _ = daemon.kill();
        daemon.wait()?;
        Ok(said)
    };
    let mut last = String::new();
    wait_until("nobody else has it", TIMEOUT, || {
        last = said().unwrap_or_else(|error| format!("{error:#}"));
        last.contains(&expected)
    })
    .with_context(|| last)?;
    drop(held);
    Ok(())
}

/// A socket of this process at an address of the router. Processes of other tests inherit the previous one, although it is
/// closed here, until they exec.
fn hold(lab: &Lab, protocol: &str, address: &str) -> Result<OwnedFd> {
    let bind = || -> std::io::Result<OwnedFd> {
        Ok(match protocol {
            "UDP" => UdpSocket::bind(address)?.into(),
            _ => TcpListener::bind(address)?.into(),
        })
    };
    let mut held = lab.router.run(bind);
    wait_until("the address is free", TIMEOUT, || {
        let is_taken = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
        if held.as_ref().is_err_and(is_taken) {
            held = lab.router.run(bind);
        }
        !held.as_ref().is_err_and(is_taken)
    })?;
    held.with_context(|| format!("{protocol} {address}"))
}

/// The kernel's name of this process.
fn own_name() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    name.trim_end().to_owned()
}

#[test]
fn a_config_that_is_served_already_is_valid() -> Result<()> {
    let scene = scene!(Setup::default());
    let config = scene.directory.path().join("config.toml");
    let output = run(Some(&scene.lab), &["check", &config.display().to_string()])?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    Ok(())
}

#[test]
fn reload_says_what_came_of_it() -> Result<()> {
    let scene = scene!(Setup::default());
    let socket = scene.directory.path().join("sock").display().to_string();
    let file = scene.directory.path().join("config.toml");
    let reload = || run(Some(&scene.lab), &["reload", "--socket", &socket]);
    let good = fs::read_to_string(&file)?;
    let output = reload()?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("reloaded: "));
    let lists = scene
        .directory
        .path()
        .join("absent.list")
        .display()
        .to_string();
    fs::write(
        &file,
        format!("{good}\n[filter]\nblock_files = [{lists:?}]\n"),
    )?;
    let output = reload()?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("note: {lists}: ")), "{said}");
    let hosts = write(scene.directory.path(), "hosts", "192.0.2.1 a..b\n")?;
    let hosts = hosts.display().to_string();
    fs::write(&file, format!("{good}\n[local]\nhosts = [{hosts:?}]\n"))?;
    let output = reload()?;
    let told = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains(&format!("note: {hosts}:1: ")), "{told}");
    fs::write(
        &file,
        format!("{good}\n[cashe]\n[shield]\ncalm_secs = \"1h\"\n"),
    )?;
    let output = reload()?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[0], "not reloaded, all stays as it was:");
    assert!(
        lines[1].contains("cashe: unknown section, did you mean \"cache\"?"),
        "{said}"
    );
    assert!(lines[2].contains("such as 3600"), "{said}");
    scene.daemon.wait_log_count("such as 3600", 1)?;
    fs::write(&file, good)?;
    assert_eq!(reload()?.status.code(), Some(0));
    Ok(())
}

#[test]
fn who_asks_nobody_is_told_so() -> Result<()> {
    let directory = Directory::new()?;
    let socket = directory.path().join("none").display().to_string();
    let output = run(None, &["stats", "--socket", &socket])?;
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("no xdnsd listens at {socket}: not running, or --socket PATH\n");
    assert_eq!(stderr(&output), expected);
    Ok(())
}

/// A table, followed by the upstream servers.
#[test]
fn stats_are_a_table_of_what_was_asked_and_answered() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for _ in 0..4 {
        client.ask(Family::V4, &query("a.test.", RecordType::A))?;
    }
    let socket = scene.directory.path().join("sock").display().to_string();
    let output = run(None, &["stats", "--socket", &socket])?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8(output.stdout)?;
    let cells = |row: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(row));
        let words = line.unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(cells("queries  "), ["4", "0.0"], "{table}");
    assert_eq!(cells("  from the cache  "), ["3", "0.0"], "{table}");
    assert_eq!(
        cells("hit ratio of the cache")[..2],
        ["75.0", "%"],
        "{table}"
    );
    assert!(table.contains("\ngroup    server        state"), "{table}");
    Ok(())
}

#[test]
fn what_is_shown_is_json_where_a_program_asks() -> Result<()> {
    only!(OVER_XDP, "it looks at the counter of AF_XDP");
    let scene = scene!(Setup::default().sections("[local]\nrecords = [\"nas.lan A 192.0.2.7\"]\n"));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    client.ask(Family::V4, &query("a.test.", RecordType::A))?;
    let socket = scene.directory.path().join("sock").display().to_string();
    let config = scene.directory.path().join("config.toml");
    let config = config.display().to_string();
    let json = |words: &[&str]| -> Result<Value> {
        let output = run(Some(&scene.lab), words)?;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let asked = |words: &[&str]| json(&[words, &["--json", "--socket", &socket]].concat());
    let metrics = asked(&["stats"])?;
    let metrics = metrics["metrics"].as_array().expect("a list");
    let hit = |metric: &&Value| metric["name"] == "xdnsd_queries_xdp_total";
    let hit = metrics.iter().find(hit).expect("that counter");
    assert_eq!(
        (&hit["value"], &hit["type"]),
        (&json!(1), &json!("counter"))
    );
    assert_eq!(hit["labels"], json!({ "interface": "lan0", "queue": "0" }));
    let text = scene.daemon.control("stats")?;
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(metrics.len(), samples, "every sample is in both");
    // Workers publish the state of servers twice a second.
    wait_until("the server is up", TIMEOUT, || {
        let servers = asked(&["upstreams"]).unwrap_or_default();
        (&servers[0]["state"], &servers[0]["asked"]) == (&json!("up"), &json!(1))
    })?;
    let kept = asked(&["cache", "dump", "a.test"])?;
    assert_eq!(kept["state"], "fresh");
    let why = asked(&["why", "nas.lan"])?;
    assert_eq!(why["verdict"], "local");
    assert_eq!(why["reasons"][0]["says"], "nas.lan. 60 IN A 192.0.2.7");
    assert_eq!(why["reasons"][0]["file"], json!(config));
    assert_eq!(asked(&["why", "a.test"])?["cache"], json!([kept]));
    scene.daemon.control("shield deny 2001:db8:ffff::/48")?;
    let listed = json!({
        "prefix": "2001:db8:ffff::/48",
        "verdict": "deny",
        "source": "said",
        "secs_left": null,
    });
    assert_eq!(asked(&["shield", "list"])?, listed);
    let status = asked(&["shield", "status"])?;
    let prefixes = json!({ "denied": 1, "allowed": 0, "said": 1 });
    assert_eq!(status["prefixes"], prefixes);
    let lan = &status["interfaces"][0];
    assert_eq!(
        (&lan["interface"], &lan["in_force"]),
        (&json!("lan0"), &json!(true))
    );
    assert_eq!(lan["frames"]["drop_denied"], json!(0));
    assert!(json(&["memory", "--json"])?["lines"].is_array());
    let checked = json(&["check", "--json", &config])?;
    assert_eq!(
        (&checked["valid"], &checked["faults"]),
        (&json!(true), &json!([]))
    );
    fs::write(
        &config,
        GOOD.replace("name = \"lan0\"", "name = \"lan0\"\nport = 0"),
    )?;
    let output = run(None, &["check", "--json", &config])?;
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(1), String::new())
    );
    let checked: Value = serde_json::from_slice(&output.stdout)?;
    let fault = &checked["faults"][0];
    assert_eq!(
        (&fault["line"], &fault["key"]),
        (&json!(3), &json!("interface.port"))
    );
    Ok(())
}

#[test]
fn stats_are_prometheus_text() -> Result<()> {
    let scene = scene!(Setup::default());
    let socket = scene.directory.path().join("sock").display().to_string();
    // One answer that waited, and one that did not.
    scene
        .upstream
        .on("slow.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for _ in 0..2 {
        client.ask(Family::V4, &query("slow.test.", RecordType::A))?;
    }
    let mut text = String::new();
    // An answer is counted when its batch has been sent.
    wait_until("both are counted by how long they took", TIMEOUT, || {
        let mut command = scene.lab.router.command(BINARY);
        command.args(["stats", "--prometheus", "--socket", &socket]);
        let output = command.output().expect("stats");
        assert_eq!(output.status.code(), Some(0));
        text = String::from_utf8(output.stdout).expect("text");
        let answers = |tier: &str| -> u64 {
            let series = format!("xdnsd_answer_seconds_count{{tier=\"{tier}\"}} ");
            let count = text.lines().find_map(|line| line.strip_prefix(&series));
            count.and_then(|count| count.parse().ok()).expect("a count")
        };
        answers("upstream") == 1 && answers("af_xdp") + answers("kernel") == 1
    })?;
    let mut samples = 0;
    for line in text.lines() {
        if line.starts_with("# HELP ") || line.starts_with("# TYPE ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        assert!(series.starts_with("xdnsd_"), "{line}");
        match series.starts_with("xdnsd_answer_seconds_sum") {
            true => assert!(value.parse::<f64>()? >= 0.0, "{line}"),
            false => drop(value.parse::<u64>()?),
        }
        samples += 1;
    }
    assert!(samples > 50, "{text}");
    let mode = fs::metadata(&socket)?.permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    fs::remove_file(&socket)?;
    let output = run(None, &["stats", "--socket", &socket])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&socket), "{}", stderr(&output));
    Ok(())
}
