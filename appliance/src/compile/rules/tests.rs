//! Lines of every form.

use super::*;

fn one(line: &str) -> (String, Covers, bool) {
    let rules = parse_line(line).expect("a rule");
    assert_eq!(rules.len(), 1, "{line}");
    (
        name::display(&rules[0].name),
        rules[0].covers,
        rules[0].is_exception,
    )
}

type Case = (&'static str, &'static str, Covers, bool);

fn assert_rules(cases: &[Case]) {
    for &(line, name, covers, is_exception) in cases {
        assert_eq!(one(line), (name.into(), covers, is_exception), "{line}");
    }
}

#[test]
fn every_shape_of_a_hosts_line_or_plain_name() {
    assert_rules(&[
        (
            "0.0.0.0 ads.example.com",
            "ads.example.com.",
            Covers::Name,
            false,
        ),
        (
            "127.0.0.1\tads.example.com # why",
            "ads.example.com.",
            Covers::Name,
            false,
        ),
        (
            ":: ads.example.com",
            "ads.example.com.",
            Covers::Name,
            false,
        ),
        (
            "::1 ads.example.com",
            "ads.example.com.",
            Covers::Name,
            false,
        ),
        (
            "Ads.Example.COM",
            "ads.example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "  ads.example.com.  # tracker",
            "ads.example.com.",
            Covers::Subtree,
            false,
        ),
    ]);
}

#[test]
fn any_path_ends_a_name() {
    assert_rules(&[
        ("||example.com/*", "example.com.", Covers::Subtree, false),
        ("example.com/*", "example.com.", Covers::Subtree, false),
        ("|example.com/*", "example.com.", Covers::Name, false),
        ("@@||example.com/*", "example.com.", Covers::Subtree, true),
    ]);
}

#[test]
fn every_shape_of_a_wildcard_or_adblock_rule() {
    assert_rules(&[
        (".example.com", "example.com.", Covers::Subtree, false),
        ("*.example.com", "example.com.", Covers::Subtree, false),
        ("*.zip", "zip.", Covers::Subtree, false),
        (
            "0.0.0.0 ads.example.com#comment",
            "ads.example.com.",
            Covers::Name,
            false,
        ),
        (
            "ads.example.com#why",
            "ads.example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "||example.com^ # why",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        ("example.com^", "example.com.", Covers::Subtree, false),
        (".example.com^", "example.com.", Covers::Below, false),
        ("*.example.com^", "example.com.", Covers::Below, false),
        ("://example.com^", "example.com.", Covers::Name, false),
        ("@@://example.com^", "example.com.", Covers::Name, true),
        ("@@example.com", "example.com.", Covers::Subtree, true),
        ("||example.com^", "example.com.", Covers::Subtree, false),
        ("||example.com^|", "example.com.", Covers::Subtree, false),
        ("||example.com", "example.com.", Covers::Subtree, false),
        (
            "address=/example.com/0.0.0.0",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "address=/example.com/#",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "address=/.example.com/0.0.0.0#why",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "local=/example.com/",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "server=/example.com/ # why",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "||example.com^$important",
            "example.com.",
            Covers::Subtree,
            false,
        ),
        ("||*.example.com^", "example.com.", Covers::Below, false),
        ("||zip^", "zip.", Covers::Subtree, false),
        ("|example.com^", "example.com.", Covers::Name, false),
        (
            "@@||ok.example.com^",
            "ok.example.com.",
            Covers::Subtree,
            true,
        ),
        ("@@|ok.example.com^|", "ok.example.com.", Covers::Name, true),
        (
            "\u{feff}a_b.example.com\r",
            "a_b.example.com.",
            Covers::Subtree,
            false,
        ),
        (
            "||München.example^",
            "xn--mnchen-3ya.example.",
            Covers::Subtree,
            false,
        ),
        (
            "xn--mnchen-3ya.example",
            "xn--mnchen-3ya.example.",
            Covers::Subtree,
            false,
        ),
    ]);
}

#[test]
fn a_hosts_line_may_have_several_names_and_the_machines_own_are_none() {
    let names = |line: &str| parse_line(line).map(|rules| rules.len());
    assert_eq!(names("0.0.0.0 a.example b.example c.example"), Ok(3));
    for line in [
        "127.0.0.1 localhost",
        "::1 ip6-localhost ip6-loopback",
        "0.0.0.0 0.0.0.0",
        "fe80::1%lo0 x.example",
    ] {
        let found = names(line).ok();
        assert_eq!(found, (!line.starts_with("fe80")).then_some(0), "{line}");
    }
    assert_eq!(names("127.0.0.1 localhost ads.example"), Ok(1));
    assert_eq!(
        names("0.0.0.0 a.example bad!name.example com b.example"),
        Ok(2)
    );
    assert_eq!(names("address=/a.example/b.example/::"), Ok(2));
    assert_eq!(
        names("address=/a.example/bad!name.example/.b.example/#"),
        Ok(2)
    );
}

#[test]
fn comments_and_headers_are_nothing() {
    for line in [
        "",
        "   ",
        "# comment",
        "#comment",
        "! Title: x",
        "[Adblock Plus 2.0]",
        "\u{feff}# first line",
    ] {
        assert_eq!(parse_line(line), Ok(Vec::new()), "{line}");
    }
}

#[test]
fn what_is_no_rule_about_a_whole_name_is_passed_over() {
    let lines = [
        "example.com##.banner",
        "example.com#@#.banner",
        "||example.com^$third-party",
        "||example.com^$important,third-party",
        "||example.com/ads/",
        "||example.com/ads^",
        "||example.com/ads/*",
        "||example.com./*",
        "||*/*",
        "||example.*^",
        "||example.com^^",
        "address=/example.com/192.0.2.1",
        "server=/example.com/192.0.2.1",
        // The usual servers: an exception.
        "server=/example.com/#",
        "local=/example.com/# why",
        "address=/example.com/192.0.2.1#53",
        "server=/example.com/ 192.0.2.1",
        "address=/com/",
        "address=/example.com",
        "ipset=/example.com/",
        "||ads*^",
        "||ads.*^",
        "ads*.example.com^",
        "||example.com.^",
        "||example.com.",
        "@@||example.com.^",
        "*$important",
        "||example.com^$dnstype=NOPE",
        "||example.com^$dnstype=A|~A",
        "||example.com^$dnstype=",
        "||example.com^$dnstype=A|AAAA|TXT|MX|NS",
        "com$important",
        "example.com$",
        "*.*^",
        "a*example.com$important",
        "||example.com^$denyallow=com",
        "||example.com^$",
        "banner$",
        "||192.0.2.1^",
        "@@||example.com/path",
        "|https://example.com^",
        "/banner[0-9]+/",
        "&ad_box_",
        "https://example.com/",
        "192.0.2.1 nas.example",
        "192.0.2.1",
        "0.0.0.0",
        "0.0.0.0 bad!name.example",
        "com",
        "0.0.0.0 com",
        "two words.example",
        "<html>",
        "a..example",
        "*",
        "*.",
        "a.*.example",
    ];
    for line in lines {
        assert!(parse_line(line).is_err(), "{line}");
    }
}

#[test]
fn what_is_passed_over_says_why() {
    for (line, why) in [
        ("||ads7^$third-party", "option not supported"),
        ("||example.org.^", "ends in a dot, so no name fits"),
        ("example.com##.banner", "is about a part of a page"),
        ("192.0.2.1 nas.example", "gives a name an address"),
        (
            "/banner[0-9]+/",
            "regular expressions and paths are not supported",
        ),
        ("two words.example", "not a line of any known form"),
        ("||ads.*^", "pattern not supported"),
        ("com", "not a name"),
        ("||x.example^$dnstype=A|~A", "is about no type"),
    ] {
        assert_eq!(parse_line(line), Err(NotARule(why)), "{line}");
    }
}

#[test]
fn options_are_read() {
    let rule = |line: &str| parse_line(line).expect("a rule").remove(0);
    let types = |line: &str| {
        rule(line)
            .types
            .map(|types| (types.numbers, types.are_left_out))
    };
    assert_eq!(
        types("||x.example^$dnstype=AAAA"),
        Some(([28, 0, 0, 0], false))
    );
    assert_eq!(
        types("||x.example^$dnstype=~A|~HTTPS"),
        Some(([1, 65, 0, 0], true))
    );
    let left_out = |line: &str| {
        rule(line)
            .left_out
            .iter()
            .map(|name| name::display(name))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        left_out("||x.example^$denyallow=a.x.example|other.example"),
        ["a.x.example."]
    );
    assert_eq!(left_out("*$denyallow=com|org"), ["com.", "org."]);
    let glob = |line: &str| {
        let rule = rule(line);
        (
            String::from_utf8(rule.pattern).expect("ASCII"),
            name::display(&rule.name),
        )
    };
    assert_eq!(
        glob("||Ads*.Example.com^"),
        ("ads*".into(), "example.com.".into())
    );
    assert_eq!(
        glob("||*.ads*x.example.com^"),
        ("*.ads*x".into(), "example.com.".into())
    );
    assert_eq!(glob("||*example.com^"), ("*example".into(), "com.".into()));
    let same = |a: &str, b: &str| rule(a).text == rule(b).text;
    assert!(same("||x.example^", "||X.example^$badfilter"));
    assert!(same(
        "||x.example^$important,dnstype=A",
        "||x.example^$dnstype=A,badfilter,important"
    ));
    assert!(!same("||x.example^", "x.example^$badfilter"));
    assert!(!same("||x.example^$important", "||x.example^$badfilter"));
    assert!(!same("||x.example^", "@@||x.example^$badfilter"));
    assert_eq!(rule("x.example").text, 0, "not in Adblock syntax");
}

#[test]
fn a_name_with_an_option_and_a_star_before_it_is_the_name_and_all_below() {
    let plain = parse_line("||ads.example^").expect("a rule").remove(0);
    let meant = |line: &str| {
        let rule = parse_line(line)
            .unwrap_or_else(|why| panic!("{line}: {why:?}"))
            .remove(0);
        assert_eq!(
            (&rule.name, rule.covers),
            (&plain.name, Covers::Subtree),
            "{line}"
        );
        rule
    };
    meant("*ads.example^");
    meant("**ads.example^");
    meant("||ads.example^ ! why");
    meant("||ads.example^\t! why ! and more");
    meant("ads.example ! why");
    meant("*.ads.example ! why");
    assert!(meant("ads.example$important").is_important);
    assert!(meant("||ads.example^$important ! why").is_important);
    let types = |line: &str| {
        meant(line)
            .types
            .map(|types| (types.numbers, types.are_left_out))
    };
    assert_eq!(
        types("||ads.example^$dnstype=A|~AAAA"),
        Some(([1, 0, 0, 0], false))
    );
    assert_eq!(
        types("||ads.example^$dnstype=~AAAA|A|AAAA|TXT"),
        Some(([1, 16, 0, 0], false))
    );
    assert_eq!(types("ads.example$dnstype=~A"), Some(([1, 0, 0, 0], true)));
    // The sign alone is no comment.
    assert!(parse_line("||ads!.example^").is_err());
}

/// As dnsmasq 2.90 reads them, and names that are none.
#[test]
fn dnsmasqs_lines_may_have_blanks_and_stars() {
    let told = |line: &str| {
        let rules = parse_line(line).ok()?;
        let told = rules
            .iter()
            .map(|rule| (name::display(&rule.name), rule.covers));
        Some(told.collect::<Vec<_>>())
    };
    let ads = |covers| Some(vec![("ads.example.".to_owned(), covers)]);
    for (line, expected) in [
        ("address = /ads.example/", ads(Covers::Subtree)),
        (
            "  address =/ads.example/0.0.0.0  # so",
            ads(Covers::Subtree),
        ),
        ("--local=/ads.example/", ads(Covers::Subtree)),
        ("address=/*.ads.example/#", ads(Covers::Below)),
        ("address=/*ads.example/", None),
        ("address=/ads.example", None),
        ("address = ads.example", None),
        ("address=/ads.example/ x", None),
        ("ads.example..", None),
        ("0.0.0.0 ads.example..", None),
    ] {
        assert_eq!(told(line), expected, "{line}");
    }
}
