//! Keys that were renamed.

use super::*;
use crate::config::schema::SECTIONS;

/// Every renamed key, with its section.
fn renamed() -> Vec<(&'static str, &'static str, &'static str)> {
    let keys = SECTIONS.iter().flat_map(|section| {
        let renamed = |key: &key::ConfigKey| Some((section.name, key.old_name?, key.name));
        section.keys.iter().filter_map(renamed)
    });
    keys.collect()
}

fn with(section: &str, lines: &str) -> String {
    format!("{SMALLEST}[{section}]\n{lines}\n")
}

/// Default of a key, as TOML.
fn default_of(section: &str, name: &str) -> String {
    let section = SECTIONS.iter().find(|known| known.name == section);
    let key = section.and_then(|section| section.keys.iter().find(|key| key.name == name));
    key.and_then(|key| key.default).expect("it has one")()
}

#[test]
fn the_keys_with_an_old_name_are_these() {
    let wanted = [
        ("access", "silent_ports", "reflector_ports"),
        ("edns", "unknown_client_max", "nocookie_udp_size"),
    ];
    assert_eq!(renamed(), wanted);
    for section in SECTIONS {
        for key in section.keys {
            let is_taken = |old| section.keys.iter().any(|other| other.name == old);
            assert!(!key.old_name.is_some_and(is_taken), "{}", key.name);
        }
    }
}

#[test]
fn an_old_name_works_and_is_warned_of_with_its_place_and_the_new_name() {
    for (section, old, new) in renamed() {
        let value = default_of(section, new);
        let config = Config::parse("f", &with(section, &format!("{old} = {value}")));
        let warnings: Vec<String> = config
            .expect("valid")
            .warnings()
            .iter()
            .map(Fault::to_string)
            .collect();
        let told = format!("f:6:1: {section}.{old}: is called {new} now");
        assert_eq!(warnings, [told]);
        let config = Config::parse("f", &with(section, &format!("{new} = {value}")));
        assert!(config.expect("valid").warnings().is_empty(), "{new}");
    }
    let text = with("access", "silent_ports = [1900]");
    let access = Config::parse("f", &text).expect("valid").access;
    assert_eq!(access.reflector_ports, [1900], "the value counts");
}

#[test]
fn a_fault_of_a_value_is_told_where_it_stands_under_the_old_name() {
    let errors = errors_of(&with("access", "silent_ports = [7, 53]"));
    let [error] = errors.as_slice() else {
        panic!("{errors:?}")
    };
    assert!(
        error.starts_with("f:6:20: access.reflector_ports: other forwarders"),
        "{error}"
    );
}

#[test]
fn both_names_at_once_are_a_fault() {
    for (section, old, new) in renamed() {
        let value = default_of(section, new);
        for (lines, line) in [
            (format!("{old} = {value}\n{new} = {value}"), 6),
            (format!("{new} = {value}\n{old} = {value}"), 7),
        ] {
            let told = format!(
                "f:{line}:1: {section}.{old}: is the old name of {new}, which stands here as well; allowed: one of them"
            );
            assert_eq!(errors_of(&with(section, &lines)), [told]);
        }
    }
}
