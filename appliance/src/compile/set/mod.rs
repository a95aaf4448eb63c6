//! Everything that policy is compiled from, and the images that it is compiled to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use xdnsd_core::engine::Settings;
use xdnsd_core::forward::upstreams::UpstreamConfig;
use xdnsd_core::policy::rebind::Ranges;
use xdnsd_core::policy::{
    Acl, BlockAnswer, Blocked, Kinds, LISTS_MAX, List, Lists, LocalData, OnLink, Policy,
    REFLECTOR_PORTS, Rebind, Routes, Suffixes,
};

use super::acl::{self, AclInput};
use super::claims::Others;
pub use super::links::Links;
use super::list_file::{ListImage, finish};
use super::lists::{ListBuilder, ListPurpose, SOURCES_MAX};
use super::local::{self, LocalInput};
use super::problem::{Notes, Problem};
use super::room;
use super::routes::{RouteInput, compile_routes, compile_suffixes};
use super::table::random_key;
use crate::os::files::{self, Stamp};
use crate::text;

/// What the config says about policy.
#[derive(Clone, Debug)]
pub struct PolicyInput {
    /// Which clients are answered.
    pub acl: AclInput,
    /// UDP source ports that get no answer.
    pub reflector_ports: Vec<u16>,
    /// What the machine's devices say of clients.
    pub links: Links,
    /// The upstream servers of all groups, by the numbers of `routes`.
    pub servers: Vec<UpstreamConfig>,
    /// The names of the groups, by the same numbers.
    pub groups: Vec<String>,
    /// What the engine is set to besides.
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
}

impl Default for PolicyInput {
    fn default() -> Self {
        Self {
            acl: AclInput::default(),
            reflector_ports: REFLECTOR_PORTS.to_vec(),
            links: Links::default(),
            servers: Vec::new(),
            groups: Vec::new(),
            settings: Settings::DEFAULT,
            local: LocalInput::default(),
            special: Kinds::DEFAULT,
            lists: ListsInput::default(),
            routes: Vec::new(),
            rebind: RebindInput::default(),
        }
    }
}

/// Where blocked and allowed names come from.
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
    /// Whether a list that lost more than half of its rules is taken while the daemon runs.
    pub take_shrunk: bool,
    /// What blocked names get.
    pub answer: BlockAnswer,
    /// With this TTL, in seconds.
    pub ttl_secs: u32,
}

impl ListsInput {
    /// All of its files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.block.iter().chain(&self.allow).chain(&self.compiled)
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

/// Most compiled lists of a config. One place is left for what comes from text.
pub const COMPILED_MAX: usize = LISTS_MAX - 1;

/// Rebind protection.
#[derive(Clone, Debug)]
pub struct RebindInput {
    /// Ranges that public names must not resolve to. [`Ranges::NONE`] switches the protection off.
    pub ranges: Ranges,
    /// Suffixes that may resolve to them.
    pub allowed: Vec<String>,
    /// Whether routed suffixes may: their upstreams were named for it, and are mostly on this network.
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

/// The images of policy. Immutable; a reload makes another set, which shares what did not change.
#[derive(Clone, Debug)]
pub struct PolicySet {
    /// Another one for every set: what is cached under it is given without asking policy again.
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
    /// Its lists say nothing, see [`without_lists`](Self::without_lists).
    is_paused: bool,
}

/// A list and where its names come from.
#[derive(Debug)]
struct NamedList {
    image: Arc<ListImage>,
    /// By source index; a compiled file is one source.
    sources: Vec<String>,
    /// The state of the compiled file that was read; `None`: it is none, or was written a moment before.
    stamp: Option<Stamp>,
}

impl PolicySet {
    /// Compiles everything.
    ///
    /// # Errors
    /// The first thing that is wrong. Lines that can be passed over go to `notes`.
    pub fn build(
        input: &PolicyInput,
        now_secs: Option<i64>,
        notes: &mut Notes,
    ) -> Result<Self, Problem> {
        let set = Self::build_fixed(input)?
            .with_lists(input, notes)?
            .with_local(input, now_secs, notes)?;
        match notes.failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(set),
        }
    }

    /// Compiles what comes from the config alone: whether it is right does not depend on any other file.
    ///
    /// # Errors
    /// The first thing that is wrong.
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
            lists: Arc::new(Vec::from_iter(build_text_list(
                &input.lists,
                &[],
                &mut notes,
            )?)),
            routes: compile_routes(&input.routes, random_key)?.into(),
            rebind_allowed: compile_suffixes("rebind.allowed", allowed, random_key)?.into(),
            special: input.special,
            block_answer: input.lists.answer,
            block_ttl_secs: input.lists.ttl_secs,
            forward_plain_names: input.local.forward_plain_names,
            denial_ttl_secs: input.local.denial_ttl_secs(),
            rebind_ranges: input.rebind.ranges,
            is_paused: false,
        })
    }

    /// The same set with the addresses that the machine has by now. What is cached is not concerned, but whoever was answered
    /// may be no neighbour any more, and the program in the kernel knows clients by the generation.
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

    /// The same set with local data read anew: leases get no name that this set's lists or routes have. Files that cannot be
    /// used are noted.
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

    /// The same set with the local data and the lists of another one.
    pub(super) fn with_files_of(&self, other: &Self) -> Self {
        Self {
            generation: next_generation(),
            local: Arc::clone(&other.local),
            lists: Arc::clone(&other.lists),
            ..self.clone()
        }
    }

    /// The same set under another generation.
    pub(super) fn renewed(&self) -> Self {
        Self {
            generation: next_generation(),
            ..self.clone()
        }
    }

    /// The same set where no list says anything.
    #[must_use]
    pub fn without_lists(&self) -> Self {
        Self {
            lists: Arc::default(),
            is_paused: true,
            ..self.renewed()
        }
    }

    /// Whether it was made by that.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The same set with the lists read anew. Files that cannot be used are noted.
    ///
    /// # Errors
    /// A name of the config is wrong, or there are more lists than fit.
    pub(super) fn with_lists(
        &self,
        input: &PolicyInput,
        notes: &mut Notes,
    ) -> Result<Self, Problem> {
        let lists = Arc::new(build_lists(&input.lists, &self.lists, notes)?);
        Ok(Self {
            generation: next_generation(),
            lists,
            ..self.clone()
        })
    }

    /// The upstream servers that go with it.
    #[must_use]
    pub fn servers(&self) -> &[UpstreamConfig] {
        &self.servers
    }

    /// What the engine is set to besides.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The names of their groups.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// A view to ask. Costs a few dozen loads: a worker takes it once per policy.
    #[must_use]
    pub fn view(&self) -> Policy<'_> {
        const COMPILED: &str = "compiled by this process and immutable since";
        let mut lists = Lists::EMPTY;
        for named in self.lists.iter() {
            let pushed = lists.push(named.image.list());
            debug_assert!(pushed, "build_lists counted them");
        }
        Policy {
            generation: self.generation,
            acl: Acl::view(&self.acl).expect(COMPILED),
            reflector_ports: &self.reflector_ports,
            martian_sources: &self.links.martian_sources,
            on_link: OnLink::view(&self.links.on_link).by(&self.links.served),
            local: LocalData::view(&self.local).expect(COMPILED),
            special: self.special,
            lists,
            block_answer: self.block_answer,
            block_ttl_secs: self.block_ttl_secs,
            routes: Routes::view(&self.routes).expect(COMPILED),
            forward_plain_names: self.forward_plain_names,
            denial_ttl_secs: self.denial_ttl_secs,
            rebind: Rebind::new(
                self.rebind_ranges,
                Suffixes::view(&self.rebind_allowed).expect(COMPILED),
            ),
        }
    }

    /// The file, or the key of the config, that blocks a name.
    #[must_use]
    pub fn source(&self, blocked: Blocked) -> &str {
        let list = self.lists.get(usize::from(blocked.image));
        // A compiled file does not keep the names of its sources.
        let source = list.and_then(|list| {
            list.sources
                .get(usize::from(blocked.list))
                .or(list.sources.first())
        });
        source.map_or("?", String::as_str)
    }

    /// Names in the lists.
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
        let lists: usize = self
            .lists
            .iter()
            .map(|named| named.image.bytes().len())
            .sum();
        self.acl.len() + self.local.len() + self.routes.len() + self.rebind_allowed.len() + lists
    }
}

/// The number of a set: from 1 on. With a new set every second it would come round after 136 years.
fn next_generation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn build_lists(
    input: &ListsInput,
    before: &[NamedList],
    notes: &mut Notes,
) -> Result<Vec<NamedList>, Problem> {
    let block = input.block.iter().map(|path| (path, ListPurpose::Block));
    let allow = input.allow.iter().map(|path| (path, ListPurpose::Allow));
    let files: Vec<_> = block.chain(allow).collect();
    let mut lists = Vec::from_iter(build_text_list(input, &files, notes)?);
    for path in &input.compiled {
        let list = notes.or_fail(open_compiled(path, before));
        if let Some(list) = &list {
            let names = list.image.list().count();
            notes.load(path, names);
            notes.told.push(format!(
                "{}: {}",
                path.display(),
                text::count(names, "name")
            ));
        }
        lists.extend(list);
    }
    Ok(lists)
}

/// A compiled list: the one that is in memory where its file is the same, so that it does not take its room twice.
fn open_compiled(path: &Path, before: &[NamedList]) -> Result<NamedList, Problem> {
    let wrong = |error: std::io::Error| Problem::with_file(path, &error);
    let file = files::open(path).map_err(wrong)?;
    let stamp = Stamp::of(&file.metadata().map_err(wrong)?);
    let name = path.display().to_string();
    let is_same = |list: &&NamedList| list.stamp == Some(stamp) && list.sources == [name.as_str()];
    let image = match before.iter().find(is_same) {
        Some(list) => Arc::clone(&list.image),
        None => Arc::new(ListImage::read(path, file)?),
    };
    Ok(NamedList {
        image,
        sources: vec![name],
        stamp: stamp.is_settled().then_some(stamp),
    })
}

/// The list of the config's own names and of these text files; `None` where there is nothing.
fn build_text_list(
    input: &ListsInput,
    files: &[(&PathBuf, ListPurpose)],
    notes: &mut Notes,
) -> Result<Option<NamedList>, Problem> {
    check_counts(input)?;
    let mut builder = ListBuilder::default();
    let mut sources = Vec::new();
    for &(path, purpose) in files {
        let tally = builder.add_file(path, sources.len() as u16, purpose);
        if let Some(tally) = notes.or_fail(tally) {
            notes.load(path, tally.rules);
            notes.told.push(format!("{}: {tally}", path.display()));
        }
        sources.push(path.display().to_string());
    }
    let keys = [
        ("filter.block", &input.block_names, ListPurpose::Block),
        ("filter.allow", &input.allow_names, ListPurpose::Allow),
    ];
    for (key, names, purpose) in keys {
        for text in names {
            let wrong = |error| Problem::of(key, format!("`{text}` {error}"));
            builder
                .add_name(text, sources.len() as u16, purpose)
                .map_err(wrong)?;
        }
        sources.push(key.into());
    }
    if builder.is_empty() {
        return Ok(None);
    }
    // Twice: it is made, and then copied to where nobody can change it. What it is made of is gone by then.
    let no_room = |error: std::io::Error| Problem::of("lists", error.to_string());
    room::check_now(builder.image_bytes_max()).map_err(no_room)?;
    let image = finish(builder)?;
    room::check_now(image.len() as u64).map_err(no_room)?;
    let image = Arc::new(ListImage::of(&image)?);
    debug_assert!(
        List::check(image.bytes()).is_ok(),
        "what was compiled can be read"
    );
    Ok(Some(NamedList {
        image,
        sources,
        stamp: None,
    }))
}

/// Whether all lists of a config have a place.
fn check_counts(input: &ListsInput) -> Result<(), Problem> {
    if input.compiled.len() > COMPILED_MAX {
        let what = format!(
            "{} compiled lists are too many; allowed: {COMPILED_MAX}",
            input.compiled.len()
        );
        return Err(Problem::of("filter.compiled", what));
    }
    // Two more sources are the names of the config.
    if input.block.len() + input.allow.len() + 2 > SOURCES_MAX {
        return Err(Problem::of(
            "lists",
            format!("more than {} files", SOURCES_MAX - 2),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
