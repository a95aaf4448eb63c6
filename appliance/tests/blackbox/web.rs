//! `xdnsd web`: metrics and the status page, by a process without rights in the control socket's group.

use std::fs;
use std::io::Write as _;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use serde_json::Value;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN_V4};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::browser::Browser;
use crate::support::client::{Family, RawClient};
use crate::support::daemon::BINARY;
use crate::support::message::query;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};

/// User ID of nobody, and its group's.
const NOBODY: &str = "65534";

fn setup() -> Setup {
    let sections = format!(
        "control.group = \"{NOBODY}\"\n[web]\nlisten = [\"{LAN_V4}:9153\"]\nallow = [\"10.53.0.2/32\"]\nhosts = [\"router.lan\"]\n\
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

/// Starts `xdnsd web` as nobody.
fn start(scene: &Scene) -> Result<Process> {
    let folder = scene.directory.path();
    let config = folder.join("config.toml").display().to_string();
    fs::copy(BINARY, folder.join("xdnsd"))?;
    let command = as_nobody(scene, &["web", &config]);
    let mut web = Process::spawn_with_end(command, &folder.join("web.log"), End::Kill)?;
    web.wait_until("the site is there", TIMEOUT, || {
        get(scene, "/", &[]).is_ok_and(|reply| reply.status == "200")
    })?;
    Ok(web)
}

#[test]
fn metrics_and_a_page_are_given_by_a_process_that_may_only_look() -> Result<()> {
    only!(ONCE, "HTTP, whatever way queries come");
    let scene = scene!(setup());
    let _web = start(&scene)?;
    let page = get(&scene, "/", &["--include"])?.body;
    for part in [
        "<title>xdnsd</title>",
        "Content-Security-Policy: default-src 'none';",
        "no-store",
    ] {
        ensure!(page.contains(part), "{part}: {page}");
    }
    let metrics = get(&scene, "/metrics", &[])?.body;
    promtool(&metrics)?;
    for name in ["build_info{version=", "config_last_reload_successful 1"] {
        ensure!(metrics.contains(&format!("\nxdnsd_{name}")), "{name}");
    }
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
    // This machine asks by its own address, which `allow` need not name.
    let own = scene
        .lab
        .router
        .command("curl")
        .args(["--silent", "--max-time", "10"])
        .arg(format!("http://{LAN_V4}:9153/metrics"))
        .output()?;
    ensure!(own.status.success() && !own.stdout.is_empty(), "{own:?}");
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

/// A capture of packets between the client and others than the router.
struct Elsewhere(Process);

impl Elsewhere {
    /// Where the packet goes that shows that the capture works. Nobody is there.
    const MARK: &str = "192.0.2.77";

    fn capture(scene: &Scene) -> Result<Self> {
        let filter =
            format!("(ip and not host {LAN_V4}) or (ip6 and not icmp6 and not ip6 multicast)");
        let mut tcpdump = scene.lab.client.command("tcpdump");
        tcpdump.args(["-n", "-q", "-l", "--immediate-mode", "-i", HOST_INTERFACE]);
        tcpdump.arg(filter);
        let log = scene.directory.path().join("elsewhere");
        let mut process = Process::spawn(tcpdump, &log)?;
        process.wait_for_log("listening on", TIMEOUT)?;
        Ok(Self(process))
    }

    /// Fails if there was any packet before this.
    fn has_been_silent(mut self, scene: &Scene) -> Result<()> {
        let socket = scene.lab.client.run(|| UdpSocket::bind("0.0.0.0:0"))?;
        socket.send_to(b"mark", (Self::MARK, 9))?;
        self.0.wait_for_log(Self::MARK, TIMEOUT)?;
        let log = self.0.log();
        let packets: Vec<_> = log.lines().filter(|line| line.contains(" > ")).collect();
        ensure!(packets.len() == 1, "{packets:#?}");
        Ok(())
    }
}

/// Asks for the name until the page shows it.
fn wait_shown(browser: &mut Browser, client: &RawClient, name: &str) -> Result<()> {
    let names = "document.getElementById('t-names')?.textContent ?? ''";
    wait_until("the page shows the name", TIMEOUT, || {
        let asked = client.ask(Family::V4, &query(&format!("{name}."), RecordType::A));
        let shown = browser.evaluate(names);
        asked.is_ok() && shown.is_ok_and(|shown| shown.to_string().contains(name))
    })
}

#[test]
fn a_browser_shows_what_happens_and_asks_nobody_but_the_router() -> Result<()> {
    only!(ONCE, "HTTP, whatever way queries come");
    let scene = scene!(setup());
    let mut web = start(&scene)?;
    let elsewhere = Elsewhere::capture(&scene)?;
    let site = format!("http://{LAN_V4}:9153/");
    let mut browser = Browser::open(&scene.lab.client, scene.directory.path(), &site)?;
    let client = scene.raw_client()?;
    wait_shown(&mut browser, &client, "one.ads.test")?;
    let points = "document.getElementById('p-queries').getAttribute('points').split(' ').length";
    browser.evaluate(&format!("window.before = {points}"))?;
    wait_shown(&mut browser, &client, "two.ads.test")?;
    // The same page goes on: a new one would not have this variable.
    wait_until("the plot goes on", TIMEOUT, || {
        let grown = browser.evaluate(&format!("{points} > window.before"));
        grown.is_ok_and(|grown| grown == true)
    })?;
    for (what, holds) in [
        (
            "is all of it as wide as a phone",
            "document.documentElement.scrollWidth <= window.innerWidth",
        ),
        ("is a phone's", "window.innerWidth == 360"),
        (
            "says no fault",
            "document.getElementById('state').textContent == ''",
        ),
        (
            "names an upstream server",
            "document.getElementById('upstreams').textContent.includes('10.54.0.2')",
        ),
    ] {
        let found = browser.evaluate(holds)?;
        ensure!(found == true, "the page {what}: {found}");
    }
    web.kill()?;
    wait_until("the page says that nobody answers", TIMEOUT, || {
        let state = browser.evaluate("document.getElementById('state').textContent");
        state.is_ok_and(|state| state.to_string().contains("no answer"))
    })?;
    let asked = browser.requests();
    let is_data = |url: &&String| **url == format!("{site}data.json");
    ensure!(asked.iter().filter(is_data).count() > 2, "{asked:?}");
    ensure!(
        asked
            .iter()
            .all(|url| url.starts_with(&site) || url == "data:,"),
        "{asked:?}"
    );
    elsewhere.has_been_silent(&scene)
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
