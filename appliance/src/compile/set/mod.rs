//! Everything that policy is compiled from, and the resulting images.

mod dns64;
mod lists;
mod nft_sets;
mod screen;
mod views;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use xdnsd_core::engine::Settings;
use xdnsd_core::forward::upstreams::UpstreamConfig;
use xdnsd_core::policy::rebind::Ranges;
use xdnsd_core::policy::{
    Acl, BlockAnswer, Blocked, DEFAULT_GROUP, Kinds, LISTS_MAX, LocalData, OnLink, Policy,
    REFLECTOR_PORTS, Rebind, Routes, Suffixes,
};

use super::acl::{self, AclInput};
use super::claims::Others;
pub use super::links::Links;
use super::lists::ListPurpose;
use super::local::{self, LocalInput};
use super::prefix::Prefix;
use super::problem::{Notes, Problem};
use super::routes::{RouteInput, compile_routes, compile_suffixes};
use super::table::random_key;
use crate::os::nf_tables::SetQueue;
pub use dns64::Dns64Input;
use dns64::Dns64Set;
use lists::NamedList;
pub use lists::Taking;
pub use nft_sets::NftSetInput;
use nft_sets::NftSets;
use screen::ScreenSet;
pub use screen::{FilteredFamilies, ScreenInput};
pub use views::ViewInput;
use views::{ViewSet, lists_of};

/// Input of policy from the config.
#[derive(Clone, Debug)]
pub struct PolicyInput {
    /// Which clients are answered.
    pub acl: AclInput,
    /// UDP source ports that get no answer.
    pub reflector_ports: Vec<u16>,
    /// Facts about clients from the machine's devices.
    pub links: Links,
    /// Upstream servers of all groups, by the group numbers of `routes`.
    pub servers: Vec<UpstreamConfig>,
    /// Files that name some of them. They are watched here, and read by whoever knows the machine's devices.
    pub server_files: Vec<PathBuf>,
    /// Names of the groups, by the same numbers.
    pub groups: Vec<String>,
    /// Other settings of the engine.
    pub settings: Settings,
    /// Local data.
    pub local: LocalInput,
    /// Special-use names that are switched on.
    pub special: Kinds,
    /// Blocked and allowed names.
    pub lists: ListsInput,
    /// Upstream groups by suffix. Group 0 is for all other names.
    pub routes: Vec<RouteInput>,
    /// Rebind protection.
    pub rebind: RebindInput,
    /// What of upstream's answers is not passed on.
    pub screen: ScreenInput,
    /// IPv6 addresses made of IPv4 ones.
    pub dns64: Dns64Input,
    /// Names whose addresses go into sets.
    pub nft_sets: Vec<NftSetInput>,
    /// Views: clients with another policy.
    pub views: Vec<ViewInput>,
}

impl Default for PolicyInput {
    fn default() -> Self {
        Self {
            acl: AclInput::default(),
            reflector_ports: REFLECTOR_PORTS.to_vec(),
            links: Links::default(),
            servers: Vec::new(),
            server_files: Vec::new(),
            groups: Vec::new(),
            settings: Settings::DEFAULT,
            local: LocalInput::default(),
            special: Kinds::DEFAULT,
            lists: ListsInput::default(),
            routes: Vec::new(),
            rebind: RebindInput::default(),
            screen: ScreenInput::default(),
            dns64: Dns64Input::default(),
            nft_sets: Vec::new(),
            views: Vec::new(),
        }
    }
}

/// Sources of blocked and allowed names.
#[derive(Clone, Debug)]
pub struct ListsInput {
    /// Text files of blocked names.
    pub block: Vec<PathBuf>,
    /// Text files of allowed names.
    pub allow: Vec<PathBuf>,
    /// Compiled lists, at most [`COMPILED_MAX`].
    pub compiled: Vec<PathBuf>,
    /// Blocked names of the config itself.
    pub block_names: Vec<String>,
    /// Allowed names of the config itself.
    pub allow_names: Vec<String>,
    /// True if a list that lost more than half of its rules is taken while the daemon runs.
    pub take_shrunk: bool,
    /// Answer for blocked names.
    pub answer: BlockAnswer,
    /// TTL of that answer, in seconds.
    pub ttl_secs: u32,
}

impl ListsInput {
    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.block.iter().chain(&self.allow).chain(&self.compiled)
    }

    /// Text files with their purpose.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&PathBuf, ListPurpose)> {
        let block = self.block.iter().map(|path| (path, ListPurpose::Block));
        let allow = self.allow.iter().map(|path| (path, ListPurpose::Allow));
        block.chain(allow)
    }
}

impl Default for ListsInput {
    fn default() -> Self {
        Self {
            block: Vec::new(),
            allow: Vec::new(),
            compiled: Vec::new(),
            block_names: Vec::new(),
            allow_names: Vec::new(),
            take_shrunk: false,
            answer: BlockAnswer::Nxdomain,
            ttl_secs: 60,
        }
    }
}

/// Maximum number of compiled lists in a config. One place is left for the list of all text.
pub const COMPILED_MAX: usize = LISTS_MAX - 1;

/// Rebind protection.
#[derive(Clone, Debug)]
pub struct RebindInput {
    /// Ranges that public names must not resolve to. [`Ranges::NONE`] switches the protection off.
    pub ranges: Ranges,
    /// Suffixes that may resolve to them.
    pub allowed: Vec<String>,
    /// True if routed suffixes may: their upstreams are configured for it, and are mostly on this network.
    pub allow_routed: bool,
}

impl Default for RebindInput {
    fn default() -> Self {
        Self {
            ranges: Ranges::DEFAULT,
            allowed: Vec::new(),
            allow_routed: true,
        }
    }
}

/// Images of policy. Immutable; a reload makes another set, which shares what did not change.
#[derive(Clone, Debug)]
pub struct PolicySet {
    /// Unique to every set: what is cached under it is answered without asking policy again.
    generation: u32,
    acl: Arc<[u8]>,
    reflector_ports: Arc<[u16]>,
    links: Arc<Links>,
    servers: Arc<[UpstreamConfig]>,
    groups: Arc<[String]>,
    settings: Settings,
    local: Arc<[u8]>,
    lists: Arc<Vec<NamedList>>,
    routes: Arc<[u8]>,
    rebind_allowed: Arc<[u8]>,
    special: Kinds,
    block_answer: BlockAnswer,
    block_ttl_secs: u32,
    forward_plain_names: bool,
    denial_ttl_secs: Option<u32>,
    rebind_ranges: Ranges,
    screen: ScreenSet,
    dns64: Dns64Set,
    nft_sets: NftSets,
    /// True if its lists are switched off, see [`without_lists`](Self::without_lists).
    is_paused: bool,
    views: Arc<[ViewSet]>,
    /// Differs between sets whose views have different numbers.
    views_id: u32,
    /// View of each client, see [`xdnsd_core::policy::view`].
    view_clients: Arc<[u8]>,
    /// Clients for whom its lists are paused.
    paused: Arc<[Prefix]>,
}

impl PolicySet {
    /// Compiles everything.
    ///
    /// # Errors
    /// The first problem. Lines that can be skipped go to `notes`.
    pub fn build(
        input: &PolicyInput,
        now_secs: Option<i64>,
        notes: &mut Notes,
    ) -> Result<Self, Problem> {
        let set = Self::build_fixed(input)?
            .with_lists(input, &Taking::default(), notes)?
            .with_local(input, now_secs, notes)?;
        match notes.failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(set),
        }
    }

    /// Compiles what comes from the config alone, so that its validity does not depend on any other file.
    ///
    /// # Errors
    /// The first problem.
    pub(super) fn build_fixed(input: &PolicyInput) -> Result<Self, Problem> {
        let routed = input
            .routes
            .iter()
            .flat_map(|route| &route.suffixes)
            .filter(|_| input.rebind.allow_routed);
        let allowed = input.rebind.allowed.iter().chain(routed);
        let own_records = LocalInput {
            hosts: Vec::new(),
            leases: Vec::new(),
            ..input.local.clone()
        };
        let mut notes = Notes::default();
        let lists = lists::build_own(&input.lists)?;
        let views = views::build(input, &lists)?;
        Ok(Self {
            generation: next_generation(),
            acl: acl::compile(&input.acl)?.into(),
            reflector_ports: input.reflector_ports.as_slice().into(),
            links: Arc::new(input.links.clone()),
            servers: input.servers.as_slice().into(),
            groups: input.groups.as_slice().into(),
            settings: input.settings,
            local: local::compile(&own_records, &Others::NONE, None, &mut notes, random_key)?
                .into(),
            lists: Arc::new(lists),
            routes: compile_routes(&input.routes, random_key)?.into(),
            rebind_allowed: compile_suffixes("rebind.allowed", allowed, random_key)?.into(),
            special: input.special,
            block_answer: input.lists.answer,
            block_ttl_secs: input.lists.ttl_secs,
            forward_plain_names: input.local.forward_plain_names,
            denial_ttl_secs: input.local.denial_ttl_secs(),
            rebind_ranges: input.rebind.ranges,
            screen: ScreenSet::of(&input.screen),
            dns64: Dns64Set::of(&input.dns64),
            nft_sets: NftSets::of(&input.nft_sets)?,
            is_paused: false,
            views_id: next_generation(),
            view_clients: views::compile_clients(&views, &[]),
            views,
            paused: Arc::default(),
        })
    }

    /// The same set with the machine's current addresses and another generation. Cached answers stay valid, but a client may no
    /// longer be a neighbour, and the program in the kernel knows clients by the generation.
    pub(super) fn with_addresses(&self, input: &PolicyInput) -> Self {
        let is_same = *self.links == input.links;
        Self {
            generation: if is_same {
                self.generation
            } else {
                next_generation()
            },
            servers: input.servers.as_slice().into(),
            links: Arc::new(input.links.clone()),
            ..self.clone()
        }
    }

    /// The same set with local data read again: leases get no name that this set's lists or routes have. Unusable files are
    /// noted.
    ///
    /// # Errors
    /// A record of the config is wrong.
    pub(super) fn with_local(
        &self,
        input: &PolicyInput,
        now_secs: Option<i64>,
        notes: &mut Notes,
    ) -> Result<Self, Problem> {
        let others = Others {
            policy: &self.view(),
            links: &input.links,
        };
        let local = local::compile(&input.local, &others, now_secs, notes, random_key)?.into();
        Ok(Self {
            generation: next_generation(),
            local,
            ..self.clone()
        })
    }

    /// The same set, made from `input`, with local data, lists and queue of another one.
    ///
    /// # Errors
    /// There are more lists than fit.
    pub(super) fn with_files_of(&self, other: &Self, input: &PolicyInput) -> Result<Self, Problem> {
        Ok(Self {
            generation: next_generation(),
            local: Arc::clone(&other.local),
            lists: Arc::clone(&other.lists),
            nft_sets: self.nft_sets.with_queue_of(&other.nft_sets),
            views: views::build(input, &other.lists)?,
            views_id: if self.view_names().eq(other.view_names()) {
                other.views_id
            } else {
                self.views_id
            },
            ..self.clone()
        })
    }

    /// The same set under another generation.
    pub(super) fn renewed(&self) -> Self {
        Self {
            generation: next_generation(),
            ..self.clone()
        }
    }

    /// The same set with all lists switched off.
    #[must_use]
    pub fn without_lists(&self) -> Self {
        Self {
            lists: Arc::default(),
            is_paused: true,
            ..self.renewed()
        }
    }

    /// True if its lists are switched off.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The same set with the lists read again. An unusable file is noted, and keeps its rules from this set.
    ///
    /// # Errors
    /// A name of the config is wrong, or there are more lists than fit.
    pub(super) fn with_lists(
        &self,
        input: &PolicyInput,
        taking: &Taking,
        notes: &mut Notes,
    ) -> Result<Self, Problem> {
        let lists = lists::build(&input.lists, &self.lists, taking, notes)?;
        Ok(Self {
            generation: next_generation(),
            views: views::build(input, &lists)?,
            lists: Arc::new(lists),
            ..self.clone()
        })
    }

    /// Upstream servers of this set.
    #[must_use]
    pub fn servers(&self) -> &[UpstreamConfig] {
        &self.servers
    }

    /// Other settings of the engine.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Facts about clients from the machine's devices.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Queue for addresses that go into sets; `None` if none do.
    #[must_use]
    pub const fn set_queue(&self) -> Option<&Arc<SetQueue>> {
        self.nft_sets.queue.as_ref()
    }

    /// Names of the upstream groups.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The policy as a view of the images. Costs a few dozen loads: a worker takes it once per policy.
    #[must_use]
    pub fn view(&self) -> Policy<'_> {
        Policy {
            generation: self.generation,
            view: 0,
            acl: Acl::view(&self.acl).expect(COMPILED),
            reflector_ports: &self.reflector_ports,
            martian_sources: &self.links.martian_sources,
            on_link: OnLink::view(&self.links.on_link).by(&self.links.served),
            local: LocalData::view(&self.local).expect(COMPILED),
            special: self.special,
            lists: lists_of(&self.lists),
            block_answer: self.block_answer,
            block_ttl_secs: self.block_ttl_secs,
            routes: Routes::view(&self.routes).expect(COMPILED),
            default_group: DEFAULT_GROUP,
            forward_plain_names: self.forward_plain_names,
            denial_ttl_secs: self.denial_ttl_secs,
            rebind: Rebind::new(
                self.rebind_ranges,
                Suffixes::view(&self.rebind_allowed).expect(COMPILED),
            ),
            screen: self.screen.view(),
            dns64: self.dns64.view(None),
            address_sets: self.nft_sets.view(),
        }
    }

    /// The file, or the key of the config, that blocks a name in this view.
    #[must_use]
    pub fn source(&self, view: u8, blocked: Blocked) -> &str {
        let list = self.lists_in(view).get(usize::from(blocked.image));
        // A compiled file does not keep the names of its sources.
        let source = list.and_then(|list| {
            list.sources
                .get(usize::from(blocked.list))
                .or(list.sources.first())
        });
        source.map_or("?", String::as_str)
    }

    /// Files with names that are blocked or allowed, what each is for, and the number of its rules in force. One that could never
    /// be read is left out.
    #[must_use]
    pub fn list_rules(&self) -> Vec<(String, &'static str, u64)> {
        self.lists
            .iter()
            .flat_map(NamedList::rules_by_file)
            .collect()
    }

    /// Number of names in the lists.
    #[cfg(test)]
    pub fn listed_names(&self) -> usize {
        self.lists
            .iter()
            .map(|named| named.image.list().count())
            .sum()
    }

    /// Bytes of all images.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lists: usize = self.lists.iter().map(NamedList::bytes).sum();
        let images = [&self.acl, &self.local, &self.routes, &self.rebind_allowed];
        let images: usize = images.iter().map(|image| image.len()).sum();
        images
            + lists
            + self.screen.bytes()
            + self.dns64.bytes()
            + self.nft_sets.bytes()
            + self.view_bytes()
    }
}

/// Why viewing an image cannot fail.
const COMPILED: &str = "compiled by this process and immutable since";

/// The next generation, from 1 on. With a new set every second it wraps after 136 years.
fn next_generation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
