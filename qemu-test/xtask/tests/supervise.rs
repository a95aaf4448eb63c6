//! The supervision loop for systems without systemd and procd, run unchanged: with a server that ignores SIGTERM and reports the
//! health that the test sets, and with short pauses.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

const SUPERVISE: &str = "buildroot/package/xdnsd/supervise";
/// Statuses of `xdnsd health`: well, hanging, no daemon.
const WELL: &str = "0";
const HANGS: &str = "1";
const UNKNOWN: &str = "3";
const TIMEOUT: Duration = Duration::from_secs(20);
/// Checks that report a hang before the server is ended.
const LOOKS: usize = 3;

/// The server: on request it ignores SIGTERM, like a stopped process. Each health check reads the next line of a file, or the
/// last one.
const SERVER: &str = "#!/bin/sh
here=${0%/*}
case $1 in
health)
	echo look >>$here/looks
	status=$(sed -n \"$(wc -l <$here/looks)p\" $here/health)
	exit ${status:-$(tail -n 1 $here/health)}
	;;
run)
	echo \"$*\" >>$here/runs
	[ ! -e $here/bad ] || exit 78
	[ ! -e $here/deaf ] || trap '' TERM
	exec sleep 60
	;;
esac
";

/// The script in a temporary folder, removed when dropped.
struct Supervised {
    process: Process,
    folder: PathBuf,
}

impl Supervised {
    fn start(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = env::temp_dir().join(format!("xdnsd-supervise-{}-{name}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(SUPERVISE);
        let mut script = fs::read_to_string(script).expect("the script");
        let here = folder.display();
        for (path, own) in [
            ("/usr/bin/xdnsd", format!("{here}/server")),
            ("/etc/default/xdnsd", format!("{here}/defaults")),
            ("/var/run/xdnsd-server.pid", format!("{here}/pid")),
            ("/run/xdnsd", format!("{here}/run")),
            (">/dev/console", format!(">>{here}/console")),
        ] {
            assert!(script.contains(path), "{path}");
            script = script.replace(path, &own);
        }
        let defaults = format!("LOOK_PAUSE=0.1\nXDNSD_USER=\nXDNSD_STATE={here}/state\n");
        let own = [
            ("supervise", script.as_str()),
            ("server", SERVER),
            ("defaults", &defaults),
            ("health", WELL),
            ("console", ""),
        ];
        for (name, text) in own.iter().chain(files) {
            fs::write(folder.join(name), text).expect("written");
        }
        let mode = PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.join("server"), mode).expect("mode");
        let mut command = Command::new("sh");
        command.arg(folder.join("supervise"));
        let log = folder.join("log");
        let process = Process::spawn_with_end(command, &log, End::Terminate).expect("sh runs");
        Self { process, folder }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn lines(&self, name: &str) -> usize {
        self.read(name).lines().count()
    }

    fn says_of_itself(&self, status: &str) {
        fs::write(self.folder.join("health"), status).expect("written");
    }

    fn wait(&self, what: &str, predicate: impl FnMut() -> bool) {
        let waited = wait_until(what, TIMEOUT, predicate);
        assert!(waited.is_ok(), "{what}: {}", self.read("console"));
    }

    /// Waits for `count` further checks, ignoring earlier ones.
    fn wait_looks(&self, count: usize) {
        let before = self.lines("looks");
        self.wait("it is looked at", || self.lines("looks") > before + count);
    }

    /// PID of the server, after `runs` starts.
    fn server(&self, runs: usize) -> String {
        self.wait("it runs", || self.lines("runs") == runs);
        let mut pid = String::new();
        self.wait("it is known", || {
            pid = self.read("pid").trim().to_owned();
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm == "sleep\n")
        });
        pid
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.process.terminate());
        drop(fs::remove_dir_all(&self.folder));
    }
}

#[test]
fn a_server_that_hangs_is_ended_and_started_again_and_any_other_lives() {
    let mut supervised = Supervised::start("hangs", &[("deaf", "")]);
    let first = supervised.server(1);
    assert_eq!(supervised.read("runs"), "run /etc/xdnsd/xdnsd.toml\n");
    fs::remove_file(supervised.folder.join("deaf")).expect("it is there");
    for status in [WELL, UNKNOWN] {
        supervised.says_of_itself(status);
        supervised.wait_looks(2 * LOOKS);
    }
    assert_eq!(supervised.server(1), first, "it lives");
    supervised.says_of_itself(HANGS);
    let said = "xdnsd: does not answer, ended\nxdnsd: ended with status 137 after";
    supervised.wait("it is ended", || supervised.read("console").contains(said));
    supervised.says_of_itself(WELL);
    let second = supervised.server(2);
    assert_ne!(second, first);
    supervised.wait_looks(2 * LOOKS);
    assert_eq!(supervised.server(2), second, "it lives");
    // The loop ends the server when it ends.
    assert!(supervised.process.terminate().expect("it ends").success());
    supervised.wait("the server has ended", || {
        !Path::new(&format!("/proc/{second}")).exists()
    });
    assert!(!supervised.folder.join("pid").exists());
}

#[test]
fn a_single_look_that_says_nothing_against_it_clears_those_before() {
    let looks = [
        HANGS, HANGS, WELL, HANGS, HANGS, UNKNOWN, HANGS, HANGS, WELL,
    ];
    let supervised = Supervised::start("clears", &[("health", &looks.join("\n"))]);
    let first = supervised.server(1);
    supervised.wait_looks(looks.len());
    assert_eq!(supervised.server(1), first);
    assert_eq!(supervised.read("console"), "");
}

#[test]
fn a_bad_configuration_is_said_once() {
    let mut supervised = Supervised::start("bad", &[("bad", "")]);
    let status = supervised.process.wait_exit(TIMEOUT).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let said = supervised.read("console");
    assert_eq!(said, "xdnsd: NOT STARTED, bad configuration\n");
    assert_eq!(supervised.lines("runs"), 1);
    assert!(!supervised.folder.join("pid").exists());
}
