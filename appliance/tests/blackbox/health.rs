//! Health: what is reported to a watchdog, and what ends a process that hangs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdnsd::control;
use xdnsd_core::dns::rtype;
use xdnsd_core::limits::WORKERS;
use xdnsd_lab::lab::{LAN, LAN_V4, LAN_V6};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

use crate::arrivals;
use crate::support::ask::Ask;
use crate::support::client::{Family, UdpClient};
use crate::support::daemon::{BINARY, run};
use crate::support::message::{addresses, query};
use crate::support::preload;
use crate::support::run::only;
use crate::support::scene::{Directory, Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;
use crate::support::view::View;
use crate::support::{ANSWER_TIMEOUT, TIMEOUT};

/// Exit status and output of `xdnsd health`.
fn health(scene: &Scene) -> Result<(Option<i32>, String)> {
    let config = scene.directory.path().join("config.toml");
    let output = run(Some(&scene.lab), &["health", &config.display().to_string()])?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[test]
fn health_tells_a_process_that_answers_from_one_that_hangs_and_from_none() -> Result<()> {
    let mut scene = scene!(Setup::three_ways());
    let (status, said) = health(&scene)?;
    ensure!(status == Some(0), "{said}");
    scene.daemon.stop()?;
    let (status, said) = health(&scene)?;
    ensure!(status == Some(1), "{status:?} {said}");
    scene.daemon.signal(Signal::SIGCONT)?;
    let (status, said) = health(&scene)?;
    ensure!(status == Some(0), "{said}");
    scene.daemon.kill()?;
    let (status, said) = health(&scene)?;
    ensure!(status == Some(3), "{status:?} {said}");
    Ok(())
}

#[test]
fn who_may_not_ask_is_no_sign_of_a_hang() -> Result<()> {
    let drop_all = "[access]\ndrop = [\"0.0.0.0/0\", \"::/0\"]\n";
    let scene = scene!(Setup::three_ways().sections(drop_all));
    let (status, said) = health(&scene)?;
    ensure!(status == Some(0), "{said}");
    Ok(())
}

/// Port of a second daemon.
const OTHER_PORT: u16 = 5399;

/// Another daemon beside the scene's, on another port.
fn spawn(scene: &Scene, wrap: &[&str], env: &[(&str, &str)]) -> Result<Process> {
    spawn_on(scene, LAN, wrap, env)
}

/// The same, on another interface.
fn spawn_on(
    scene: &Scene,
    interface: &str,
    wrap: &[&str],
    env: &[(&str, &str)],
) -> Result<Process> {
    let folder = scene.directory.path();
    let config = fs::read_to_string(folder.join("config.toml"))?;
    let config = config.replace(&format!("{LAN:?}"), &format!("{interface:?}"));
    let config = config.replace("/sock\"", "/sock2\"");
    let port = format!("[[interface]]\nport = {OTHER_PORT}\n");
    let config = config.replace("[[interface]]\n", &port);
    // The interface has the first daemon's program.
    let config = config.replace("xdp = \"native\"", "xdp = \"off\"");
    fs::write(folder.join("other.toml"), config)?;
    let words = [wrap, &[BINARY, "run"]].concat();
    let mut command = scene.lab.router.command(words[0]);
    command.args(&words[1..]).arg(folder.join("other.toml"));
    command.envs(env.iter().copied());
    Process::spawn(command, &folder.join("other.log"))
}

/// The service manager's socket, and its path.
fn manager(scene: &Scene) -> Result<(UnixDatagram, String)> {
    let path = scene.directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(TIMEOUT))?;
    Ok((manager, path.display().to_string()))
}

/// What the service manager is told next.
fn told(manager: &UnixDatagram) -> Result<String> {
    let mut room = [0; 256];
    let len = manager.recv(&mut room).context("nothing was told")?;
    Ok(String::from_utf8_lossy(&room[..len]).into_owned())
}

/// Units that wait for this one must not wait for an interface.
#[test]
fn a_start_is_over_although_an_interface_is_missing() -> Result<()> {
    only!(ONCE, "no query comes");
    let scene = scene!(Setup::three_ways().on_all_addresses());
    let (manager, path) = manager(&scene)?;
    let _other = spawn_on(&scene, "late9", &[], &[("NOTIFY_SOCKET", &path)])?;
    let first = told(&manager)?;
    ensure!(first.starts_with("READY=1\nSTATUS=not ready: "), "{first}");
    arrivals::plug(&scene, "late9", 1)?;
    wait_until("it is ready", TIMEOUT, || {
        told(&manager).is_ok_and(|state| state == "READY=1\nSTATUS=ready")
    })
}

#[test]
fn the_service_manager_is_told_while_it_lives() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let (manager, path) = manager(&scene)?;
    let other = spawn(&scene, &[], &[("NOTIFY_SOCKET", &path)])?;
    let told = || told(&manager);
    ensure!(told()?.starts_with("READY=1\n"));
    for _ in 0..2 {
        ensure!(told()? == "WATCHDOG=1");
    }
    other.stop()?;
    manager.set_read_timeout(Some(Duration::from_secs(3)))?;
    // After what was on its way.
    ensure!((0..10).any(|_| told().is_err()), "it was stopped");
    other.signal(Signal::SIGCONT)?;
    manager.set_read_timeout(Some(TIMEOUT))?;
    ensure!(told()? == "WATCHDOG=1");
    Ok(())
}

/// Restarts the scene's daemon so that threads can be held: the one named in the file `hang`.
fn start_with_threads_to_hold(scene: &mut Scene) -> Result<(Process, PathBuf)> {
    let folder = scene.directory.path().to_owned();
    let hung = preload::compile("hung_worker", &folder)?;
    let hang = folder.join("hang");
    scene.daemon.terminate()?;
    let mut command = scene.lab.router.command(BINARY);
    command.arg("run").arg(folder.join("config.toml"));
    command.env("LD_PRELOAD", &hung).env("HANG", &hang);
    let mut other = Process::spawn(command, &folder.join("hung.log"))?;
    let socket = folder.join("sock");
    let is_well = || control::ask(&socket, "health", &mut std::io::sink()).is_ok();
    other.wait_until("it is well", TIMEOUT, is_well)?;
    Ok((other, hang))
}

/// A shipped watchdog script.
fn shipped(name: &str) -> Result<String> {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../buildroot/package/xdnsd/");
    fs::read_to_string(format!("{package}{name}")).with_context(|| name.to_owned())
}

/// Three of its looks take 24 seconds: each asks again and again, as a client and at the control socket.
const LOOKS_MAX: Duration = Duration::from_secs(60);

/// The script of the image and of busybox, unchanged except for its paths and its pauses.
#[test]
fn a_server_that_is_stopped_is_ended_and_started_again_by_the_loop_around_it() -> Result<()> {
    let mut scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.daemon.terminate()?;
    let folder = scene.directory.path();
    let here = folder.display();
    let mut script = shipped("supervise")?;
    for (path, own) in [
        ("/usr/bin/xdnsd", BINARY.to_owned()),
        ("/etc/default/xdnsd", format!("{here}/defaults")),
        ("/var/run/xdnsd-server.pid", format!("{here}/pid")),
        ("/run/xdnsd", format!("{here}/run")),
        (">/dev/console", format!(">>{here}/console")),
    ] {
        ensure!(script.contains(path), "{path}");
        script = script.replace(path, &own);
    }
    fs::write(folder.join("supervise"), script)?;
    let defaults = format!(
        "LOOK_PAUSE=0.1\nXDNSD_CONFIG={here}/config.toml\nXDNSD_USER=\nXDNSD_STATE={here}/state\n"
    );
    fs::write(folder.join("defaults"), defaults)?;
    let mut command = scene.lab.router.command("sh");
    command.arg(folder.join("supervise"));
    let mut supervised =
        Process::spawn_with_end(command, &folder.join("supervise.log"), End::Terminate)?;
    let socket = folder.join("sock");
    let is_well = || control::ask(&socket, "health", &mut std::io::sink()).is_ok();
    let pid = || fs::read_to_string(folder.join("pid")).unwrap_or_default();
    supervised.wait_until("it serves", 4 * TIMEOUT, is_well)?;
    let first = pid();
    let stopped = Stopped::new(Pid::from_raw(first.trim().parse()?))?;
    supervised.wait_until("another serves", LOOKS_MAX, || pid() != first && is_well())?;
    let client = scene.udp_client(Family::V4)?;
    let answer = client.ask(&query("www.test.", RecordType::A))?;
    ensure!(addresses(&answer) == ["192.0.2.1"]);
    let console = fs::read_to_string(folder.join("console"))?;
    ensure!(
        console.contains("xdnsd: does not answer, ended"),
        "{console}"
    );
    drop(stopped);
    ensure!(supervised.terminate()?.success());
    Ok(())
}

/// A stopped process, which would stay if nobody ended it.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: Pid) -> Result<Self> {
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Its number may belong to another process by now.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0));
        if stat.is_ok_and(|stat| stat.contains("(xdnsd) T ")) {
            let _ = kill(self.0, Signal::SIGKILL);
        }
    }
}

/// procd restarts the server by itself; this tells it when to.
#[test]
fn a_server_that_is_stopped_is_ended_by_what_procd_runs_beside_it() -> Result<()> {
    let mut scene = scene!(Setup::three_ways());
    let folder = scene.directory.path();
    let here = folder.display();
    fs::write(folder.join("pid"), scene.daemon.pid().to_string())?;
    fs::write(folder.join("procd"), shipped("xdnsd.procd")?)?;
    let text = format!(
        ". {here}/procd\nPROG={BINARY}\nCONFIG={here}/config.toml\nPIDFILE={here}/pid\n\
         sleep() {{ command sleep 0.1; }}\nlogger() {{ shift 5; echo \"$*\" >>{here}/log; }}\nwatch\n"
    );
    let mut command = scene.lab.router.command("sh");
    command.args(["-c", &text]);
    let mut watch = Process::spawn(command, &folder.join("watch.log"))?;
    // It does not report one that answers.
    let looked = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    for _ in 0..3 {
        let (status, said) = health(&scene)?;
        ensure!(status == Some(0) && looked().is_empty(), "{said}");
    }
    scene.daemon.stop()?;
    watch.wait_until("it is ended", LOOKS_MAX, || {
        looked().contains("does not answer, ended")
    })?;
    // It says so before it does so.
    let status = scene.daemon.wait_exit()?;
    watch.kill()?;
    ensure!(status.signal() == Some(Signal::SIGKILL as i32), "{status}");
    Ok(())
}

/// A single thread hangs: all others go on, and report it.
#[test]
fn a_worker_that_hangs_is_found_and_ends_the_process() -> Result<()> {
    let mut scene = scene!(Setup::three_ways());
    let (mut other, hang) = start_with_threads_to_hold(&mut scene)?;
    let socket = scene.directory.path().join("sock");
    let look = || control::ask(&socket, "health", &mut std::io::sink());
    fs::write(&hang, "worker 0")?;
    // It may turn once more before it hangs.
    let is_found = || look().is_err_and(|told| told.to_string().contains("worker 0 hangs"));
    other.wait_until("the others say that it hangs", 4 * TIMEOUT, is_found)?;
    let status = other.wait_exit(4 * TIMEOUT)?;
    ensure!(status.code().is_some_and(|code| code > 0), "{status}");
    ensure!(other.log().contains("worker 0 hangs"), "{}", other.log());
    Ok(())
}

/// The kernel reports a connection once. The thread for TCP is held until both events are pending.
#[test]
fn a_query_over_tcp_that_comes_in_one_wake_up_with_a_new_policy_is_answered() -> Result<()> {
    let mut scene = scene!(Setup::three_ways());
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule);
    let (mut other, hang) = start_with_threads_to_hold(&mut scene)?;
    let message = Ask::of("www.test.", rtype::A).bytes();
    let mut stream = Stream::open(&scene.lab, Family::V4)?;
    stream.exchange(&message)?;
    fs::write(&hang, format!("worker {WORKERS}"))?;
    let held = hang.with_extension("held");
    other.wait_until("it is held", TIMEOUT, || held.exists())?;
    let folder = scene.directory.path();
    let config = fs::read_to_string(folder.join("config.toml"))?;
    let record = "[local]\nrecords = [\"new.test A 192.0.2.9\"]\n";
    fs::write(folder.join("config.toml"), config + record)?;
    control::ask(&folder.join("sock"), "reload", &mut std::io::sink())?;
    stream.send(&message)?;
    fs::remove_file(&hang)?;
    let reply = stream.receive().context("the query was lost")?;
    ensure!(View::parse(&reply)?.data(rtype::A).len() == 1);
    let reply = stream.exchange(&Ask::of("new.test.", rtype::A).bytes())?;
    ensure!(View::parse(&reply)?.data(rtype::A) == [[192, 0, 2, 9]]);
    ensure!(other.terminate()?.success(), "{}", other.log());
    Ok(())
}

/// Asks the second daemon.
fn ask_other(scene: &Scene) -> Result<View> {
    let client = scene
        .lab
        .client
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    client.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    client.send_to(
        &Ask::of("www.test.", rtype::A).bytes(),
        (LAN_V4, OTHER_PORT),
    )?;
    let mut reply = [0; 512];
    let len = client.recv(&mut reply)?;
    View::parse(&reply[..len])
}

#[test]
fn nothing_of_dev_is_needed() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let script = "mount -t tmpfs none /dev && exec \"$@\"";
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let mut other = spawn(&scene, &["unshare", "-m", "sh", "-c", script, "sh"], &[])?;
    other.wait_for_log("ready: 2 endpoints", TIMEOUT)?;
    // A miss: it draws an ID and a port.
    ensure!(ask_other(&scene)?.data(rtype::A).len() == 1);
    ensure!(other.terminate()?.success(), "{}", other.log());
    Ok(())
}

/// True if the second daemon answers over UDP, at one of its addresses at least.
fn is_answered_by_other(scene: &Scene) -> Result<bool> {
    let message = Ask::of("localhost.", rtype::A).bytes();
    for server in [IpAddr::from(LAN_V4), LAN_V6.into()] {
        let client = UdpClient::open_to(&scene.lab, SocketAddr::new(server, OTHER_PORT))?;
        if client.exchange(&message).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Too few descriptors, among others for a worker: a process that reports ready answers, and all others end.
#[test]
fn a_worker_that_cannot_be_ends_the_process_with_a_status() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let mut for_want_of_a_worker = 0;
    for limit in (14..30).chain([40]) {
        let wrap = ["prlimit", &format!("--nofile={limit}"), "--"];
        let mut other = spawn(&scene, &wrap, &[])?;
        wait_until(
            "it serves, says that it is not ready, or ends",
            TIMEOUT,
            || !other.is_running() || other.log().contains("ready: "),
        )?;
        // A ready daemon answers, if only with a failure: there may be no port for a question.
        let is_ready = other.log().contains("] ready: ");
        let answer = is_ready.then(|| ask_other(&scene));
        if other.is_running() {
            let says_ready = other.log().contains("] ready: ");
            ensure!(
                !says_ready || is_answered_by_other(&scene)?,
                "{limit}: {}",
                other.log()
            );
            other.kill()?;
            ensure!(!matches!(answer, Some(Err(_))), "{limit}: {}", other.log());
        } else {
            let status = other.wait_exit(TIMEOUT)?;
            ensure!(
                status.code().is_some_and(|code| code > 0),
                "{status} {}",
                other.log()
            );
            let says_why = other
                .log()
                .lines()
                .any(|line| line.starts_with("worker 0: "));
            for_want_of_a_worker += usize::from(says_why);
            let what_to_do = format!("only {limit} descriptors may be open");
            ensure!(
                other.log().contains(&what_to_do) && other.log().contains("LimitNOFILE"),
                "{limit}: {}",
                other.log()
            );
            ensure!(!other.log().contains("do not end"), "{}", other.log());
        }
        ensure!(!other.log().contains("panicked"), "{}", other.log());
    }
    ensure!(
        for_want_of_a_worker > 0,
        "no limit was such that a worker could not be"
    );
    Ok(())
}

/// A limit on the size of files (`ulimit -f`) fails a single write, like a full disk.
#[test]
fn a_limit_on_the_size_of_files_ends_nobody() -> Result<()> {
    only!(ONCE, "it is about no way");
    let folder = Directory::new()?;
    let text = folder.path().join("ads.txt");
    fs::write(&text, "ads.example\n")?;
    let list = folder.path().join("ads.list");
    let mut compile = Command::new("prlimit");
    compile.args(["--fsize=16", "--", BINARY, "lists", "compile"]);
    let output = compile.arg(&list).arg(&text).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said.contains("File too large"), "{said}");
    ensure!(
        fs::read_dir(folder.path())?.count() == 1,
        "what was begun is gone"
    );
    Ok(())
}

/// A process that is refused memory aborts, often without a message.
#[test]
fn a_limit_on_memory_is_told_at_the_start() -> Result<()> {
    only!(ONCE, "it is about no way");
    let mut command = Command::new("prlimit");
    let limit = "--data=15000000:15000000";
    let refused = command
        .args([limit, "--", BINARY, "run", "/none"])
        .output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let told = "the process may have 14648 KiB of data: 16384 are needed (`ulimit -d`, LimitDATA), and more for lists\n";
    ensure!(
        refused.status.code() == Some(1) && said == told,
        "{refused:?}"
    );
    Ok(())
}

/// As after `ulimit -s 64`: less stack than the first thread needs.
#[test]
fn a_small_stack_is_widened_or_told() -> Result<()> {
    only!(ONCE, "it is about no way");
    let checked = |limit: &str| {
        let limit = format!("--stack={limit}");
        let words = [&limit, "--", BINARY, "reference"];
        Command::new("prlimit").args(words).output()
    };
    let widened = checked("65536:8388608")?;
    ensure!(widened.status.success(), "{widened:?}");
    // An account with the right raises the hard limit, too.
    let told = checked("65536:65536")?;
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    let is_told = told.status.code() == Some(1) && said.starts_with("the stack may have 64 KiB: ");
    ensure!(is_told || told.status.success(), "{told:?}");
    Ok(())
}

#[test]
fn where_no_descriptor_is_left_connections_wait_and_are_served_later() -> Result<()> {
    only!(IN_DATAGRAMS, "UDP goes on where no connection can be had");
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.udp_client(Family::V4)?;
    client.ask(&query("www.test.", RecordType::A))?;
    let pid = scene.daemon.pid().to_string();
    let limit = |limit: &str| {
        scene
            .lab
            .router
            .output(&["prlimit", "--pid", &pid, &format!("--nofile={limit}:4096")])
    };
    limit("1024")?;
    // Lower than the highest descriptor in use: no new one can be opened.
    limit("3")?;
    let mut stream = Stream::open(&scene.lab, Family::V4)?;
    let message = Ask::of("www.test.", rtype::A).bytes();
    stream.send(&message)?;
    scene
        .daemon
        .wait_log_count("accept: Too many open files", 1)?;
    let answer = client.ask(&query("www.test.", RecordType::A))?;
    ensure!(addresses(&answer) == ["192.0.2.1"], "UDP goes on");
    limit("1024")?;
    let reply = stream.receive()?;
    ensure!(View::parse(&reply)?.data(rtype::A).len() == 1);
    ensure!(
        scene
            .daemon
            .log()
            .matches("accept: Too many open files")
            .count()
            == 1
    );
    Ok(())
}

#[test]
fn a_snapshot_that_cannot_be_written_is_said_at_start_and_by_check() -> Result<()> {
    let snapshot = "[cache]\nsnapshot = \"{directory}/config.toml/cache\"\n";
    let scene = scene!(Setup::default().sections(snapshot));
    let log = scene.daemon.log();
    let config = scene.directory.path().join("config.toml");
    let config = config.display().to_string();
    let text = fs::read_to_string(&config)?;
    let line = text
        .lines()
        .position(|line| line.starts_with("snapshot = "));
    let line = line.context("it is there")? + 1;
    let told = format!(
        "{config}:{line}:1: cache.snapshot: {config}: this is not a folder; no snapshot can be written"
    );
    ensure!(log.contains(&format!("snapshot: {told}\n")), "{log}");
    let checked = run(Some(&scene.lab), &["check", &config])?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    ensure!(said.starts_with(&format!("{told}; allowed: ")), "{said}");
    ensure!(checked.status.code() == Some(1), "{said}");
    Ok(())
}

/// The folder is on a file system that is mounted read-only, as by a unit's sandbox or on a damaged disk; the account has every
/// right.
#[test]
fn a_snapshot_on_a_read_only_mount_is_said_at_start_and_by_check() -> Result<()> {
    let snapshot = "[cache]\nsnapshot = \"{directory}/disk/cache\"\n";
    let scene = scene!(Setup::default().sections(snapshot));
    let disk = scene.directory.path().join("disk");
    let complains = |log: &str| log.contains("no snapshot can be written");
    ensure!(!complains(&scene.daemon.log()), "the folder is made");
    fs::create_dir_all(&disk)?;
    let mount = format!(
        "mount -t tmpfs -o ro none {} && exec \"$@\"",
        disk.display()
    );
    let wrap = ["unshare", "-m", "sh", "-c", &mount, "sh"];
    let mut other = spawn(&scene, &wrap, &[])?;
    other.wait_for_log("ready: 2 endpoints", TIMEOUT)?;
    let log = other.log();
    ensure!(
        complains(&log) && log.contains("Read-only file system"),
        "{log}"
    );
    ensure!(other.terminate()?.success(), "{}", other.log());
    let mut check = scene.lab.router.command(wrap[0]);
    check.args(&wrap[1..]).args([BINARY, "check"]);
    let checked = check
        .arg(scene.directory.path().join("config.toml"))
        .output()?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    ensure!(
        said.contains("cache.snapshot: ")
            && complains(&said)
            && said.contains("Read-only file system"),
        "{said}"
    );
    Ok(())
}
