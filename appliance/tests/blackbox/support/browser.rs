//! Headless Chromium in a host of the lab, with a page as wide as a phone. It is driven by the DevTools protocol
//! (--remote-debugging-pipe): messages in JSON, each with a zero byte behind it, read from descriptor 3 and written to 4.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xdnsd_lab::netns::Namespace;

/// Its descriptors 3 and 4 are our pipes. It may do nothing by itself, so what it asks for is the page's.
const START: &str = r#"exec "$0" --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking \
    --disable-component-update --user-data-dir="$1" --remote-debugging-pipe 3<&0 4>&1 0</dev/null 1>&2"#;
const PROGRAM: &str = "chromium-headless-shell";
const PHONE: (u32, u32) = (360, 740);
/// Time for an answer of the browser, its start on a loaded machine included.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. It is ended when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    /// The page, once there is one.
    session: Option<String>,
    calls: u64,
    requests: Vec<String>,
}

impl Browser {
    /// Opens `url` in `host`; its files are in `folder`.
    pub fn open(host: &Namespace, folder: &Path, url: &str) -> Result<Self> {
        let mut command = host.command("sh");
        command.args(["-c", START, PROGRAM]);
        command.arg(folder.join("browser")).env("HOME", folder);
        let log = File::create(folder.join("browser.log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(log).spawn()?;
        let to = child.stdin.take().context("its input")?;
        let from = listen(child.stdout.take().context("its output")?);
        let mut browser = Self {
            child,
            to,
            from,
            session: None,
            calls: 0,
            requests: Vec::new(),
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Network.enable", &json!({}))?;
        let (width, height) = PHONE;
        let phone =
            json!({"width": width, "height": height, "deviceScaleFactor": 2, "mobile": true});
        browser.call("Emulation.setDeviceMetricsOverride", &phone)?;
        browser.call("Page.navigate", &json!({"url": url}))?;
        Ok(browser)
    }

    /// Value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let words = json!({"expression": expression, "returnByValue": true});
        let result = self.call("Runtime.evaluate", &words)?;
        if let Some(fault) = result.get("exceptionDetails") {
            bail!("{expression}: {fault}");
        }
        Ok(result["result"]["value"].clone())
    }

    /// Addresses that the page has asked for so far.
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    fn call(&mut self, method: &str, words: &Value) -> Result<Value> {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": words});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        loop {
            let mut told = self.from.recv_timeout(PATIENCE).with_context(|| {
                format!("{PROGRAM} does not answer {method} (browser.log says why)")
            })?;
            if told["method"] == "Network.requestWillBeSent" {
                let url = told["params"]["request"]["url"].as_str();
                self.requests.extend(url.map(str::to_owned));
            }
            if told["id"] == self.calls {
                let fault = told.get("error");
                anyhow::ensure!(fault.is_none(), "{method}: {told}");
                return Ok(told["result"].take());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Messages of the browser, until it ends.
fn listen(from: ChildStdout) -> Receiver<Value> {
    let (told, messages) = channel();
    thread::spawn(move || {
        let parts = BufReader::new(from).split(0).map_while(Result::ok);
        for part in parts {
            let Ok(message) = serde_json::from_slice(&part) else {
                return;
            };
            if told.send(message).is_err() {
                return;
            }
        }
    });
    messages
}
