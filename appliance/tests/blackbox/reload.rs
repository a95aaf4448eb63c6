//! A config that changes while the daemon runs: what is taken over, and that a fault changes nothing.

use std::fs;

use anyhow::Result;
use hickory_proto::op::ResponseCode;
use nix::sys::signal::Signal;
use qemu_test::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{ask_all, assert_answer, check_all, ede};
use crate::support::upstream::SECOND_V4;
use crate::support::ways::Ways;

const OK: ResponseCode = ResponseCode::NoError;

const GROUP: &str = "[[upstream]]\nname = \"corp\"\nservers = [\"10.54.0.3\"]\ndomains = ";

fn setup(sections: &str, domains: &str) -> Setup {
    Setup::three_ways().sections(&format!("{sections}\n{GROUP}{domains}\n"))
}

/// Writes the config anew and has it read.
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
    // And back: what was withheld is served again.
    reload(&scene, &setup("", "[\"corp.test\"]"))?;
    scene.daemon.wait_log_count("reloaded:", 2)?;
    check_all(&ways, &[("www.test. A", OK, &[private])])
}

#[test]
fn a_fault_or_other_servers_change_nothing() -> Result<()> {
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
    let more = setup(
        &format!(
            "{other}[[upstream]]\nname = \"x\"\nservers = [\"10.54.0.2\"]\ndomains = [\"x.test\"]"
        ),
        "[\"corp.test\"]",
    );
    for (count, setup) in [(1, faulty), (2, more)] {
        reload(&scene, &setup)?;
        scene.daemon.wait_log_count("not reloaded", count)?;
        check_all(&ways, &old)?;
    }
    reload(&scene, &setup(other, "[\"corp.test\"]"))?;
    wait_until("it is reloaded", TIMEOUT, || {
        scene.daemon.log().contains("reloaded: ")
    })?;
    check_all(&ways, &[("a.test. A", OK, &["a.test. 60 A 192.0.2.2"])])
}
