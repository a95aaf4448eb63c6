//! Views of a set: other policies for some clients.

use std::path::PathBuf;
use std::sync::Arc;

use xdnsd_core::policy::ranges::AddressRanges;
use xdnsd_core::policy::view::{PAUSED, POLICIES_MAX, VIEWS_MAX, Views, number_of_paused};
use xdnsd_core::policy::{Lists, LocalData, Policy, Rebind, Routes, Screen, Suffixes};

use super::lists::{self, NamedList};
use super::{COMPILED, FilteredFamilies, ListsInput, PolicyInput, PolicySet};
use crate::compile::claims::Others;
use crate::compile::local::{self, LocalInput};
use crate::compile::prefix::Prefix;
use crate::compile::problem::{Notes, Problem};
use crate::compile::ranges::{self, Span};
use crate::compile::routes::compile_suffixes;
use crate::compile::table::random_key;

/// A view in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewInput {
    /// Its name.
    pub name: String,
    /// Its clients, besides those on its devices.
    pub clients: Vec<Prefix>,
    /// True if lists apply in it.
    pub is_filtered: bool,
    /// Files of the lists that apply; empty: all of them.
    pub files: Vec<PathBuf>,
    /// Additional blocked names.
    pub block_names: Vec<String>,
    /// Additional allowed names.
    pub allow_names: Vec<String>,
    /// Upstream group of names without a route.
    pub group: u16,
    /// True if records, hosts, leases and routes apply. Zones always do: without them their names do not exist.
    pub has_local_names: bool,
    /// Families of which no address is given there, besides those of all.
    pub without: FilteredFamilies,
    /// Whether DNS64 is for it; `None`: as for all.
    pub dns64: Option<bool>,
}

impl ViewInput {
    /// Lists of the view; `base` is those of the config.
    #[must_use]
    pub fn lists(&self, base: &ListsInput) -> ListsInput {
        let chosen = |files: &[PathBuf]| {
            let is_chosen = |path: &&PathBuf| self.files.is_empty() || self.files.contains(path);
            files.iter().filter(is_chosen).cloned().collect()
        };
        let with = |names: &[String], more: &[String]| [names, more].concat();
        ListsInput {
            block: chosen(&base.block),
            allow: chosen(&base.allow),
            compiled: chosen(&base.compiled),
            block_names: with(&base.block_names, &self.block_names),
            allow_names: with(&base.allow_names, &self.allow_names),
            ..base.clone()
        }
    }

    /// True if its lists are those of the config.
    fn has_all_lists(&self) -> bool {
        self.is_filtered
            && self.files.is_empty()
            && self.block_names.is_empty()
            && self.allow_names.is_empty()
    }
}

/// A compiled view. Holds only what differs from the set.
#[derive(Clone, Debug)]
pub(super) struct ViewSet {
    pub(super) input: ViewInput,
    /// `None`: those of the set.
    lists: Option<Arc<Vec<NamedList>>>,
    /// `None`: local data of the set, with its routes.
    bare: Option<ViewWithoutLocalNames>,
}

/// Local data of a view without local names.
#[derive(Clone, Debug)]
struct ViewWithoutLocalNames {
    local: Arc<[u8]>,
    rebind_allowed: Arc<[u8]>,
}

impl ViewWithoutLocalNames {
    /// Zones alone, and no routes.
    fn build(input: &PolicyInput) -> Result<Self, Problem> {
        let zones = LocalInput {
            records: Vec::new(),
            hosts: Vec::new(),
            leases: Vec::new(),
            ..input.local.clone()
        };
        let mut notes = Notes::default();
        let local = local::compile(&zones, &Others::NONE, None, &mut notes, random_key)?;
        let allowed = input.rebind.allowed.iter();
        let rebind_allowed = compile_suffixes("rebind.allowed", allowed, random_key)?;
        Ok(Self {
            local: local.into(),
            rebind_allowed: rebind_allowed.into(),
        })
    }
}

/// Compiles the views of the config; `base` is the lists of the set.
pub(super) fn build(input: &PolicyInput, base: &[NamedList]) -> Result<Arc<[ViewSet]>, Problem> {
    let view = |view: &ViewInput| {
        let lists = if view.has_all_lists() {
            None
        } else if view.is_filtered {
            let of_view = view.lists(&input.lists);
            Some(Arc::new(lists::build_of(&of_view, base)?))
        } else {
            Some(Arc::default())
        };
        let bare = (!view.has_local_names).then(|| ViewWithoutLocalNames::build(input));
        Ok(ViewSet {
            input: view.clone(),
            lists,
            bare: bare.transpose()?,
        })
    };
    if input.views.len() >= VIEWS_MAX {
        let what = format!(
            "{} are too many; allowed: {}",
            input.views.len(),
            VIEWS_MAX - 1
        );
        return Err(Problem::of("view", what));
    }
    input.views.iter().map(view).collect()
}

/// View of each client, and whether lists are paused for it: a byte for each range of addresses.
pub(super) fn compile_clients(views: &[ViewSet], paused: &[Prefix]) -> Arc<[u8]> {
    let clients = views.iter().zip(1u8..).flat_map(|(view, number)| {
        let clients = view.input.clients.iter();
        clients.map(move |prefix| (*prefix, number))
    });
    let clients: Vec<_> = clients.collect();
    if clients.is_empty() && paused.is_empty() {
        return Arc::default();
    }
    let lay = |cut, is_ipv4| {
        let cut = ranges::sorted(&clients, is_ipv4).fold(cut, |cut, (prefix, number)| {
            ranges::lay(cut, Span::of(&prefix), |_| number)
        });
        ranges::of_family(paused, is_ipv4).fold(cut, |cut, prefix| {
            ranges::lay(cut, Span::of(prefix), |byte| byte | PAUSED)
        })
    };
    ranges::compile(0, lay, |byte| byte).into()
}

/// Named lists in the form that policy takes.
pub(super) fn lists_of(named: &[NamedList]) -> Lists<'_> {
    let mut lists = Lists::EMPTY;
    for named in named {
        let pushed = lists.push(named.image.list());
        debug_assert!(pushed, "build_lists counted them");
    }
    lists
}

impl PolicySet {
    /// Policies of its views, if it has any or lists are paused for some clients; see [`Views::policies`].
    #[must_use]
    pub fn policies(&self) -> Vec<Policy<'_>> {
        if self.views.is_empty() && self.paused.is_empty() {
            return Vec::new();
        }
        let numbers = 0..=self.views.len() as u8;
        let mut policies = Vec::with_capacity(POLICIES_MAX);
        policies.extend(numbers.clone().map(|number| self.policy_of(number)));
        if !self.paused.is_empty() {
            policies.extend(numbers.map(|number| Policy {
                view: number_of_paused(number),
                lists: Lists::EMPTY,
                ..self.policy_of(number)
            }));
        }
        policies
    }

    /// The views for clients, with these [`policies`](Self::policies).
    #[must_use]
    pub fn views<'p>(&'p self, policies: &'p [Policy<'p>]) -> Views<'p> {
        Views {
            clients: AddressRanges::view(&self.view_clients).expect(COMPILED),
            devices: &self.links.views,
            carried: &self.links.carried,
            policies,
            count: 1 + self.views.len(),
        }
    }

    /// Policy of the view with this number, without a client's pause.
    fn policy_of(&self, number: u8) -> Policy<'_> {
        let base = self.view();
        let view = usize::from(number).checked_sub(1);
        let Some(view) = view.and_then(|index| self.views.get(index)) else {
            return base;
        };
        let own = view.lists.as_ref().filter(|_| !self.is_paused);
        let without = self.screen.without.with(view.input.without);
        let policy = Policy {
            view: number,
            lists: own.map_or(base.lists, |lists| lists_of(lists)),
            default_group: view.input.group,
            screen: Screen {
                without_a: without.a,
                without_aaaa: without.aaaa,
                ..base.screen
            },
            dns64: self.dns64.view(view.input.dns64),
            ..base
        };
        let Some(bare) = &view.bare else {
            return policy;
        };
        let allowed = Suffixes::view(&bare.rebind_allowed).expect(COMPILED);
        Policy {
            local: LocalData::view(&bare.local).expect(COMPILED),
            routes: Routes::EMPTY,
            rebind: Rebind::new(self.rebind_ranges, allowed),
            ..policy
        }
    }

    /// Names of its views, by number from 1 on.
    pub fn view_names(&self) -> impl Iterator<Item = &str> {
        self.views.iter().map(|view| view.input.name.as_str())
    }

    /// True if the policy depends on a client's device.
    #[must_use]
    pub fn has_views_by_device(&self) -> bool {
        !self.links.views.is_empty()
    }

    /// Differs from that of a set whose views have other numbers.
    #[must_use]
    pub const fn views_id(&self) -> u32 {
        self.views_id
    }

    /// The same set with lists paused for these clients.
    #[must_use]
    pub fn without_lists_for(&self, paused: &[Prefix]) -> Self {
        Self {
            view_clients: compile_clients(&self.views, paused),
            paused: paused.into(),
            ..self.renewed()
        }
    }

    /// Lists of a view that has its own.
    pub(super) fn lists_in(&self, view: u8) -> &[NamedList] {
        let view = usize::from(view).checked_sub(1);
        let view = view.and_then(|index| self.views.get(index));
        let own = view.and_then(|view| view.lists.as_ref());
        own.unwrap_or(&self.lists)
    }

    /// Bytes that its views have for themselves.
    pub(super) fn view_bytes(&self) -> usize {
        let of_view = |view: &ViewSet| {
            // A compiled list belongs to the set.
            let lists = view.lists.iter().flat_map(|lists| lists.iter());
            let lists = lists.filter(|list| list.is_of_text());
            let lists: usize = lists.map(NamedList::bytes).sum();
            let bare = view.bare.as_ref();
            lists + bare.map_or(0, |bare| bare.local.len() + bare.rebind_allowed.len())
        };
        self.view_clients.len() + self.views.iter().map(of_view).sum::<usize>()
    }
}
