//! Common programs get through: each opens connections that begin with a cookie, over both families, with and without
//! timestamps.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{LAN_V4, LAN_V6};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::{End, Process, output_of};

use super::{TIMESTAMPS, prepare, wait_state, with_program};
use crate::support::TIMEOUT;
use crate::support::run::only;
use crate::support::scene::{Setup, scene};

const SSH: u16 = 2222;
const WEB: u16 = 8080;
/// Long enough to fill many windows.
const PAGE_LEN: usize = 1 << 20;
/// Time limit of a client, in seconds.
const PATIENCE: &str = "20";

#[test]
fn clients_of_all_kinds_get_through() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let section = format!(
        "[shield]\nstate_file = \"{{directory}}/syncookies\"\nports = [{SSH}, {WEB}]\nsyn_cookies = \"always\"\n"
    );
    let scene = scene!(Setup::default().sections(&section));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let _ssh = serve_ssh(&scene.lab.router, scene.directory.path())?;
    let addresses = [IpAddr::from(LAN_V4), IpAddr::from(LAN_V6)];
    let kinds = ["1", "0"];
    let web = serve_web(&scene.lab.router, addresses.len() * kinds.len())?;
    let before = scene.daemon.metrics()?;
    let client = &scene.lab.client;
    for timestamps in kinds {
        client.write(TIMESTAMPS, timestamps)?;
        for address in addresses {
            let banner = banner(client, address)?;
            assert!(banner.starts_with("SSH-2.0-dropbear"), "nc: {banner:?}");
            let at = format!("@{address}");
            let asked = ["dig", &at, "+tcp", "+tries=1", "+short", "www.test.", "A"];
            assert_eq!(client.output(&asked)?.trim(), "192.0.2.1", "dig +tcp");
            let url = match address {
                IpAddr::V4(v4) => format!("http://{v4}:{WEB}/"),
                IpAddr::V6(v6) => format!("http://[{v6}]:{WEB}/"),
            };
            let page = client.output(&["curl", "-s", "-g", "--max-time", PATIENCE, &url])?;
            assert_eq!(page.len(), PAGE_LEN, "curl");
        }
    }
    web.join().expect("it only serves")?;
    let connections = (kinds.len() * addresses.len() * 3) as u64;
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::SynCookie, connections)])
}

/// An SSH server, as on routers.
fn serve_ssh(router: &Namespace, directory: &Path) -> Result<Process> {
    let key = directory.join("ssh-key");
    let mut make = router.command("dropbearkey");
    output_of(make.args(["-t", "ed25519", "-f"]).arg(&key))?;
    let mut serve = router.command("dropbear");
    serve.args(["-F", "-E", "-p", &SSH.to_string(), "-r"]);
    serve.arg(&key).arg("-P").arg(directory.join("ssh-pid"));
    let log = directory.join("ssh-log");
    let mut process = Process::spawn_with_end(serve, &log, End::Terminate)?;
    // It listens by then.
    process.wait_for_log("Not backgrounding", TIMEOUT)?;
    Ok(process)
}

/// First line of a server that speaks first.
fn banner(client: &Namespace, address: IpAddr) -> Result<String> {
    let mut command = client.command("nc");
    command.args(["-w", PATIENCE, &address.to_string(), &SSH.to_string()]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run nc (package netcat-openbsd)")?;
    let mut said = Vec::new();
    let stdout = child.stdout.take().context("it has a standard output")?;
    let read = BufReader::new(stdout).read_until(b'\n', &mut said);
    child.kill()?;
    child.wait()?;
    read?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Serves a page to this number of clients.
fn serve_web(router: &Namespace, clients: usize) -> Result<JoinHandle<Result<()>>> {
    let listener = router.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, WEB)))?;
    Ok(thread::spawn(move || {
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {PAGE_LEN}\r\n\r\n");
        for _ in 0..clients {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = [0; 4096];
            ensure!(stream.read(&mut bytes)? > 0, "a client that asks nothing");
            stream.write_all(head.as_bytes())?;
            stream.write_all(&[b'x'; PAGE_LEN])?;
        }
        Ok(())
    }))
}
