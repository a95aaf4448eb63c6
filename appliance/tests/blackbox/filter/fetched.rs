//! Lists that a script fetches over HTTP, beside a daemon that reads them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::Context as _;
use xdnsd_lab::lab::UPSTREAM_V4;
use xdnsd_lab::workspace;

use super::*;
use crate::support::run::only;

/// What a server of lists says at each path; a path that it has not is 404. Every answer has a date.
type Pages = Arc<Mutex<HashMap<&'static str, String>>>;

const MODIFIED: &str = "Tue, 01 Dec 2026 00:00:00 GMT";

fn serve(listener: &TcpListener, pages: &Pages) {
    for mut client in listener.incoming().flatten() {
        let mut request = [0; 2048];
        let len = client.read(&mut request).unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..len]).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let known = pages.lock().expect("pages").get(path).cloned();
        let is_had = request.contains(&format!("If-Modified-Since: {MODIFIED}"));
        let answer = match known {
            None => "HTTP/1.0 404 Not Found\r\n\r\nno such list\n".into(),
            Some(_) if is_had => "HTTP/1.0 304 Not Modified\r\n\r\n".into(),
            Some(text) => format!("HTTP/1.0 200 OK\r\nLast-Modified: {MODIFIED}\r\n\r\n{text}"),
        };
        let _ = client.write_all(answer.as_bytes());
    }
}

/// One that is away, one that comes empty and a line that is none stop no other; what is not fetched stays; what has not changed
/// is not written again; a new one is in force without a word to the daemon.
#[test]
fn each_list_that_can_be_fetched_takes_the_place_of_the_last_one() -> Result<()> {
    only!(
        ONCE,
        "which lists there are does not depend on the way of a query"
    );
    let lists = Lists::new(&[("kept", "kept.test\n"), ("emptied", "emptied.test\n")])?;
    let places = ["kept", "emptied", "new"].map(|file| lists.path(file));
    let sections = format!("[filter]\nblock_files = {places:?}\n");
    let scene = scene!(Setup::default().sections(&sections));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let listener = scene
        .lab
        .upstream
        .run(|| TcpListener::bind((UPSTREAM_V4, 80)));
    let listener = listener.context("listen for HTTP")?;
    let pages: Pages = Arc::default();
    let shown = Arc::clone(&pages);
    thread::spawn(move || serve(&listener, &shown));
    let set = |path, text: &str| pages.lock().expect("pages").insert(path, text.to_owned());
    set("/emptied", "");
    set("/new", "new.test\n");

    let url = |path: &str| format!("http://{UPSTREAM_V4}{path}");
    let [kept, emptied, new] = &places;
    lists.write(
        "lists",
        &format!(
            "# FILE URL\n\n{kept} {}\nrelative {}\n{new}\n{emptied} {}\n{new}   {}",
            url("/gone"),
            url("/new"),
            url("/emptied"),
            url("/new"),
        ),
    )?;
    let fetch = || -> Result<(Option<i32>, String)> {
        let script = workspace::root().join("buildroot/package/xdnsd/fetch-lists");
        let output = scene
            .lab
            .router
            .command(script)
            .arg(lists.path("lists"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code(), said))
    };
    let client = scene.raw_client()?;
    let (status, said) = fetch()?;
    ensure!(status == Some(1), "{said}");
    let place = lists.path("lists");
    for line in [
        format!("/gone: not fetched: {kept} stays as it was\n"),
        format!("{place}:4: relative: FILE begins with /\n"),
        format!("{place}:5: FILE URL, and no more\n"),
        format!("/emptied: empty: {emptied} stays as it was\n"),
    ] {
        ensure!(said.contains(&line), "{line}: {said}");
    }
    for name in ["kept.test.", "emptied.test.", "new.test."] {
        wait_blocked(&client, name, true)?;
    }
    let left: Vec<_> = fs::read_dir(lists.0.path())?.collect();
    ensure!(left.len() == 4, "nothing else is left: {left:?}");

    lists.write("lists", &format!("{new} {}\n", url("/new")))?;
    let before = fs::metadata(new)?;
    set("/new", "later.test\n");
    ensure!(fetch()? == (Some(0), String::new()));
    ensure!(
        fs::metadata(new)?.ino() == before.ino(),
        "it is not written again"
    );

    // An older one than the server's.
    fs::File::open(new)?.set_modified(std::time::UNIX_EPOCH)?;
    ensure!(fetch()? == (Some(0), String::new()));
    wait_blocked(&client, "later.test.", true)?;
    wait_blocked(&client, "new.test.", false)
}
