//! The unit for systemd and the scripts for procd and busybox permit what the examples in `config/` require.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNIT: &str = "buildroot/package/xdnsd/xdnsd.service";
const SUPERVISE: &str = "buildroot/package/xdnsd/supervise";
const PROCD: &str = "buildroot/package/xdnsd/xdnsd.procd";
const IMAGE: &str = "buildroot/board/xdnsd/rootfs-overlay";
/// The default of `control.socket`, which most examples leave as it is.
const CONTROL: &str = "/run/xdnsd/control.sock";
/// Keys whose files the server writes, beside others in the same folder.
const WRITTEN: [&str; 2] = ["snapshot", "socket"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Examples for routers. The lab's is excluded: everything there runs as root.
fn examples() -> Vec<String> {
    let listed = fs::read_dir(root().join("config")).expect("config/");
    let names = listed.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| format!("config/{}", name.to_string_lossy()))
        .filter(|name| name != "config/lab.toml")
        .collect();
    names.sort();
    assert!(
        names.iter().any(|name| name == "config/home-router.toml"),
        "{names:?}"
    );
    names
}

/// Every absolute path in a configuration, with its key, including commented-out lines (`#key = …`).
fn paths(config: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for line in config.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        if key.contains(' ') {
            continue;
        }
        let texts = value.split('"').skip(1).step_by(2);
        let absolute = texts.filter(|text| text.starts_with('/'));
        found.extend(absolute.map(|path| (key.to_owned(), PathBuf::from(path))));
    }
    found
}

/// Values of `key` in a unit, over all lines with it.
fn unit_values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let of_key = lines.filter(|(found, _)| *found == key);
    of_key
        .flat_map(|(_, value)| value.split_whitespace())
        .collect()
}

/// Why a server under this unit cannot reach `path`; `None` if it can (systemd.exec(5)).
fn unreachable(unit: &str, path: &Path, is_written: bool) -> Option<String> {
    let is_on = |key: &str| {
        let values = unit_values(unit, key);
        values
            .last()
            .is_some_and(|value| ["yes", "true", "1", "on", "tmpfs"].contains(value))
    };
    let is_below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let hides_home = is_on("ProtectHome") || unit_values(unit, "ProtectSystem") == ["read-only"];
    if hides_home && is_below(&["/home", "/root", "/run/user"]) {
        return Some("ProtectHome hides it".into());
    }
    if (is_on("PrivateTmp") || is_on("DynamicUser")) && is_below(&["/tmp", "/var/tmp"]) {
        return Some("PrivateTmp hides it".into());
    }
    let of = |key: &str, base: &str| {
        let folders = unit_values(unit, key);
        folders
            .into_iter()
            .any(|folder| path.starts_with(Path::new(base).join(folder)))
    };
    let may_write = of("StateDirectory", "/var/lib")
        || of("RuntimeDirectory", "/run")
        || unit_values(unit, "ReadWritePaths")
            .iter()
            .any(|folder| path.starts_with(folder.trim_start_matches('-')));
    let is_strict = unit_values(unit, "ProtectSystem") == ["strict"];
    (is_written && is_strict && !may_write).then(|| "it is read-only".into())
}

/// A read-only snapshot path shows an hour after the start, and a hidden lease file never does.
#[test]
fn unit_reaches_every_file_of_every_example() {
    let unit = read(UNIT);
    let mut seen = BTreeSet::new();
    for example in examples() {
        let config = read(&example);
        let control = ("socket".to_owned(), PathBuf::from(CONTROL));
        for (key, path) in paths(&config).into_iter().chain([control]) {
            let is_written = WRITTEN.contains(&key.as_str());
            let why = unreachable(&unit, &path, is_written);
            assert_eq!(why, None, "{example}: {key} = {}", path.display());
            seen.insert((path, is_written));
        }
    }
    for path in ["/tmp/dhcp.leases", "/tmp/hosts/odhcpd", "/etc/hosts"] {
        assert!(seen.contains(&(path.into(), false)), "{path} in {seen:?}");
    }
    assert!(seen.contains(&("/var/lib/xdnsd/cache".into(), true)));
}

/// The test above detects the unit's former errors.
#[test]
fn unit_that_hides_leases_or_state_is_found_out() {
    let (lease, state) = (
        Path::new("/tmp/dhcp.leases"),
        Path::new("/data/xdnsd/cache"),
    );
    let before = "ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nStateDirectory=xdnsd\n";
    assert!(unreachable(before, lease, false).is_some());
    assert!(unreachable(before, state, true).is_some());
    assert!(unreachable(before, Path::new("/var/lib/xdnsd/cache"), true).is_none());
    assert!(unreachable(before, Path::new("/root/block.txt"), false).is_some());
    assert!(unreachable("ProtectSystem=strict\n", state, true).is_some());
    assert!(unreachable("ReadWritePaths=-/data/xdnsd\n", state, true).is_none());
}

/// Each way to start the server makes the folders that the examples write to, owned by its account.
#[test]
fn every_way_to_start_makes_the_folder_of_the_snapshot() {
    let written: BTreeSet<_> = examples()
        .iter()
        .flat_map(|example| paths(&read(example)))
        .filter(|(key, _)| key == "snapshot")
        .map(|(_, path)| path.parent().expect("a folder").display().to_string())
        .collect();
    let written: Vec<_> = written.into_iter().collect();
    assert_eq!(written, ["/var/lib/xdnsd"]);
    assert!(read(SUPERVISE).contains("\nXDNSD_STATE=\"/var/lib/xdnsd\"\n"));
    assert!(read(PROCD).contains("\nSTATE=/var/lib/xdnsd\n"));
    // The image keeps its state on the data partition, to which the examples' folder is linked.
    let defaults = read(&format!("{IMAGE}/etc/default/xdnsd"));
    assert!(defaults.contains("\nXDNSD_STATE=/data/xdnsd\n"));
    assert!(
        read("buildroot/board/xdnsd/post-build.sh")
            .contains("ln -sfn /data/xdnsd \"$TARGET_DIR/var/lib/xdnsd\"\n")
    );
    let own = paths(&read(&format!("{IMAGE}/etc/xdnsd/xdnsd.toml")));
    assert_eq!(
        own,
        [("snapshot".to_owned(), PathBuf::from("/data/xdnsd/cache"))]
    );
}

/// Lines that the procd script passes on, with an rc.common that prints its arguments. `functions` are appended to it.
fn procd(action: &str, functions: &str) -> String {
    const RC_COMMON: &str = r#"
initscript=/etc/init.d/xdnsd
procd_open_instance() { echo "open $*"; }
procd_set_param() { echo "set $*"; }
procd_close_instance() { echo "close $*"; }
procd_send_signal() { echo "signal $*"; }
user_exists() { false; }
user_add() { echo "user_add $1 ($2) $3"; }
group_add_next() { echo 65536; }
logger() { shift 5; echo "log $*"; }
for word in mkdir chown chmod; do
    eval "$word() { echo $word \"\$@\"; }"
done
"#;
    let script = root().join(PROCD);
    let text = format!(
        "{RC_COMMON}\n. {}\nPROG=checked\nchecked() {{ [ \"$1\" != check ] || true; }}\n{functions}\n{action}\n",
        script.display()
    );
    let output = Command::new("sh").args(["-c", &text]).output();
    let output = output.expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "", "{action}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn procd_runs_the_server_as_an_account_of_its_own() {
    let said = procd("start_service", "");
    let expected = "user_add xdnsd () 65536
mkdir -p /var/run/xdnsd /var/lib/xdnsd
chown xdnsd: /var/run/xdnsd /var/lib/xdnsd
chmod 0750 /var/lib/xdnsd
open server
set pidfile /var/run/xdnsd.pid
set command checked run --user xdnsd /etc/xdnsd/xdnsd.toml
set respawn 3600 5 0
set stdout 1
set stderr 1
close \nopen watch
set command /etc/init.d/xdnsd watch
set respawn 3600 5 0
close \n";
    assert_eq!(said, expected);
    assert_eq!(procd("reload_service", ""), "signal xdnsd server\n");
}

/// Three checks in a row must report a hang; any other status resets the count.
#[test]
fn a_server_that_does_not_answer_is_ended() {
    // Statuses of the checks in sequence, after which there are none.
    let looks = |statuses: &str| {
        format!(
            "set -- {statuses}\nsleep() {{ [ $# -gt 0 ] && [ -n \"$statuses\" ]; }}\n\
             statuses=\"{statuses}\"\n\
             checked() {{ status=${{statuses%% *}}; statuses=${{statuses#* }}; \
             [ \"$status\" != \"$statuses\" ] || statuses=; return $status; }}\n\
             cat() {{ echo 77; }}\nkill() {{ echo \"kill $*\"; }}\n"
        )
    };
    let ended = "log does not answer, ended\nkill -KILL 77\n";
    assert_eq!(procd("watch", &looks("0 1 1 0 1 1 3 1 1")), "");
    assert_eq!(procd("watch", &looks("0 1 1 1 0")), ended);
    let supervise = read(SUPERVISE);
    assert!(supervise.contains("\nLOOKS=3\n") && supervise.contains("kill -KILL \"$1\""));
    let unit = read(UNIT);
    assert!(unit.contains("\nWatchdogSec=15\n") && unit.contains("\nNotifyAccess=main\n"));
}

/// A bad configuration is reported once, without a restart loop.
#[test]
fn procd_starts_nothing_with_a_bad_configuration() {
    let bad = "checked() { echo 'xdnsd.toml:3: wrong'; return 1; }";
    let said = procd("start_service || echo refused", bad);
    assert_eq!(
        said,
        "log NOT STARTED, bad configuration: xdnsd.toml:3: wrong\nrefused\n"
    );
    let said = procd("reload_service || echo refused", bad);
    assert_eq!(said, "xdnsd.toml:3: wrong\nrefused\n");
}
