//! Tests of compiled lists.

use super::*;
use crate::compile::table::put;
use crate::testing::{Folder, Writer};
use std::io::SeekFrom;
use std::time::Duration;
use xdnsd_core::policy::list::{CLAUSES_MAX, CRC, List, ListError, Listing, field};
use xdnsd_lab::wait::wait_until;

const TIMEOUT: Duration = Duration::from_secs(20);
const BLOCKED: Listing = Listing::Blocked { list: 0 };

fn compile(sources: &[(&str, ListPurpose)]) -> Vec<u8> {
    let mut builder = ListBuilder::default();
    for (index, (text, purpose)) in sources.iter().enumerate() {
        builder
            .add_lines(text.as_bytes(), index as u16, *purpose)
            .expect("bytes can be read");
    }
    builder.build().expect("no crowded bucket")
}

fn listing(image: &[u8], name: &str) -> Listing {
    let name = name::parse(name).expect("a name");
    List::check(image)
        .expect("a list")
        .listing(&Labels::new(&name).expect("well-formed"), 1)
}

#[test]
fn each_shape_covers_what_it_says() {
    let text = "0.0.0.0 hosts.example\ntree.example\n||*.below.example^\n|exact.example^\n||zip^\n";
    let image = compile(&[(text, ListPurpose::Block)]);
    let blocked = [
        "hosts.example",
        "tree.example",
        "a.tree.example",
        "a.b.tree.example",
        "x.below.example",
    ];
    for name in blocked
        .into_iter()
        .chain(["y.x.below.example", "exact.example", "zip", "evil.zip"])
    {
        assert_eq!(listing(&image, name), BLOCKED, "{name}");
    }
    let free = [
        "a.hosts.example",
        "below.example",
        "a.exact.example",
        "xtree.example",
        "example",
        "tree",
        ".",
    ];
    for name in free
        .into_iter()
        .chain(["zipper", "tree.example.org", "hosts.example.x"])
    {
        assert_eq!(listing(&image, name), Listing::None, "{name}");
    }
}

#[test]
fn allowed_wins_wherever_it_stands() {
    let block =
        "ads.example\nsub.ok.example\n@@||good.ads.example^\n||important.example^$important";
    let image = compile(&[
        (block, ListPurpose::Block),
        ("ok.example\n0.0.0.0 www.ads.example", ListPurpose::Allow),
    ]);
    assert_eq!(listing(&image, "ads.example"), BLOCKED);
    assert_eq!(listing(&image, "x.ads.example"), BLOCKED);
    assert_eq!(listing(&image, "important.example"), BLOCKED);
    assert_eq!(
        listing(&image, "good.ads.example"),
        Listing::Allowed,
        "an exception below a block"
    );
    assert_eq!(listing(&image, "a.good.ads.example"), Listing::Allowed);
    assert_eq!(
        listing(&image, "sub.ok.example"),
        Listing::Allowed,
        "an allowed parent above a block"
    );
    assert_eq!(
        listing(&image, "www.ads.example"),
        Listing::Allowed,
        "a hosts line allows exactly"
    );
    assert_eq!(listing(&image, "a.www.ads.example"), BLOCKED);
    assert_eq!(listing(&image, "other.example"), Listing::None);
}

#[test]
fn rules_about_one_name_are_one_entry() {
    let first = "0.0.0.0 a.example\n||*.a.example^\n0.0.0.0 b.example";
    let image = compile(&[
        ("@@|c.example^", ListPurpose::Block),
        (first, ListPurpose::Block),
        ("a.example\nc.example", ListPurpose::Block),
    ]);
    let list = List::check(&image).expect("a list");
    assert_eq!((list.count(), list.allows()), (3, 1));
    assert_eq!(
        listing(&image, "a.example"),
        Listing::Blocked { list: 1 },
        "the first list that has it"
    );
    assert_eq!(listing(&image, "x.a.example"), Listing::Blocked { list: 1 });
    assert_eq!(listing(&image, "c.example"), Listing::Allowed);
    assert_eq!(
        listing(&image, "x.c.example"),
        Listing::Blocked { list: 2 },
        "an exception has no list of its own"
    );
}

#[test]
fn the_nearest_block_is_reported() {
    let image = compile(&[
        ("example", ListPurpose::Block),
        ("ads.example.org", ListPurpose::Block),
        ("example.org", ListPurpose::Block),
    ]);
    assert_eq!(
        listing(&image, "x.ads.example.org"),
        Listing::Blocked { list: 1 }
    );
    assert_eq!(
        listing(&image, "x.example.org"),
        Listing::Blocked { list: 2 }
    );
}

#[test]
fn an_exception_does_not_take_a_block_for_its_own() {
    let block_first = compile(&[
        ("a.example", ListPurpose::Block),
        ("@@|a.example^", ListPurpose::Block),
    ]);
    let block_last = compile(&[
        ("@@|a.example^", ListPurpose::Block),
        ("a.example", ListPurpose::Block),
    ]);
    let below = |image| listing(image, "x.a.example");
    assert_eq!(below(&block_first), Listing::Blocked { list: 0 });
    assert_eq!(below(&block_last), Listing::Blocked { list: 1 });
}

#[test]
fn of_a_file_that_fails_half_way_nothing_is_kept() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("worn out flash"))
        }
    }
    let mut builder = ListBuilder::default();
    let text = BufReader::new(std::io::Read::chain(&b"half.example\n"[..], Failing));
    let error = builder.add_text(Path::new("list"), text, 0, ListPurpose::Block);
    assert_eq!(
        error.expect_err("fails").to_string(),
        "list: worn out flash"
    );
    assert!(builder.is_empty());
}

#[test]
fn a_file_without_an_end_is_not_read() {
    let folder = Folder::new();
    let path = folder.write("list", "a.example\n");
    let file = std::fs::File::options().append(true).open(&path);
    file.expect("opened")
        .set_len(50 << 30)
        .expect("with a hole");
    let mut builder = ListBuilder::default();
    let error = builder.add_file(&path, 0, ListPurpose::Block);
    let error = error.expect_err("refused").to_string();
    assert!(
        error.ends_with("list: is larger than 1073741824 bytes"),
        "{error}"
    );
    assert!(builder.is_empty());
}

#[test]
fn text_that_leaves_no_memory_is_not_read_on() {
    let names = |count: usize| {
        let names = (0..count).map(|number| format!("ads{number}.example\n"));
        names.collect::<String>()
    };
    let read = |text: &str| {
        let mut builder = ListBuilder {
            room: |bytes| room::check(bytes, Some(8 << 20)),
            ..ListBuilder::default()
        };
        let tally = builder.add_text(Path::new("list"), text.as_bytes(), 0, ListPurpose::Block);
        (tally.map(|tally| tally.rules), builder.is_empty())
    };
    let (rules, _) = read(&names(60_000));
    assert_eq!(rules.expect("there is room"), 60_000);
    let (rules, is_empty) = read(&names(300_000));
    let error = rules.expect_err("there is none").to_string();
    assert!(error.contains("bytes are too many: 8388608"), "{error}");
    assert!(is_empty);
}

#[test]
fn rules_with_options_that_do_not_fit_are_skipped_and_told_and_the_rest_is_taken() {
    for option in ["dnstype=A", "badfilter"] {
        let line = |number| format!("||ads{number}.example^${option}\n");
        // Repetitions take no room.
        let text: String = (0..CLAUSES_MAX + 3).map(line).collect();
        let text = line(7).repeat(100) + &text + "||last.example^\n";
        let mut builder = ListBuilder::default();
        let tally = builder.add_text(Path::new("list"), text.as_bytes(), 0, ListPurpose::Block);
        let tally = tally.expect("the rest is taken");
        assert_eq!((tally.rules, tally.skipped), (CLAUSES_MAX + 1, 3));
        let line = 100 + CLAUSES_MAX + 1;
        let told = "more than 32768 rules with options, with those of all lists before: skipped, and 2 behind it";
        assert_eq!(tally.beyond_in_words(), Some((line, told.to_owned())));
        // Another list has no room for one either; its other rules are taken.
        let text = "||more.example^$dnstype=A\n||more.example^$badfilter\n";
        let tally = builder.add_text(Path::new("more"), text.as_bytes(), 1, ListPurpose::Block);
        let tally = tally.expect("it is a list all the same");
        assert_eq!((tally.rules, tally.skipped), (1, 1));
        let image = builder.build().expect("built");
        assert_eq!(
            listing(&image, "last.example"),
            Listing::Blocked { list: 0 }
        );
        let last = format!("ads{}.example", CLAUSES_MAX - 1);
        let is_blocked = listing(&image, &last) != Listing::None;
        assert_eq!(is_blocked, option != "badfilter");
    }
}

/// Each of them takes two places, since it has a rule with `$important` and one without.
#[test]
fn rules_of_two_ranks_that_do_not_fit_leave_the_one_that_counts() {
    let count = CLAUSES_MAX / 2 + 5;
    let line = |number| format!("||ads{number}.example^\n@@||ads{number}.example^$important\n");
    let text: String = (0..count).map(line).collect();
    let text = text + "||last.example^\n";
    let mut builder = ListBuilder::default();
    let tally = builder.add_text(Path::new("list"), text.as_bytes(), 0, ListPurpose::Block);
    assert_eq!(tally.expect("taken").rules, 2 * count + 1);
    let built = builder.build_to_keep().expect("built");
    assert_eq!(built.left_out, 5);
    let list = List::check(&built.image).expect("a list");
    let says = |name: &str| {
        let name = name::parse(name).expect("a name");
        list.listing(&Labels::new(&name).expect("well-formed"), 1)
    };
    assert_eq!(says("last.example"), BLOCKED);
    for number in 0..count {
        let name = format!("ads{number}.example");
        assert_eq!(says(&name), Listing::Allowed, "{name}");
    }
}

/// They were in force, and others have taken their places.
#[test]
fn kept_rules_with_options_that_do_not_fit_are_counted() {
    let text = |from: usize, count: usize| -> String {
        let line = |number| format!("||ads{number}.example^$dnstype=A\n");
        (from..from + count).map(line).collect()
    };
    let mut builder = ListBuilder::default();
    let first = text(0, 10);
    let added = builder.add_text(Path::new("first"), first.as_bytes(), 0, ListPurpose::Block);
    assert_eq!(added.expect("taken").rules, 10);
    let built = builder.build_to_keep().expect("built");
    let mut builder = built.kept.builder();
    let second = text(10, CLAUSES_MAX - 4);
    let added = builder.add_text(
        Path::new("second"),
        second.as_bytes(),
        0,
        ListPurpose::Block,
    );
    assert_eq!(added.expect("taken").rules, CLAUSES_MAX - 4);
    let left_out = builder.add_kept(&built.kept, &built.image, 0, 1);
    assert_eq!(left_out.expect("there is room for names"), 6);
    assert_eq!(builder.build_to_keep().expect("built").left_out, 0);
}

#[test]
fn of_a_file_that_goes_on_changing_nothing_is_kept() {
    let folder = Folder::new();
    let file = folder.write("ads.txt", "one.example\n".repeat(1_000));
    let writer = Writer::start(&file, b"two.example\n", SeekFrom::End(0));
    let refused = wait_until("it changes while it is read", TIMEOUT, || {
        let mut builder = ListBuilder::default();
        let added = builder.add_file(&file, 0, ListPurpose::Block);
        added.is_err_and(|problem| {
            assert!(builder.is_empty());
            problem.to_string().ends_with("changes while it is read")
        })
    });
    drop(writer);
    refused.expect("refused");
}

#[test]
fn an_overlong_line_is_not_taken_half() {
    // Cut at LINE_MAX, the line would end in `a.exampl`.
    let names = " a.example".repeat(10_000);
    let mut builder = ListBuilder::default();
    let text = format!("0.0.0.0{names}\n0.0.0.0 ok.example");
    let tally = builder.add_lines(text.as_bytes(), 0, ListPurpose::Block);
    let tally = tally.expect("bytes can be read");
    assert_eq!((tally.rules, tally.skipped), (1, 1));
    assert!(
        tally
            .first
            .is_some_and(|(line, _, why)| line == 1 && why == "is too long")
    );
}

/// Compared with the definition, over all names of a small world.
#[test]
fn any_list_says_what_its_rules_say() {
    let labels = ["a", "b"];
    let mut world = vec![String::new()];
    for _ in 0..4 {
        let deeper = labels
            .iter()
            .flat_map(|label| world.iter().map(move |name| format!("{label}.{name}")));
        let deeper: Vec<_> = deeper.collect();
        world.extend(deeper);
    }
    world.sort();
    world.dedup();
    world.retain(|name| !name.is_empty());
    let mut state = 7u32;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for _ in 0..300 {
        let mut builder = ListBuilder::default();
        let mut rules = Vec::new();
        for _ in 0..draw(8) {
            let rule = Rule {
                name: name::parse(&world[draw(world.len())]).expect("a name"),
                covers: [Covers::Name, Covers::Below, Covers::Subtree][draw(3)],
                is_exception: draw(4) == 0,
                is_important: draw(4) == 0,
                ..Rule::default()
            };
            builder.add(&rule, 0, ListPurpose::Block);
            rules.push(rule);
        }
        let image = builder.build().expect("no crowded bucket");
        for name in &world {
            let wire = name::parse(name).expect("a name");
            // A label's length byte is no letter, so a suffix in bytes is one in labels.
            let covers = |rule: &&Rule| match rule.covers {
                Covers::Name => wire == rule.name,
                Covers::Below => wire.ends_with(&rule.name) && wire != rule.name,
                Covers::Subtree => wire.ends_with(&rule.name),
            };
            let rank = |rule: &Rule| (rule.is_important, rule.is_exception);
            let expected = match rules.iter().filter(covers).map(rank).max() {
                Some((_, true)) => Listing::Allowed,
                Some((_, false)) => BLOCKED,
                None => Listing::None,
            };
            assert_eq!(listing(&image, name), expected, "{name} {rules:?}");
        }
    }
}

#[test]
fn buckets_out_of_order_are_refused_although_the_crcs_match() {
    let text: String = (0..40).map(|n| format!("n{n}.example\n")).collect();
    let image = compile(&[(&text, ListPurpose::Block)]);
    let starts_at = field::HEADER_LEN + 10 * 8;
    for (bucket, start) in [(0, 1), (5, 41), (9, 0), (10, 39)] {
        let mut broken = image.clone();
        put(&mut broken, starts_at + bucket * 4, start);
        let body_crc = CRC.checksum(&broken[field::HEADER_LEN..]);
        put(&mut broken, field::BODY_CRC, body_crc);
        let header_crc = CRC.checksum(&broken[..field::HEADER_CRC]);
        put(&mut broken, field::HEADER_CRC, header_crc);
        assert_eq!(
            List::check(&broken).err(),
            Some(ListError::Inconsistent),
            "{bucket}"
        );
    }
}

#[test]
fn an_empty_list_blocks_nothing() {
    let image = compile(&[]);
    assert_eq!(listing(&image, "a.example"), Listing::None);
    assert_eq!(listing(&image, "."), Listing::None);
}

#[test]
fn the_deepest_names_are_found() {
    let deepest = "a.".repeat(127);
    let image = compile(&[(deepest.as_str(), ListPurpose::Block)]);
    assert_eq!(listing(&image, &deepest), BLOCKED);
    assert_eq!(listing(&image, &"a.".repeat(126)), Listing::None);
}

#[test]
fn names_from_the_config() {
    let mut builder = ListBuilder::default();
    builder
        .add_name("a.example", 0, ListPurpose::Block)
        .expect("a name");
    builder
        .add_name("*.b.example", 0, ListPurpose::Block)
        .expect("a name");
    assert!(builder.add_name("c d", 0, ListPurpose::Block).is_err());
    let image = builder.build().expect("no crowded bucket");
    assert_eq!(listing(&image, "x.a.example"), BLOCKED);
    assert_eq!(listing(&image, "b.example"), Listing::None);
}

#[test]
fn lines_of_any_length_and_bytes_are_counted() {
    let mut text = Vec::from(*b"good.example\r\n\xff\xfe.example\n");
    text.extend(std::iter::repeat_n(b'a', 3 * LINE_MAX));
    text.extend(b"\nlast.example");
    let mut builder = ListBuilder::default();
    let tally = builder
        .add_lines(text.as_slice(), 0, ListPurpose::Block)
        .expect("bytes can be read");
    assert_eq!((tally.rules, tally.skipped), (3, 1));
    assert_eq!(
        listing(&builder.build().expect("no crowded bucket"), "last.example"),
        BLOCKED
    );
}

#[test]
fn a_page_in_place_of_a_list_is_an_error() {
    let folder = Folder::new();
    let page = folder.write("list.txt", "<html>\n<body>Please log in</body>\n</html>\n");
    let error = ListBuilder::default()
        .add_file(&page, 0, ListPurpose::Block)
        .expect_err("no list");
    assert_eq!(
        error.to_string(),
        format!(
            "{}: has no rule in 3 lines: is it a blocklist?",
            page.display()
        )
    );
    let comments = folder.write("comments.txt", "# nothing yet\n");
    let tally = ListBuilder::default()
        .add_file(&comments, 0, ListPurpose::Block)
        .expect("an empty list is one");
    assert_eq!(tally, ListTally::default());
    let missing = folder.path().join("missing.txt");
    assert!(
        ListBuilder::default()
            .add_file(&missing, 0, ListPurpose::Block)
            .is_err()
    );
}

#[test]
fn a_list_cut_or_changed_anywhere_is_refused() {
    let image = compile(&[(
        "a.example\n@@||b.a.example^\n0.0.0.0 c.example",
        ListPurpose::Block,
    )]);
    for len in 0..image.len() {
        let expected = match len {
            0..8 => ListError::Foreign,
            _ if len < field::HEADER_LEN => ListError::Torn {
                written: field::HEADER_LEN as u64,
                found: len as u64,
            },
            _ => ListError::Torn {
                written: image.len() as u64,
                found: len as u64,
            },
        };
        assert_eq!(
            List::check(&image[..len]).err(),
            Some(expected),
            "cut at {len}"
        );
    }
    let mut longer = image.clone();
    longer.push(0);
    assert!(matches!(List::check(&longer), Err(ListError::Torn { .. })));
    for at in 0..image.len() {
        let mut changed = image.clone();
        changed[at] ^= 1;
        assert!(List::check(&changed).is_err(), "a bit of byte {at} changed");
    }
    let mut future = image;
    future[field::VERSION] = 1;
    assert_eq!(
        List::check(&future).err(),
        Some(ListError::Version { found: 1 })
    );
}

/// Matching CRCs say nothing about the author: any header and any body must be harmless.
#[test]
fn any_bytes_with_matching_crcs_are_survived() {
    let image = compile(&[(
        "a.example\n@@||b.a.example^\n0.0.0.0 c.example",
        ListPurpose::Block,
    )]);
    let name = name::parse("x.b.a.example").expect("a name");
    let labels = Labels::new(&name).expect("well-formed");
    for at in 0..image.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut broken = image.clone();
            broken[at] = byte;
            let body_crc = CRC.checksum(&broken[field::HEADER_LEN..]);
            put(&mut broken, field::BODY_CRC, body_crc);
            let header_crc = CRC.checksum(&broken[..field::HEADER_CRC]);
            put(&mut broken, field::HEADER_CRC, header_crc);
            let checked = List::check(&broken).map(|list| list.listing(&labels, 1));
            let viewed = List::view(&broken).map(|list| list.listing(&labels, 1));
            assert!(checked.is_err() || checked == viewed, "byte {at}");
        }
    }
}

fn is_blocked(image: &[u8], name: &str, rtype: u16) -> bool {
    let name = name::parse(name).expect("a name");
    let list = List::check(image).expect("a list");
    list.listing(&Labels::new(&name).expect("well-formed"), rtype) == BLOCKED
}

/// Patterns have texts, and excluded names: neither is taken for the other's.
#[test]
fn names_are_left_out_of_patterns_and_of_any_number_of_rules() {
    let text = "||x.example^$denyallow=ok.x.example\n\
                ||ads*.example.com^$denyallow=ads1.example.com|good.example.com\n\
                ||t*.example.com^$denyallow=good.example.com\n\
                ||*foo.org^$denyallow=good.foo.org|barfoo.org\n\
                @@||ok*.foo.org^$denyallow=ok9.foo.org";
    let image = compile(&[(text, ListPurpose::Block)]);
    for (name, blocked) in [
        ("a.x.example", true),
        ("ok.x.example", false),
        ("ads.example.com", true),
        ("ads1.example.com", false),
        ("ads2.ads1.example.com", false),
        ("ads1.ads2.example.com", true),
        ("ads.good.example.com", false),
        ("t.example.com", true),
        ("t.ads1.example.com", true),
        ("t.good.example.com", false),
        ("xfoo.org", true),
        ("a.foo.org", true),
        ("good.foo.org", false),
        ("a.barfoo.org", false),
        ("ok1.foo.org", false),
        ("ok9.foo.org", true),
    ] {
        assert_eq!(is_blocked(&image, name, 1), blocked, "{name}");
    }
    // Twenty rules on the way down to one name, and eighty with the same excluded name.
    let (mut text, mut name) = (String::new(), "example".to_owned());
    for depth in 0..20 {
        text += &format!("||{name}^$denyallow=ok{depth}.{name}\n");
        name = format!("l{depth}.{name}");
    }
    for number in 0..80 {
        text += &format!("||p{number}*.other^$denyallow=ok.other\n");
    }
    text += &format!("||last.{name}^$important,denyallow=ok.last.{name}\n@@||{name}^\n");
    let image = compile(&[(&text, ListPurpose::Block)]);
    assert!(is_blocked(&image, &format!("last.{name}"), 1));
    assert!(!is_blocked(&image, &format!("ok.last.{name}"), 1));
    assert!(!is_blocked(&image, &name, 1), "an exception");
    assert!(!is_blocked(&image, "p9.ok.other", 1));
}

/// Lines, and which names they block or not, as in AdGuard's engine.
#[test]
fn adblock_syntax_means_what_adguard_means() {
    let cases: [(&str, &[&str], &[&str]); 15] = [
        (
            "||example.org.^\nx.example",
            &["x.example"],
            &["example.org", "a.example.org"],
        ),
        (
            "||ads.example^\n||ads.example^$badfilter",
            &[],
            &["ads.example", "a.ads.example"],
        ),
        (
            "ads.example^$badfilter\nads.example^\n||b.example^",
            &["b.example"],
            &["ads.example"],
        ),
        (
            "||ads.example^\nads.example^$badfilter",
            &["ads.example"],
            &[],
        ),
        (
            "||ads.example^$important\n||ads.example^$badfilter",
            &["ads.example"],
            &[],
        ),
        (
            "ads.example\n||ads.example^$badfilter",
            &["ads.example"],
            &[],
        ),
        (
            "@@||x.example^\n||x.example^$important",
            &["x.example", "a.x.example"],
            &[],
        ),
        (
            "@@||x.example^$important\n||x.example^$important",
            &[],
            &["x.example"],
        ),
        ("||x.example^\n@@||x.example^", &[], &["x.example"]),
        (
            "@@||a.x.example^\n||x.example^$important",
            &["a.x.example"],
            &["example"],
        ),
        ("://x.example^\n", &["x.example"], &["a.x.example"]),
        (
            ".x.example^",
            &["a.x.example"],
            &["x.example", "ax.example"],
        ),
        ("x.example^", &["x.example", "a.x.example"], &["example"]),
        (
            "||a*.b.example^",
            &[
                "a.b.example",
                "ads.b.example",
                "x.ab.b.example",
                "a.c.b.example",
            ],
            &["b.example", "xa.b.example", "a.example"],
        ),
        (
            "||x.example^$denyallow=ok.x.example|fine.x.example\n||bad.ok.x.example^",
            &[
                "x.example",
                "a.x.example",
                "notok.x.example",
                "bad.ok.x.example",
            ],
            &["ok.x.example", "a.ok.x.example", "a.fine.x.example"],
        ),
    ];
    for (text, blocked, free) in cases {
        let image = compile(&[(text, ListPurpose::Block)]);
        for name in blocked {
            assert!(is_blocked(&image, name, 1), "{text}: {name}");
        }
        for name in free {
            assert!(!is_blocked(&image, name, 1), "{text}: {name}");
        }
    }
}

#[test]
fn a_rule_may_be_for_some_types_alone() {
    let text = "||six.example^$dnstype=AAAA\n||not.example^$dnstype=~A|~AAAA\n@@||ok.example^$dnstype=A\nok.example\n\
                ||naptr.example^$dnstype=NAPTR|any";
    let image = compile(&[(text, ListPurpose::Block)]);
    for (name, rtype, blocked) in [
        ("six.example", 28, true),
        ("a.six.example", 28, true),
        ("six.example", 1, false),
        ("not.example", 1, false),
        ("not.example", 28, false),
        ("not.example", 65, true),
        ("ok.example", 1, false),
        ("ok.example", 28, true),
        ("naptr.example", 35, true),
        ("naptr.example", 255, true),
        ("naptr.example", 1, false),
    ] {
        assert_eq!(is_blocked(&image, name, rtype), blocked, "{name} {rtype}");
    }
    let list = List::check(&image).expect("a list");
    let wire = name::parse("six.example").expect("a name");
    let ruling = list.ruling(&Labels::new(&wire).expect("well-formed"), 28);
    assert!(ruling.is_of_types, "nobody may say that it does not exist");
}

#[test]
fn everything_but_what_is_left_out() {
    let image = compile(&[("*$denyallow=com|org", ListPurpose::Block)]);
    for (name, blocked) in [
        ("x.net", true),
        ("net", true),
        ("com", false),
        ("a.b.com", false),
        ("x.org", false),
    ] {
        assert_eq!(is_blocked(&image, name, 1), blocked, "{name}");
    }
}

#[test]
fn what_the_operator_allows_nothing_outdoes() {
    let lists = [
        (
            "||x.example^$important\n||y.example^$important",
            ListPurpose::Block,
        ),
        ("x.example", ListPurpose::Allow),
    ];
    let image = compile(&lists);
    assert!(!is_blocked(&image, "a.x.example", 1) && is_blocked(&image, "y.example", 1));
}

/// Lines of real files.
#[test]
fn bytes_comments_and_ends_of_every_kind() {
    let text = b"\xef\xbb\xbf0.0.0.0 ads.example#comment\r\nplain.example # caf\xe9\r\n0.0.0.0 c\xe9.example x.example\r\n\
                 *.acr.roku.example\n||last.example^ # why\n\0\0\0\0";
    let mut builder = ListBuilder::default();
    let tally = builder
        .add_lines(text.as_slice(), 0, ListPurpose::Block)
        .expect("bytes can be read");
    assert_eq!((tally.rules, tally.skipped), (6, 1));
    let image = builder.build().expect("built");
    for name in [
        "ads.example",
        "plain.example",
        "x.example",
        "xn--c-bga.example",
        "acr.roku.example",
        "a.acr.roku.example",
        "last.example",
    ] {
        assert!(is_blocked(&image, name, 1), "{name}");
    }
}

#[test]
fn how_a_list_was_read_and_what_was_passed_over_is_told() {
    let text = "# x\n0.0.0.0 a.example b.example\n*.c.example\n||ads7^$third-party\n<html>\nd.example\n||e.example^\nlocal=/f.example/\n";
    let tally = ListBuilder::default().add_lines(text.as_bytes(), 0, ListPurpose::Block);
    let tally = tally.expect("bytes can be read");
    assert_eq!(
        tally.to_string(),
        "6 rules, 2 lines skipped; first: line 4 \"||ads7^$third-party\": option not supported; \
         read as 2 hosts lines, the name alone, 1 name, with all below, 1 `*.` name, the name and all below, \
         1 in Adblock syntax, 1 of dnsmasq, with all below"
    );
    assert_eq!(
        tally.reasons_in_words().as_deref(),
        Some("skipped: 1 \"not a name\", 1 \"option not supported\"")
    );
    let folder = Folder::new();
    let file = folder.write("list", b"\xff\xfea\0");
    let error = ListBuilder::default()
        .add_file(&file, 0, ListPurpose::Block)
        .expect_err("UTF-16");
    assert_eq!(error.what, "is UTF-16; save it as UTF-8");
}

/// Files as downloaded.
#[test]
fn a_list_that_is_compressed_is_said_to_be() {
    let folder = Folder::new();
    for (content, format, program) in [
        (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "gzip", "gunzip"),
        (b"PK\x03\x04\x14\0\0\0", "zip", "unzip"),
        (b"\x28\xb5\x2f\xfd\x04\0", "zstd", "unzstd"),
        (b"\xfd7zXZ\0\0\x04", "xz", "unxz"),
        (b"BZh91AY&SY\0", "bzip2", "bunzip2"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7-Zip", "7z x"),
    ] {
        let path = folder.write("ads.txt", content);
        let error = ListBuilder::default().add_file(&path, 0, ListPurpose::Block);
        let expected = format!(
            "is compressed ({format}): unpack it with `{program}`, and name the text file that comes out"
        );
        assert_eq!(error.expect_err(format).what, expected);
        let compiled = crate::compile::list_file::ListImage::open(&path);
        assert_eq!(compiled.expect_err(format).what, expected, "in `compiled`");
    }
    // Names that begin alike.
    let path = folder.write("ads.txt", "BZh9.example\nPK.example\n7z.example\n");
    let tally = ListBuilder::default().add_file(&path, 0, ListPurpose::Block);
    assert_eq!(tally.expect("a list").rules, 3);
}

/// A hostile list, or one made by a script in an endless loop.
#[test]
fn a_name_with_too_many_rules_costs_no_other_its_own() {
    let mut text = "ads.example\n".to_owned();
    for number in 256..456 {
        text += &format!("||many.example^$dnstype=TYPE{number}\n");
    }
    text += "@@||many.example^$important,dnstype=TYPE9\n";
    let mut builder = ListBuilder::default();
    let tally = builder
        .add_lines(text.as_bytes(), 0, ListPurpose::Block)
        .expect("bytes can be read");
    assert_eq!(tally.rules, 202);
    let image = builder.build().expect("a list");
    assert!(is_blocked(&image, "ads.example", 1));
    assert!(
        is_blocked(&image, "many.example", 256),
        "as many as there is room for"
    );
    let list = List::check(&image).expect("well-formed");
    let name = name::parse("many.example").expect("a name");
    let labels = Labels::new(&name).expect("well-formed");
    assert_eq!(
        list.listing(&labels, 9),
        Listing::Allowed,
        "what counts most is in it"
    );
}
