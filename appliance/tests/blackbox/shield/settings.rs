//! The kernel's settings are restored when they are no longer needed, and not before.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Result;
use nix::sys::signal::Signal;
use xdnsd_lab::lab::LAN_V4;
use xdnsd_lab::wait::wait_until;

use super::{
    GUARDED, SYSCTL, TIMESTAMPS, always, cookie, proof, setting, state_file, sysctl, wait_state,
    with_program,
};
use crate::support::TIMEOUT;
use crate::support::run::only;
use crate::support::scene::scene;

#[test]
fn the_kernels_setting_is_put_back_at_the_end_and_after_a_kill_by_the_next_one() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let mut scene = scene!(always());
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    assert_eq!(sysctl(&scene)?, "2");
    assert_eq!(setting(&scene, TIMESTAMPS)?, "2");
    let written = fs::read_to_string(state_file(&scene))?;
    assert!(written.starts_with("1 "), "{written}");
    assert!(
        scene
            .daemon
            .log()
            .contains("tcp_syncookies is 2 while SYN cookies are given, it was 1")
    );
    scene.daemon.terminate()?;
    assert_eq!(sysctl(&scene)?, "1");
    assert_eq!(setting(&scene, TIMESTAMPS)?, "1");
    assert!(!state_file(&scene).exists());
    // If somebody has switched timestamps off, they stay off.
    scene.lab.router.write(TIMESTAMPS, "0")?;

    // Whatever the previous value.
    scene.lab.router.write(SYSCTL, "0")?;
    scene.daemon.start_again(&scene.lab)?;
    wait_state(&scene.daemon, "")?;
    scene.daemon.kill()?;
    assert_eq!(sysctl(&scene)?, "2", "nobody was there to put it back");
    assert_eq!(setting(&scene, TIMESTAMPS)?, "0");
    scene.lab.router.write(TIMESTAMPS, "1")?;
    scene.daemon.start_again(&scene.lab)?;
    wait_state(&scene.daemon, "")?;
    let log = scene.daemon.log();
    assert!(
        log.contains("is 0 again, a process that was killed had left it 2"),
        "{log}"
    );
    assert_eq!(sysctl(&scene)?, "2");
    scene.daemon.terminate()?;
    assert_eq!(sysctl(&scene)?, "0");

    // A process that is to give none restores it as well.
    scene.daemon.start_again(&scene.lab)?;
    wait_state(&scene.daemon, "")?;
    scene.daemon.kill()?;
    assert_eq!(setting(&scene, TIMESTAMPS)?, "2");
    let config = scene.directory.path().join("config.toml");
    let text = fs::read_to_string(&config)?.replace("\"always\"", "\"off\"");
    fs::write(&config, text)?;
    scene.daemon.start_again(&scene.lab)?;
    assert_eq!(sysctl(&scene)?, "0");
    assert_eq!(setting(&scene, TIMESTAMPS)?, "1");
    Ok(())
}

#[test]
fn what_somebody_else_sets_meanwhile_is_set_again_and_said() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let mut scene = scene!(always());
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    scene.lab.router.write(SYSCTL, "0")?;
    wait_until("it is set again", TIMEOUT, || {
        sysctl(&scene).is_ok_and(|value| value == "2")
    })?;
    scene
        .daemon
        .wait_log_count("was set to 0 by somebody else", 1)?;
    scene.daemon.terminate()?;
    assert_eq!(sysctl(&scene)?, "0");
    Ok(())
}

/// Its SYN was answered with a cookie when the server was told to end, and its ACK comes when there is no program any more.
#[test]
fn a_cookie_on_its_way_is_taken_after_the_programs_are_gone() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let mut scene = scene!(always());
    let _program = with_program(&scene.lab.client)?;
    scene.daemon.terminate()?;
    // With 0 the kernel accepts no cookie.
    scene.lab.router.write(SYSCTL, "0")?;
    scene.daemon.start_again(&scene.lab)?;
    wait_state(&scene.daemon, "")?;
    let listener = scene
        .lab
        .router
        .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, GUARDED)))?;
    listener.set_nonblocking(true)?;
    // From a host without a kernel, which would answer with an RST.
    let source: SocketAddr = (Ipv4Addr::new(10, 53, 0, 77), 40_077).into();
    let server = SocketAddr::new(LAN_V4.into(), GUARDED);
    let client = scene.raw_client()?;
    let number = cookie(&client, source, server)?;
    scene.daemon.signal(Signal::SIGTERM)?;
    scene.daemon.wait_log_count("XDP programs detached", 1)?;
    assert_eq!(sysctl(&scene)?, "2");
    client.send(&proof(&client, source, server, number)?)?;
    wait_until("the connection is there", TIMEOUT, || {
        listener.accept().is_ok()
    })?;
    scene.daemon.wait_exit()?;
    assert_eq!(sysctl(&scene)?, "0");
    assert_eq!(setting(&scene, TIMESTAMPS)?, "1");
    assert!(!state_file(&scene).exists());
    let log = scene.daemon.log();
    assert!(
        log.contains("the kernel's settings are put back in "),
        "{log}"
    );
    Ok(())
}
