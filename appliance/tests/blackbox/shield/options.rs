//! TCP options of a client that a connection keeps after beginning with a cookie, at both ends.

use anyhow::{Context, Result, ensure};
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{HOST_INTERFACE, Spec};
use xdnsd_lab::wait::wait_until;

use super::{TIMESTAMPS, always, ask_over_tcp, prepare, setting, setup, wait_state, with_program};
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::run::only;
use crate::support::scene::{Scene, scene};

/// Output of `ss` about connections to port 53, at both ends.
pub struct Shown([String; 2]);

impl Shown {
    /// The connections, which have to be `count`.
    pub fn of(scene: &Scene, count: usize) -> Result<Self> {
        let shown = Self::now(scene)?;
        let is_whole = shown.0.iter().all(|end| end.contains(" mss:"));
        ensure!(
            is_whole,
            "no module tcp_diag in the kernel, or no connection: {:?}",
            shown.0
        );
        shown.expect(&[], count);
        Ok(shown)
    }

    /// True if there are no connections any more.
    fn are_none(scene: &Scene) -> bool {
        Self::now(scene).is_ok_and(|shown| shown.0.iter().all(String::is_empty))
    }

    fn now(scene: &Scene) -> Result<Self> {
        let ends = [(&scene.lab.router, "sport"), (&scene.lab.client, "dport")];
        let ends = ends.map(|(host, side)| {
            host.output(&["ss", "-tinoOH", "state", "established", side, "=", ":53"])
        });
        let [router, client] = ends;
        Ok(Self([router?, client?]))
    }

    /// Asserts that `count` of them have all of these words, at both ends.
    pub fn expect(&self, words: &[&str], count: usize) {
        for end in &self.0 {
            let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
            let found = end.lines().filter(has_all).count();
            assert_eq!(found, count, "{words:?}: {end}");
        }
    }

    /// Window scales, each end's own and the other's.
    fn scales(&self) -> Vec<[Option<(u8, u8)>; 2]> {
        let [router, client] = &self.0;
        let scales = |line: &str| {
            let (_, behind) = line.split_once(" wscale:")?;
            let (others, behind) = behind.split_once(',')?;
            let (own, _) = behind.split_once(' ')?;
            Some((own.parse().ok()?, others.parse().ok()?))
        };
        let lines = router.lines().zip(client.lines());
        lines
            .map(|(router, client)| [scales(router), scales(client)])
            .collect()
    }
}

/// Both ends agree on what the client offers: also on the shift of the windows that we announced.
#[test]
fn what_a_client_offers_is_kept_and_nothing_else() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    for (timestamps, sack, scaling) in [
        ("1", "1", "1"),
        ("1", "0", "1"),
        ("1", "1", "0"),
        ("0", "1", "1"),
    ] {
        let before = scene.daemon.metrics()?;
        for (name, value) in [
            ("tcp_timestamps", timestamps),
            ("tcp_sack", sack),
            ("tcp_window_scaling", scaling),
        ] {
            let path = format!("/proc/sys/net/ipv4/{name}");
            scene.lab.client.write(&path, value)?;
        }
        // A buffer with a window shift of 9 bits.
        let buffer = "4096 131072 16777217";
        scene
            .lab
            .client
            .write("/proc/sys/net/ipv4/tcp_rmem", buffer)?;
        for family in Family::ALL {
            let open = ask_over_tcp(&scene, family)?;
            let shown = Shown::of(&scene, 1)?;
            let is_kept = timestamps == "1";
            shown.expect(&[" ts "], usize::from(is_kept));
            shown.expect(&[" sack "], usize::from(is_kept && sack == "1"));
            let expected = match is_kept && scaling == "1" {
                true => {
                    let ours = sysctl_scale(&scene)?;
                    [Some((ours, 9)), Some((9, ours))]
                }
                false => [None; 2],
            };
            assert_eq!(shown.scales(), [expected], "{:?}", shown.0);
            drop(open);
            wait_until("it is closed", TIMEOUT, || Shown::are_none(&scene))?;
        }
        scene
            .daemon
            .wait_growth(&before, &[(&Reason::SynCookie, 2)])?;
    }
    Ok(())
}

/// Window shift of the router's kernel, from a connection that began without a cookie.
fn sysctl_scale(scene: &Scene) -> Result<u8> {
    let text = scene.lab.router.read("/proc/sys/net/ipv4/tcp_rmem")?;
    let most: u32 = text
        .split_whitespace()
        .nth(2)
        .context("three numbers")?
        .parse()?;
    let other = scene.lab.router.read("/proc/sys/net/core/rmem_max");
    let other = other.ok().and_then(|text| text.trim().parse().ok());
    Ok((most.max(other.unwrap_or(0)).ilog2() - 15) as u8)
}

/// The kernel's cookies encode some segment sizes, and use the largest that does not exceed the client's (`msstab` in
/// net/ipv4/syncookies.c and net/ipv6/syncookies.c).
#[test]
fn a_segment_is_no_longer_than_the_client_wants() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    for (timestamps, room) in [("1", 12), ("0", 0)] {
        scene.lab.client.write(TIMESTAMPS, timestamps)?;
        for (family, wanted, known) in [
            (Family::V4, 536, 536),
            (Family::V4, 1_000, 536),
            (Family::V4, 1_300, 1_300),
            (Family::V4, 1_452, 1_440),
            (Family::V4, 8_960, 1_460),
            (Family::V6, 1_220, 1_220),
            (Family::V6, 1_420, 1_420),
            (Family::V6, 8_940, 1_440),
        ] {
            offer(&scene, family, wanted)?;
            let open = ask_over_tcp(&scene, family)?;
            let [router, _] = Shown::of(&scene, 1)?.0;
            let sent = format!(" mss:{} ", known - room);
            assert!(router.contains(&sent), "{wanted}: {router}");
            drop(open);
            wait_until("it is closed", TIMEOUT, || Shown::are_none(&scene))?;
        }
    }
    Ok(())
}

/// Has the client offer this segment size.
fn offer(scene: &Scene, family: Family, size: u32) -> Result<()> {
    let (network, prefix, metric) = match family {
        Family::V4 => ("-4", "10.53.0.0/24", "0"),
        Family::V6 => ("-6", "fd53::/64", "256"),
    };
    let size = size.to_string();
    let route = ["ip", network, "route", "replace", prefix];
    let way = ["dev", HOST_INTERFACE, "proto", "kernel", "metric", metric];
    let words = [&route[..], &way, &["advmss", &size]].concat();
    scene.lab.client.output(&words).map(drop)
}

/// What we offer is the device's. Of what the client offers a cookie over IPv4 keeps no more than 1460.
#[test]
fn on_a_link_with_jumbo_frames_segments_are_as_long_as_cookies_can_say() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let spec = Spec {
        mtu: 9_000,
        ..Spec::default()
    };
    let scene = scene!(always().lab(spec));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let before = scene.daemon.metrics()?;
    for (family, ours, the_clients) in [(Family::V4, 1_460, 8_960), (Family::V6, 8_940, 8_940)] {
        let open = ask_over_tcp(&scene, family)?;
        let ends = Shown::of(&scene, 1)?.0;
        for (end, size) in ends.iter().zip([ours, the_clients]) {
            // Minus a timestamp.
            let sent = format!(" mss:{} ", size - 12);
            assert!(end.contains(&sent), "{sent}: {end}");
        }
        drop(open);
        wait_until("it is closed", TIMEOUT, || Shown::are_none(&scene))?;
    }
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, 2)])
}

/// Without options the kernel's setting is not changed.
#[test]
fn a_config_without_options_leaves_timestamps_alone() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(setup("syn_cookies = \"always\"\ntcp_options = false"));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let mut open = Vec::new();
    for family in Family::ALL {
        open.push(ask_over_tcp(&scene, family)?);
    }
    let shown = Shown::of(&scene, 2)?;
    shown.expect(&[" mss:1460 "], 1);
    shown.expect(&[" mss:1440 "], 1);
    for option in ["sack", "wscale", " ts "] {
        shown.expect(&[option], 0);
    }
    assert_eq!(setting(&scene, TIMESTAMPS)?, "1");
    Ok(())
}
