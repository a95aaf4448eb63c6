//! The lines of blocklists: hosts files, plain domains, wildcards, and the domain part of Adblock syntax.
//!
//! Each line is taken by its own shape, so a file may mix them:
//!
//! | line | blocks |
//! |---|---|
//! | `0.0.0.0 ads.example.com` | that name exactly, as in Pi-hole and AdGuard Home: a hosts file has no subdomains |
//! | `ads.example.com`, `.ads.example.com` | the name and all below it |
//! | `*.example.com` | all below it, not the name itself (RFC 4592) |
//! | `\|\|example.com^`, `\|\|example.com` | the name and all below it |
//! | `\|\|*.example.com^` | all below it |
//! | `\|example.com^` | that name exactly |
//! | `@@` in front of any of the last three | the contrary: allowed |
//! | `address=/example.com/0.0.0.0`, `local=/example.com/`, `server=/example.com/` of dnsmasq | the names and all below them |
//!
//! `!` and `#` begin comments, `[` a header. The modifier `$important` is accepted; an exception still wins over it. Rules
//! with other modifiers, paths, patterns, or for parts of pages say nothing about a name as a whole: they are counted
//! and passed over. So are names of one label but for `||zip^` and `*.zip`: a stray word must not block a top-level domain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name;

/// Which names a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// The name itself.
    Name,
    /// What is below the name.
    Below,
    /// Both.
    Subtree,
}

/// A rule of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, in lower-case wire form.
    pub name: Vec<u8>,
    /// Which names it is about.
    pub covers: Covers,
    /// `@@`: the contrary of what the list is for.
    pub is_exception: bool,
}

/// A line that is no rule about whole names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARule;

/// Names that hosts files give to the machine itself, and the addresses that some repeat as a name. Not rules.
const HOSTS_OWN: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",
];

/// Whether a hosts file gives this name to the machine itself.
#[must_use]
pub fn is_hosts_own(name: &str) -> bool {
    HOSTS_OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The rules of one line: none where it is empty or a comment, several where a hosts line has several names.
///
/// # Errors
/// The line is something else.
pub fn parse_line(line: &str) -> Result<Vec<Rule>, NotARule> {
    let line = line.trim_start_matches('\u{feff}').trim();
    if line.is_empty() || line.starts_with(['!', '#', '[']) {
        return Ok(Vec::new());
    }
    if line.starts_with("||") || line.starts_with("@@") || line.starts_with('|') {
        return parse_adblock(line).map(|rule| vec![rule]);
    }
    let mut words = without_comment(line).split_ascii_whitespace();
    let first = words.next().ok_or(NotARule)?;
    if let Some((_, domains)) = first
        .split_once("=/")
        .filter(|_| words.clone().next().is_none())
    {
        return parse_dnsmasq(first, domains);
    }
    if let Some(address) = parse_address(first) {
        return parse_hosts(address, words);
    }
    if words.next().is_some() {
        Err(NotARule)
    } else {
        parse_domain(first).map(|rule| vec![rule])
    }
}

/// Cuts off a comment. `#` inside a word is none: `example.com##.banner` is a rule for a part of a page.
fn without_comment(line: &str) -> &str {
    let end = line
        .match_indices('#')
        .find(|&(at, _)| line[..at].ends_with([' ', '\t']));
    end.map_or(line, |(at, _)| &line[..at])
}

/// An address, with or without a zone such as `%lo0`.
pub(super) fn parse_address(word: &str) -> Option<IpAddr> {
    word.split('%').next()?.parse().ok()
}

fn parse_hosts<'l>(
    address: IpAddr,
    names: impl Iterator<Item = &'l str>,
) -> Result<Vec<Rule>, NotARule> {
    let blocks = match address {
        IpAddr::V4(address) => address == Ipv4Addr::UNSPECIFIED || address.is_loopback(),
        IpAddr::V6(address) => address == Ipv6Addr::UNSPECIFIED || address.is_loopback(),
    };
    if !blocks {
        return Err(NotARule);
    }
    let mut rules = Vec::new();
    let mut is_known = false;
    // A name that is none says nothing against the others of its line.
    for name in names {
        match parse_name(name, 2) {
            _ if is_hosts_own(name) => is_known = true,
            Ok(name) => rules.push(Rule {
                name,
                covers: Covers::Name,
                is_exception: false,
            }),
            Err(NotARule) => {}
        }
    }
    if is_known || !rules.is_empty() {
        Ok(rules)
    } else {
        Err(NotARule)
    }
}

/// `KEY=/DOMAIN/DOMAIN/TARGET` of dnsmasq, where the target says that there is nothing. Another target is a route.
fn parse_dnsmasq(word: &str, domains: &str) -> Result<Vec<Rule>, NotARule> {
    let (names, target) = domains.rsplit_once('/').ok_or(NotARule)?;
    let blocks = match word.split('=').next() {
        Some("address") => ["", "#", "0.0.0.0", "::", "127.0.0.1", "::1"].contains(&target),
        Some("local" | "server") => target.is_empty(),
        _ => false,
    };
    if !blocks {
        return Err(NotARule);
    }
    let rule = |name| {
        Ok(Rule {
            name: parse_name(name, 2)?,
            covers: Covers::Subtree,
            is_exception: false,
        })
    };
    names.split('/').map(rule).collect()
}

fn parse_domain(word: &str) -> Result<Rule, NotARule> {
    let (text, covers, labels_min) = match (word.strip_prefix("*."), word.strip_prefix('.')) {
        (Some(text), _) => (text, Covers::Below, 1),
        (None, Some(text)) => (text, Covers::Subtree, 2),
        (None, None) => (word, Covers::Subtree, 2),
    };
    Ok(Rule {
        name: parse_name(text, labels_min)?,
        covers,
        is_exception: false,
    })
}

fn parse_adblock(line: &str) -> Result<Rule, NotARule> {
    let (line, is_exception) = line
        .strip_prefix("@@")
        .map_or((line, false), |rest| (rest, true));
    let (pattern, modifiers) = line.split_once('$').unwrap_or((line, "important"));
    if modifiers != "important" {
        return Err(NotARule);
    }
    let pattern = pattern.strip_suffix('|').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('^').unwrap_or(pattern);
    let (text, covers) = match (pattern.strip_prefix("||"), pattern.strip_prefix('|')) {
        (Some(text), _) => text
            .strip_prefix("*.")
            .map_or((text, Covers::Subtree), |below| (below, Covers::Below)),
        (None, Some(text)) => (text, Covers::Name),
        (None, None) => return Err(NotARule),
    };
    Ok(Rule {
        name: parse_name(text, 1)?,
        covers,
        is_exception,
    })
}

/// A host name of at least `labels_min` labels that is no address.
fn parse_name(text: &str, labels_min: usize) -> Result<Vec<u8>, NotARule> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.split('.').count() < labels_min || parse_address(text).is_some() {
        return Err(NotARule);
    }
    name::parse_host(text).map_err(|_| NotARule)
}

#[cfg(test)]
mod tests {
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
    fn every_shape_of_a_wildcard_or_adblock_rule() {
        assert_rules(&[
            (".example.com", "example.com.", Covers::Subtree, false),
            ("*.example.com", "example.com.", Covers::Below, false),
            ("*.zip", "zip.", Covers::Below, false),
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
            let expected = if line.starts_with("fe80") {
                Err(NotARule)
            } else {
                Ok(0)
            };
            assert_eq!(names(line), expected, "{line}");
        }
        assert_eq!(names("127.0.0.1 localhost ads.example"), Ok(1));
        assert_eq!(
            names("0.0.0.0 a.example bad!name.example com b.example"),
            Ok(2)
        );
        assert_eq!(names("address=/a.example/b.example/::"), Ok(2));
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
            "||example.*^",
            "||example.com^^",
            "address=/example.com/192.0.2.1",
            "server=/example.com/192.0.2.1",
            "address=/com/",
            "address=/example.com",
            "ipset=/example.com/",
            "||ads*.example.com^",
            "||192.0.2.1^",
            "@@example.com",
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
            assert_eq!(parse_line(line), Err(NotARule), "{line}");
        }
    }
}
