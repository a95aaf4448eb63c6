//! The example with VLANs, for kernels with VLAN devices (see `crate::vlan`).

use super::{Example, NX, OK, REFUSED, Router};
use crate::support::run::only;
use crate::vlan::has_vlan_devices;
use anyhow::Result;

#[test]
fn office() -> Result<()> {
    only!(ONCE, "each example says its own ways");
    let test = "examples::vlan::office";
    if !has_vlan_devices(test)? {
        return Ok(());
    }
    let example = Example {
        config: include_str!("../../../../config/office.toml"),
        router: "link add link lan0 name lan0.10 type vlan id 10
link add link lan0 name lan0.20 type vlan id 20
link set lan0.10 up
link set lan0.20 up
address add 10.20.0.1/24 dev lan0.10
address add fd20::1/64 dev lan0.10 nodad
address add 10.20.128.1/24 dev lan0.20
",
        client: "link add link eth0 name eth0.10 type vlan id 10
link add link eth0 name eth0.20 type vlan id 20
link set eth0.10 up
link set eth0.20 up
address add 10.20.0.2/24 dev eth0.10
address add fd20::2/64 dev eth0.10 nodad
address add 10.20.128.2/24 dev eth0.20
address add 10.20.128.66/24 dev eth0.20
",
        servers: &["192.0.2.53", "198.51.100.53", "10.1.0.53", "10.1.0.54"],
        files: &[
            (
                "var/lib/xdnsd/hosts",
                "10.20.0.7 scanner.branch.corp.example\n",
            ),
            ("var/lib/xdnsd/block.txt", "||telemetry.example^\n"),
            ("var/lib/xdnsd/allow.txt", "www.example\n"),
        ],
    };
    let Some(router) = Router::start(test, &example)? else {
        return Ok(());
    };
    router.expect(
        "10.20.0.2",
        "10.20.0.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("telemetry.example. A", OK, &[]),
            ("deep.corp.example. A", OK, &["10.1.2.3"]),
            ("printer.branch.corp.example. A", OK, &["10.20.0.9"]),
            ("scanner.branch.corp.example. A", OK, &["10.20.0.7"]),
            ("any.dev.branch.corp.example. A", OK, &["10.20.0.80"]),
        ],
    )?;
    router.expect(
        "fd20::2",
        "fd20::1",
        &[("www.example. A", OK, &["192.0.2.1"])],
    )?;
    router.expect(
        "10.20.128.2",
        "10.20.128.1",
        &[
            ("www.example. A", OK, &["192.0.2.1"]),
            ("telemetry.example. A", OK, &[]),
            ("games.example. A", OK, &[]),
            ("printer.branch.corp.example. A", NX, &[]),
            ("scanner.branch.corp.example. A", NX, &[]),
        ],
    )?;
    router.expect(
        "10.20.128.66",
        "10.20.128.1",
        &[("www.example. A", REFUSED, &[])],
    )?;
    let asked = router.upstream.asked("deep.corp.example.");
    assert!(
        asked
            .iter()
            .all(|asked| asked.server.to_string().starts_with("10.1.0."))
    );
    router.leaves_no_riddle()
}
