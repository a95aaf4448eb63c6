//! Why a question is answered as it is: `xdnsd why`.
//!
//! Policy decides by images without files or lines. Here the same policy decides a question once more, and its sources are read
//! again to find the one that decided. That takes as long as reading the files.

mod reason;

use std::net::IpAddr;
use std::path::PathBuf;

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::local::CHAIN_MAX;
use xdnsd_core::policy::view::VIEWS_MAX;
use xdnsd_core::policy::{Action, BlockRecord, Decision, Labels, Local, Policy};

use super::local::GivenRecord;
use super::set::{ListsInput, PolicyInput, PolicySet, ViewInput};
pub use reason::{Location, PolicyPart, PolicyValue, Statement, ViewKey};

/// A question to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyQuestion {
    /// QNAME, in lower case.
    pub name: Vec<u8>,
    /// QTYPE.
    pub qtype: u16,
    /// Address of the client; `None`: any client that is answered.
    pub client: Option<IpAddr>,
    /// Index of the client's device; 0: the one with its network.
    pub device: u32,
}

/// Outcome of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The client gets no answer.
    Dropped,
    /// It is answered REFUSED.
    Refused,
    /// It is answered from local data.
    Local,
    /// It is answered by the RFC of a special-use name.
    Special,
    /// The name is blocked: the answer, and its TTL in seconds.
    Blocked(BlockRecord, u32),
    /// A name of one label that is not asked for upstream: NXDOMAIN.
    PlainName,
    /// QTYPE ANY: a minimal answer (RFC 8482).
    Any,
    /// Aliases in a loop, or in too long a chain: SERVFAIL.
    Endless,
    /// An upstream is asked, unless the cache has an answer.
    Forwarded,
}

impl Handling {
    /// Name of the outcome.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Local => "local",
            Self::Special => "special",
            Self::Blocked(..) => "blocked",
            Self::PlainName => "plain-name",
            Self::Any => "any",
            Self::Endless => "endless",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Outcome of a question, and the sources that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTrace {
    /// The question.
    pub question: WhyQuestion,
    /// Outcome.
    pub handling: Handling,
    /// Sources that apply, in the order in which they are consulted.
    pub reasons: Vec<Statement>,
    /// Name that is finally asked for: the target of local aliases. Cached answers are under it.
    pub target: Vec<u8>,
    /// Number of the client's view.
    pub view: u8,
}

/// Explains a question. `set` was compiled from `input`; `place_of` gives the place of a value in the config.
#[must_use]
pub fn explain(
    set: &PolicySet,
    input: &PolicyInput,
    place_of: &dyn Fn(PolicyValue) -> Location,
    question: WhyQuestion,
) -> PolicyTrace {
    let policies = set.policies();
    let views = set.views(&policies);
    let client = question.client.map(|client| client.to_canonical());
    let of_client =
        client.and_then(|client| views.of(client, device_of(set, client, question.device)));
    let policy = of_client.copied().unwrap_or_else(|| set.view());
    let of_view = number_of_view(policy.view)
        .checked_sub(1)
        .and_then(|index| Some((index, input.views.get(index)?)));
    let lists = of_view.map(|(_, view)| view.lists(&input.lists));
    let mut explainer = Explainer {
        set,
        policy,
        lists: lists.as_ref().unwrap_or(&input.lists),
        view: of_view,
        input,
        place_of,
        reasons: Vec::new(),
    };
    let mut target = question.name.clone();
    let handling = explainer
        .of_client(question.client)
        .or_else(|| explainer.of_type(question.qtype))
        .unwrap_or_else(|| explainer.follow(&mut target, question.qtype));
    PolicyTrace {
        view: explainer.policy.view,
        handling,
        reasons: explainer.reasons,
        target,
        question,
    }
}

/// The view of a policy, with or without paused lists.
const fn number_of_view(policy: u8) -> usize {
    policy as usize % VIEWS_MAX
}

/// The client's most likely device: the one with its network.
fn device_of(set: &PolicySet, client: IpAddr, named: u32) -> u32 {
    if named != 0 {
        return named;
    }
    let mut networks = set.links().networks.iter();
    let found = networks.find(|(_, network)| network.contains(client));
    found.map_or(0, |(device, _)| *device)
}

/// Collects the sources that apply.
struct Explainer<'a> {
    set: &'a PolicySet,
    policy: Policy<'a>,
    /// Lists of the view.
    lists: &'a ListsInput,
    /// The view with its index; `None` if the client is in none.
    view: Option<(usize, &'a ViewInput)>,
    input: &'a PolicyInput,
    place_of: &'a dyn Fn(PolicyValue) -> Location,
    reasons: Vec<Statement>,
}

impl Explainer<'_> {
    /// Outcome decided by the client alone.
    fn of_client(&mut self, client: Option<IpAddr>) -> Option<Handling> {
        let client = client?.to_canonical();
        let action = self.policy.admit(client);
        self.tell_client(client, action);
        match action {
            Action::Allow => {
                self.tell_view(client);
                None
            }
            Action::Refuse => Some(Handling::Refused),
            Action::Drop | Action::Local => Some(Handling::Dropped),
        }
    }

    /// Outcome decided by the type alone.
    fn of_type(&mut self, qtype: u16) -> Option<Handling> {
        if (rtype::IXFR..rtype::ANY).contains(&qtype) {
            self.tell(PolicyPart::Type, "nothing that a forwarder has", None);
            return Some(Handling::Refused);
        }
        None
    }

    /// Follows local aliases until another source decides; `name` becomes the last target.
    fn follow(&mut self, name: &mut Vec<u8>, qtype: u16) -> Handling {
        for _ in 0..=CHAIN_MAX {
            let at = name.clone();
            let Some(labels) = Labels::new(&at) else {
                return Handling::Endless;
            };
            let decision = self.policy.decide(&labels, qtype);
            let Decision::Local(Local::Alias(alias)) = decision else {
                return self.translated(&labels, qtype, decision);
            };
            self.tell_record(given(labels.name(), rtype::CNAME, &alias.record));
            if qtype == rtype::ANY {
                // Given alone.
                return Handling::Local;
            }
            *name = alias.target.to_vec();
        }
        self.tell(PolicyPart::Record, "the aliases lead nowhere", None);
        Handling::Endless
    }

    /// Like [`decided`](Self::decided), after DNS64 has had its say: the name of an address that DNS64 has made is decided as that of its IPv4 address.
    fn translated(&mut self, name: &Labels<'_>, qtype: u16, decision: Decision<'_>) -> Handling {
        let may_be = decision.may_be_translated();
        if may_be && self.tell_discovery(name, qtype) {
            return Handling::Local;
        }
        let v4 = may_be.then(|| self.tell_v4_name(name, qtype)).flatten();
        let Some(name) = v4.as_deref().and_then(Labels::new) else {
            return self.decided(name, qtype, decision);
        };
        let decision = self.policy.decide(&name, qtype);
        self.decided(&name, qtype, decision)
    }

    fn decided(&mut self, name: &Labels<'_>, qtype: u16, decision: Decision<'_>) -> Handling {
        match decision {
            Decision::Local(Local::Nodata { .. }) if qtype == rtype::ANY => {
                self.tell_other_types(name);
                Handling::Any
            }
            Decision::Local(local) => {
                self.tell_local(name, qtype, local);
                Handling::Local
            }
            Decision::Special(special) => {
                self.tell_special(name, &special);
                Handling::Special
            }
            Decision::Blocked(blocked) => {
                self.tell_blocked(name, qtype, blocked);
                let record = self.policy.block_record(blocked, qtype);
                Handling::Blocked(record, self.policy.block_ttl_secs)
            }
            Decision::PlainName => {
                let what = "names of one label are not asked for upstream";
                let place = (self.place_of)(PolicyValue::PlainNames);
                self.tell(PolicyPart::PlainName, what, Some(place));
                Handling::PlainName
            }
            Decision::Forward { .. } if qtype == rtype::ANY => {
                self.tell(
                    PolicyPart::Type,
                    "all types at once are not asked for upstream",
                    None,
                );
                Handling::Any
            }
            Decision::Forward { group } => {
                self.tell_allowed(name, qtype);
                self.tell_route(name, qtype, group);
                self.tell_rebind(name);
                self.tell_screen(qtype);
                self.tell_dns64(qtype);
                Handling::Forwarded
            }
        }
    }
}

/// A record as it is given.
fn given(
    owner: &[u8],
    rtype: u16,
    record: &xdnsd_core::policy::local::LocalRecord<'_>,
) -> GivenRecord {
    GivenRecord {
        owner: owner.to_vec(),
        rtype,
        ttl_secs: record.ttl_secs,
        rdata: record.rdata.to_vec(),
    }
}

/// The place of a file without a line.
fn file(path: PathBuf) -> Location {
    Location {
        file: Some(path.display().to_string()),
        ..Location::default()
    }
}

#[cfg(test)]
mod tests;
