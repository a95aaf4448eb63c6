//! Lines of a config, and what is said of each: those that are not TOML, and addresses for HTTP.

use super::messages::{Row, every_row_is_said};

/// Lines that are not TOML, and what is missing in them.
const NOT_TOML: &[Row] = &[
    (
        "cache",
        "snapshot",
        "6:1",
        "`snapshot` has no value: a line is KEY = VALUE",
    ),
    (
        "cache",
        "snapshot \"/x/y\"",
        "6:10",
        "= is missing behind `snapshot`; ",
    ),
    (
        "cache",
        "snapshot /x/y",
        "6:10",
        "= is missing behind `snapshot`; ",
    ),
    (
        "cache",
        "snapshot =",
        "6:1",
        "`snapshot` has no value behind =; ",
    ),
    (
        "cache",
        "snapshot:",
        "6:1",
        "`snapshot` has no value behind =; ",
    ),
    (
        "log",
        "level: \"info\"",
        "6:6",
        "between a key and its value stands =, not :; ",
    ),
    (
        "log",
        "level: info",
        "6:6",
        "between a key and its value stands =, not :; ",
    ),
    (
        "log",
        "level := \"info\"",
        "6:7",
        "between a key and its value stands =, not :=; ",
    ),
    (
        "log",
        "level == \"info\"",
        "6:7",
        "between a key and its value stands =, not ==; ",
    ),
    (
        "log",
        "level => \"info\"",
        "6:7",
        "between a key and its value stands =, not =>; ",
    ),
    ("log", "level info", "6:7", "= is missing behind `level`; "),
    (
        "log",
        "level = info",
        "6:9",
        "text stands in quotes: \"info\"; ",
    ),
    (
        "log",
        "level = warning",
        "6:9",
        "text stands in quotes: \"warn\"; ",
    ),
    (
        "log",
        "level = off",
        "6:9",
        "text stands in quotes: \"off\"; ",
    ),
    (
        "log",
        "level = \"info",
        "6:9",
        "the text that begins here has no closing quote; ",
    ),
    (
        "log",
        "level = 'info",
        "6:9",
        "the text that begins here has no closing quote; ",
    ),
    (
        "log",
        "level = info\"",
        "6:9",
        "text stands in quotes: \"info\"; ",
    ),
    (
        "log",
        "level = \"info\";",
        "6:15",
        "a line ends without `;`; ",
    ),
    (
        "log",
        "level = \"info\",",
        "6:15",
        "a line ends without `,`; ",
    ),
    (
        "log",
        "level = \"info\" \"debug\"",
        "6:16",
        "nothing but a comment stands behind a value; ",
    ),
    (
        "log",
        "level = \"info\" priority = \"never\"",
        "6:16",
        "each key stands on a line of its own; ",
    ),
    (
        "cache",
        "entries = 10, max_ttl = 60",
        "6:13",
        "each key stands on a line of its own; ",
    ),
    (
        "cache",
        "entries = 8k",
        "6:11",
        "`8k`: an integer without a unit; ",
    ),
    (
        "local",
        "ttl = 060",
        "6:7",
        "an integer has no zero in front: 60; ",
    ),
    (
        "local",
        "hosts = [\"/a\" \"/b\"]",
        "6:15",
        "a comma is missing in front of \"/b\"; ",
    ),
    (
        "local",
        "hosts = [\"/a\"; \"/b\"]",
        "6:14",
        "elements are separated by commas; ",
    ),
    (
        "local",
        "hosts = [\"/a\"",
        "6:9",
        "the list has no closing ]; ",
    ),
    (
        "local",
        "hosts = [\"/a\"\nreverse = true",
        "6:9",
        "the list has no closing ]; ",
    ),
    (
        "local",
        "hosts = [\"/a\"\n[cache]\nentries = 1",
        "6:9",
        "the list has no closing ]; ",
    ),
    (
        "local",
        "hosts = [\"/a]",
        "6:10",
        "the text that begins here has no closing quote; ",
    ),
    (
        "local",
        "hosts = \"/a\"]",
        "6:13",
        "] without the [ that begins the list; ",
    ),
    ("local", "hosts = [\"/a\"]]", "6:15", "one ] too many; "),
    (
        "local",
        "hosts = \"/a\", \"/b\"",
        "6:13",
        "several values stand in brackets: [\"/a\", \"/b\"]; ",
    ),
    (
        "local",
        "hosts = (\"/a\", \"/b\")",
        "6:9",
        "a list stands in square brackets: [ ]; ",
    ),
    (
        "local",
        "hosts = {\"/a\", \"/b\"}",
        "6:9",
        "a list stands in square brackets: [ ]; ",
    ),
    (
        "local",
        "hosts = [\n\"/a\"\n\"/b\"\n]",
        "8:1",
        "a comma is missing in front of \"/b\"; ",
    ),
    (
        "local",
        "hosts = [\n\"/a\"\n  \"/b\",\n]",
        "8:3",
        "a comma is missing in front of \"/b\"; ",
    ),
    (
        "local",
        "hosts = [\"/a\",\n\"/b\" # so\n\n '/c' ]",
        "9:2",
        "a comma is missing in front of '/c'; ",
    ),
    (
        "local",
        "hosts = [\n\"/a\" \"/b\"\n]",
        "7:6",
        "a comma is missing in front of \"/b\"; ",
    ),
    (
        "local",
        "hosts\u{a0}= [\"/a\"]",
        "6:6",
        "U+00A0 is not a plain space; ",
    ),
    (
        "local",
        "hosts \u{ff1d} [\"/a\"]",
        "6:7",
        "the character U+FF1D has no meaning outside of quotes; ",
    ),
];

#[test]
fn a_line_that_is_not_toml_is_told_what_is_missing() {
    every_row_is_said(NOT_TOML);
}

/// Addresses for HTTP, and what is wrong with them.
const HTTP_ADDRESSES: &[Row] = &[
    (
        "web",
        "listen = [\"127.0.0.1\"]",
        "6:11",
        "\"127.0.0.1\" is not an address with a port: the port is missing, as in \"127.0.0.1:9153\"; ",
    ),
    (
        "web",
        "listen = [\"[::1]\"]",
        "6:11",
        "\"[::1]\" is not an address with a port: the port is missing, as in \"[::1]:9153\"; ",
    ),
    (
        "web",
        "listen = [\"::1:9153\"]",
        "6:11",
        "\"::1:9153\" is not an address with a port: the port is missing, as in \"[::1:9153]:9153\"; ",
    ),
    (
        "web",
        "listen = [\":9153\"]",
        "6:11",
        "\":9153\" is not an address with a port: the address in front of the port is missing; ",
    ),
    (
        "web",
        "listen = [\"9153\"]",
        "6:11",
        "\"9153\" is not an address with a port: the address in front of the port is missing; ",
    ),
    (
        "web",
        "listen = [\"127.0.0.1:0\"]",
        "6:11",
        "\"127.0.0.1:0\" is not an address with a port: a port is a number from 1 to 65535; ",
    ),
    (
        "web",
        "listen = [\"[::1]:http\"]",
        "6:11",
        "\"[::1]:http\" is not an address with a port: a port is a number from 1 to 65535; ",
    ),
    (
        "web",
        "listen = [\"http://127.0.0.1:9153/\"]",
        "6:11",
        "\"http://127.0.0.1:9153/\" is not an address with a port: without http:// and path; ",
    ),
    (
        "web",
        "listen = [\"router.lan:9153\"]",
        "6:11",
        "\"router.lan:9153\" is not an address with a port: it is named by an address, not by a name; ",
    ),
];

#[test]
fn an_address_for_http_is_told_what_is_missing() {
    every_row_is_said(HTTP_ADDRESSES);
}
