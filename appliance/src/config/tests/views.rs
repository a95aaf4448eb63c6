//! Tests of views: contradictions, and the resulting input of policy.

use super::*;
use xdnsd_core::policy::TranslationPrefix;

const HEAD: &str = "[[interface]]\nname = \"lan0\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n\
     [filter]\nblock_files = [\"/ads\", \"/games\"]\nallow_files = [\"/fine\"]\n";

fn told(more: &str) -> String {
    let parsed = Config::parse("f", &format!("{HEAD}{more}"));
    parsed.expect_err("a fault").to_string()
}

#[test]
fn what_is_wrong_with_a_view_is_told_with_its_line() {
    let view = "[[view]]\nname = \"a\"\nclients = [\"192.0.2.0/24\"]\n";
    for (more, expected) in [
        (
            "[[view]]\nclients = [\"192.0.2.1\"]\n".to_owned(),
            "f:8:1: view.name: is missing",
        ),
        (
            "[[view]]\nname = \"default\"\nclients = [\"192.0.2.1\"]\n".to_owned(),
            "f:9:8: view.name: \"default\" are the clients who are in no view; allowed: 1 to 32 letters, digits, `-` or `_`, but not \"default\"",
        ),
        (
            "[[view]]\nname = \"a\"\n".to_owned(),
            "f:8:1: view: nobody is in the view \"a\"; allowed: clients, or interfaces, or both",
        ),
        (
            format!("{view}[[view]]\nname = \"a\"\nclients = [\"192.0.2.1\"]\n"),
            "f:12:1: view.name: \"a\" is the name of an earlier view; allowed: a name of its own",
        ),
        (
            format!("{view}[[view]]\nname = \"b\"\nclients = [\"192.0.2.0/24\"]\n"),
            "f:13:12: view.clients: 192.0.2.0/24 is in the view \"a\" already; allowed: each network in one view",
        ),
        (
            "[[view]]\nname = \"a\"\ninterfaces = [\"lan0\", \"lan0\"]\n".to_owned(),
            "f:10:23: view.interfaces: lan0 is in the view \"a\" already; allowed: each interface in one view",
        ),
        (
            format!("{view}lists = [\"/no\"]\n"),
            "f:11:10: view.lists: /no is no file of [filter]; allowed: /ads, /games, /fine",
        ),
        (
            format!("{view}lists = [\"/ads\", \"/ads\"]\n"),
            "f:11:18: view.lists: /ads stands twice; allowed: each list once",
        ),
        (
            format!("{view}filter = false\nblock = [\"a.example\"]\n"),
            "f:12:1: view.block: not used with filter = false; allowed: with filter = true",
        ),
        (
            format!("{view}upstreams = \"family\"\n"),
            "f:11:1: view.upstreams: no group of upstream servers is named family; allowed: default",
        ),
        (
            (0..8u8)
                .map(|n| format!("[[view]]\nname = \"v{n}\"\nclients = [\"192.0.2.{n}\"]\n"))
                .collect(),
            "f:8:3: view: 8 views are too many; allowed: at most 7",
        ),
        (
            "[[upstream]]\nname = \"family\"\nservers = [\"192.0.2.2\"]\n".to_owned(),
            "f:8:1: upstream: this group and \"default\" both have no domains; allowed: one group without domains",
        ),
    ] {
        let errors = told(&more);
        assert!(errors.starts_with(expected), "{more}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let each = "[[upstream]]\nname = \"b\"\nservers = [\"192.0.2.2\"]\n\
         [[view]]\nname = \"a\"\nclients = [\"192.0.2.1\"]\nupstreams = \"default\"\n\
         [[view]]\nname = \"c\"\nclients = [\"192.0.2.3\"]\nupstreams = \"b\"\n";
    let errors = told(each);
    assert!(
        errors.contains("every group has domains, or is that of a view"),
        "{errors}"
    );
}

#[test]
fn every_key_of_a_view_reaches_policy() {
    let more = "[[upstream]]\nname = \"family\"\nservers = [\"192.0.2.2\"]\n\
         [[view]]\nname = \"kids\"\nclients = [\"192.0.2.0/24\", \"fd00::7\"]\nlists = [\"/ads\", \"/fine\"]\n\
         block = [\"a.example\"]\nallow = [\"b.example\"]\nupstreams = \"family\"\n\
         [[view]]\nname = \"guests\"\ninterfaces = [\"lan1\"]\nfilter = false\nlocal_names = false\n";
    let config = Config::parse("f", &format!("{HEAD}{more}")).expect("valid");
    assert_eq!(config.group_names(), ["default", "family"]);
    let [kids, guests] = &config.policy().views[..] else {
        panic!("two views")
    };
    let prefix = |text: &str| text.parse().expect("a prefix");
    assert_eq!(kids.name, "kids");
    assert_eq!(kids.clients, [prefix("192.0.2.0/24"), prefix("fd00::7")]);
    assert!(kids.is_filtered && kids.has_local_names);
    assert_eq!(kids.group, 1);
    let lists = kids.lists(&config.policy().lists);
    assert_eq!(lists.files().collect::<Vec<_>>().len(), 2);
    assert_eq!(
        (lists.block_names, lists.allow_names),
        (vec!["a.example".to_owned()], vec!["b.example".to_owned()])
    );
    assert!(guests.clients.is_empty() && !guests.is_filtered && !guests.has_local_names);
    assert_eq!(guests.group, 0);
    // The group of a view comes first in the file, and is not used for other names.
    let turned = "[[interface]]\nname = \"lan0\"\n[[upstream]]\nname = \"family\"\nservers = [\"192.0.2.2\"]\n\
         [[upstream]]\nservers = [\"192.0.2.1\"]\n\
         [[view]]\nname = \"kids\"\nclients = [\"192.0.2.1\"]\nupstreams = \"family\"\n";
    let config = Config::parse("f", turned).expect("valid");
    assert_eq!(config.group_names(), ["default", "family"]);
}

const WELL_KNOWN: &str = "[dns64]\nprefix = \"64:ff9b::/96\"\n";

#[test]
fn a_prefix_that_no_nat64_can_have_is_refused() {
    let allowed = "allowed: an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits such as \"64:ff9b::/96\", or \"\" for none";
    for (prefix, problem) in [
        ("10.0.0.0/8", "\"10.0.0.0/8\" is of IPv4"),
        ("2001:db8::/33", "\"2001:db8::/33\" has 33 bits"),
        ("64:ff9b::", "\"64:ff9b::\" has 128 bits"),
        (
            "2001:db8:1:2:100::/96",
            "\"2001:db8:1:2:100::/96\" is not 0 in bits 64 to 71 (RFC 6052)",
        ),
        (
            "64:ff9b::1/96",
            "\"64:ff9b::1/96\" has bits set behind the prefix; is 64:ff9b::/96 meant?",
        ),
    ] {
        let text = format!("{HEAD}[dns64]\nprefix = \"{prefix}\"\n");
        let errors = Config::parse("f", &text).expect_err("refused").to_string();
        let fault = format!("f:9:10: dns64.prefix: {problem}; {allowed}");
        assert!(errors.contains(&fault), "{errors}");
    }
    for prefix in ["", "64:ff9b::/96", "2001:db8::/32", "2001:db8:1:2::/64"] {
        let text = format!("{HEAD}[dns64]\nprefix = \"{prefix}\"\n");
        let config = Config::parse("f", &text).expect("valid");
        assert_eq!(config.policy().dns64.prefix.is_some(), !prefix.is_empty());
    }
}

#[test]
fn who_cannot_get_what_dns64_makes_is_told() {
    let view = |keys: &str| format!("[[view]]\nname = \"a\"\nclients = [\"192.0.2.0/24\"]\n{keys}");
    let filtered = "[forward]\nfilter_aaaa = true\n";
    let (on, off) = (view("dns64 = \"on\"\n"), view("dns64 = \"off\"\n"));
    let only_views = format!("{WELL_KNOWN}all_clients = false\n");
    for (more, fault) in [
        (
            on.clone(),
            "f:11:1: view.dns64: there is no prefix to make addresses of; allowed: with dns64.prefix = \"64:ff9b::/96\", for example",
        ),
        (
            format!("{WELL_KNOWN}{filtered}"),
            "f:9:1: dns64.prefix: forward.filter_aaaa withholds from them what is made; allowed: with forward.filter_aaaa = false, or all_clients = false",
        ),
        (
            format!("{only_views}{filtered}{on}"),
            "f:16:1: view.dns64: forward.filter_aaaa withholds from them what is made; allowed: with forward.filter_aaaa = false",
        ),
        (
            format!(
                "{only_views}{}",
                view("filter_aaaa = true\ndns64 = \"on\"\n")
            ),
            "f:15:1: view.dns64: filter_aaaa withholds from them what is made; allowed: with filter_aaaa = false",
        ),
    ] {
        let text = format!("{HEAD}{more}");
        let errors = Config::parse("f", &text).expect_err("refused").to_string();
        assert!(errors.contains(fault), "{errors}");
    }
    for more in [
        format!("{WELL_KNOWN}{on}"),
        format!("{only_views}{on}"),
        format!("{only_views}{filtered}{off}"),
        format!("{WELL_KNOWN}{}", view("filter_aaaa = true\n")),
        format!("{filtered}{off}"),
    ] {
        let parsed = Config::parse("f", &format!("{HEAD}{more}"));
        parsed.unwrap_or_else(|errors| panic!("{more}: {errors}"));
    }
}

#[test]
fn every_key_of_dns64_reaches_policy() {
    let view = |name: &str, client: &str, word: &str| {
        format!("[[view]]\nname = \"{name}\"\nclients = [\"{client}\"]\ndns64 = \"{word}\"\n")
    };
    let more = [
        "[dns64]\nprefix = \"2001:db8:64::/96\"\nall_clients = false\nexclude = [\"2001:db8:6::/48\"]\n".to_owned(),
        view("a", "192.0.2.1", "on"),
        view("b", "192.0.2.2", "off"),
        view("c", "192.0.2.3", "usual"),
    ];
    let config = Config::parse("f", &format!("{HEAD}{}", more.concat())).expect("valid");
    let policy = config.policy();
    let prefix = TranslationPrefix::new("2001:db8:64::".parse().expect("an address"), 96);
    assert_eq!(policy.dns64.prefix, prefix);
    assert!(!policy.dns64.is_for_all);
    assert_eq!(
        policy.dns64.exclude,
        ["2001:db8:6::/48".parse().expect("a prefix")]
    );
    let views: Vec<_> = policy.views.iter().map(|view| view.dns64).collect();
    assert_eq!(views, [Some(true), Some(false), None]);
    let usual = Config::parse("f", HEAD).expect("valid").policy().dns64;
    assert_eq!((usual.prefix, usual.is_for_all), (None, true));
    assert_eq!(usual.exclude, ["::ffff:0:0/96".parse().expect("a prefix")]);
}
