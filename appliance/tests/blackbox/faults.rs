//! Messages about a wrong file, command or machine: the whole line of the real program.

use std::process::Output;

use anyhow::Result;
use nix::sys::signal::Signal;
use xdnsd_lab::lab::{LAN, LAN_V4, Lab, Spec};
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::process::Process;

use crate::support::TIMEOUT;
use crate::support::daemon::{BINARY, run, write};
use crate::support::run::only;
use crate::support::scene::{Directory, Setup, scene};

/// What is allowed as upstream servers.
const SERVERS: &str = "; allowed: a list of 0 to 16, each ADDRESS, ADDRESS:PORT or [IPV6]:PORT; a link-local address names its \
    interface: fe80::1%wan0; by which interface or from which address it is asked stands behind it: @wan0, \
    @198.51.100.7; encrypted servers (DoT, DoH, DoQ) by way of a stub on this machine, such as \"127.0.0.1:5453\"";
/// Allowed addresses to listen on.
const LISTEN: &str = "; allowed: a list of 0 to 256, each an IPv4 or IPv6 address in quotes";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files by users of other programs, and the line about each, without the file's name.
fn files() -> Vec<(String, String)> {
    let lan = "[[interface]]\nname = \"lan0\"\n";
    let up = "[[upstream]]\nservers = [\"192.0.2.1\"]\n";
    let server = |text: &str| format!("{lan}[[upstream]]\nservers = [{text}]\n");
    let listen = |text: &str| format!("{lan}listen = [\"{text}\"]\n{up}");
    let no_server = |name: &str, why: &str| {
        format!(":4:12: upstream.servers: \"{name}\" is not a server: {why}{SERVERS}")
    };
    let no_address = |text: &str, bare: &str| {
        format!(
            ":3:11: interface.listen: \"{text}\": without prefix, port (that is interface.port), zone and brackets: \
             \"{bare}\"{LISTEN}"
        )
    };
    vec![
        (
            format!("[interface]\nname = \"lan0\"\n[interface]\nname = \"lan1\"\n{up}"),
            ":3:2: more than one needs double brackets in each place: [[interface]] here and in line 1".into(),
        ),
        (
            server("9.9.9.9"),
            format!(":4:12: upstream.servers: addresses stand in quotes: [\"9.9.9.9\"]{SERVERS}"),
        ),
        (
            "interface=br-lan\nserver=9.9.9.9\ndhcp-range=192.168.1.50,192.168.1.150,12h\n".into(),
            ": this looks like dnsmasq's configuration; xdnsd reads TOML, `xdnsd import` makes one of it".into(),
        ),
        (
            "server:\n    interface: 0.0.0.0\nforward-zone:\n    name: \".\"\n".into(),
            ": this looks like unbound's configuration; xdnsd reads TOML, see config/home-router.toml".into(),
        ),
        (
            format!("{lan}{up}[cache]\nmax_ttl = \"1h\"\n"),
            ":6:11: cache.max_ttl: \"1h\": seconds, an integer from 1 to 604800, such as 3600".into(),
        ),
        (
            server("\"dns.quad9.net\""),
            no_server(
                "dns.quad9.net",
                "a name would have to be asked for first, so a server is named by its address",
            ),
        ),
        (
            server("\"tls://9.9.9.9\""),
            no_server(
                "tls://9.9.9.9",
                "there is no encrypted form (DoT, DoH, DoQ); run a stub on this machine that asks it, such as stubby, \
                 dnscrypt-proxy or unbound, and name its address",
            ),
        ),
        (listen("192.168.1.1/24"), no_address("192.168.1.1/24", "192.168.1.1")),
        (listen("192.168.1.1:53"), no_address("192.168.1.1:53", "192.168.1.1")),
        (listen("[fd11::1]"), no_address("[fd11::1]", "fd11::1")),
    ]
}

#[test]
fn a_file_of_somebody_new_is_told_its_line_its_key_and_what_is_right() -> Result<()> {
    let directory = Directory::new()?;
    for (text, expected) in files() {
        let file = write(directory.path(), "new.toml", &text)?;
        let file = file.display().to_string();
        for (arguments, status) in [
            (&["check", &file][..], 1),
            (&["check", "--offline", &file], 1),
            (&["run", &file], 78),
        ] {
            let output = run(None, arguments)?;
            assert_eq!(
                said(&output),
                format!("{file}{expected}\n"),
                "{arguments:?}"
            );
            assert_eq!(output.status.code(), Some(status), "{text}");
            assert!(output.stdout.is_empty(), "{text}");
        }
    }
    let output = run(None, &["check"])?;
    assert_eq!(
        said(&output),
        "check needs a FILE: xdnsd check [--offline] [--json] [--user NAME] FILE\n"
    );
    Ok(())
}

/// Unusable paths: `check` and `run` report them in the same words, with the place in the file, and the path once.
#[test]
fn a_path_that_cannot_be_had_is_told_alike_by_check_and_by_run() -> Result<()> {
    only!(ONCE, "it serves nobody");
    if !root_or_skip("a_path_that_cannot_be_had_is_told_alike_by_check_and_by_run") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = Directory::new()?;
    let here = directory.path().display().to_string();
    let kernels = "proc is a file system of the kernel: others cannot make files there";
    for (number, (path, at, what, is_other)) in [
        (here.clone(), here.clone(), "is a folder, not a", true),
        (
            "/dev/null".into(),
            "/dev/null".into(),
            "is a device, not a",
            true,
        ),
        ("/proc/xdnsd".into(), "/proc".into(), kernels, false),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            "[[interface]]\nname = \"{LAN}\"\nxdp = \"off\"\n[[upstream]]\nservers = [\"10.54.0.2\"]\n\
             [cache]\nsnapshot = \"{path}\"\n[control]\nsocket = \"{path}\"\n"
        );
        let file = write(directory.path(), "paths.toml", &text)?;
        let file = file.display().to_string();
        let line = |place: &str, kind: &str, consequence: &str| {
            let kind = if is_other {
                format!(" {kind}")
            } else {
                String::new()
            };
            format!("{file}:{place}: {at}: {what}{kind}; {consequence}")
        };
        let snapshot = line("7:1: cache.snapshot", "file", "no snapshot can be written");
        let socket = line(
            "9:1: control.socket",
            "socket",
            "no control socket can be had",
        );
        let output = run(Some(&lab), &["check", &file])?;
        let allowed =
            "; allowed: the path of a file in a folder that xdnsd may write to, or \"\" for none\n";
        assert_eq!(
            said(&output),
            format!("{snapshot}{allowed}{socket}{allowed}")
        );
        assert_eq!(output.status.code(), Some(1));
        let mut command = lab.router.command(BINARY);
        command.arg("run").arg(&file);
        let log = directory.path().join(format!("log{number}"));
        let mut process = Process::spawn(command, &log)?;
        process.wait_for_log(&format!("snapshot: {snapshot}\n"), TIMEOUT)?;
        let trouble = format!("control socket: {socket}; tried again until it can be had\n");
        process.wait_for_log(&trouble, TIMEOUT)?;
    }
    Ok(())
}

/// By an account that may not write there: given by `--user`, and as itself.
#[test]
fn rights_are_those_of_the_account_that_is_to_serve() -> Result<()> {
    only!(ONCE, "it serves nobody");
    if !root_or_skip("rights_are_those_of_the_account_that_is_to_serve") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = Directory::new()?;
    let here = directory.path().display().to_string();
    let text = format!(
        "[[interface]]\nname = \"{LAN}\"\nxdp = \"off\"\nport = 5399\n[[upstream]]\nservers = [\"10.54.0.2\"]\n\
         [cache]\nsnapshot = \"{here}/new/cache\"\n[control]\nsocket = \"\"\n"
    );
    let file = write(directory.path(), "rights.toml", &text)?;
    let file = file.display().to_string();
    let denied = format!(
        "{file}:8:1: cache.snapshot: {here}: Permission denied for user 65534; no snapshot can be written"
    );
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", BINARY];
    let as_nobody = |arguments: &[&str]| {
        let mut command = lab.router.command("setpriv");
        command.args(nobody).args(arguments).arg(&file).output()
    };
    assert_eq!(run(Some(&lab), &["check", &file])?.status.code(), Some(0));
    let as_root = run(Some(&lab), &["check", "--user", "nobody", &file])?;
    let already = as_nobody(&["check", "--user=nobody"])?;
    for output in [as_root, already] {
        assert!(said(&output).starts_with(&denied), "{}", said(&output));
        assert_eq!(output.status.code(), Some(1));
    }
    // The account of the check may differ from that of the server.
    let output = as_nobody(&["check"])?;
    assert_eq!(said(&output), format!("note: {denied}\n"));
    assert_eq!(output.status.code(), Some(0));
    let output = as_nobody(&["run", "--user", "root"])?;
    let expected = "cannot become user root: this is user 65534, and only root may change\n";
    assert_eq!(
        (said(&output).as_str(), output.status.code()),
        (expected, Some(1))
    );
    // A process that has that account already goes on.
    let mut command = lab.router.command("setpriv");
    command
        .args(nobody)
        .args(["run", "--user", "nobody", &file]);
    let mut process = Process::spawn(command, &directory.path().join("log"))?;
    process.wait_for_log("] ready: ", TIMEOUT)?;
    let log = process.log();
    assert!(log.contains(&format!("snapshot: {denied}\n")), "{log}");
    assert!(process.terminate()?.success(), "{}", process.log());
    Ok(())
}

#[test]
fn who_wants_the_router_itself_answered_is_told_of_lo() -> Result<()> {
    if !root_or_skip("who_wants_the_router_itself_answered_is_told_of_lo") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = Directory::new()?;
    let text = format!(
        "[[interface]]\nname = \"{LAN}\"\nlisten = [\"127.0.0.1\"]\n[[upstream]]\nservers = [\"192.0.2.1\"]\n"
    );
    let file = write(directory.path(), "new.toml", &text)?;
    let file = file.display().to_string();
    let output = run(Some(&lab), &["check", &file])?;
    let expected = format!(
        "{file}:3:11: interface.listen: 127.0.0.1 is not an address of {LAN}; to answer this router itself add \
         [[interface]] name = \"lo\"; allowed: {LAN_V4}, "
    );
    assert!(said(&output).starts_with(&expected), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

/// The kernel refuses the port, because the process has no capability left. The kernel decides from which port on none is
/// needed.
#[test]
fn a_port_that_needs_a_right_is_said_with_the_right_and_the_ports_without() -> Result<()> {
    if !root_or_skip("a_port_that_needs_a_right_is_said_with_the_right_and_the_ports_without") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    let directory = Directory::new()?;
    for (port, free) in [(53, 1024), (1500, 2000)] {
        lab.router.write(
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            &free.to_string(),
        )?;
        let text = format!(
            "[[interface]]\nname = \"{LAN}\"\nxdp = \"off\"\nport = {port}\nlisten = [\"{LAN_V4}\"]\n\
             [[upstream]]\nservers = [\"10.54.0.2\"]\n[control]\nsocket = \"\"\n"
        );
        let file = write(directory.path(), "port.toml", &text)?;
        let mut command = lab.router.command("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", BINARY, "run"]);
        command.arg(&file);
        let mut process = Process::spawn(command, &directory.path().join("log"))?;
        let line = format!(
            "TCP {LAN_V4}:{port}: bind: Permission denied: needs CAP_NET_BIND_SERVICE, root, or a port from {free} on; \
             tried again until it can be had\n"
        );
        process.wait_for_log(&line, TIMEOUT)?;
    }
    Ok(())
}

#[test]
fn a_daemon_that_does_not_answer_is_told_from_one_that_is_not_there() -> Result<()> {
    let scene = scene!(Setup::default());
    let socket = scene.directory.path().join("sock").display().to_string();
    let stats = || run(None, &["stats", "--socket", &socket]);
    scene.daemon.stop()?;
    let output = stats()?;
    let expected = format!("no answer in 5 s from the xdnsd at {socket}\n");
    assert_eq!((said(&output), output.status.code()), (expected, Some(1)));
    scene.daemon.signal(Signal::SIGCONT)?;
    assert_eq!(stats()?.status.code(), Some(0));
    Ok(())
}

/// A bridge has no native XDP, and this one is to have no other.
#[test]
fn why_a_mode_is_generic_is_one_plain_line_and_the_details_are_for_debugging() -> Result<()> {
    for level in ["info", "debug"] {
        let sections = format!(
            "[[interface]]\nname = \"br9\"\n[[interface]]\nname = \"br8\"\nxdp = \"native\"\n\
             [log]\nlevel = \"{level}\"\n"
        );
        let scene = scene!(Setup::default().sections(&sections));
        scene.lab.router.ip(
            "link add name br9 type bridge\nlink set br9 up\naddress add 10.56.0.1/24 dev br9\n\
             link add name br8 type bridge\nlink set br8 up\naddress add 10.57.0.1/24 dev br8\n",
        )?;
        let line = "br9: XDP program attached, mode generic: the driver has no native XDP, or its offloads stand in the way\n";
        scene.daemon.wait_log_count(line, 1)?;
        let line = "br8: no XDP, the kernel's sockets serve: the driver has no native XDP, or offloads such as LRO, \
                    GRO_HW or guest offloads stand in its way; mode \"generic\" works anywhere\n";
        scene.daemon.wait_log_count(line, 1)?;
        let details = ["br9: not native: ", "br8: no XDP: ", "bpf_link_create"];
        if level == "debug" {
            // The details follow.
            scene.daemon.wait_log_count(details[0], 1)?;
            scene.daemon.wait_log_count(details[1], 1)?;
        }
        let log = scene.daemon.log();
        let is_detailed = details.iter().all(|text| log.contains(text));
        assert_eq!(is_detailed, level == "debug", "{log}");
        assert_eq!(log.contains("os error"), level == "debug", "{log}");
    }
    Ok(())
}
