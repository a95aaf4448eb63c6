//! Response policy zones (RPZ, draft-vixie-dnsop-dns-rpz-00) as lists: a zone file whose records say what becomes of which
//! questions.
//!
//! | record | rule |
//! |---|---|
//! | `ads.example CNAME .` | the name itself is blocked |
//! | `*.ads.example CNAME .` | what is below it, likewise |
//! | `CNAME *.` | blocked, and answered with NODATA instead of NXDOMAIN |
//! | `CNAME rpz-drop.`; `A` or `AAAA` with an address that leads nowhere | blocked as by `CNAME .` |
//! | `CNAME rpz-passthru.`, or a CNAME to the name itself | allowed |
//!
//! Other actions (`rpz-tcp-only.`, other local data) and triggers other than QNAME (`rpz-ip`, `rpz-client-ip`, `rpz-nsdname`,
//! `rpz-nsip`) are counted and passed over.
//!
//! `*.` covers what is below, but no name that has a record of its own, and nothing below such a name: with `*.example` and
//! `www.example` alone nothing is said about `a.www.example`. That is how unbound reads a zone, and BIND but for names in between
//! without a record (RFC 4592). Rules of lists cover all below them, so such names are left out of the rule.

mod zone;

use std::io;
use std::net::IpAddr;

use xdnsd_core::policy::list::TYPES_MAX;

use self::zone::{Record, ZoneLines};
use super::name;
use super::rules::{Covers, LineSyntax, NotARule, Rule, Types};

pub use zone::begins;

/// Most bytes of a name's key: one for each byte of the longest name.
const KEY_MAX: usize = 255;

const NOT_A_NAME: NotARule = NotARule("not a name");
const TCP_ONLY: NotARule = NotARule("`rpz-tcp-only.` is not supported");
const LOCAL_DATA: NotARule = NotARule("local data of a response policy zone is not supported");
/// The last labels of triggers that are no QNAME.
const OTHER_TRIGGERS: [(&str, NotARule); 4] = [
    ("rpz-ip", NotARule("trigger `rpz-ip` is not supported")),
    (
        "rpz-client-ip",
        NotARule("trigger `rpz-client-ip` is not supported"),
    ),
    (
        "rpz-nsdname",
        NotARule("trigger `rpz-nsdname` is not supported"),
    ),
    ("rpz-nsip", NotARule("trigger `rpz-nsip` is not supported")),
];

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Block,
    Nodata,
    Pass,
    /// Nothing that a list can do; the name is in the zone all the same.
    Untaken,
}

impl Action {
    /// True if a name keeps this action below a wildcard with that one: allowing goes before blocking, and the same twice is as good
    /// as once.
    fn holds_below(self, above: Self) -> bool {
        self == above || self == Self::Pass && above != Self::Untaken
    }
}

/// A QNAME trigger.
#[derive(Clone, Copy, Debug)]
struct Trigger {
    /// Where its key begins in [`Reader::keys`].
    at: u32,
    len: u8,
    is_wildcard: bool,
    action: Action,
    line: u32,
}

/// Collects the triggers of a zone. Takes sixteen bytes for each, and a byte for each character of its name.
#[derive(Debug, Default)]
pub struct Reader {
    lines: ZoneLines,
    /// Names from the root on, a zero behind each label: what is below a name begins with its key.
    keys: Vec<u8>,
    triggers: Vec<Trigger>,
}

/// The actions of one name.
struct Node<'k> {
    key: &'k [u8],
    itself: Option<(Action, usize)>,
    below: Option<(Action, usize)>,
}

/// A wildcard whose names are being visited.
struct OpenWildcard<'k> {
    key: &'k [u8],
    action: Action,
    line: usize,
    /// Names that it does not cover, with all below them.
    left_out: Vec<&'k [u8]>,
}

impl Reader {
    /// Checks by `room` that the machine has memory for one more line.
    ///
    /// # Errors
    /// It has none.
    pub fn reserve(&mut self, room: fn(u64) -> io::Result<()>) -> io::Result<()> {
        let is_short = |free: usize, least: usize| free < least;
        if is_short(self.keys.capacity() - self.keys.len(), KEY_MAX) {
            let more = self.keys.len().max(64 * KEY_MAX);
            room(more as u64)?;
            self.keys.try_reserve_exact(more)?;
        }
        if is_short(self.triggers.capacity() - self.triggers.len(), 1) {
            let more = self.triggers.len().max(1024);
            room((more * size_of::<Trigger>()) as u64)?;
            self.triggers.try_reserve_exact(more)?;
        }
        Ok(())
    }

    /// Reads a line. Returns the name that it is about, in wire form; `None` if it is about none.
    ///
    /// # Errors
    /// It has no rule: why.
    pub fn line(&mut self, number: usize, text: &str) -> Result<Option<Vec<u8>>, NotARule> {
        let Some(record) = self.lines.line(text)? else {
            return Ok(None);
        };
        let last = record.owner.rsplit('.').next().unwrap_or_default();
        if let Some((_, why)) = OTHER_TRIGGERS.iter().find(|(label, _)| *label == last) {
            return Err(*why);
        }
        // SOA and NS of the zone itself, and the signatures of a signed one.
        let is_of_zone = record.owner.is_empty()
            || ["RRSIG", "NSEC", "NSEC3", "DNSKEY"].contains(&record.rtype.as_str());
        if is_of_zone {
            return Ok(None);
        }
        let (text, is_wildcard) = match record.owner.strip_prefix('*') {
            Some("") => ("", true),
            Some(rest) => (rest.strip_prefix('.').ok_or(NOT_A_NAME)?, true),
            None => (record.owner.as_str(), false),
        };
        let name = match text {
            "" => vec![0],
            text => host(text)?,
        };
        let action = action(&record);
        self.add(
            &name,
            (is_wildcard, action.unwrap_or(Action::Untaken)),
            number,
        );
        action.map(|_| Some(name))
    }

    fn add(&mut self, name: &[u8], (is_wildcard, action): (bool, Action), line: usize) {
        let at = self.keys.len();
        let mut labels = Vec::new();
        let mut rest = name;
        while let Some((label, parent)) = name::cut_label(rest) {
            labels.push(label);
            rest = parent;
        }
        for label in labels.iter().rev() {
            self.keys.extend_from_slice(label);
            self.keys.push(0);
        }
        let len = self.keys.len() - at;
        // A list's text has at most 1 GiB, and a name at most 255 bytes.
        let (Ok(at), Ok(len), Ok(line)) = (at.try_into(), len.try_into(), line.try_into()) else {
            return;
        };
        self.triggers.push(Trigger {
            at,
            len,
            is_wildcard,
            action,
            line,
        });
    }

    /// Gives each rule with the number of its line to `take`.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn rules(mut self, mut take: impl FnMut(usize, Rule) -> io::Result<()>) -> io::Result<()> {
        let keys = &self.keys;
        let key = |trigger: &Trigger| {
            let at = trigger.at as usize;
            keys.get(at..at + usize::from(trigger.len))
                .unwrap_or_default()
        };
        let order = |trigger: &Trigger| (trigger.is_wildcard, trigger.line);
        self.triggers
            .sort_unstable_by(|a, b| key(a).cmp(key(b)).then(order(a).cmp(&order(b))));
        let mut open: Vec<OpenWildcard<'_>> = Vec::new();
        for same in self.triggers.chunk_by(|a, b| key(a) == key(b)) {
            let Some(first) = same.first() else { continue };
            let node = Node::of(key(first), same);
            while let Some(ended) = open.pop_if(|above| !node.key.starts_with(above.key)) {
                take(ended.line, ended.rule())?;
            }
            if let Some((action, line)) = leave_out(&mut open, &node)
                && node.itself.is_none()
            {
                // Only what is below it was to be left out.
                take(line, rule(node.key, Covers::Name, action))?;
            }
            if let Some((action, line)) = node.itself
                && action != Action::Untaken
            {
                take(line, rule(node.key, Covers::Name, action))?;
            }
            if let Some((action, line)) = node.below
                && action != Action::Untaken
            {
                open.push(OpenWildcard {
                    key: node.key,
                    action,
                    line,
                    left_out: Vec::new(),
                });
            }
        }
        while let Some(ended) = open.pop() {
            take(ended.line, ended.rule())?;
        }
        Ok(())
    }
}

/// The name of a host. Its characters may be written as escapes (RFC 1035 section 5.1).
fn host(text: &str) -> Result<Vec<u8>, NotARule> {
    if !text.contains('\\') {
        return name::parse_host(text).map_err(|_| NOT_A_NAME);
    }
    let name = name::parse(text).map_err(|_| NOT_A_NAME)?;
    let mut rest = name.as_slice();
    while let Some((label, parent)) = name::cut_label(rest) {
        let label = std::str::from_utf8(label).map_err(|_| NOT_A_NAME)?;
        // A dot within a label is none between two.
        if label.contains('.') || name::parse_host(label).is_err() {
            return Err(NOT_A_NAME);
        }
        rest = parent;
    }
    Ok(name)
}

impl<'k> Node<'k> {
    /// Of several records the first that can be taken counts.
    fn of(key: &'k [u8], triggers: &[Trigger]) -> Self {
        let of = |is_wildcard| {
            let mut own = triggers
                .iter()
                .filter(move |one| one.is_wildcard == is_wildcard);
            let first = own.clone().next();
            let taken = own.find(|one| one.action != Action::Untaken).or(first);
            taken.map(|one| (one.action, one.line as usize))
        };
        Self {
            key,
            itself: of(false),
            below: of(true),
        }
    }
}

impl<'k> OpenWildcard<'k> {
    /// True if the zone has for a name below, and for what is below that, what this wildcard says anyway.
    fn says_so(&self, node: &Node<'_>) -> bool {
        let holds = |(action, _): (Action, usize)| action.holds_below(self.action);
        node.below.is_some_and(holds) && node.itself.is_none_or(holds)
    }

    /// True if it covers this name, as far as names were visited.
    fn covers(&self, key: &[u8]) -> bool {
        // Names come in order, so one above this one was the last.
        let is_out = |left_out: &&[u8]| key.starts_with(left_out);
        !self.left_out.last().is_some_and(is_out)
    }

    fn rule(&self) -> Rule {
        Rule {
            left_out: self.left_out.iter().map(|key| wire(key)).collect(),
            ..rule(self.key, Covers::Below, self.action)
        }
    }
}

/// Leaves a name of the zone, and what is below it, out of the wildcards above, if the nearest says anything else about them than
/// the zone does. Returns action and line of the nearest if it covered the name so far.
fn leave_out<'k>(open: &mut [OpenWildcard<'k>], node: &Node<'k>) -> Option<(Action, usize)> {
    let nearest = open.last().filter(|nearest| !nearest.says_so(node))?;
    let covering = nearest
        .covers(node.key)
        .then_some((nearest.action, nearest.line));
    for above in open {
        if above.covers(node.key) {
            above.left_out.push(node.key);
        }
    }
    covering
}

fn rule(key: &[u8], covers: Covers, action: Action) -> Rule {
    // A rule for some types alone gives NODATA; this one leaves out type 0, which nobody asks for.
    let all = Types {
        numbers: [0; TYPES_MAX],
        are_left_out: true,
    };
    Rule {
        is_exception: action == Action::Pass,
        types: (action == Action::Nodata).then_some(all),
        ..Rule::new(wire(key), covers, LineSyntax::Zone)
    }
}

/// A name in wire form, from its key.
fn wire(key: &[u8]) -> Vec<u8> {
    let labels = key.split(|byte| *byte == 0).rev();
    let mut name = Vec::with_capacity(key.len() + 1);
    for label in labels.filter(|label| !label.is_empty()) {
        name.push(label.len() as u8);
        name.extend_from_slice(label);
    }
    name.push(0);
    name
}

/// What a record does.
///
/// # Errors
/// Nothing that a list can do.
fn action(record: &Record) -> Result<Action, NotARule> {
    let target = record.rdata.as_str();
    match record.rtype.as_str() {
        "CNAME" => match target {
            "." | "rpz-drop." => Ok(Action::Block),
            "*." => Ok(Action::Nodata),
            "rpz-passthru." => Ok(Action::Pass),
            "rpz-tcp-only." => Err(TCP_ONLY),
            // The first form of rpz-passthru.
            target if target.strip_suffix('.') == Some(&record.owner) => Ok(Action::Pass),
            _ => Err(LOCAL_DATA),
        },
        "A" | "AAAA" => {
            let leads_nowhere = |address: IpAddr| address.is_unspecified() || address.is_loopback();
            let is_blocked = target.parse().is_ok_and(leads_nowhere);
            is_blocked.then_some(Action::Block).ok_or(LOCAL_DATA)
        }
        _ => Err(LOCAL_DATA),
    }
}

#[cfg(test)]
mod tests;
