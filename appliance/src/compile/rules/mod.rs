//! The lines of blocklists: hosts files, plain domains, wildcards, and the domain part of Adblock syntax.
//!
//! Each line is taken by its own shape, so a file may mix them:
//!
//! | line | blocks |
//! |---|---|
//! | `0.0.0.0 ads.example.com` | that name exactly, as in Pi-hole and AdGuard Home: a hosts file has no subdomains |
//! | `ads.example.com`, `.ads.example.com` | the name and all below it |
//! | `*.example.com` | the name and all below it, as those mean it who publish lists of this form |
//! | `\|\|example.com^`, `\|\|example.com`, `example.com^`, `*example.com^`; `/*` for the `^` | the name and all below it |
//! | `example.com$important`, with any of the options below | the name and all below it, as without |
//! | `\|\|*.example.com^`, `.example.com^`, `*.example.com^` | all below it |
//! | `\|example.com^`, `://example.com^` | that name exactly |
//! | `\|\|ads*.example.com^` | names below `example.com` whose front, from a label on, is `ads` and anything |
//! | `@@` in front of any of the last four | the contrary: allowed |
//! | `address=/example.com/0.0.0.0`, `local=/example.com/`, `server=/example.com/` of dnsmasq | the names and all below them, or with `*.` in front what is below |
//!
//! `!` and `#` begin comments, behind a rule as well, `;` one in a line of its own, `[` a header. Of the modifiers of Adblock syntax these are known, with the meaning that
//! AdGuard's engine gives them: `$important`, `$badfilter`, `$dnstype=`, `$denyallow=`. Rules with other modifiers, paths,
//! other patterns, or for parts of pages say nothing about a name as a whole: they are counted and passed over, and the
//! first is named. So are names of one label but for `||zip^` and `*.zip`: a stray word must not block a top-level domain;
//! and names that end in a dot before their `^`, which fit nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdnsd_core::policy::list::{PATTERN_MAX, TYPES_MAX};

use super::name;
use super::rdata::any_type_number;

/// Names that a rule applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Covers {
    /// The name itself.
    Name,
    /// All below the name.
    Below,
    /// The name, and all below it.
    #[default]
    Subtree,
}

/// Syntax of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LineSyntax {
    /// An address and names.
    Hosts,
    /// A name.
    #[default]
    Plain,
    /// `*.` and a name.
    Wildcard,
    /// Adblock syntax.
    Adblock,
    /// dnsmasq's.
    Dnsmasq,
    /// A record of a response policy zone, see [`super::rpz`].
    Zone,
}

/// Types that a rule applies to: these, or all but these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Types {
    /// TYPE numbers; 0 for unused places.
    pub numbers: [u16; TYPES_MAX],
    /// True if the rule applies to all but these.
    pub are_left_out: bool,
}

/// A rule of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The name, in lower-case wire form.
    pub name: Vec<u8>,
    /// Names that it applies to.
    pub covers: Covers,
    /// Syntax of its line.
    pub shape: LineSyntax,
    /// `@@`: the opposite of the list's purpose.
    pub is_exception: bool,
    /// True if it outranks rules that are not.
    pub is_important: bool,
    /// True if it takes back the rule with the same text.
    pub is_badfilter: bool,
    /// Types that it is restricted to.
    pub types: Option<Types>,
    /// Pattern for the front of names below `name`, with `*` for anything. Empty: none.
    pub pattern: Vec<u8>,
    /// Names that are excluded, with all below them.
    pub left_out: Vec<Vec<u8>>,
    /// Identifies rules in Adblock syntax by their text without `badfilter`. 0 for other rules.
    pub text: u32,
}

impl Rule {
    /// A rule without options.
    #[must_use]
    pub fn new(name: Vec<u8>, covers: Covers, shape: LineSyntax) -> Self {
        Self {
            name,
            covers,
            shape,
            ..Self::default()
        }
    }

    /// True if it is restricted to types or a pattern, or excludes names.
    #[must_use]
    pub const fn has_options(&self) -> bool {
        self.types.is_some() || !self.pattern.is_empty() || !self.left_out.is_empty()
    }
}

/// Why a line is not a rule about whole names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARule(pub &'static str);

const NOT_A_NAME: NotARule = NotARule("not a name");
const NOT_KNOWN: NotARule = NotARule("not a line of any known form");
const NOT_SUPPORTED: NotARule = NotARule("option not supported");
const PATTERN: NotARule = NotARule("pattern not supported");
const PART_OF_PAGE: NotARule = NotARule("is about a part of a page");
const ENDS_IN_DOT: NotARule = NotARule("ends in a dot, so no name fits");

/// Names of the machine itself in hosts files, and the addresses that some repeat as a name. Not rules.
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

/// True if a hosts file gives this name to the machine itself.
#[must_use]
pub fn is_hosts_own(name: &str) -> bool {
    HOSTS_OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Rules of one line: none if it is empty or a comment, several if a hosts line has several names.
///
/// # Errors
/// The line is something else.
pub fn parse_line(line: &str) -> Result<Vec<Rule>, NotARule> {
    let line = line.trim_start_matches('\u{feff}').trim();
    if line.is_empty() || line.starts_with(['!', '#', ';', '[']) {
        return Ok(Vec::new());
    }
    // In a hosts file `#` begins a comment anywhere.
    let mut words = line
        .split('#')
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace();
    if let Some(address) = words.next().and_then(parse_address) {
        return parse_hosts(address, words);
    }
    if is_about_part_of_page(line) {
        return Err(PART_OF_PAGE);
    }
    let whole = line;
    let line = without_comment(line);
    if line.starts_with(['|', '@', '/'])
        || line.starts_with("://")
        || line.contains(['^', '$'])
        || line.ends_with("/*")
    {
        return parse_adblock(line).map(|rule| vec![rule]);
    }
    if is_dnsmasqs(line) {
        return parse_dnsmasq(whole);
    }
    if line.contains(char::is_whitespace) {
        return Err(NOT_KNOWN);
    }
    parse_domain(line).map(|rule| vec![rule])
}

/// True for a key with names between slashes.
fn is_dnsmasqs(line: &str) -> bool {
    let value = line.split_once('=').map(|(_, value)| value);
    value.is_some_and(|value| value.trim_start().starts_with('/'))
}

/// True for `##`, or one or two of `@$?%` between: a rule for elements, styles or scripts of pages.
fn is_about_part_of_page(line: &str) -> bool {
    let is_marker = |(at, _): (usize, &str)| {
        let rest = line[at + 1..].trim_start_matches(['@', '$', '?', '%']);
        rest.starts_with('#')
    };
    line.match_indices('#').any(is_marker)
}

/// Removes a comment: after `#`, or after `!` preceded by a blank.
fn without_comment(line: &str) -> &str {
    let line = line.split('#').next().unwrap_or_default();
    let is_comment = |at: &usize| line[..*at].ends_with(char::is_whitespace);
    let mut marks = line.match_indices('!').map(|(at, _)| at);
    let end = marks.find(is_comment).unwrap_or(line.len());
    line[..end].trim_end()
}

/// Parses an address, with or without a zone such as `%lo0`.
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
        return Err(NotARule("gives a name an address"));
    }
    let mut rules = Vec::new();
    let mut is_known = false;
    // An invalid name does not affect the others of its line.
    for name in names {
        match parse_name(name, 2) {
            _ if is_hosts_own(name) => is_known = true,
            Ok(name) => rules.push(Rule::new(name, Covers::Name, LineSyntax::Hosts)),
            Err(_) => {}
        }
    }
    if is_known || !rules.is_empty() {
        Ok(rules)
    } else {
        Err(NOT_A_NAME)
    }
}

/// Parses `KEY=/DOMAIN/DOMAIN/TARGET` of dnsmasq with a target that blocks. Other targets are routes. `#` is a target, too, and
/// begins a comment only after a blank: `address=/x/#` is 0.0.0.0, but `server=/x/#` takes `x` out of a block.
fn parse_dnsmasq(line: &str) -> Result<Vec<Rule>, NotARule> {
    // As on its command line, and with blanks around the `=`.
    let (key, value) = line.split_once('=').ok_or(NOT_KNOWN)?;
    let key = key.trim().trim_start_matches("--");
    let mut words = value.split_ascii_whitespace();
    let word = words.next().unwrap_or_default();
    if words.next().is_some_and(|next| !next.starts_with('#')) {
        return Err(NOT_KNOWN);
    }
    let domains = word.strip_prefix('/').ok_or(NOT_KNOWN)?;
    let (names, target) = domains.rsplit_once('/').ok_or(NOT_KNOWN)?;
    let blocks = match key {
        "address" => {
            let address = target.split('#').next().unwrap_or_default();
            ["", "0.0.0.0", "::", "127.0.0.1", "::1"].contains(&address)
        }
        "local" | "server" => target.is_empty(),
        _ => false,
    };
    if !blocks {
        return Err(NotARule("gives names an address or a server"));
    }
    // dnsmasq ignores a leading dot; `*.` is what is below the name. An invalid name does not affect the others of its line.
    let rule = |name: &str| {
        let (name, covers) = match name.strip_prefix("*.") {
            Some(name) => (name, Covers::Below),
            None => (name.trim_start_matches('.'), Covers::Subtree),
        };
        let name = parse_name(name, 2).ok()?;
        Some(Rule::new(name, covers, LineSyntax::Dnsmasq))
    };
    let rules: Vec<_> = names.split('/').filter_map(rule).collect();
    if rules.is_empty() {
        return Err(NOT_A_NAME);
    }
    Ok(rules)
}

fn parse_domain(word: &str) -> Result<Rule, NotARule> {
    let (text, shape, labels_min) = match (word.strip_prefix("*."), word.strip_prefix('.')) {
        (Some(text), _) => (text, LineSyntax::Wildcard, 1),
        (None, Some(text)) => (text, LineSyntax::Plain, 2),
        (None, None) => (word, LineSyntax::Plain, 2),
    };
    Ok(Rule::new(
        parse_name(text, labels_min)?,
        Covers::Subtree,
        shape,
    ))
}

fn parse_adblock(line: &str) -> Result<Rule, NotARule> {
    let (body, is_exception) = line
        .strip_prefix("@@")
        .map_or((line, false), |rest| (rest, true));
    if body.starts_with('/') {
        return Err(NotARule("regular expressions and paths are not supported"));
    }
    let (pattern, options) = body
        .split_once('$')
        .map_or((body, None), |(pattern, options)| (pattern, Some(options)));
    let mut rule = Rule {
        is_exception,
        shape: LineSyntax::Adblock,
        ..Rule::default()
    };
    let has_options = options.is_some_and(|options| !options.trim().is_empty());
    let mut same = Vec::new();
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        parse_option(option.trim(), &mut rule)?;
        same.extend(Some(option.trim()).filter(|option| *option != "badfilter"));
    }
    same.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (is_exception, pattern.to_ascii_lowercase(), same).hash(&mut hasher);
    // Never 0, which means no text.
    rule.text = hasher.finish() as u32 | 1;
    parse_pattern(pattern.trim_end(), has_options, &mut rule)?;
    leave_out_what_it_covers(&mut rule)?;
    Ok(rule)
}

fn parse_option(option: &str, rule: &mut Rule) -> Result<(), NotARule> {
    match option.split_once('=') {
        None if option == "important" => rule.is_important = true,
        None if option == "badfilter" => rule.is_badfilter = true,
        Some(("dnstype", types)) => rule.types = Some(parse_types(types)?),
        Some(("denyallow", names)) => {
            let names = names.split('|').map(|name| parse_name(name, 1));
            rule.left_out = names.collect::<Result<_, _>>()?;
        }
        Some(_) | None => return Err(NOT_SUPPORTED),
    }
    Ok(())
}

/// Parses `A|AAAA`, or `~A|~AAAA`. If both kinds occur, only types without `~` count, minus the excluded ones.
fn parse_types(text: &str) -> Result<Types, NotARule> {
    let number = |word: &str| any_type_number(word).ok_or(NotARule("no such type"));
    let (mut named, mut left_out) = (Vec::new(), Vec::new());
    for word in text.split('|') {
        match word.strip_prefix('~') {
            Some(word) => left_out.push(number(word)?),
            None => named.push(number(word)?),
        }
    }
    let are_left_out = named.is_empty();
    let meant = if are_left_out {
        left_out
    } else {
        named.retain(|number| !left_out.contains(number));
        named
    };
    if meant.is_empty() {
        return Err(NotARule("is about no type"));
    }
    let mut numbers = [0; TYPES_MAX];
    let places = numbers.get_mut(..meant.len());
    let places = places.ok_or(NotARule("too many types"))?;
    places.copy_from_slice(&meant);
    Ok(Types {
        numbers,
        are_left_out,
    })
}

fn parse_pattern(pattern: &str, has_options: bool, rule: &mut Rule) -> Result<(), NotARule> {
    let text = pattern.strip_suffix('|').unwrap_or(pattern);
    // `/*` is any path, so it ends the name as well.
    let (text, has_end) = text
        .strip_suffix('^')
        .or(text.strip_suffix("/*"))
        .map_or((text, false), |text| (text, true));
    if text.is_empty() || text == "*" {
        // Everything except the excluded names.
        (rule.name, rule.covers) = (vec![0], Covers::Below);
        return if rule.left_out.is_empty() {
            Err(PATTERN)
        } else {
            Ok(())
        };
    }
    if text.ends_with('.') {
        return Err(ENDS_IN_DOT);
    }
    let (text, covers) = if let Some(text) = text.strip_prefix("||") {
        match text.strip_prefix("*.") {
            Some(text) => (text, Covers::Below),
            None => (text, Covers::Subtree),
        }
    } else if let Some(text) = text.strip_prefix("://").or(text.strip_prefix('|')) {
        (text, Covers::Name)
    } else if !has_end && !rule.is_exception {
        // Without an end it would match any part of any name; but with an option, people mean a name.
        if !has_options || !text.contains('.') || text.contains('*') {
            return Err(PATTERN);
        }
        (text, Covers::Subtree)
    } else if let Some(text) = text.strip_prefix("*.").or(text.strip_prefix('.')) {
        (text, Covers::Below)
    } else {
        // A leading `*` changes nothing.
        (text.trim_start_matches('*'), Covers::Subtree)
    };
    rule.covers = covers;
    if !text.contains('*') {
        rule.name = parse_name(text, 1)?;
        return Ok(());
    }
    if !pattern.starts_with("||") {
        return Err(PATTERN);
    }
    parse_glob(pattern, text, rule)
}

/// Parses `ads*.example.com`: `example.com`, and names below it whose front matches `ads*`.
fn parse_glob(pattern: &str, text: &str, rule: &mut Rule) -> Result<(), NotARule> {
    // The part that `||*.` took away belongs to the pattern.
    let text = pattern
        .strip_prefix("||*.")
        .map_or(text, |_| &pattern[2..2 + text.len() + 2]);
    let star = text.rfind('*').ok_or(PATTERN)?;
    let (_, fixed) = text[star..].split_once('.').ok_or(PATTERN)?;
    let front = text[..text.len() - fixed.len() - 1].to_ascii_lowercase();
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    if front.len() > PATTERN_MAX || !front.bytes().all(is_host) {
        return Err(PATTERN);
    }
    rule.name = parse_name(fixed, 1)?;
    (rule.covers, rule.pattern) = (Covers::Below, front.into_bytes());
    Ok(())
}

/// Keeps the excluded names that the rule would cover.
fn leave_out_what_it_covers(rule: &mut Rule) -> Result<(), NotARule> {
    let is_within = |name: &[u8], zone: &[u8]| {
        std::iter::successors(Some(name), |name| name::parent(name)).any(|name| name == zone)
    };
    if rule
        .left_out
        .iter()
        .any(|left_out| is_within(&rule.name, left_out))
    {
        return Err(NotARule("leaves out all that it is about"));
    }
    let zone = rule.name.clone();
    rule.left_out.retain(|left_out| is_within(left_out, &zone));
    Ok(())
}

/// Parses a host name of at least `labels_min` labels; addresses are refused.
fn parse_name(text: &str, labels_min: usize) -> Result<Vec<u8>, NotARule> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let has_end = text.ends_with('.');
    if has_end || text.split('.').count() < labels_min || parse_address(text).is_some() {
        return Err(NOT_A_NAME);
    }
    name::parse_host(text).map_err(|_| NOT_A_NAME)
}

#[cfg(test)]
mod tests;
