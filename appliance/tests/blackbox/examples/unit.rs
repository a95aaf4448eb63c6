//! An example under the unit for systemd, with the mounts, account and capabilities of the unit: what it denies the server
//! fails here as well.

use anyhow::Result;

use super::{Example, OK, Router};
use crate::support::run::only;

const UNIT: &str = include_str!("../../../../buildroot/package/xdnsd/xdnsd.service");
/// Script in the router: the root as for every example, then by the unit's settings: $4 can be written to and belongs to the
/// account, $5 is hidden, $6 and the rest are read-only. The arguments after that are the server's.
const START: &str = r#"set -eu
root="$1"
mount -o bind "$root" "$root"
for folder in $2; do
    [ -d "/$folder" ] || continue
    mkdir -p "$root/$folder"
    mount -o rbind "/$folder" "$root/$folder"
done
touch "$root/xdnsd"
mount -o bind "$3" "$root/xdnsd"
for folder in $4; do
    mkdir -p "$root/$folder"
    chown 65534:65534 "$root/$folder"
    mount -o bind "$root/$folder" "$root/$folder"
done
for folder in $5; do
    mkdir -p "$root/$folder"
    mount -t tmpfs -o ro none "$root/$folder"
done
for folder in $6; do
    mount -o bind "$root/$folder" "$root/$folder"
    mount -o remount,bind,ro "$root/$folder"
done
mount -o remount,bind,ro "$root"
umask "$7"
shift 7
exec chroot "$root" "$@" /xdnsd run /etc/xdnsd/xdnsd.toml
"#;

/// Values of `key`, over all lines with that name.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let of_key = lines.filter(|(found, _)| *found == key);
    of_key
        .flat_map(|(_, value)| value.split_whitespace())
        .collect()
}

/// Arguments of [`START`] for `unit` (systemd.exec(5)).
fn sandbox(unit: &str) -> Vec<String> {
    let is = |key: &str, value: &str| values(unit, key) == [value];
    let below = |key: &str, base: &str| {
        let folders = values(unit, key);
        folders
            .into_iter()
            .map(|folder| format!("{base}/{folder}"))
            .collect::<Vec<_>>()
    };
    let mut written = [
        below("StateDirectory", "var/lib"),
        below("RuntimeDirectory", "run"),
    ]
    .concat();
    let more = values(unit, "ReadWritePaths").into_iter();
    let more = more.map(|path| path.trim_start_matches(['-', '/']).to_owned());
    written.extend(more.filter(|path| !path.starts_with("proc/")));
    let (mut hidden, mut read) = (Vec::new(), Vec::new());
    if is("ProtectHome", "yes") {
        hidden.extend(["home", "root"]);
    }
    if is("PrivateTmp", "yes") {
        hidden.extend(["tmp", "var/tmp"]);
    }
    if is("ProtectKernelTunables", "yes") {
        read.extend(["proc/sys", "sys"]);
    }
    assert!(is("ProtectSystem", "strict"), "the root can be written to");
    let capabilities = |key: &str| {
        let names = values(unit, key).into_iter();
        let names =
            names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
        format!("-all{}", names.collect::<String>())
    };
    let ambient = capabilities("AmbientCapabilities");
    let bounding = capabilities("CapabilityBoundingSet");
    let account = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let mut words = vec![
        written.join(" "),
        hidden.join(" "),
        read.join(" "),
        values(unit, "UMask").concat(),
    ];
    words.extend(account.map(str::to_owned));
    words.extend([
        format!("--inh-caps={ambient}"),
        format!("--ambient-caps={ambient}"),
        format!("--bounding-set={bounding}"),
    ]);
    if is("NoNewPrivileges", "yes") {
        words.push("--no-new-privs".to_owned());
    }
    words
}

/// Leases are seen, and only the snapshot can be written.
#[test]
fn home_router_runs_under_the_unit() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let example = Example::on_bridge(include_str!("../../../../config/home-router.toml"));
    let test = "examples::unit::home_router_runs_under_the_unit";
    let Some(router) = Router::start_by(test, &example, START, &sandbox(UNIT))? else {
        return Ok(());
    };
    router.expect(
        "192.168.1.2",
        "192.168.1.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("laptop.lan. A", OK, &["192.168.1.50"]),
            ("tablet.lan. AAAA", OK, &["fd00:1::60"]),
            ("nas.lan. A", OK, &["192.168.1.9"]),
        ],
    )?;
    router.leaves_no_riddle()
}

/// systemd's own rating of each unit's exposure: at most 3.0 of 10.
#[test]
fn the_units_expose_little() -> Result<()> {
    only!(ONCE, "no query comes");
    let folder = xdnsd_lab::workspace::root().join("buildroot/package/xdnsd");
    for unit in [
        "xdnsd.service",
        "xdnsd-web.service",
        "xdnsd-tail.service",
        "xdnsd-fetch-lists.service",
    ] {
        let mut judge = std::process::Command::new("systemd-analyze");
        judge.args(["security", "--offline=true", "--no-pager", "--threshold=30"]);
        let judged = match judge.arg(folder.join(unit)).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let test = "examples::unit::the_units_expose_little";
                xdnsd_lab::privilege::leave_out(test, "there is no systemd-analyze");
                return Ok(());
            }
            judged => judged?,
        };
        let said = String::from_utf8_lossy(&judged.stdout);
        let last = said.lines().last().unwrap_or_default();
        eprintln!("{unit}: {last} (at most 3.0)");
        anyhow::ensure!(
            said.contains("Overall exposure level"),
            "{unit}: {said}{}",
            String::from_utf8_lossy(&judged.stderr)
        );
        anyhow::ensure!(judged.status.success(), "{last}");
    }
    Ok(())
}
