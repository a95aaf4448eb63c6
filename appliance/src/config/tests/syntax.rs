//! Text that is not TOML, or not ours, and the messages for it.

use super::*;

const LAN: &str = "[[interface]]\nname = \"lan0\"\n";

/// Faults of `text`.
fn said(text: &str) -> String {
    errors_of(text).join("\n")
}

#[test]
fn what_is_no_toml_is_said_where_it_stands() {
    let servers = "servers = [\"192.0.2.1\"]";
    let behind = "upstream.servers: a comment begins with #; allowed: ";
    for (lines, place, problem) in [
        (format!("{servers} // ours"), "4:25", behind),
        (format!("{servers} ; ours"), "4:25", behind),
        (format!("{servers} -- ours"), "4:25", behind),
        (
            format!("{servers} ours"),
            "4:25",
            "upstream.servers: nothing but a comment stands behind a value; ",
        ),
        (
            format!("{servers}\nname = \"a\" b"),
            "5:12",
            "upstream.name: nothing but a comment stands behind a value; ",
        ),
        ("/* ours */".into(), "4:1", "a comment begins with #"),
        ("<!-- ours -->".into(), "4:1", "a comment begins with #"),
        (
            format!("{servers}\n= true"),
            "5:1",
            "a key is missing in front of =",
        ),
        // Not about the key of the line before.
        (
            format!("{servers}\n# \u{1b}[31m"),
            "5:3",
            "the control character U+001B may not stand in a line",
        ),
        (
            format!("{servers}\n<<<<<<< ours"),
            "5:9",
            "= is missing behind `<<<<<<<`",
        ),
        (
            format!("{servers}\nname = \"a\u{1b}b\""),
            "5:10",
            "upstream.name: the control character U+001B may not stand in a line; ",
        ),
        (
            format!("{servers}\nname = $HOST"),
            "5:8",
            "upstream.name: text stands in quotes: \"$HOST\"; ",
        ),
        (
            format!("{servers}\nname = \"a\\q\""),
            "5:11",
            "upstream.name: \\ begins \\\\, ",
        ),
        (
            "servers = [\"192.0.2.1\",, \"192.0.2.2\"]".into(),
            "4:24",
            "upstream.servers: one comma too many; ",
        ),
        (
            format!("{servers}\n[forward]\ngive_up_ms = 5000 ms"),
            "6:14",
            "forward.give_up_ms: `5000 ms`: milliseconds, an integer without a unit; ",
        ),
        (
            format!("{servers}\n[ [interface] ]\nname = \"lan1\""),
            "5:1",
            "brackets that do not touch: [[interface]]",
        ),
        // The lines of a list are about its key.
        (
            "servers = [\n    \"192.0.2.1\",\n    192.0.2.2,\n]".into(),
            "6:5",
            "upstream.servers: addresses stand in quotes: [\"192.0.2.2\"]; ",
        ),
    ] {
        let said = said(&format!("{LAN}[[upstream]]\n{lines}\n"));
        assert!(
            said.starts_with(&format!("f:{place}: {problem}")),
            "{lines}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{lines}: {said}");
    }
}

#[test]
fn another_programs_file_is_known() {
    for (text, whose) in [
        (
            "domain-needed\nbogus-priv\nserver=9.9.9.9\n",
            "dnsmasq's configuration",
        ),
        ("port=53\ncache-size=1000\n", "dnsmasq's configuration"),
        ("server:\n  interface: 0.0.0.0\n", "unbound's configuration"),
        ("nameserver 9.9.9.9\n", "resolv.conf"),
        (
            "server_names = ['quad9']\n[static]\n[static.x]\nstamp = 'sdns://'\n",
            "dnscrypt-proxy's configuration",
        ),
    ] {
        let how = match whose {
            "dnsmasq's configuration" => "`xdnsd import` makes one of it",
            _ => "see config/home-router.toml",
        };
        let expected = format!("f: this looks like {whose}; xdnsd reads TOML, {how}");
        assert_eq!(said(text), expected);
    }
}

/// What follows is parsed as more of the list, and is right.
#[test]
fn a_quote_that_is_missing_in_a_list_is_one_fault() {
    let said_of = |list: &str| {
        said(&format!(
            "{LAN}[[upstream]]\nservers = [\"192.0.2.1\"]\n[access]\nallow = {list}\nothers = \"refuse\"\n[cache]\nentries = 1\nrotate = false\n"
        ))
    };
    for (list, place) in [
        ("[\"10.0.0.0/8]", "6:10"),
        ("[\"192.0.2.0/24\", \"10.0.0.0/8]", "6:26"),
        ("[\n  \"10.0.0.0/8,\n  \"192.0.2.0/24]", "7:3"),
    ] {
        let said = said_of(list);
        let expected =
            format!("f:{place}: access.allow: the text that begins here has no closing quote");
        assert!(said.starts_with(&expected), "{list}: {said}");
        assert_eq!(said.lines().count(), 1, "{list}: {said}");
    }
    // Where the list has its end, what follows is looked at.
    let said = said_of("[\n  \"10.0.0.0/8,\n]\nrefuse = x");
    assert_eq!(said.lines().count(), 2, "{said}");
}
