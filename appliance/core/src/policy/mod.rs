//! Policy: local answers, access control, and the choice of the upstream group. Pure look-ups in immutable bytes.
//!
//! Configuration and files are compiled into images of bytes; a [`Policy`] is a view of them. Each image is loaded through
//! one gate (`view`, and `check` for a list file). Every read after that is checked again, so wrong bytes give wrong
//! answers at worst and never a panic. A reload builds new images and swaps a pointer.
//!
//! [`view`] selects the policy of a client, if there are several. A query is then decided in this order; the first part
//! with an answer wins:
//!
//! 1. [`acl`]: access control.
//! 2. [`local`]: the operator's records. A zone's NXDOMAIN gives way to a route into it and to names that an RFC fixes.
//! 3. [`special`]: special-use names, unless a route names the special zone or a name in it.
//! 4. [`list`]: allowed names pass, blocked ones are answered as [`BlockAnswer`] says.
//! 5. plain names: a question for a name of one label is not asked upstream, if the config says so.
//! 6. [`route`]: the upstream group.
//!
//! Answers from upstream are looked at by [`screen`], by [`list`] (names reached through a CNAME) and by [`rebind`]. What they
//! lack may be made of others by [`dns64`]. The addresses in what is given may go into sets of the packet filter, see
//! [`address_sets`].

pub mod acl;
pub mod address_sets;
mod bytes;
pub mod dns64;
pub mod list;
pub mod local;
pub mod name;
pub mod on_link;
pub mod ranges;
pub mod rebind;
pub mod route;
pub mod screen;
pub mod special;
pub mod table;
pub mod view;

pub use acl::{Acl, Action};
pub use address_sets::AddressSets;
pub use dns64::{Dns64, TranslationPrefix};
pub use list::{List, Listing, Rank, Ruling};
pub use local::{Local, LocalData};
pub use name::Labels;
pub use on_link::OnLink;
pub use rebind::{Finding, Rebind};
pub use route::{DEFAULT_GROUP, Route, Routes, Suffixes};
pub use screen::Screen;
pub use special::{Kinds, Special};
pub use view::Views;

use core::net::IpAddr;

use crate::dns::{Name, rtype};
use on_link::AddressBits;
use special::SpecialUse;

/// Most compiled lists in force at once: one from text files, the others mapped.
pub const LISTS_MAX: usize = 4;

/// UDP ports of services that answer every datagram: echo, daytime, quote of the day, chargen and time (RFC 862, 867, 865,
/// 864, 868). BIND refuses the same ports except for quote of the day, which answers just as well.
pub const REFLECTOR_PORTS: [u16; 5] = [7, 13, 17, 19, 37];

/// Answer for blocked names. The TTL is [`Policy::block_ttl_secs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockAnswer {
    /// NXDOMAIN.
    Nxdomain,
    /// NODATA for all types.
    Nodata,
    /// 0.0.0.0 and ::; NODATA for other types.
    ZeroAddress,
    /// These addresses; NODATA for other types and for a family without an address.
    Address {
        /// Address for A.
        v4: Option<[u8; 4]>,
        /// Address for AAAA.
        v6: Option<[u8; 16]>,
    },
}

/// Answer for one type of a blocked name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRecord {
    /// NXDOMAIN.
    Nxdomain,
    /// NODATA.
    Nodata,
    /// An A record.
    A([u8; 4]),
    /// An AAAA record.
    Aaaa([u8; 16]),
}

impl BlockAnswer {
    /// The answer for a question of this type.
    #[must_use]
    pub fn record(&self, qtype: u16) -> BlockRecord {
        let (v4, v6) = match *self {
            Self::Nxdomain => return BlockRecord::Nxdomain,
            Self::Nodata => (None, None),
            Self::ZeroAddress => (Some([0; 4]), Some([0; 16])),
            Self::Address { v4, v6 } => (v4, v6),
        };
        match qtype {
            rtype::A => v4.map_or(BlockRecord::Nodata, BlockRecord::A),
            rtype::AAAA => v6.map_or(BlockRecord::Nodata, BlockRecord::Aaaa),
            _ => BlockRecord::Nodata,
        }
    }
}

/// Source of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Index of the compiled list.
    pub image: u8,
    /// Index of the source within it.
    pub list: u16,
    /// True if the rule applies to some types alone, so that the name exists.
    pub is_of_types: bool,
}

/// Lists in force.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    lists: [List<'a>; LISTS_MAX],
    used: usize,
}

impl<'a> Lists<'a> {
    /// No lists: nothing is blocked or allowed.
    pub const EMPTY: Self = Self {
        lists: [List::EMPTY; LISTS_MAX],
        used: 0,
    };

    /// Adds a list. When full, returns `false` and leaves the list out.
    #[must_use]
    pub fn push(&mut self, list: List<'a>) -> bool {
        let Some(place) = self.lists.get_mut(self.used) else {
            return false;
        };
        *place = list;
        self.used += 1;
        true
    }

    /// The lists in the order in which they were added.
    #[must_use]
    pub fn as_slice(&self) -> &[List<'a>] {
        self.lists.get(..self.used).unwrap_or_default()
    }

    /// The block of a question for `name`: by the rule of the highest rank in all lists; among several, the first list's.
    #[must_use]
    pub fn blocked(&self, name: &Labels<'_>, qtype: u16) -> Option<Blocked> {
        let (image, ruling) = self.ruling(name, qtype);
        matches!(ruling.rank, Rank::Block | Rank::ImportantBlock).then_some(Blocked {
            image,
            list: ruling.list,
            is_of_types: ruling.is_of_types,
        })
    }

    /// True if the highest ranking rule for a question for `name` allows it.
    #[must_use]
    pub fn allows(&self, name: &Labels<'_>, qtype: u16) -> bool {
        let (_, ruling) = self.ruling(name, qtype);
        matches!(ruling.rank, Rank::Allow | Rank::ImportantAllow)
    }

    /// The ruling of all lists on a question for `name`, and the index of its list.
    #[must_use]
    pub fn ruling(&self, name: &Labels<'_>, qtype: u16) -> (u8, Ruling) {
        let mut decides = (0, Ruling::NONE);
        for (image, list) in self.as_slice().iter().enumerate() {
            let ruling = list.ruling(name, qtype);
            if ruling.rank > decides.1.rank {
                decides = (image as u8, ruling);
            }
        }
        decides
    }
}

/// Source of the answer to a question.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'q> {
    /// Local data. Never [`Local::Unknown`]; an alias is followed by [`LocalData::resolve`].
    Local(Local<'q>),
    /// A special-use name.
    Special(Special),
    /// A blocked name.
    Blocked(Blocked),
    /// A name of one label that policy does not forward: NXDOMAIN.
    PlainName,
    /// The upstream group.
    Forward {
        /// Index of the group.
        group: u16,
    },
}

impl Decision<'_> {
    /// True if DNS64 may answer instead: upstream is asked, or the name is in a reverse zone that is empty here, in which a prefix
    /// for NAT64 may lie.
    #[must_use]
    pub fn may_be_translated(&self) -> bool {
        match self {
            Self::Forward { .. } => true,
            Self::Special(special) => special.kind == SpecialUse::PrivateReverse,
            Self::Local(_) | Self::Blocked(_) | Self::PlainName => false,
        }
    }
}

/// All parts of policy, as one view. Each part can be used by itself.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Generation of this policy within the process. A cached answer of another generation is judged again before it is
    /// given. 32 bits, so that it does not wrap, and is read in one load, by the program in the kernel as well. 0 is
    /// reserved for [`Policy::OPEN`].
    pub generation: u32,
    /// Number of the policy's view; 0 for clients in no view. It is part of the key of cached answers and of questions in
    /// flight.
    pub view: u8,
    /// Access control of clients.
    pub acl: Acl<'a>,
    /// UDP source ports that get no answer: services there answer any datagram.
    pub reflector_ports: &'a [u16],
    /// Addresses that no query from the wire can have: our own, and the first and last of each network. In ascending order.
    pub martian_sources: &'a [IpAddr],
    /// Served devices and the networks of our neighbours.
    pub on_link: OnLink<'a>,
    /// Local data.
    pub local: LocalData<'a>,
    /// Special-use names that are switched on.
    pub special: Kinds,
    /// Blocked and allowed names.
    pub lists: Lists<'a>,
    /// Answer for blocked names.
    pub block_answer: BlockAnswer,
    /// TTL of answers for blocked names, in seconds.
    pub block_ttl_secs: u32,
    /// Upstream groups by suffix.
    pub routes: Routes<'a>,
    /// Upstream group of names without a route.
    pub default_group: u16,
    /// True if questions for names of one label go upstream. Those for types at a zone cut always do.
    pub forward_plain_names: bool,
    /// Longest TTL of a denial for a name that a lease or a hosts file may add, in seconds; `None` if local data does not
    /// change by itself.
    pub denial_ttl_secs: Option<u32>,
    /// Rebind protection: addresses that upstream may not give to a public name.
    pub rebind: Rebind<'a>,
    /// Which addresses it may give to none.
    pub screen: Screen<'a>,
    /// IPv6 addresses made of IPv4 ones.
    pub dns64: Dns64<'a>,
    /// Names whose addresses go into sets of the packet filter.
    pub address_sets: AddressSets<'a>,
}

/// Properties of a question on which DNS64 depends.
#[derive(Clone, Copy, Debug)]
pub struct Translated {
    /// QTYPE.
    pub qtype: u16,
    /// DO.
    pub dnssec_ok: bool,
    /// CD.
    pub checking_disabled: bool,
}

impl Translated {
    /// True if the client validates by itself, so that it gets nothing that nobody has signed (RFC 6147 section 5.5).
    const fn is_validated_by_client(self) -> bool {
        self.dnssec_ok && self.checking_disabled
    }
}

impl<'a> Policy<'a> {
    /// A policy that allows every client and forwards every question.
    pub const OPEN: Self = Self {
        generation: 0,
        view: 0,
        acl: Acl::OPEN,
        reflector_ports: &[],
        martian_sources: &[],
        on_link: OnLink::NONE,
        local: LocalData::EMPTY,
        special: Kinds::NONE,
        lists: Lists::EMPTY,
        block_answer: BlockAnswer::Nxdomain,
        block_ttl_secs: 0,
        routes: Routes::EMPTY,
        default_group: DEFAULT_GROUP,
        forward_plain_names: true,
        denial_ttl_secs: None,
        rebind: Rebind::OFF,
        screen: Screen::OFF,
        dns64: Dns64::OFF,
        address_sets: AddressSets::NONE,
    };

    /// Applies access control to a client. Comes first, before its message is read.
    #[must_use]
    pub fn admit(&self, client: IpAddr) -> Action {
        let client = client.to_canonical();
        match self.acl.action_canonical(client) {
            Action::Local if self.is_local(client) => Action::Allow,
            Action::Local => Action::Drop,
            action @ (Action::Allow | Action::Refuse | Action::Drop) => action,
        }
    }

    /// True if this canonical address is one of this machine, or of a neighbour on a served interface.
    fn is_local(&self, client: IpAddr) -> bool {
        self.on_link.contains_canonical(client) || self.is_own(client)
    }

    /// True if the address is loopback or martian: this machine's own, or one that no other host may have.
    #[must_use]
    pub fn is_own(&self, client: IpAddr) -> bool {
        client.is_loopback() || self.is_martian(client)
    }

    /// True if no query from the wire can have this source address.
    #[must_use]
    pub fn is_martian(&self, source: IpAddr) -> bool {
        let source = AddressBits::of(source);
        let found = self
            .martian_sources
            .binary_search_by_key(&source, |martian| AddressBits::of(*martian));
        found.is_ok()
    }

    /// True if this client is answered only if it is a neighbour.
    #[must_use]
    pub fn is_for_neighbours(&self, client: IpAddr) -> bool {
        self.acl.action(client) == Action::Local
    }

    /// True if this client is refused for being no neighbour: only neighbours are answered, and no rule allows it.
    #[must_use]
    pub fn is_stranger(&self, client: IpAddr) -> bool {
        self.is_for_neighbours(client) && !self.is_local(client.to_canonical())
    }

    /// True if a query from this client may come by this device. A client that is answered only as a neighbour has to come
    /// by a served device, because a network's addresses can be forged from beyond it.
    #[must_use]
    pub fn may_come_by(&self, client: IpAddr, device: u32) -> bool {
        self.on_link.is_served(device) || !self.is_for_neighbours(client)
    }

    /// True if a datagram from this source port gets no answer: port 0 cannot be answered, and an answer to a service that
    /// answers everything would come back as the next query.
    #[must_use]
    pub fn is_silent_port(&self, port: u16) -> bool {
        port == 0 || self.reflector_ports.contains(&port)
    }

    /// Decides the source of the answer to a question of class IN.
    #[must_use]
    pub fn decide<'q>(&self, name: &Labels<'q>, qtype: u16) -> Decision<'q>
    where
        'a: 'q,
    {
        if let Some(local) = self.decide_local(name, qtype) {
            return Decision::Local(local);
        }
        if let Some(special) = self.decide_special(name, qtype) {
            return Decision::Special(special);
        }
        if let Some(blocked) = self.lists.blocked(name, qtype) {
            return Decision::Blocked(blocked);
        }
        self.decide_upstream(name, qtype)
    }

    /// Answers from local data as far as possible, see [`LocalData::resolve`]: a routed name is not answered from it.
    pub fn resolve<'q>(
        &self,
        name: &Labels<'q>,
        qtype: u16,
        emit: impl FnMut(&'q [u8], local::LocalRecord<'q>),
    ) -> local::End<'q>
    where
        'a: 'q,
    {
        let is_open = |name: &Labels<'q>, found: &Local<'q>| self.is_open(name, qtype, found);
        self.local.resolve(name, qtype, is_open, emit)
    }

    /// Answer for a blocked question. A name that is blocked for some types alone exists, so it never gets NXDOMAIN.
    #[must_use]
    pub fn block_record(&self, blocked: Blocked, qtype: u16) -> BlockRecord {
        let record = self.block_answer.record(qtype);
        if blocked.is_of_types && record == BlockRecord::Nxdomain {
            BlockRecord::Nodata
        } else {
            record
        }
    }

    fn decide_local<'q>(&self, name: &Labels<'q>, qtype: u16) -> Option<Local<'q>>
    where
        'a: 'q,
    {
        let local = self.local.lookup(name, qtype);
        (!self.is_open(name, qtype, &local)).then_some(local)
    }

    /// True if another source is believed about the name than local data, in which this was found.
    fn is_open(&self, name: &Labels<'_>, qtype: u16, local: &Local<'_>) -> bool {
        match *local {
            Local::Unknown => true,
            // A route covers this part of the zone: an empty local zone does not hide it.
            Local::Nxdomain { zone } => {
                self.is_routed(name, zone_depth(zone)) || self.is_fixed(name, qtype)
            }
            // As for a delegation: the servers of a zone cannot say whether it is signed.
            Local::Nodata { zone } if qtype == rtype::DS && zone == Some(name.name()) => {
                self.is_parent_elsewhere(name)
            }
            // The apex, or a parent of names with data: a route that covers it knows more.
            Local::Nodata { zone } => {
                let is_routed = zone.is_some_and(|zone| self.is_routed(name, zone_depth(zone)));
                !self.local.has_records(name) && (is_routed || self.is_fixed(name, qtype))
            }
            Local::Records(_) | Local::Alias(_) => false,
        }
    }

    /// True if the answer for this name is not for a local zone to give: an RFC fixes it, and no route names its zone.
    fn is_fixed(&self, name: &Labels<'_>, qtype: u16) -> bool {
        if name.name() == dns64::DISCOVERY_NAME {
            return self.dns64.prefix.is_some() && !self.is_routed(name, 1);
        }
        let special = self.decide_special(name, qtype);
        special.is_some_and(|special| !special.kind.is_for_private_use())
    }

    /// True if local data does not know the name's parent.
    fn is_parent_elsewhere(&self, name: &Labels<'_>) -> bool {
        let above = name.count().checked_sub(1).map(|depth| name.suffix(depth));
        let parent = above.and_then(Labels::new);
        parent.is_some_and(|parent| matches!(self.local.lookup(&parent, rtype::DS), Local::Unknown))
    }

    fn decide_special(&self, name: &Labels<'_>, qtype: u16) -> Option<Special> {
        let mut special = special::lookup(name, qtype, self.special)?;
        if special.answer == special::ZoneAnswer::Nxdomain && self.local.is_parent(name) {
            special.answer = special::ZoneAnswer::Nodata;
        }
        (!self.is_routed(name, special.zone_depth)).then_some(special)
    }

    /// Route of a question that is asked upstream; `None` for the default group.
    #[must_use]
    pub fn route(&self, name: &Labels<'_>, qtype: u16) -> Option<Route> {
        let route = self.routes.lookup(name);
        // The DS of a delegation belongs to the parent zone (RFC 4035 section 3.1.4.1): the zone's own server cannot say
        // whether it is signed.
        let is_apex = route.is_some_and(|route| route.depth == name.count() && route.depth > 0);
        if qtype == rtype::DS && is_apex {
            let parent = Labels::new(name.suffix(name.count() - 1));
            return parent.and_then(|parent| self.routes.lookup(&parent));
        }
        route
    }

    fn decide_upstream<'q>(&self, name: &Labels<'q>, qtype: u16) -> Decision<'q> {
        let is_plain = name.count() == 1 && !local::is_of_zone_cut(qtype);
        match self.route(name, qtype) {
            Some(route) if route.depth > 0 => Decision::Forward { group: route.group },
            _ if is_plain && !self.forward_plain_names => match self.local.is_parent(name) {
                true => Decision::Local(Local::Nodata { zone: None }),
                false => Decision::PlainName,
            },
            Some(route) => Decision::Forward { group: route.group },
            None => Decision::Forward {
                group: self.default_group,
            },
        }
    }

    /// Prefix of the addresses that are made where the answer to this question has none; `None` if it stays without. Where IPv6
    /// addresses are withheld, none are made.
    #[must_use]
    pub const fn translation(&self, asked: Translated) -> Option<TranslationPrefix> {
        let is_for_addresses = asked.qtype == rtype::AAAA && !self.screen.without_aaaa;
        if is_for_addresses && !asked.is_validated_by_client() {
            self.dns64.prefix
        } else {
            None
        }
    }

    /// Name that is asked for in place of `name`, which is that of an address that DNS64 has made. `None` for other questions,
    /// and where a route names the zone of the address.
    #[must_use]
    pub fn translated_name(&self, name: &Labels<'_>, asked: Translated) -> Option<Name> {
        if asked.qtype != rtype::PTR || asked.is_validated_by_client() {
            return None;
        }
        let found = self.dns64.name_of_v4(name)?;
        (!self.is_routed(name, 1)).then_some(found)
    }

    /// Prefix that a client learns by this question (RFC 7050); `None` for other questions, and where a route names the name.
    #[must_use]
    pub fn discovered(&self, name: &Labels<'_>, asked: Translated) -> Option<TranslationPrefix> {
        let prefix = self.translation(asked)?;
        let is_it = name.name() == dns64::DISCOVERY_NAME && !self.is_routed(name, 1);
        is_it.then_some(prefix)
    }

    /// True if a route covers the name at a depth of `depth` labels or more.
    fn is_routed(&self, name: &Labels<'_>, depth: usize) -> bool {
        self.routes
            .lookup(name)
            .is_some_and(|route| route.depth >= depth)
    }
}

fn zone_depth(zone: &[u8]) -> usize {
    Labels::new(zone).map_or(0, |zone| zone.count())
}

#[cfg(test)]
mod tests;
