//! The unit for systemd and the scripts for procd and busybox permit what the examples in `config/` require.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNIT: &str = "buildroot/package/xdnsd/xdnsd.service";
const SUPERVISE: &str = "buildroot/package/xdnsd/supervise";
const PROCD: &str = "buildroot/package/xdnsd/xdnsd.procd";
const UCI: &str = "buildroot/package/xdnsd/xdnsd.uci";
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
    procd_by(&["sh"], action, functions)
}

/// What `xdnsd reference` says of some keys, in its form.
const REFERENCE: &str = r#"
reference() {
    [ "$1" = reference ] || return 0
    echo '# The config file of xdnsd

## [[interface]]
### `port`
An integer.
- Allowed: an integer from 1 to 65535
### `name`
- Allowed: the name of a network interface: 1 to 15 bytes, no slash, no space
### `vlan`
- Allowed: an integer from 0 to 4094
## [cache]
### `snapshot_interval_secs`
- Allowed: an integer from 1 to 65535
## [local]
### `reverse`
- Allowed: true or false
### `forward_plain_names`
- Allowed: true or false
### `ttl`
- Allowed: an integer from 0 to 86400
- Default: `60`
- Old name: `tll`, with a warning
### `zones`
- Allowed: a list, each a name such as "lan"
## [control]
### `group`
- Allowed: text in quotes
## [shield]
### `ports`
- Allowed: a list of 0 to 7, each an integer from 0 to 65535
### `syn_cookies`
- `"off"`: Never'
}
"#;

/// The same by this shell.
fn procd_by(shell: &[&str], action: &str, functions: &str) -> String {
    const RC_COMMON: &str = r#"
initscript=/etc/init.d/xdnsd
procd_open_instance() { echo "open $*"; }
procd_set_param() { echo "set $*"; }
procd_close_instance() { echo "close $*"; }
procd_send_signal() { echo "signal $*"; }
procd_add_reload_trigger() { echo "trigger $*"; }
rc_procd() { echo service; "$@"; echo handed over; }
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
        "{RC_COMMON}\n. {}\nPROG=checked\nchecked() {{ reference \"$1\"; }}\n{REFERENCE}\n{functions}\n{action}\n",
        script.display()
    );
    let mut command = Command::new(shell[0]);
    let output = command.args(&shell[1..]).args(["-c", &text]).output();
    let output = output.expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "", "{action}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn procd_runs_the_server_as_an_account_of_its_own() {
    let said = procd("start_service", "");
    let expected = "user_add xdnsd () 65536
user_add xdnsd-keeper () 65536
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
    // A server that is not there is not told: it begins.
    let reloaded = procd("reload_service", "PIDFILE=/nonexistent");
    let with = |file: &str| expected.replace("/var/run/xdnsd.pid", file);
    let begun = with("/nonexistent");
    assert_eq!(reloaded, format!("service\n{begun}handed over\n"));
    let reloaded = procd("reload_service", "PIDFILE=/dev/null");
    let told = with("/dev/null");
    assert_eq!(
        reloaded,
        format!("service\n{told}handed over\nsignal xdnsd server\n")
    );
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

/// OpenWrt's functions for UCI, which run what `uci export` prints: lines with the words of the file.
const FUNCTIONS: &str = r#"
reset_cb() {
    config_cb() { :; }
    option_cb() { :; }
    list_cb() { :; }
}
reset_cb
config() { at=$2; config_cb "$1" "$2"; }
option() { eval "value_${at}_$1=\$2"; option_cb "$1" "$2"; }
list() { eval "value_${at}_$1=\"\${value_${at}_$1} \$2\""; list_cb "$1" "$2"; }
config_load() { . "$UCI"; config_cb; }
config_get() { eval "$1=\${value_$2_$3:-\$4}"; }
config_get_bool() { config_get "$@"; }
uci() { [ "$*" != '-q get network.lan.device' ] || echo br-lan; }
"#;

/// A folder with a file for UCI, removed when dropped.
struct Uci(PathBuf);

impl Uci {
    fn new(name: &str, text: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("xdnsd-uci-{}-{name}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        fs::write(folder.join("uci"), text).expect("a file");
        Self(folder)
    }

    /// What procd is told, by busybox' shell.
    fn run(&self, action: &str, functions: &str) -> String {
        let here = self.0.display();
        let functions = format!("{FUNCTIONS}\nUCI={here}/uci\nMADE={here}/made\n{functions}");
        let said = procd_by(&["busybox", "ash"], action, &functions);
        said.replace(&here.to_string(), "HERE")
    }

    /// The configuration that was made.
    fn made(&self) -> Option<toml::Table> {
        let text = fs::read_to_string(self.0.join("made")).ok()?;
        Some(toml::from_str(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}")))
    }
}

impl Drop for Uci {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn uci_says_what_the_example_for_a_home_says() {
    let uci = Uci::new("home", &read(UCI));
    let said = uci.run("start_service; service_triggers", "");
    let home: toml::Table = toml::from_str(&read("config/home-router.toml")).expect("the example");
    assert_eq!(uci.made(), Some(home));
    for line in [
        "set command checked run --user xdnsd HERE/made",
        "set command checked web HERE/made",
        "set user nobody",
        "set group xdnsd",
        "trigger xdnsd",
    ] {
        assert!(said.lines().any(|found| found == line), "{line} in {said}");
    }
}

#[test]
fn uci_passes_every_value_on_as_it_is() {
    let uci = Uci::new(
        "values",
        r#"
config interface
	option name 'a "b" \c'
	option port '53'
	option vlan '0x10'
	list listen '192.0.2.1'
	list listen '::1'
config interface
	option network 'lan'
	option empty ''
config local
	list hosts '/tmp/it'\''s'
	list zones 'lan'
	list zones '42'
	option reverse 'off'
config control
	option group '65534'
config shield
	list ports '22'
	list ports '443'
	option syn_cookies 'off'
config identity 'me'
	option text '# no comment'
"#,
    );
    uci.run("start_service", "");
    let expected = r##"
        interface = [
            { name = "a \"b\" \\c", port = 53, vlan = "0x10", listen = ["192.0.2.1", "::1"] },
            { name = "br-lan", empty = "" },
        ]
        local = { hosts = ["/tmp/it's"], zones = ["lan", "42"], reverse = false }
        control = { group = "65534" }
        shield = { ports = [22, 443], syn_cookies = "off" }
        identity = { text = "# no comment" }
    "##;
    assert_eq!(uci.made(), Some(toml::from_str(expected).expect("TOML")));
}

#[test]
fn uci_may_name_a_file_or_switch_it_off() {
    let uci = Uci::new(
        "file",
        "config xdnsd 'main'\n\toption config '/etc/mine.toml'\n",
    );
    let said = uci.run("start_service", "");
    assert!(said.contains("run --user xdnsd /etc/mine.toml\n"), "{said}");
    assert!(!said.contains(" web "), "{said}");
    assert_eq!(uci.made(), None);
    let uci = Uci::new("off", "config xdnsd 'main'\n\toption enabled '0'\n");
    assert_eq!(uci.run("start_service", ""), "");
}

/// procd ends what it is not handed over.
#[test]
fn a_reload_ends_what_uci_switches_off_and_begins_what_it_switches_on() {
    let off = "config xdnsd 'main'\n\toption enabled '0'\n";
    let on = "config xdnsd 'main'\n\toption enabled '1'\n";
    let web = "config web 'web'\n\tlist listen '192.168.1.1:9153'\n";
    let uci = Uci::new("switch", off);
    let reload = |text: String| {
        fs::write(uci.0.join("uci"), text).expect("a file");
        let said = uci.run("reload_service", "PIDFILE=/dev/null");
        let instances = said.lines().filter_map(|line| line.strip_prefix("open "));
        let instances: Vec<_> = instances.map(str::to_owned).collect();
        (instances.join(" "), said)
    };
    assert_eq!(reload(off.into()).1, "service\nhanded over\n");
    assert_eq!(reload(on.into()).0, "server watch");
    let (instances, said) = reload(format!("{on}{web}"));
    assert_eq!(instances, "server watch web");
    assert!(
        said.contains("\nset command checked web HERE/made\nset file HERE/made\n"),
        "{said}"
    );
}

/// A fault is said, and what was made before stays in force.
#[test]
fn a_fault_in_uci_leaves_the_configuration_as_it_was() {
    let uci = Uci::new("fault", "config local\n\toption ttl '9'\n");
    uci.run("start_service", "");
    fs::write(uci.0.join("uci"), "config local\n\toption tll '8'\n").expect("a file");
    let bad = "checked() { reference \"$1\"; [ \"$1\" != check ] || { cat \"$3\"; return 1; }; }";
    let said = uci.run("reload_service || echo refused", bad);
    assert!(said.ends_with("[local]\ntll = 8\nrefused\n"), "{said}");
    let made = uci.made().expect("the first one");
    assert_eq!(made["local"]["ttl"].as_integer(), Some(9));
    uci.run("reload_service", "");
    assert_eq!(
        uci.made().expect("the second one")["local"]["tll"].as_integer(),
        Some(8)
    );
}
