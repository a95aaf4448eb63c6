//! Lists as files: written slowly, emptied, damaged, in odd encodings; the log about them, and the memory of replaced lists.

use std::fs::{self, File};
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::ResponseCode;
use xdnsd_lab::wait::wait_until;

use super::{Lists, compile, is_blocked, wait_blocked};
use crate::support::TIMEOUT;
use crate::support::daemon::run;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::check_all;
use crate::support::ways::Ways;

/// A list of `ads0.test` and so on.
fn names(count: usize) -> String {
    (0..count)
        .map(|number| format!("ads{number}.test\n"))
        .collect()
}

fn with_list(lists: &Lists) -> Setup {
    let sections = format!("[filter]\nblock_files = [{:?}]\n", lists.path("list"));
    Setup::default().sections(&sections)
}

/// Every other name has an address.
fn answer_the_rest(scene: &Scene) {
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("*.test.", rule);
}

/// A slow `cp` over a list: it pauses for longer than any writer of a small file would, and opens the file again.
#[test]
fn half_a_list_is_never_loaded() -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(1_200);
    let lists = Lists::new(&[("list", &names(100))])?;
    let scene = scene!(with_list(&lists));
    answer_the_rest(&scene);
    let client = scene.raw_client()?;
    let mut file = File::create(lists.path("list"))?;
    let text = names(200);
    for part in text.as_bytes().chunks(text.len() / 3) {
        file.write_all(part)?;
        sleep(PAUSE);
        ensure!(is_blocked(&client, "ads99.test.")?, "the old list holds");
        ensure!(
            !is_blocked(&client, "ads150.test.")?,
            "of the new one nothing"
        );
    }
    // A reload that is asked for now reports it.
    let refused = scene.daemon.control("reload").expect_err("half a list");
    let told = format!("{refused:#}");
    ensure!(told.contains("a list is being written"), "{told}");
    drop(file);
    wait_blocked(&client, "ads150.test.", true)?;
    ensure!(is_blocked(&client, "ads199.test.")? && is_blocked(&client, "ads0.test.")?);
    Ok(())
}

/// As after a failed download.
#[test]
fn a_list_that_was_emptied_or_halved_is_refused_unless_the_config_takes_it() -> Result<()> {
    let lists = Lists::new(&[("list", &names(100)), ("allow", "")])?;
    let sections = format!("allow_files = [{:?}]\n", lists.path("allow"));
    let setup = with_list(&lists).sections(&sections);
    let scene = scene!(setup);
    answer_the_rest(&scene);
    let client = scene.raw_client()?;
    let place = lists.path("list");
    for (text, rules) in [(String::new(), 0), (names(49), 49)] {
        lists.write("list", &text)?;
        scene.daemon.wait_log_count(
            &format!(
                "{place}: has {rules} rules and had 100: those stay in force, until it has grown again; \
                 `filter.take_shrunk = true`, or a restart, takes it as it is"
            ),
            1,
        )?;
        ensure!(is_blocked(&client, "ads99.test.")?, "{rules}");
    }
    ensure!(scene.daemon.control("reload").is_err(), "a reload, too");
    ensure!(is_blocked(&client, "ads99.test.")?);
    // Statistics report it, and other lists go on.
    let told = scene.daemon.control("stats")?;
    ensure!(told.contains("xdnsd_file_not_taken{file=\""), "{told}");
    lists.write("allow", "ads98.test\n")?;
    wait_blocked(&client, "ads98.test.", false)?;
    ensure!(is_blocked(&client, "ads99.test.")?);
    // It lost only a few.
    lists.write("list", &names(90))?;
    wait_blocked(&client, "ads99.test.", false)?;
    ensure!(is_blocked(&client, "ads49.test.")?);
    let folder = scene.directory.path();
    let setup = setup.sections("take_shrunk = true\n");
    fs::write(folder.join("config.toml"), setup.config(folder))?;
    lists.write("list", &names(1))?;
    scene.daemon.control("reload")?;
    ensure!(is_blocked(&client, "ads0.test.")? && !is_blocked(&client, "ads49.test.")?);
    Ok(())
}

/// In a list and in a hosts file of local data.
#[test]
fn bytes_that_are_no_text_comments_and_marks_cost_no_line() -> Result<()> {
    let lists = Lists::new(&[])?;
    let list = b"\xef\xbb\xbf0.0.0.0 first.test\n# caf\xe9\n0.0.0.0 ads.test#comment\n\
        0.0.0.0 latin.test # caf\xe9\n0.0.0.0 bad\xff.test good.test\nlast.test\r\n";
    fs::write(lists.path("list"), list)?;
    let hosts = b"\xef\xbb\xbf192.0.2.7 marked.lan # caf\xe9\n192.0.2.8 second.lan#comment\n";
    fs::write(lists.path("hosts"), hosts)?;
    let local = format!(
        "[local]\nzones = [\"lan\"]\nhosts = [{:?}]\n",
        lists.path("hosts")
    );
    let scene = scene!(with_list(&lists).sections(&local));
    answer_the_rest(&scene);
    let ways = Ways::open(&scene)?;
    for name in ["first", "ads", "latin", "good", "last"] {
        ensure!(is_blocked(ways.raw(), &format!("{name}.test."))?, "{name}");
    }
    ensure!(!is_blocked(ways.raw(), "other.test.")?);
    let known = |name: &str, address: &str| {
        let record = format!("{name} 60 A {address}");
        check_all(
            &ways,
            &[(&format!("{name} A"), ResponseCode::NoError, &[&record])],
        )
    };
    known("marked.lan.", "192.0.2.7")?;
    known("second.lan.", "192.0.2.8")
}

#[test]
fn how_a_list_was_read_and_what_was_passed_over_is_in_the_log() -> Result<()> {
    let text = "# x\n0.0.0.0 a.test b.test\n*.acr.test\n||ads7^$third-party\n<html>\nd.test\n||e.test^\nlocal=/f.test/\n";
    let lists = Lists::new(&[("list", text)])?;
    let scene = scene!(with_list(&lists));
    answer_the_rest(&scene);
    let expected = format!(
        "{}: 6 rules, 2 lines skipped; first: line 4 \"||ads7^$third-party\": option not supported; \
         read as 2 hosts lines, the name alone, 1 name, with all below, 1 `*.` name, the name and all below, \
         1 in Adblock syntax, 1 of dnsmasq, with all below\n",
        lists.path("list")
    );
    scene.daemon.wait_log_count(&expected, 1)?;
    let skipped = "/list: skipped: 1 \"not a name\", 1 \"option not supported\"\n";
    scene.daemon.wait_log_count(skipped, 1)?;
    let client = scene.raw_client()?;
    ensure!(is_blocked(&client, "acr.test.")? && is_blocked(&client, "x.acr.test.")?);
    // Compiling it reports the same.
    let (list, out) = (lists.path("list"), lists.path("out"));
    let output = run(None, &["lists", "compile", &out, &list])?;
    let told = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    ensure!(told.contains(&expected), "{told}");
    Ok(())
}

/// Bytes of the process's read-only anonymous memory: lists, and little else.
fn read_only_bytes(scene: &Scene) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", scene.daemon.pid()))?;
    let mut sum = 0;
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [range, "r--p", _, _, "0"] = words[..] {
            let (start, end) = range.split_once('-').context("a range")?;
            let parse = |text| usize::from_str_radix(text, 16);
            sum += parse(end)? - parse(start)?;
        }
    }
    Ok(sum)
}

/// Only one list is in memory, without a further change that would free the previous one.
#[test]
fn a_list_that_was_replaced_is_freed() -> Result<()> {
    let lists = Lists::new(&[])?;
    compile(&lists, "list", &names(50_000))?;
    let large = usize::try_from(fs::metadata(lists.path("list"))?.len())?;
    let sections = format!(
        "[filter]\ntake_shrunk = true\ncompiled = [{:?}]\n",
        lists.path("list")
    );
    let scene = scene!(Setup::default().sections(&sections));
    answer_the_rest(&scene);
    let client = scene.raw_client()?;
    ensure!(is_blocked(&client, "ads0.test.")?);
    let before = read_only_bytes(&scene)?;
    ensure!(before >= large, "{before} of {large}");
    compile(&lists, "list", "other.test\n")?;
    wait_blocked(&client, "other.test.", true)?;
    wait_until("the old list is freed", TIMEOUT, || {
        read_only_bytes(&scene).is_ok_and(|bytes| bytes + large / 2 < before)
    })
}
