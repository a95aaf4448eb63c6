//! `xdnsd web`: metrics and the status page, by a process without rights in the control socket's group.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use serde_json::Value;
use xdnsd_lab::lab::LAN_V4;
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::daemon::BINARY;
use crate::support::message::query;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};

/// User ID of nobody, and its group's.
const NOBODY: &str = "65534";

fn setup() -> Setup {
    let sections = format!(
        "control.group = \"{NOBODY}\"\n[web]\nlisten = [\"{LAN_V4}:9153\"]\nallow = [\"10.53.0.0/24\"]\nhosts = [\"router.lan\"]\n\
         [filter]\nblock = [\"ads.test\"]\n"
    );
    // The key belongs to the last section.
    let sections = sections.replacen("control.group", "group", 1);
    Setup::default().sections(&sections)
}

/// The binary in the router as nobody, who may lack access to build folders.
fn as_nobody(scene: &Scene, words: &[&str]) -> Command {
    let binary = scene.directory.path().join("xdnsd");
    let mut command = scene.lab.router.command("setpriv");
    let nobody = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    command.args(nobody).arg(binary);
    command.args(words);
    command
}

struct Reply {
    status: String,
    body: String,
}

/// Response to curl in the client's namespace.
fn get(scene: &Scene, path: &str, options: &[&str]) -> Result<Reply> {
    let url = format!("http://{LAN_V4}:9153{path}");
    let mut command = scene.lab.client.command("curl");
    command.args([
        "--silent",
        "--max-time",
        "10",
        "--write-out",
        "\n%{http_code}",
    ]);
    let output = command.args(options).arg(&url).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').context("a status")?;
    Ok(Reply {
        status: status.into(),
        body: body.into(),
    })
}

#[test]
fn metrics_and_a_page_are_given_by_a_process_that_may_only_look() -> Result<()> {
    only!(ONCE, "HTTP, whatever way queries come");
    let scene = scene!(setup());
    let config = scene
        .directory
        .path()
        .join("config.toml")
        .display()
        .to_string();
    let log = scene.directory.path().join("web.log");
    fs::copy(BINARY, scene.directory.path().join("xdnsd"))?;
    let mut web = Process::spawn_with_end(as_nobody(&scene, &["web", &config]), &log, End::Kill)?;
    web.wait_until("the site is there", TIMEOUT, || {
        get(&scene, "/", &[]).is_ok_and(|reply| reply.status == "200")
    })?;
    let page = get(&scene, "/", &["--include"])?.body;
    for part in [
        "<title>xdnsd</title>",
        "Content-Security-Policy: default-src 'none';",
        "no-store",
    ] {
        ensure!(page.contains(part), "{part}: {page}");
    }
    promtool(&get(&scene, "/metrics", &[])?.body)?;
    let client = scene.raw_client()?;
    wait_until(
        "the page's data has a blocked name and its client",
        TIMEOUT,
        || {
            let asked = client.ask(Family::V4, &query("x.ads.test.", RecordType::A));
            let data = get(&scene, "/data.json", &[]).map(|reply| reply.body);
            let data: Option<Value> = data.ok().and_then(|data| serde_json::from_str(&data).ok());
            let has = |data: &Value, table: &str, key: &str| {
                let rows = data[table].as_array();
                rows.is_some_and(|rows| rows.iter().any(|row| row[0] == key))
            };
            asked.is_ok()
                && data.is_some_and(|data| {
                    has(&data, "names", "x.ads.test. A")
                        && has(&data, "clients", "10.53.0.2")
                        && has(&data, "reasons", "blocked")
                        && data["queries"].as_f64().is_some_and(|rate| rate > 0.0)
                })
        },
    )?;
    for (path, options, status) in [
        ("/x", vec![], "404"),
        ("/", vec!["--request", "POST"], "405"),
        ("/metrics", vec!["--header", "Host: evil.example"], "421"),
        ("/metrics", vec!["--header", "Host: router.lan"], "200"),
        ("/", vec!["--head"], "200"),
    ] {
        let reply = get(&scene, path, &options)?;
        ensure!(
            reply.status == status,
            "{path} {options:?}: {}",
            reply.status
        );
    }
    may_only_look(&scene)
}

/// With only the group's right, requests that show something succeed, and no others.
fn may_only_look(scene: &Scene) -> Result<()> {
    let socket = scene.directory.path().join("sock").display().to_string();
    let asked = |words: &[&str]| -> Result<(bool, String)> {
        let words = [words, &["--socket", &socket]].concat();
        let output = as_nobody(scene, &words).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.success(), said))
    };
    for words in [
        ["upstreams"].as_slice(),
        &["cache", "dump"],
        &["why", "a.test"],
    ] {
        let (is_done, said) = asked(words)?;
        ensure!(is_done, "{words:?}: {said}");
    }
    for words in [["reload"].as_slice(), &["cache", "flush"], &["pause", "5m"]] {
        let (is_done, said) = asked(words)?;
        ensure!(
            !is_done && said.contains("may only look"),
            "{words:?}: {said}"
        );
    }
    Ok(())
}

/// Checks names, units and help texts with Prometheus' own tool.
fn promtool(metrics: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool (package prometheus)")?;
    let mut input = child.stdin.take().context("its input")?;
    input.write_all(metrics.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}
