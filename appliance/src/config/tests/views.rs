//! Tests of views: contradictions, and the resulting input of policy.

use super::*;

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
