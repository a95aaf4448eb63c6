//! Sources that decide a question, and their places.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::list::Rank;
use xdnsd_core::policy::rebind::Ranges;
use xdnsd_core::policy::view::VIEWS_MAX;
use xdnsd_core::policy::{Action, Blocked, DEFAULT_GROUP, Labels, Local, Special, Translated};

use super::{Explainer, file, given};
use crate::compile::Prefix;
use crate::compile::lists::{ListPurpose, Ruled};
use crate::compile::local::{GivenRecord, Origin};
use crate::compile::rdata;
use crate::compile::routes::parse_suffix;
use crate::os::device;

/// A source that may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyPart {
    /// The lists of clients.
    Access,
    /// The view that the client is in.
    View,
    /// The type of the question.
    Type,
    /// `local.records`.
    Record,
    /// A hosts file.
    Hosts,
    /// A DHCP lease.
    Lease,
    /// A local zone.
    Zone,
    /// A special-use name.
    Special,
    /// Blocked names.
    Block,
    /// Allowed names.
    Allow,
    /// The setting that keeps names of one label local.
    PlainName,
    /// A route to an upstream group, or the default group.
    Route,
    /// Rebind protection.
    Rebind,
    /// What of upstream's answers is not passed on.
    Answers,
    /// IPv6 addresses made of IPv4 ones.
    Dns64,
}

impl PolicyPart {
    /// Name of the source.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::View => "view",
            Self::Type => "type",
            Self::Record => "record",
            Self::Hosts => "hosts",
            Self::Lease => "lease",
            Self::Zone => "zone",
            Self::Special => "special",
            Self::Block => "block",
            Self::Allow => "allow",
            Self::PlainName => "plain-name",
            Self::Route => "route",
            Self::Rebind => "rebind",
            Self::Answers => "answers",
            Self::Dns64 => "dns64",
        }
    }
}

/// Place of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The key of the config.
    pub key: Option<&'static str>,
    /// The file. `None` if the key is not set, so that its default holds.
    pub file: Option<String>,
    /// Line number, from 1. `None` if the file has no such line by now, or keeps none.
    pub line: Option<usize>,
    /// Text of the line.
    pub text: Option<String>,
}

/// A value of the config, by its index in the input of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyValue {
    /// A prefix of clients.
    Client(usize),
    /// The action for all other clients.
    OtherClients,
    /// A key of a view.
    View {
        /// The view.
        view: usize,
        /// The key.
        key: ViewKey,
    },
    /// A record.
    Record(usize),
    /// A local zone.
    Zone(usize),
    /// The families of special-use names.
    Special,
    /// A blocked name.
    Block(usize),
    /// An allowed name.
    Allow(usize),
    /// Whether names of one label go upstream.
    PlainNames,
    /// A suffix of a route.
    Suffix {
        /// The route.
        route: usize,
        /// Index of the suffix in the route.
        index: usize,
    },
    /// Whether routed suffixes may resolve to private addresses.
    RebindRouted,
    /// A suffix that may resolve to private addresses.
    RebindAllow(usize),
    /// Addresses that mean that a name does not exist.
    Bogus,
    /// Whether IPv4 addresses are withheld.
    WithoutA,
    /// Whether IPv6 addresses are.
    WithoutAaaa,
    /// The prefix of addresses that DNS64 makes.
    Dns64,
}

/// A key of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewKey {
    /// Its name, which stands for the view itself.
    Name,
    /// A client.
    Client(usize),
    /// A blocked name.
    Block(usize),
    /// An allowed name.
    Allow(usize),
    /// The group of upstream servers.
    Upstreams,
    /// Whether IPv4 addresses are withheld from it.
    WithoutA,
    /// Whether IPv6 addresses are.
    WithoutAaaa,
    /// Whether DNS64 makes some for it.
    Dns64,
}

/// Statement of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The source.
    pub source: PolicyPart,
    /// Statement in words. Empty if the record says it.
    pub what: String,
    /// The record that is given.
    pub record: Option<GivenRecord>,
    /// Place of the statement.
    pub place: Option<Location>,
}

impl Explainer<'_> {
    pub(super) fn tell(
        &mut self,
        source: PolicyPart,
        what: impl Into<String>,
        place: Option<Location>,
    ) {
        self.reasons.push(Statement {
            source,
            what: what.into(),
            record: None,
            place,
        });
    }

    pub(super) fn tell_client(&mut self, client: IpAddr, action: Action) {
        let what = match action {
            Action::Allow => "is answered",
            Action::Refuse => "is refused",
            Action::Drop | Action::Local => "gets no answer",
        };
        let rules = self.input.acl.rules.iter().enumerate();
        let of_client = rules.filter(|(_, (prefix, _))| holds(prefix, client));
        let longest = of_client.max_by_key(|(_, (prefix, _))| prefix.length());
        let value = longest.map_or(PolicyValue::OtherClients, |(index, _)| {
            PolicyValue::Client(index)
        });
        let place = (self.place_of)(value);
        self.tell(PolicyPart::Access, format!("{client} {what}"), Some(place));
    }

    /// Adds the client's view, and whether lists are paused for it.
    pub(super) fn tell_view(&mut self, client: IpAddr) {
        if let Some((view, input)) = self.view {
            let clients = input.clients.iter().enumerate();
            let of_client = clients.filter(|(_, prefix)| holds(prefix, client));
            let longest = of_client.max_by_key(|(_, prefix)| prefix.length());
            let key = longest.map_or(ViewKey::Name, |(index, _)| ViewKey::Client(index));
            let place = (self.place_of)(PolicyValue::View { view, key });
            let what = format!("{client} is in the view `{}`", input.name);
            self.tell(PolicyPart::View, what, Some(place));
        }
        if usize::from(self.policy.view) >= VIEWS_MAX {
            let what = format!("lists are paused for {client}");
            self.tell(PolicyPart::View, what, None);
        }
    }

    /// Place of a name among those blocked or allowed in the view: the config's come first.
    fn own_name(&self, index: usize, purpose: ListPurpose) -> Location {
        let lists = &self.input.lists;
        let (common, value): (_, fn(usize) -> PolicyValue) = match purpose {
            ListPurpose::Block => (lists.block_names.len(), PolicyValue::Block),
            ListPurpose::Allow => (lists.allow_names.len(), PolicyValue::Allow),
        };
        let Some((view, of_view)) = self.view.zip(index.checked_sub(common)) else {
            return (self.place_of)(value(index));
        };
        let key = match purpose {
            ListPurpose::Block => ViewKey::Block(of_view),
            ListPurpose::Allow => ViewKey::Allow(of_view),
        };
        (self.place_of)(PolicyValue::View { view: view.0, key })
    }

    pub(super) fn tell_record(&mut self, given: GivenRecord) {
        let line = |file: PathBuf, line, text| Location {
            file: Some(file.display().to_string()),
            line: Some(line),
            text: Some(text),
            key: None,
        };
        let (source, place) = match given.origin(&self.input.local) {
            Some(Origin::Record(index)) => (
                PolicyPart::Record,
                Some((self.place_of)(PolicyValue::Record(index))),
            ),
            Some(Origin::Hosts(file, number, text)) => {
                (PolicyPart::Hosts, Some(line(file, number, text)))
            }
            Some(Origin::Lease(file, number, text)) => {
                (PolicyPart::Lease, Some(line(file, number, text)))
            }
            // A file was changed just now, or a lease is over.
            None => (PolicyPart::Record, None),
        };
        self.reasons.push(Statement {
            source,
            what: String::new(),
            record: Some(given),
            place,
        });
    }

    pub(super) fn tell_local(&mut self, name: &Labels<'_>, qtype: u16, local: Local<'_>) {
        match local {
            Local::Records(mut records) => {
                let rtype = records.rtype();
                for record in &mut records {
                    self.tell_record(given(name.name(), rtype, &record));
                }
            }
            Local::Nodata { zone } if qtype == rtype::SOA && zone == Some(name.name()) => {
                self.tell_zone(zone, "has this record of its own");
            }
            Local::Nodata { zone } => {
                self.tell_other_types(name);
                self.tell_zone(zone, "has no record of this type");
            }
            Local::Nxdomain { zone } => self.tell_zone(Some(zone), "has no such name"),
            // The alias is followed, and the other is no decision.
            Local::Alias(_) | Local::Unknown => {}
        }
    }

    /// Adds the records by which a name exists without the type in question.
    pub(super) fn tell_other_types(&mut self, name: &Labels<'_>) {
        let local = self.policy.local;
        for rtype in rdata::known_types() {
            if let Local::Records(mut records) = local.lookup(name, rtype)
                && let Some(record) = records.next()
            {
                self.tell_record(given(name.name(), rtype, &record));
            }
        }
    }

    fn tell_zone(&mut self, zone: Option<&[u8]>, what: &str) {
        let Some(zone) = zone else {
            return self.tell(PolicyPart::Zone, format!("local data {what}"), None);
        };
        let is_zone =
            |text: &String| crate::compile::name::parse(text).is_ok_and(|name| name == zone);
        let index = self.input.local.zones.iter().position(is_zone);
        let place = index.map(|index| (self.place_of)(PolicyValue::Zone(index)));
        let zone = crate::compile::name::display(zone);
        self.tell(PolicyPart::Zone, format!("{zone} {what}"), place);
    }

    pub(super) fn tell_special(&mut self, name: &Labels<'_>, special: &Special) {
        let zone = crate::compile::name::display(name.suffix(special.zone_depth));
        let what = format!("{zone} is of the family `{}`", special.kind.word());
        let place = (self.place_of)(PolicyValue::Special);
        self.tell(PolicyPart::Special, what, Some(place));
    }

    pub(super) fn tell_blocked(&mut self, name: &Labels<'_>, qtype: u16, blocked: Blocked) {
        let (_, ruling) = self.policy.lists.ruling(name, qtype);
        let ruled = Ruled {
            name,
            qtype,
            rank: ruling.rank,
        };
        let names = self.lists.block_names.iter();
        let source = self.set.source(self.policy.view, blocked);
        let place = if source == BLOCK_KEY {
            let mut names = names.enumerate();
            let found = names.find(|(_, text)| ruled.is_by_name(text, ListPurpose::Block));
            found.map(|(index, _)| self.own_name(index, ListPurpose::Block))
        } else {
            let path = PathBuf::from(source);
            Some(list_place(&path, &ruled, ListPurpose::Block).unwrap_or_else(|| file(path)))
        };
        self.tell(PolicyPart::Block, rank_text(ruling.rank), place);
    }

    /// Adds the source that allows a name which is asked for upstream.
    pub(super) fn tell_allowed(&mut self, name: &Labels<'_>, qtype: u16) {
        if !self.policy.lists.allows(name, qtype) {
            return;
        }
        let (_, ruling) = self.policy.lists.ruling(name, qtype);
        let ruled = Ruled {
            name,
            qtype,
            rank: ruling.rank,
        };
        let lists = self.lists;
        let mut names = lists.allow_names.iter();
        let named = names.position(|text| ruled.is_by_name(text, ListPurpose::Allow));
        let named = named.map(|index| self.own_name(index, ListPurpose::Allow));
        let allow = lists.allow.iter().map(|path| (path, ListPurpose::Allow));
        let block = lists.block.iter().map(|path| (path, ListPurpose::Block));
        let mut files = allow.chain(block);
        let place =
            named.or_else(|| files.find_map(|(path, purpose)| list_place(path, &ruled, purpose)));
        self.tell(PolicyPart::Allow, rank_text(ruling.rank), place);
    }

    pub(super) fn tell_route(&mut self, name: &Labels<'_>, qtype: u16, group: u16) {
        let names = self.set.groups();
        let number = group.to_string();
        let shown = names.get(usize::from(group)).unwrap_or(&number);
        let servers = self.set.servers().iter();
        let servers: Vec<String> = servers
            .filter(|server| u16::from(server.group) == group)
            .map(|server| device::written_server(server.to))
            .collect();
        let what = format!("group `{shown}`: {}", servers.join(", "));
        let route = self.policy.route(name, qtype);
        let suffix = route.map(|route| name.suffix(name.count().min(route.depth)));
        let place = suffix.and_then(|suffix| self.suffix(suffix));
        let of_view = self.view.filter(|(_, view)| view.group != DEFAULT_GROUP);
        let of_view = of_view.map(|(view, _)| PolicyValue::View {
            view,
            key: ViewKey::Upstreams,
        });
        let place = place.or(of_view);
        self.tell(
            PolicyPart::Route,
            what,
            place.map(|value| (self.place_of)(value)),
        );
    }

    /// The value of the config that routes a suffix.
    fn suffix(&self, suffix: &[u8]) -> Option<PolicyValue> {
        let routes = self.input.routes.iter().enumerate();
        let mut all = routes.flat_map(|(route, input)| {
            let suffixes = input.suffixes.iter().enumerate();
            suffixes.map(move |(index, text)| (PolicyValue::Suffix { route, index }, text))
        });
        let found = all.find(|(_, text)| stands_for(text, suffix));
        found.map(|(value, _)| value)
    }

    /// What becomes of addresses in the answer of an upstream server.
    pub(super) fn tell_screen(&mut self, qtype: u16) {
        let (value, key) = match qtype {
            rtype::A => (PolicyValue::WithoutA, ViewKey::WithoutA),
            rtype::AAAA => (PolicyValue::WithoutAaaa, ViewKey::WithoutAaaa),
            _ => return,
        };
        let input = &self.input.screen;
        if !input.bogus.is_empty() {
            let place = (self.place_of)(PolicyValue::Bogus);
            self.tell(
                PolicyPart::Answers,
                "some addresses become NXDOMAIN",
                Some(place),
            );
        }
        if self.policy.screen.withholds(qtype) {
            let of_all = if qtype == rtype::A {
                input.without.a
            } else {
                input.without.aaaa
            };
            let of_view = self.view.filter(|_| !of_all);
            let value = of_view.map_or(value, |(view, _)| PolicyValue::View { view, key });
            let place = (self.place_of)(value);
            self.tell(
                PolicyPart::Answers,
                "addresses of this type are withheld",
                Some(place),
            );
        }
    }

    /// What is made of addresses in the answer of an upstream server.
    pub(super) fn tell_dns64(&mut self, qtype: u16) {
        if self.policy.translation(translated(qtype)).is_some() {
            let what = "without IPv6 addresses, some are made of the IPv4 ones";
            self.tell_made(what);
        }
    }

    /// True if the question is how a client learns the prefix.
    pub(super) fn tell_discovery(&mut self, name: &Labels<'_>, qtype: u16) -> bool {
        let is_it = self.policy.discovered(name, translated(qtype)).is_some();
        if is_it {
            self.tell_made("clients learn the prefix by this name");
        }
        is_it
    }

    /// The name that is asked for in place of that of an address that DNS64 has made.
    pub(super) fn tell_v4_name(&mut self, name: &Labels<'_>, qtype: u16) -> Option<Vec<u8>> {
        let found = self.policy.translated_name(name, translated(qtype))?;
        let shown = crate::compile::name::display(found.as_wire());
        self.tell_made(format!("the address is made of that of {shown}"));
        Some(found.as_wire().to_vec())
    }

    fn tell_made(&mut self, what: impl Into<String>) {
        let own = self.view.filter(|(_, view)| view.dns64.is_some());
        let value = own.map_or(PolicyValue::Dns64, |(view, _)| PolicyValue::View {
            view,
            key: ViewKey::Dns64,
        });
        let place = (self.place_of)(value);
        self.tell(PolicyPart::Dns64, what, Some(place));
    }

    pub(super) fn tell_rebind(&mut self, name: &Labels<'_>) {
        let rebind = &self.input.rebind;
        if rebind.ranges == Ranges::NONE {
            return;
        }
        if self.policy.rebind.guards(name) {
            return self.tell(PolicyPart::Rebind, "private addresses are withheld", None);
        }
        let suffixes = (0..=name.count()).rev().map(|depth| name.suffix(depth));
        let value = suffixes.into_iter().find_map(|suffix| {
            let mut allowed = rebind.allowed.iter();
            let allowed = allowed.position(|text| stands_for(text, suffix));
            let routed = || self.suffix(suffix).map(|_| PolicyValue::RebindRouted);
            allowed.map(PolicyValue::RebindAllow).or_else(routed)
        });
        let place = value.map(|value| (self.place_of)(value));
        self.tell(
            PolicyPart::Rebind,
            "private addresses are let through",
            place,
        );
    }
}

/// A question of a client that does not validate by itself.
const fn translated(qtype: u16) -> Translated {
    Translated {
        qtype,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

/// Source of the config's own names in a set.
const BLOCK_KEY: &str = "filter.block";

/// True if an item of the config has this suffix.
fn stands_for(text: &str, suffix: &[u8]) -> bool {
    parse_suffix(text).is_ok_and(|names| names.iter().any(|name| name == suffix))
}

fn holds(prefix: &Prefix, client: IpAddr) -> bool {
    let is_of_family = prefix.address().is_ipv4() == client.is_ipv4();
    is_of_family && Prefix::masked(client, prefix.length()) == *prefix
}

/// Line of a list's text that gives this ruling. A compiled list has none: it keeps neither texts nor the names of its sources.
fn list_place(path: &Path, ruled: &Ruled<'_>, purpose: ListPurpose) -> Option<Location> {
    let line = ruled.line(path, purpose).ok().flatten()?;
    Some(Location {
        line: Some(line.number),
        text: Some(line.text),
        ..file(path.into())
    })
}

/// Effect of a rule of this rank.
const fn rank_text(rank: Rank) -> &'static str {
    match rank {
        Rank::ImportantAllow => "allowed, whatever blocks it",
        Rank::Allow => "allowed",
        Rank::ImportantBlock => "blocked, unless it is allowed by name",
        Rank::Block => "blocked",
        Rank::None => "nothing",
    }
}
