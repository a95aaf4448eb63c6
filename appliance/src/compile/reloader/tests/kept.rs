//! Tests: a file that cannot be taken keeps its last contents, and delays no other.

use super::*;

/// True if the name is blocked for this type.
fn is_blocked_for(reloader: &PolicyReloader, question: &str, qtype: u16) -> bool {
    let wire = name::parse(question).expect("a name");
    let labels = Labels::new(&wire).expect("well-formed");
    let set = reloader.set();
    matches!(set.view().decide(&labels, qtype), Decision::Blocked(_))
}

fn held(reloader: &PolicyReloader) -> Vec<String> {
    reloader.held().map(ToString::to_string).collect()
}

fn put(folder: &Folder, reloader: &mut PolicyReloader, files: &[(&str, &str)]) -> Update {
    for (file, text) in files {
        folder.write(file, text);
    }
    update(reloader).expect("due")
}

/// Names of a list of ten, and some rules that do not fit a tag of two bytes.
fn rules() -> String {
    names(10)
        + "ads.example\nboth.example\n0.0.0.0 exact.example\n\
           ||types.example^$dnstype=AAAA\n\
           ||zone.example^$denyallow=good.zone.example\n\
           ||cdn*.glob.example^\n\
           @@||fine.other.example^\n\
           ||loud.example^$important\n\
           ||undone.example^\n\
           ||quiet.example^$badfilter\n"
}

#[test]
fn a_list_that_shrank_keeps_its_rules_and_all_others_go_on() {
    for spoiled in ["", "ads0.example\n", "<html>\n", "\u{0}\u{1}"] {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        input.lists.block = vec![
            folder.write("a.txt", "gone.example\nboth.example\n||exact.example^\n"),
            folder.write("b.txt", rules()),
        ];
        input.lists.allow = vec![folder.write("c.txt", "allowed.a.example\n")];
        input.local.hosts = vec![folder.write("hosts", "192.168.1.2 nas\n")];
        let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
        let still_holds = |reloader: &PolicyReloader, others: &str| {
            let blocked = |question| is_blocked_for(reloader, question, rtype::A);
            assert!(
                blocked("ads0.example") && blocked("ads9.example"),
                "{others}"
            );
            assert!(
                blocked("www.ads.example") && blocked("www.both.example"),
                "{others}"
            );
            assert!(blocked("exact.example"), "{others}");
            assert!(
                blocked("x.zone.example") && !blocked("good.zone.example"),
                "{others}"
            );
            assert!(
                blocked("cdn7.glob.example") && !blocked("www.glob.example"),
                "{others}"
            );
            assert!(blocked("loud.example"), "{others}");
            assert!(
                !blocked("types.example") && is_blocked_for(reloader, "types.example", rtype::AAAA)
            );
        };
        still_holds(&reloader, "at the start");
        let told = told(&put(&folder, &mut reloader, &[("b.txt", spoiled)]));
        assert_eq!(told.len(), 1, "{told:?}");
        still_holds(&reloader, "shrunk");
        // Each of the others, again and again.
        for round in 0..3 {
            let a = format!("new{round}.example\n||other.example^\n||quiet.example^\n");
            let c = format!("allowed{round}.other.example\n||undone.example^\n");
            let hosts = format!("192.168.1.3 tv{round}\n");
            let files = [("a.txt", a.as_str()), ("c.txt", &c), ("hosts", &hosts)];
            let updated = put(&folder, &mut reloader, &files);
            assert_eq!(updated.notes.failures, [], "said once");
            let others = format!("{spoiled:?}, round {round}");
            still_holds(&reloader, &others);
            let blocked = |question: &str| is_blocked_for(&reloader, question, rtype::A);
            assert!(blocked(&format!("new{round}.example")), "{others}");
            assert!(
                round == 0 || !blocked(&format!("new{}.example", round - 1)),
                "{others}"
            );
            assert!(!blocked("gone.example"), "{others}");
            assert!(
                !blocked("sub.exact.example"),
                "the other list said that: {others}"
            );
            assert!(
                blocked("other.example") && !blocked("fine.other.example"),
                "{others}"
            );
            assert!(
                !blocked(&format!("allowed{round}.other.example")),
                "{others}"
            );
            assert!(!blocked("quiet.example"), "its $badfilter holds: {others}");
            assert!(!blocked("undone.example"), "{others}");
            assert!(is_local(&reloader, &format!("tv{round}")) && !is_local(&reloader, "nas"));
            let held = held(&reloader);
            assert!(held.len() == 1 && held[0].contains("b.txt"), "{held:?}");
        }
        // With and without a request.
        let input = reloader.input.clone();
        let asked = reloader.reload(input, None).expect("right");
        assert_eq!(asked.notes.failures.len(), 1);
        still_holds(&reloader, "reloaded");
        // A second one.
        put(&folder, &mut reloader, &[("a.txt", "")]);
        still_holds(&reloader, "both");
        assert!(is_blocked(&reloader, "new2.example"));
        assert_eq!(held(&reloader).len(), 2);
        put(
            &folder,
            &mut reloader,
            &[
                ("b.txt", &rules()),
                ("a.txt", "x1.example\nx2.example\nx3.example\n"),
            ],
        );
        still_holds(&reloader, "as it was");
        assert_eq!(held(&reloader), [""; 0]);
        assert!(!is_blocked(&reloader, "new2.example") && is_blocked(&reloader, "x3.example"));
    }
}

#[test]
fn a_list_that_is_removed_from_the_config_is_kept_by_nobody() {
    let folder = Folder::new();
    let (a, b) = (
        folder.write("a.txt", names(20)),
        folder.write("b.txt", "b.example\n"),
    );
    let mut input = with_list(&a);
    input.lists.block.push(b.clone());
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    put(&folder, &mut reloader, &[("a.txt", "")]);
    assert!(is_blocked(&reloader, "ads9.example"));
    // For another purpose it counts as another list; at another place in the config as the same one.
    let mut other = with_list(&b);
    other.lists.allow = vec![a.clone()];
    reloader.reload(other, None).expect("right");
    assert!(!is_blocked(&reloader, "ads9.example") && is_blocked(&reloader, "b.example"));
    folder.write("a.txt", names(20));
    let mut other = with_list(&b);
    other.lists.block.push(a.clone());
    reloader.reload(other, None).expect("right");
    put(&folder, &mut reloader, &[("a.txt", "")]);
    assert!(is_blocked(&reloader, "ads9.example"));
    reloader.reload(with_list(&b), None).expect("right");
    assert!(!is_blocked(&reloader, "ads9.example"));
}

/// Repetitions of one name count once.
#[test]
fn rules_are_counted_once() {
    let folder = Folder::new();
    let repeated = "ads.example\n".repeat(4_000) + "0.0.0.0 ads.example\n";
    let path = folder.write("ads.txt", &repeated);
    let (mut reloader, first) = PolicyReloader::start(with_list(&path), None).expect("started");
    let [told] = first.notes.told.as_slice() else {
        panic!("{:?}", first.notes.told)
    };
    assert!(
        told.contains("2 rules, 0 lines skipped, 3999 rules repeated; read as"),
        "{told}"
    );
    assert_eq!(
        told_of(put(&folder, &mut reloader, &[("ads.txt", "ads.example\n")])),
        [""; 0]
    );
    put(&folder, &mut reloader, &[("ads.txt", &names(100))]);
    let shrunk = names(10).repeat(100);
    let told = told_of(put(&folder, &mut reloader, &[("ads.txt", &shrunk)]));
    assert!(
        told[0].contains("has 10 rules and had 100: those stay in force"),
        "{told:?}"
    );
}

fn told_of(update: Update) -> Vec<String> {
    told(&update)
}

/// Opened and closed for each part: no part is the whole list.
#[test]
fn a_list_that_lost_rules_is_taken_when_it_was_left_alone() {
    use std::io::Write;
    let folder = Folder::new();
    let path = folder.write("ads.txt", names(100));
    let (mut reloader, _) = PolicyReloader::start(with_list(&path), None).expect("started");
    let text = names(100);
    fs::write(&path, "").expect("emptied");
    let mut now = 0;
    for part in text.as_bytes().chunks(text.len() / 20) {
        let mut file = fs::File::options()
            .append(true)
            .open(&path)
            .expect("opened");
        file.write_all(part).expect("written");
        drop(file);
        reloader.take_events(Instant::from_millis(now));
        now += 2_000;
        reloader.update_if_due(Instant::from_millis(now), None);
        assert!(is_blocked(&reloader, "ads0.example") && is_blocked(&reloader, "ads70.example"));
    }
    assert_eq!(held(&reloader), [""; 0]);
    // Half of it and no more.
    fs::write(&path, names(60)).expect("written");
    let at = |millis| Instant::from_millis(now + millis);
    reloader.take_events(at(0));
    let waits = reloader.update_if_due(at(2_000), None).expect("due");
    assert!(
        waits.notes.told[0].contains("has 60 rules and had 100: taken when"),
        "{waits:?}"
    );
    assert!(is_blocked(&reloader, "ads99.example"));
    // A change of another list meanwhile does not make it older.
    assert_eq!(reloader.deadline(), Some(at(2_000 + SETTLED_MS)));
    reloader.list_changes.look_again(at(2_000), 1_000);
    assert!(reloader.update_if_due(at(3_000), None).is_some());
    assert!(is_blocked(&reloader, "ads99.example"));
    assert_eq!(reloader.deadline(), Some(at(2_000 + SETTLED_MS)));
    assert!(
        reloader
            .update_if_due(at(2_000 + SETTLED_MS), None)
            .is_some()
    );
    assert!(is_blocked(&reloader, "ads59.example") && !is_blocked(&reloader, "ads99.example"));
    assert_eq!(reloader.deadline(), None);
}

/// Its writer is slow, or has died.
#[test]
fn a_file_that_is_being_written_keeps_nobody_from_the_others() {
    use std::io::Write;
    let folder = Folder::new();
    let mut input = with_list(&folder.write("slow.txt", names(100)));
    input
        .lists
        .block
        .push(folder.write("other.txt", "other.example\n"));
    input.local.hosts = vec![folder.write("slow.hosts", "192.168.1.2 nas\n")];
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", "0 m 192.168.1.7 phone *\n"),
        format: LeaseFormat::Dnsmasq,
    }];
    let (mut reloader, _) = PolicyReloader::start(input, None).expect("started");
    let mut slow = ["slow.txt", "slow.hosts"]
        .map(|name| fs::File::create(folder.path().join(name)).expect("truncated"));
    for file in &mut slow {
        file.write_all(b"192.168.1.3 half.example\n")
            .expect("written");
    }
    reloader.take_events(Instant::from_millis(0));
    folder.write("other.txt", "another.example\n");
    folder.write("leases", "0 m 192.168.1.8 tv *\n");
    reloader.take_events(Instant::from_millis(100));
    let updated = reloader
        .update_if_due(Instant::from_millis(1_200), None)
        .expect("due");
    assert_eq!(updated.notes.failures, [], "nothing is wrong with it");
    assert!(is_blocked(&reloader, "another.example") && !is_blocked(&reloader, "other.example"));
    assert!(is_blocked(&reloader, "ads99.example") && !is_blocked(&reloader, "half.example"));
    assert!(is_local(&reloader, "tv") && !is_local(&reloader, "phone"));
    assert!(is_local(&reloader, "nas") && !is_local(&reloader, "half.example"));
}
