//! Text that people and programs write: lists, hosts files, leases, the config.

use std::path::Path;

use xdnsd::compile::hosts::{Host, Lease, parse_hosts, parse_leases};
use xdnsd::compile::list_file::ListImage;
use xdnsd::compile::lists::{ListBuilder, ListPurpose};
use xdnsd::compile::rpz;
use xdnsd::compile::rules::{Covers, Rule, parse_line};
use xdnsd::compile::{LeaseFormat, Notes, name};
use xdnsd::config::Config;
use xdnsd_core::dns::rtype;
use xdnsd_core::policy::list::Listing;
use xdnsd_core::policy::{Labels, List};

use super::flags;

/// What a file is called in what is noted of it.
const FILE: &str = "/a/file";
/// The key of the hash, so that a list is the same each time.
const KEY: [u8; 16] = *b"sixteen byte key";

/// Rules that say more than that a name is listed: what others say of it counts as well.
fn is_plain(rule: &Rule) -> bool {
    !rule.is_exception
        && !rule.is_badfilter
        && rule.types.is_none()
        && rule.pattern.is_empty()
        && rule.left_out.is_empty()
}

/// Any text is refused as a list, or compiles to an image that holds and blocks what its lines name, unless one of them takes
/// something back.
pub fn rules(input: &[u8]) -> bool {
    let mut builder = ListBuilder::with_key(KEY);
    let tally = builder.add_text(Path::new(FILE), input, 0, ListPurpose::Block);
    if tally.is_err() {
        assert!(builder.is_empty(), "nothing of a refused list is in it");
        return false;
    }
    let Some(image) = builder.build() else {
        return false;
    };
    List::check(&image).expect("what is compiled is a list");
    let list = ListImage::of(&image).expect("memory for it");
    let text = String::from_utf8_lossy(input);
    let parsed: Vec<Rule> = text
        .lines()
        .filter_map(|line| parse_line(line).ok())
        .flatten()
        .collect();
    for rule in &parsed {
        assert!(Labels::new(&rule.name).is_some(), "{:?}", rule.name);
        assert_eq!(name::lower(&rule.name), rule.name, "in lower case");
    }
    // A line may be read otherwise where bytes are not UTF-8, and in a response policy zone.
    let is_zone = text.lines().any(rpz::begins);
    if text.as_bytes() == input && !is_zone && parsed.iter().all(is_plain) {
        for rule in &parsed {
            assert_is_listed(rule, list.list());
        }
    }
    true
}

fn assert_is_listed(rule: &Rule, list: List<'_>) {
    let below = name::child(b"a", &rule.name);
    let asked = match rule.covers {
        Covers::Name | Covers::Subtree => Some(rule.name.clone()),
        Covers::Below => below,
    };
    let Some(asked) = asked else {
        return;
    };
    let labels = Labels::new(&asked).expect("a name");
    let listing = list.listing(&labels, rtype::A);
    assert!(
        matches!(listing, Listing::Blocked { .. }),
        "{}: {listing:?}",
        name::display(&asked)
    );
}

/// Any text gives hosts whose names are names that a host can have, and each is read again as it is written.
pub fn hosts(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut notes = Notes::default();
    let hosts = parse_hosts(Path::new(FILE), &text, &mut notes);
    let lines = text.lines().count();
    for host in &hosts {
        assert!((1..=lines).contains(&host.line), "line {}", host.line);
        assert_is_read_again(host);
    }
    !hosts.is_empty()
}

fn assert_is_read_again(host: &Host) {
    assert!(!host.names.is_empty());
    let names: Vec<String> = host.names.iter().map(|name| name::display(name)).collect();
    let line = format!("{} {}", host.address, names.join(" "));
    let mut notes = Notes::default();
    let again = parse_hosts(Path::new(FILE), &line, &mut notes);
    assert_eq!(notes.count, 0, "{line}: {:?}", notes.first);
    let [again] = &again[..] else {
        panic!("{line}: {again:?}");
    };
    assert_eq!(
        (again.address, &again.names),
        (host.address, &host.names),
        "{line}"
    );
}

/// Any text gives leases of clients that can have a name, and none that has ended. The first byte says which format it is.
pub fn leases(input: &[u8]) -> bool {
    const NOW_SECS: i64 = 1_700_000_000;
    let (how, bytes) = flags(input);
    let format = if how & 1 == 0 {
        LeaseFormat::Dnsmasq
    } else {
        LeaseFormat::Odhcpd
    };
    let now_secs = (how & 2 == 0).then_some(NOW_SECS);
    let text = String::from_utf8_lossy(bytes);
    let mut notes = Notes::default();
    let leases = parse_leases(Path::new(FILE), &text, format, now_secs, &mut notes);
    for lease in &leases {
        assert_is_good(lease, now_secs);
    }
    !leases.is_empty()
}

fn assert_is_good(lease: &Lease, now_secs: Option<i64>) {
    assert!(!lease.names.is_empty());
    for written in &lease.names {
        let shown = name::display(written);
        assert_eq!(name::parse_host_written(&shown).as_ref(), Ok(written));
    }
    if let (Some(ends), Some(now)) = (lease.ends_secs(), now_secs) {
        assert!(ends >= now, "it ended at {ends}");
    }
}

/// Any text is a config, or what is wrong with it is told with a place in it, in one line each.
pub fn config(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let (faults, is_taken) = match Config::parse(FILE, &text) {
        Ok(config) => (config.warnings().to_vec(), true),
        Err(errors) => {
            assert!(!errors.faults().is_empty(), "refused, and nothing is wrong");
            (errors.faults().to_vec(), false)
        }
    };
    let lines = text.split('\n').count();
    for fault in &faults {
        let shown = fault.to_string();
        assert!(!shown.contains('\n'), "{shown:?}");
        assert!(shown.starts_with(FILE), "{shown}");
        if let Some(position) = fault.position {
            assert!((1..=lines).contains(&position.line), "{shown}");
            let line = text.split('\n').nth(position.line - 1).unwrap_or_default();
            assert!(position.column <= line.chars().count() + 1, "{shown}");
        }
    }
    is_taken
}
