//! Whom the two processes of a server with a keeper can reach: each other, and others.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result};
use nix::libc;

use super::intruder::Fate;
use super::{KEEPER, MAY_HAVE_KEEPER, Thread, hold, hold_worker, keeper_of, serves, set_up};
use crate::support::run::{Run, only};
use crate::support::scene::{Setup, scene};

/// With an account of its own, and without anything else that would hold: the server's is root's here, without rights.
#[test]
fn a_keeper_of_another_account_is_out_of_its_servers_reach() -> Result<()> {
    only!(ONCE, "rights, whatever queries come by");
    if !MAY_HAVE_KEEPER {
        return Ok(());
    }
    let bare = format!("{KEEPER}seccomp = \"off\"\nlandlock = \"off\"\n");
    let own = format!("{bare}keeper_user = \"nobody\"\n");
    for (sections, signalled) in [(bare, 0), (own, -i64::from(libc::EPERM))] {
        let scene = scene!(Setup::default().sections(&sections));
        set_up(&scene)?;
        assert_eq!(scene.attached()?, Run::this().attached());
        let keeper = keeper_of(&scene.daemon)?;
        let held = hold_worker(&scene)?;
        let here = libc::AT_FDCWD as u64;
        let tried = (|| -> Result<_> {
            let open = |path: String| {
                let path = held.write(path.as_bytes())?;
                held.call(libc::SYS_openat, [here, path, 0, 0])
            };
            Ok((
                held.call(libc::SYS_kill, [keeper.into(), 0, 0, 0])?,
                held.call(libc::SYS_ptrace, [0x4206, keeper.into(), 0, 0])?,
                open(format!("/proc/{keeper}/mem\0"))?,
                open(format!("/proc/{keeper}/environ\0"))?,
            ))
        })();
        held.let_go()?;
        let (kill, trace, memory, environment) = tried?;
        assert_eq!(kill, Fate::Made(signalled), "{sections}");
        assert_eq!(trace, Fate::Made(-i64::from(libc::EPERM)), "{sections}");
        let refused = Fate::Made(-i64::from(libc::EACCES));
        assert_eq!(
            [memory, environment],
            [refused, Fate::Made(-13)],
            "{sections}"
        );
        if signalled != 0 {
            for thread in Thread::of(keeper)? {
                assert_eq!(thread.says("Uid"), "65534\t65534\t65534\t65534");
            }
        }
        serves(&scene)?;
    }
    Ok(())
}

/// Landlock alone, from Linux 6.12 on, in both processes.
#[test]
fn signals_and_abstract_sockets_of_others_are_out_of_reach_of_both_processes() -> Result<()> {
    only!(ONCE, "rights, whatever queries come by");
    if !MAY_HAVE_KEEPER || !has_scopes()? {
        return Ok(());
    }
    let name = format!("xdnsd-outside-{}", std::process::id());
    let outside = SocketAddr::from_abstract_name(&name)?;
    let family = (libc::AF_UNIX as u16).to_ne_bytes();
    let address = [&family[..], b"\0", name.as_bytes()].concat();
    for (word, refused) in [("on", -i64::from(libc::EPERM)), ("off", 0)] {
        let sections = format!("{KEEPER}seccomp = \"off\"\nlandlock = \"{word}\"\n");
        let scene = scene!(Setup::default().sections(&sections));
        set_up(&scene)?;
        // Abstract names are those of a network namespace.
        let listen = || UnixListener::bind_addr(&outside);
        let _listener = scene.lab.router.run(listen)?;
        let keeper = keeper_of(&scene.daemon)?;
        for (process, thread) in [(scene.daemon.pid(), "worker 0"), (keeper, "keeper sockets")] {
            let held = hold(process, thread)?;
            let tried = (|| -> Result<_> {
                let unix = [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0, 0];
                let Fate::Made(socket) = held.call(libc::SYS_socket, unix)? else {
                    anyhow::bail!("no socket");
                };
                let to = held.write(&address)?;
                let to = [socket as u64, to, address.len() as u64, 0];
                let connected = held.call(libc::SYS_connect, to)?;
                held.call(libc::SYS_close, [socket as u64, 0, 0, 0])?;
                let own = std::process::id().into();
                Ok([held.call(libc::SYS_kill, [own, 0, 0, 0])?, connected])
            })();
            held.let_go()?;
            let expected = [Fate::Made(refused), Fate::Made(refused)];
            assert_eq!(tried?, expected, "{thread}, landlock {word}");
        }
        serves(&scene)?;
    }
    Ok(())
}

/// True if Landlock has scopes (Linux 6.12), as the kernel's version says.
fn has_scopes() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let major = numbers.next().context("a version")??;
    let minor = numbers.next().context("a version")??;
    Ok((major, minor) >= (6, 12))
}
