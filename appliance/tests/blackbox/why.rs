//! `xdnsd why`: the source that decides a question, and its place.

use std::fs;

use anyhow::{Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{RData, RecordType};

use crate::support::client::Family;
use crate::support::daemon::run;
use crate::support::message::query;
use crate::support::scene::{Setup, scene};
use crate::support::script::Rule;

const SECTIONS: &str = "[[upstream]]\nname = \"corp\"\nservers = [\"10.54.0.3\"]\ndomains = [\"corp.test\"]\n\
    [local]\nrecords = [\n\"nas.lan A 192.168.1.7\",\n\"out.lan CNAME www.test\"]\n\
    [filter]\nblock_files = [\"{directory}/ads.txt\"]\n\
    [access]\ndrop = [\"10.9.0.0/16\"]\nothers = \"allow\"\n";

/// The list exists before the daemon starts.
fn setup() -> Setup {
    Setup::default().sections(SECTIONS)
}

#[test]
fn who_decides_is_named_with_file_and_line_and_what_is_cached() -> Result<()> {
    let scene = scene!(setup());
    let folder = scene.directory.path().display().to_string();
    let list = format!("{folder}/ads.txt");
    fs::write(&list, "! ads\n||tracker.test^\n||ads.test^\n")?;
    scene.daemon.control("reload")?;
    let config = format!("{folder}/config.toml");
    let text = fs::read_to_string(&config)?;
    let line_of = |what: &str| {
        let found = text.lines().position(|line| line.contains(what));
        found.map_or(0, |index| index + 1)
    };
    let at = |key: &str, what: &str| format!("{key} {config}:{}: {what}", line_of(what));
    let cached = |word: &str| format!("\n  cache: {word}");
    for (question, lines) in [
        (
            "x.ads.test",
            vec![
                "x.ads.test. A: blocked, NXDOMAIN with TTL 60\n".into(),
                format!("\n  block: blocked; {list}:3: ||ads.test^\n"),
                cached("has no answer"),
            ],
        ),
        (
            "nas.lan",
            vec![
                "nas.lan. A: answered from local data\n".into(),
                format!(
                    "\n  record: nas.lan. 60 IN A 192.168.1.7; {}\n",
                    at("local.records", "nas.lan A 192.168.1.7")
                ),
            ],
        ),
        (
            "x.corp.test AAAA 10.1.2.3",
            vec![
                "x.corp.test. AAAA: forwarded\n".into(),
                "access: 10.1.2.3 is answered; access.others".into(),
                format!(
                    "group `corp`: 10.54.0.3:53; {}",
                    at("upstream.domains", "corp.test")
                ),
            ],
        ),
        (
            "nas.lan 10.9.1.1",
            vec![
                "nas.lan. A: dropped, the client gets no answer\n".into(),
                format!("; {}\n", at("access.drop", "10.9.0.0/16")),
            ],
        ),
    ] {
        let said = scene.daemon.control(&format!("why {question}"))?;
        for line in lines {
            ensure!(said.contains(&line), "{question}: {line:?} in:\n{said}");
        }
    }
    let alias = scene.daemon.control("why out.lan")?;
    ensure!(alias.contains("cache: has no answer"), "{alias}");
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    client.ask(Family::V4, &query("out.lan.", RecordType::A))?;
    let alias = scene.daemon.control("why out.lan")?;
    ensure!(
        alias.contains("\n  cache: www.test. A - NOERROR ttl ")
            && alias.contains("\n           www.test. ")
            && alias.contains(&at("local.records", "out.lan CNAME www.test")),
        "{alias}"
    );
    Ok(())
}

/// The name that the client asks for is in no list, and what upstream said is not kept.
#[test]
fn a_block_behind_an_alias_is_not_said_to_be_upstreams() -> Result<()> {
    let scene = scene!(Setup::default().sections("[filter]\nblock = [\"hidden.test\"]\n"));
    let alias = RData::CNAME(CNAME("hidden.test.".parse()?));
    scene
        .upstream
        .on("front.test.", Rule::answer(300, &[alias]));
    let client = scene.raw_client()?;
    let answer = client.ask(Family::V4, &query("front.test.", RecordType::A))?;
    ensure!(answer.response_code() == ResponseCode::NXDomain, "{answer}");
    let said = scene.daemon.control("why front.test")?;
    ensure!(
        said.contains("front.test. A: forwarded\n")
            && said.contains("\n  cache: front.test. A - NXDOMAIN ttl ")
            && said.contains(" policy 0/1 ")
            && said.contains(
                "\n  answers: upstream's answer is withheld. Either it leads by an alias"
            )
            && !said.contains(" upstream 0/1 "),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_word_that_is_nothing_ends_the_command_with_status_2() -> Result<()> {
    let scene = scene!(Setup::default());
    let socket = scene.directory.path().join("sock").display().to_string();
    let output = run(None, &["why", "--socket", &socket, "www.test", "EH"])?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("`EH` is neither a type"), "{said}");
    Ok(())
}
