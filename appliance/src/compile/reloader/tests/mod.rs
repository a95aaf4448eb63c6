//! Tests of files that change, one after the other.

mod kept;

use super::*;
use crate::compile::hosts::LeaseFormat;
use crate::compile::lists::ListPurpose;
use crate::compile::local::LeaseFile;
use crate::compile::{list_file, name};
use crate::testing::Folder;
use std::fs;
use xdnsd_core::dns::rtype;
use xdnsd_core::policy::{Decision, Labels, Local};

/// Time enough for any debounce.
const LATER: Instant = Instant::from_millis(10_000);
const NOW: Instant = Instant::from_millis(1_000);

fn is_local(reloader: &PolicyReloader, question: &str) -> bool {
    let name = name::parse(question).expect("a name");
    let set = reloader.set();
    let found = set
        .view()
        .decide(&Labels::new(&name).expect("well-formed"), rtype::A);
    matches!(found, Decision::Local(Local::Records(_)))
}

fn is_blocked(reloader: &PolicyReloader, question: &str) -> bool {
    let name = name::parse(question).expect("a name");
    let set = reloader.set();
    let found = set
        .view()
        .decide(&Labels::new(&name).expect("well-formed"), rtype::A);
    matches!(found, Decision::Blocked(_))
}

/// Lets the reloader take events and update.
fn update(reloader: &mut PolicyReloader) -> Option<Update> {
    reloader.take_events(NOW);
    reloader.update_if_due(LATER, None)
}

fn told(update: &Update) -> Vec<String> {
    update
        .notes
        .failures
        .iter()
        .chain(&update.notes.first)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_lease_is_answered_once_its_file_is_written() {
    let folder = Folder::new();
    let path = folder.path().join("dhcp.leases");
    let mut input = PolicyInput::default();
    input.local.leases = vec![LeaseFile {
        path: path.clone(),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, first) = PolicyReloader::start(input, None).expect("started");
    assert_eq!(told(&first), [format!("{}: is not there", path.display())]);
    assert!(update(&mut reloader).is_none(), "nothing happened");
    fs::write(&path, "0 02:00:00:00:00:01 192.168.1.7 phone *\n").expect("written");
    reloader.take_events(NOW);
    assert!(
        reloader.update_if_due(NOW, None).is_none(),
        "its writer may not have finished"
    );
    assert!(reloader.deadline().is_some_and(|deadline| deadline > NOW));
    let updated = reloader.update_if_due(LATER, None).expect("due");
    assert_eq!((told(&updated).len(), updated.set.is_some()), (0, true));
    assert!(is_local(&reloader, "phone"));
    assert_eq!(reloader.deadline(), None);
}

#[test]
fn a_lease_that_ends_goes_although_nobody_writes() {
    let folder = Folder::new();
    let text =
        "1900000000 m 192.168.1.7 phone *\n1900000005 m 192.168.1.8 tv *\n0 m 192.168.1.9 box *\n";
    let mut input = PolicyInput::default();
    input.local.leases = vec![LeaseFile {
        path: folder.write("dhcp.leases", text),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, Some(1_800_000_000)).expect("started");
    let at =
        |reloader: &mut PolicyReloader, secs| reloader.update_if_due(NOW, Some(secs)).is_some();
    assert!(!at(&mut reloader, 1_900_000_000), "its last second");
    assert!(is_local(&reloader, "phone"));
    assert!(at(&mut reloader, 1_900_000_001));
    assert!(!is_local(&reloader, "phone") && is_local(&reloader, "tv"));
    assert!(!at(&mut reloader, 1_900_000_002));
    assert!(at(&mut reloader, 1_900_000_010) && !is_local(&reloader, "tv"));
    assert!(!at(&mut reloader, i64::MAX) && is_local(&reloader, "box"));
    assert!(
        reloader.update_if_due(NOW, None).is_none(),
        "without a clock"
    );
}

#[test]
fn a_list_that_turns_bad_leaves_the_old_one_in_force() {
    let folder = Folder::new();
    let (text, hosts) = (
        folder.write("ads.txt", "ads.example\n"),
        folder.write("hosts", "192.168.1.2 nas\n"),
    );
    let source = folder.write("source.txt", "mapped.example\n");
    let compiled = folder.path().join("compiled.list");
    let (image, _) = list_file::compile(&[(source, ListPurpose::Block)]).expect("compiled");
    list_file::write(&compiled, &image).expect("written");
    let mut input = PolicyInput::default();
    input.lists.block = vec![text.clone()];
    input.lists.compiled = vec![compiled.clone()];
    input.local.hosts = vec![hosts];
    let (mut reloader, first) = PolicyReloader::start(input, None).expect("started");
    assert_eq!(told(&first), [""; 0]);
    folder.write("ads.txt", "<html>\n");
    folder.write("hosts", "192.168.1.3 tv\n");
    let updated = update(&mut reloader).expect("due");
    assert_eq!(
        told(&updated),
        [format!(
            "{}: has no rule in 1 line: is it a blocklist?; 1 rule of it stays in force",
            text.display()
        )]
    );
    assert!(is_blocked(&reloader, "ads.example") && is_blocked(&reloader, "mapped.example"));
    assert!(
        is_local(&reloader, "tv") && !is_local(&reloader, "nas"),
        "what is not wrong is taken over"
    );
    // A torn file in place of the compiled one: a new file, because the old one is mapped.
    fs::remove_file(&compiled).expect("removed");
    folder.write("compiled.list", &image[..image.len() / 2]);
    folder.write("ads.txt", "new.example\n");
    let updated = update(&mut reloader).expect("due");
    assert!(
        told(&updated)[0].contains("compiled.list: is torn"),
        "{:?}",
        told(&updated)
    );
    assert!(is_blocked(&reloader, "mapped.example") && is_blocked(&reloader, "new.example"));
    list_file::write(&compiled, &image).expect("written");
    let updated = update(&mut reloader).expect("due");
    assert_eq!(told(&updated), [""; 0]);
    assert!(is_blocked(&reloader, "new.example") && is_blocked(&reloader, "mapped.example"));
    assert!(!is_blocked(&reloader, "ads.example"));
}

#[test]
fn a_file_that_fails_at_the_start_does_not_hold_up_the_others() {
    let folder = Folder::new();
    let (bad, good) = (
        folder.path().join("bad.txt"),
        folder.write("good.txt", "good.example\n"),
    );
    let mut input = PolicyInput::default();
    input.lists.block = vec![bad.clone(), good];
    let (mut reloader, first) = PolicyReloader::start(input, None).expect("started");
    assert_eq!(first.notes.failures.len(), 1);
    assert!(is_blocked(&reloader, "good.example"));
    folder.write("good.txt", "better.example\n");
    let updated = update(&mut reloader).expect("due");
    assert_eq!(updated.notes.failures, [], "said once");
    assert!(is_blocked(&reloader, "better.example"));
    fs::write(&bad, "late.example\n").expect("written");
    let updated = update(&mut reloader).expect("due");
    assert_eq!(told(&updated), [""; 0]);
    assert!(is_blocked(&reloader, "late.example") && is_blocked(&reloader, "better.example"));
    fs::remove_file(&bad).expect("removed");
    let updated = update(&mut reloader).expect("due");
    assert_eq!(updated.notes.failures.len(), 1);
    assert!(
        is_blocked(&reloader, "late.example"),
        "it was in force, so it stays"
    );
}

/// All notes of an update, without the name of the file.
fn said(update: Option<Update>) -> Vec<String> {
    let notes = update.expect("due").notes;
    let all = notes
        .failures
        .iter()
        .chain(&notes.first)
        .chain(&notes.refusals);
    all.map(|problem| problem.what.clone()).collect()
}

#[test]
fn a_fault_is_said_once_per_change_of_its_file() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    input.local.hosts = vec![
        folder.write("hosts", "192.168.1.2 bob's nas\n"),
        folder.path().join("later"),
    ];
    let lease = |number: u8| format!("0 m{number} 192.168.1.7{number} name{number} *\n");
    let text = "0 m9 192.168.1.66 nas *\n0 m8 192.168.1.67 bad's *\n";
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", text),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, first) = PolicyReloader::start(input, None).expect("started");
    let all = [
        "`bob's` has characters that a host name may not have",
        "is not there",
        "`bad's` has characters that a host name may not have",
        "not giving name nas to the DHCP lease of 192.168.1.66 because the name exists in ",
    ];
    let starts = |said: &[String], expected: &[&str]| {
        assert_eq!(said.len(), expected.len(), "{said:?}");
        let mut both = said.iter().zip(expected);
        assert!(
            both.all(|(said, expected)| said.starts_with(expected)),
            "{said:?}"
        );
    };
    starts(&said(Some(first)), &all);
    // Five leases in front of the others, so that each line's number changes.
    let mut leases = String::from(text);
    for number in 1..=5 {
        leases = lease(number) + &leases;
        folder.write("leases", &leases);
        starts(&said(update(&mut reloader)), &[]);
        assert!(is_local(&reloader, &format!("name{number}")));
    }
    folder.write("hosts", "192.168.1.3 tv\n192.168.1.2 bob's nas\n");
    starts(&said(update(&mut reloader)), &all[..1]);
    folder.write("leases", lease(1) + text);
    starts(&said(update(&mut reloader)), &[]);
    folder.write("later", "192.168.1.9\n");
    starts(
        &said(update(&mut reloader)),
        &["has an address and no name"],
    );
    fs::remove_file(folder.path().join("later")).expect("removed");
    starts(&said(update(&mut reloader)), &["is not there"]);
    // The client asks for another name, then for this one again: that is news.
    folder.write("leases", lease(1));
    starts(&said(update(&mut reloader)), &[]);
    folder.write("leases", lease(1) + text);
    starts(&said(update(&mut reloader)), &all[2..]);
    // A client that asks for a reload gets all notes.
    let input = reloader.input.clone();
    starts(&said(reloader.reload(input, None).ok()), &all);
}

/// Between emptying its file and writing it a server may wait for the disk. If all leases have ended, nothing follows.
#[test]
fn a_lease_file_that_was_emptied_is_waited_for() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    let text = "0 m1 192.168.1.66 phone *\n0 m2 192.168.1.67 bad's *\n";
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", text),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    for (number, is_written) in [true, false, true].into_iter().enumerate() {
        let at = |millis| Instant::from_millis(10_000 * (number as u64 + 1) + millis);
        folder.write("leases", "");
        reloader.take_events(at(0));
        assert!(reloader.update_if_due(at(1_000), None).is_none());
        assert_eq!(reloader.deadline(), Some(at(3_000)));
        assert!(is_local(&reloader, "phone"), "not gone meanwhile");
        if is_written {
            folder.write("leases", text);
            reloader.take_events(at(1_500));
            assert!(
                reloader.deadline().is_some_and(|due| due < at(2_000)),
                "no longer than usual"
            );
            assert_eq!(said(reloader.update_if_due(at(2_000), None)), [""; 0]);
            assert!(is_local(&reloader, "phone"));
        } else {
            assert!(reloader.update_if_due(at(2_999), None).is_none());
            assert!(reloader.update_if_due(at(3_000), None).is_some());
            assert!(!is_local(&reloader, "phone"), "all have ended");
            folder.write("leases", text);
            reloader.take_events(at(4_000));
            reloader.update_if_due(at(5_000), None).expect("due");
            assert!(is_local(&reloader, "phone"));
        }
        assert_eq!(reloader.deadline(), None);
    }
}

/// A hosts file that cannot be read any more keeps its names, and does not keep a new device from its own.
#[test]
fn a_hosts_file_that_fails_holds_up_no_lease() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    input.local.hosts = vec![folder.write("hosts", "192.168.1.2 nas\n")];
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", "0 m1 192.168.1.66 phone *\n"),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    folder.write("hosts", b"\xff\xfe1\x009\x00");
    assert_eq!(
        said(update(&mut reloader)),
        ["is UTF-16; save it as UTF-8"; 1]
    );
    for (number, name) in ["tv", "box"].iter().enumerate() {
        folder.write("leases", format!("0 m2 192.168.1.7{number} {name} *\n"));
        assert_eq!(said(update(&mut reloader)), [""; 0], "said once");
        assert!(is_local(&reloader, name) && is_local(&reloader, "nas"));
        assert!(!is_local(&reloader, "phone"));
    }
    let input = reloader.input.clone();
    let reloaded = reloader.reload(input, None).expect("right");
    assert_eq!(reloaded.notes.failures.len(), 1, "whoever asks is told");
    assert!(is_local(&reloader, "nas"));
    folder.write("hosts", "192.168.1.3 printer\n");
    update(&mut reloader).expect("due");
    assert!(is_local(&reloader, "printer") && !is_local(&reloader, "nas"));
    fs::remove_file(folder.path().join("hosts")).expect("removed");
    update(&mut reloader).expect("due");
    assert!(!is_local(&reloader, "printer"), "removed on purpose");
}

#[test]
fn a_lease_loses_its_name_to_a_list_and_gets_it_back() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    input.lists.block = vec![folder.write("ads.txt", "ads.example\n")];
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", "0 m1 192.168.1.66 phone *\n"),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    assert!(is_local(&reloader, "phone"));
    folder.write("ads.txt", "ads.example\n||phone^\n");
    let expected = "not giving name phone to the DHCP lease of 192.168.1.66 because it is blocked";
    assert_eq!(said(update(&mut reloader)), [expected]);
    assert!(!is_local(&reloader, "phone") && is_blocked(&reloader, "phone"));
    folder.write("ads.txt", "ads.example\nb.example\n");
    update(&mut reloader).expect("due");
    assert!(is_local(&reloader, "phone"));
}

#[test]
fn an_address_that_becomes_our_own_is_no_lease_any_more() {
    let folder = Folder::new();
    let mut input = PolicyInput::default();
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", "0 m1 192.168.1.66 phone *\n"),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    assert!(is_local(&reloader, "phone"));
    reloader.set_addresses(
        Vec::new(),
        Links {
            martian_sources: vec!["192.168.1.66".parse().expect("an address")],
            ..Links::default()
        },
    );
    assert_eq!(said(reloader.update_if_due(NOW, None)).len(), 1);
    assert!(!is_local(&reloader, "phone"));
    assert!(reloader.update_if_due(NOW, None).is_none(), "once");
}

/// The program in the kernel answers clients that were answered under the same generation.
#[test]
fn other_neighbours_are_another_generation_and_the_same_are_not() {
    let (mut reloader, _) = PolicyReloader::start(PolicyInput::default(), None).expect("started");
    let mut generation_with = |served: &[u32]| {
        let links = Links {
            served: served.to_vec(),
            ..Links::default()
        };
        let set = reloader.set_addresses(Vec::new(), links);
        set.view().generation
    };
    let [first, same, other] = [&[2][..], &[2], &[3]].map(&mut generation_with);
    assert_eq!(first, same);
    assert_ne!(first, other);
}

#[test]
fn a_wrong_config_does_not_start() {
    let mut input = PolicyInput::default();
    input.local.records = vec!["nas A 192.168.1".into()];
    let error = PolicyReloader::start(input, None)
        .expect_err("wrong")
        .to_string();
    assert!(error.starts_with("records: `nas A 192.168.1`: "), "{error}");
    let mut input = PolicyInput::default();
    input.lists.compiled = vec!["x".into(); 4];
    assert!(PolicyReloader::start(input, None).is_err());
}

#[test]
fn a_reload_reads_everything_at_once() {
    let folder = Folder::new();
    let hosts = folder.write("hosts", "192.168.1.2 nas\n");
    let mut input = PolicyInput::default();
    input.local.hosts = vec![hosts];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    let old = reloader.set();
    folder.write("hosts", "192.168.1.3 tv\n");
    let input = reloader.input.clone();
    assert!(reloader.reload(input, None).expect("right").set.is_some());
    assert!(is_local(&reloader, "tv"));
    assert!(
        !Arc::ptr_eq(&old, &reloader.set()),
        "whoever holds the old set still can"
    );
}

fn with_list(path: &Path) -> PolicyInput {
    let mut input = PolicyInput::default();
    input.lists.block = vec![path.to_path_buf()];
    input
}

fn names(count: usize) -> String {
    (0..count)
        .map(|number| format!("ads{number}.example\n"))
        .collect()
}

#[test]
fn a_list_that_lost_most_of_its_rules_is_refused() {
    let folder = Folder::new();
    let path = folder.write("ads.txt", names(100));
    let (mut reloader, _) = PolicyReloader::start(with_list(&path), None).expect("started");
    let refused = |reloader: &mut PolicyReloader, content: &str, rules| {
        folder.write("ads.txt", content);
        let updated = update(reloader).expect("due");
        let told = told(&updated);
        let what = format!("{}: has {rules} rules and had 100: ", path.display());
        assert!(told[0].starts_with(&what), "{told:?}");
        assert!(updated.set.is_none() && is_blocked(reloader, "ads99.example"));
    };
    refused(&mut reloader, "", 0);
    refused(&mut reloader, "# nothing\n", 0);
    refused(&mut reloader, &names(49), 49);
    folder.write("ads.txt", names(50));
    let input = reloader.input.clone();
    let half = reloader.reload(input, None).expect("right");
    assert_eq!(told(&half), [""; 0], "half of them");
    let _ = update(&mut reloader);
    assert!(!is_blocked(&reloader, "ads99.example"));
    // A new start has nothing to compare with, and a key makes it take the list as it is.
    folder.write("ads.txt", names(10));
    assert_eq!(told(&update(&mut reloader).expect("due")).len(), 1);
    let input = reloader.input.clone();
    assert!(
        !told(&reloader.reload(input, None).expect("right")).is_empty(),
        "a reload, too"
    );
    assert!(is_blocked(&reloader, "ads49.example"));
    let mut input = reloader.input.clone();
    input.lists.take_shrunk = true;
    assert_eq!(told(&reloader.reload(input, None).expect("right")), [""; 0]);
    assert!(is_blocked(&reloader, "ads9.example") && !is_blocked(&reloader, "ads10.example"));
    let (reloader, first) = PolicyReloader::start(with_list(&path), None).expect("started");
    assert_eq!(told(&first), [""; 0]);
    assert!(is_blocked(&reloader, "ads9.example"));
}

/// Another list changes every hour.
#[test]
fn what_is_wrong_with_a_list_is_said_once_per_change_of_that_list() {
    let folder = Folder::new();
    let mut input = with_list(&folder.write("ads.txt", names(100)));
    input
        .lists
        .block
        .push(folder.write("other.txt", "other.example\n"));
    input.lists.compiled = vec![folder.write("made", "no list")];
    input.lists.allow = vec![folder.path().join("later")];
    let (mut reloader, first) = PolicyReloader::start(input, None).expect("started");
    assert_eq!(told(&first).len(), 2, "{first:?}");
    let mut change = |file: &str, content: &str| {
        folder.write(file, content);
        told(&update(&mut reloader).expect("due"))
    };
    let is_about = |said: &[String], what: &str| {
        let [one] = said else {
            panic!("{said:?}");
        };
        assert!(one.contains(what), "{one}");
    };
    is_about(&change("ads.txt", ""), "has 0 rules and had 100");
    for number in 0..5 {
        let more = format!("other.example\nmore{number}{number}.example\n").repeat(number + 1);
        assert_eq!(change("other.txt", &more), [""; 0]);
    }
    is_about(&change("ads.txt", &names(3)), "has 3 rules and had 100");
    is_about(&change("made", "none either"), "is not a compiled list");
    is_about(&change("later", "@@\n"), "is it a blocklist?");
    assert_eq!(change("ads.txt", &names(99)), [""; 0]);
    is_about(&change("ads.txt", &names(3)), "has 3 rules and had 99");
    let input = reloader.input.clone();
    let asked = reloader.reload(input, None).expect("right");
    assert_eq!(told(&asked).len(), 3, "whoever asks is told all: {asked:?}");
}

/// A user edits a short list.
#[test]
fn a_list_of_a_few_rules_may_shrink_but_not_to_nothing() {
    let folder = Folder::new();
    let path = folder.write("own.txt", names(7));
    let (mut reloader, _) = PolicyReloader::start(with_list(&path), None).expect("started");
    folder.write("own.txt", names(1));
    assert_eq!(told(&update(&mut reloader).expect("due")), [""; 0]);
    assert!(is_blocked(&reloader, "ads0.example") && !is_blocked(&reloader, "ads6.example"));
    folder.write("own.txt", "");
    assert_eq!(told(&update(&mut reloader).expect("due")).len(), 1);
    assert!(is_blocked(&reloader, "ads0.example"));
}

#[test]
fn a_compiled_list_that_shrinks_is_refused_too() {
    let folder = Folder::new();
    let path = folder.path().join("ads.list");
    let compile = |count| {
        let source = folder.write("ads.txt", names(count));
        let (image, _) = list_file::compile(&[(source, ListPurpose::Block)]).expect("compiled");
        list_file::write(&path, &image).expect("written");
    };
    compile(10);
    let mut input = PolicyInput::default();
    input.lists.compiled = vec![path.clone()];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    compile(4);
    assert_eq!(told(&update(&mut reloader).expect("due")).len(), 1);
    assert!(is_blocked(&reloader, "ads9.example"));
    compile(5);
    assert_eq!(told(&update(&mut reloader).expect("due")), [""; 0]);
    assert!(!is_blocked(&reloader, "ads9.example"));
}

/// A slow `cp` over a list, with a reload in the middle.
#[test]
fn half_a_list_is_never_loaded() {
    use std::io::Write;
    let folder = Folder::new();
    let path = folder.write("ads.txt", names(100));
    let (mut reloader, _) = PolicyReloader::start(with_list(&path), None).expect("started");
    let mut file = fs::File::create(&path).expect("truncated");
    let at = Instant::from_millis;
    let text = names(200);
    for (step, part) in text.as_bytes().chunks(text.len() / 8).enumerate() {
        file.write_all(part).expect("written");
        let now = 1_000 + step as u64 * 5_000;
        reloader.take_events(at(now));
        assert!(
            reloader.update_if_due(at(now + 4_999), None).is_none(),
            "step {step}"
        );
        assert!(is_blocked(&reloader, "ads99.example"), "step {step}");
    }
    let input = reloader.input.clone();
    let updated = reloader.reload(input, None).expect("right");
    assert!(
        told(&updated)[0].contains("ads.txt: a list is being written; what it said last stays"),
        "{:?}",
        told(&updated)
    );
    assert!(is_blocked(&reloader, "ads99.example") && !is_blocked(&reloader, "ads199.example"));
    drop(file);
    reloader.take_events(at(100_000));
    assert!(reloader.update_if_due(at(101_000), None).is_some());
    assert!(is_blocked(&reloader, "ads199.example"));
}

/// A lease ends during a `cp` over a hosts file.
#[test]
fn half_a_hosts_file_is_never_loaded() {
    use std::io::Write;
    let folder = Folder::new();
    let hosts = folder.write("hosts", "192.168.1.2 nas\n");
    let mut input = PolicyInput::default();
    input.local.hosts = vec![hosts.clone()];
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", "1900000000 m 192.168.1.7 phone *\n"),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, Some(1_800_000_000)).expect("started");
    let mut file = fs::File::create(&hosts).expect("truncated");
    file.write_all(b"192.168.1.3 tv\n").expect("written");
    reloader.take_events(NOW);
    let updated = reloader.update_if_due(NOW, Some(1_900_000_001));
    assert_eq!(said(updated), [""; 0]);
    assert!(is_local(&reloader, "nas") && !is_local(&reloader, "tv"));
    assert!(!is_local(&reloader, "phone"), "its lease has ended");
    file.write_all(b"192.168.1.2 nas\n").expect("written");
    drop(file);
    reloader.take_events(NOW);
    reloader
        .update_if_due(LATER, Some(1_900_000_001))
        .expect("due");
    assert!(
        is_local(&reloader, "nas") && is_local(&reloader, "tv") && !is_local(&reloader, "phone")
    );
}

/// A FIFO, a device or a folder where a file was, or where one is expected.
#[test]
fn what_is_no_file_stops_nothing_else() {
    let folder = Folder::new();
    let paths = ["ads.txt", "hosts", "leases", "ads.list"].map(|name| folder.path().join(name));
    let mut input = PolicyInput::default();
    let [list, hosts, leases, compiled] = &paths;
    (input.lists.block, input.local.hosts) = (vec![list.clone()], vec![hosts.clone()]);
    input.lists.compiled = vec![compiled.clone()];
    input.local.leases = vec![LeaseFile {
        path: leases.clone(),
        format: LeaseFormat::Dnsmasq,
    }];
    let fifo =
        |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    paths.iter().for_each(|path| fifo(path));
    let (mut reloader, first) = PolicyReloader::start(input, None).expect("started");
    let failed = |update: &Update| {
        update
            .notes
            .failures
            .iter()
            .map(|failure| failure.what.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(failed(&first), ["is a FIFO, not a file"; 4]);
    let put = |path: &Path, text: &str| {
        let _ = fs::remove_file(path);
        fs::write(path, text).expect("written");
    };
    put(hosts, "192.168.1.2 nas\n");
    assert_eq!(
        failed(&update(&mut reloader).expect("due")),
        [""; 0],
        "said once"
    );
    assert!(is_local(&reloader, "nas"));
    put(list, "ads.example\n");
    assert_eq!(
        failed(&update(&mut reloader).expect("due")),
        [""; 0],
        "so is the compiled list"
    );
    assert!(is_blocked(&reloader, "ads.example"));
    put(leases, "0 02:00:00:00:00:01 192.168.1.7 phone *\n");
    update(&mut reloader).expect("due");
    // And back: what was read stays in force, and the rest goes on.
    fs::remove_file(list).expect("removed");
    fs::create_dir(list).expect("a folder");
    fs::remove_file(hosts).expect("removed");
    fifo(hosts);
    let updated = update(&mut reloader).expect("due");
    assert!(
        failed(&updated).contains(&"is a folder, not a file; 1 rule of it stays in force".into()),
        "{:?}",
        told(&updated)
    );
    assert!(
        failed(&updated).contains(&"is a FIFO, not a file".into()),
        "{:?}",
        told(&updated)
    );
    assert!(
        is_blocked(&reloader, "ads.example")
            && is_local(&reloader, "nas")
            && is_local(&reloader, "phone")
    );
}

#[test]
fn a_reload_takes_over_what_is_right_and_keeps_what_a_file_fails_for() {
    let folder = Folder::new();
    let (list, hosts) = (
        folder.write("ads.txt", "ads.example\n"),
        folder.write("hosts", "192.168.1.2 nas\n"),
    );
    let mut input = with_list(&list);
    input.local.hosts = vec![hosts];
    let (mut reloader, _) = PolicyReloader::start(input.clone(), None).expect("started");
    folder.write("ads.txt", "<html>\n");
    folder.write("hosts", "192.168.1.3 tv\n");
    input.local.records = vec!["box A 192.0.2.9".into()];
    let updated = reloader.reload(input.clone(), None).expect("right");
    assert_eq!(updated.notes.failures.len(), 1);
    assert!(is_blocked(&reloader, "ads.example"));
    assert!(is_local(&reloader, "tv") && is_local(&reloader, "box") && !is_local(&reloader, "nas"));
    input.local.records = vec!["box A 192.0.2".into()];
    assert!(reloader.reload(input, None).is_err());
    assert!(
        is_local(&reloader, "box"),
        "a fault of the config changes nothing"
    );
}

#[test]
fn who_else_may_write_is_said_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("mode");
    let list = folder.write("ads.txt", "ads.example\n");
    fs::set_permissions(&list, PermissionsExt::from_mode(0o666)).expect("mode");
    let (mut reloader, first) = PolicyReloader::start(with_list(&list), None).expect("started");
    let doubts = |update: &Update| {
        update
            .notes
            .doubts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        doubts(&first),
        [format!(
            "{}: anybody may write to it (mode 666)",
            list.display()
        )]
    );
    assert!(is_blocked(&reloader, "ads.example"), "a warning, no more");
    folder.write("ads.txt", "more.example\n");
    assert_eq!(doubts(&update(&mut reloader).expect("due")), [""; 0]);
    // The mode was corrected, and is wrong again: that is news.
    for (mode, count) in [(0o644, 0), (0o666, 1)] {
        fs::set_permissions(&list, PermissionsExt::from_mode(mode)).expect("mode");
        let updated = update(&mut reloader).expect("due");
        assert_eq!(doubts(&updated).len(), count, "{mode:o}");
    }
}
