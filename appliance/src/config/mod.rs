//! The config file: TOML, parsed and validated once, immutable afterwards.
//!
//! `schema` describes every key once; `read` turns the file into sections by that description; `check` finds contradictions;
//! `devices` finds what does not fit this machine. Every fault has a line.
//!
//! Here belongs each key, its default, its range and its text, and the conversion to the types of the other wings.
//!
//! What does not: what a key does.
//!
//! It uses `compile` for what is written as in its files, `logging` for the log's settings, and `os` and `text`.

mod changes;
mod check;
mod devices;
mod engine;
mod error;
mod explain;
mod foreign;
mod hint;
mod import;
mod include;
mod key;
mod merge;
mod mismatch;
mod policy;
mod read;
mod reference;
mod resolv;
mod schema;
mod section;
mod server;
mod shield;
mod syntax;
mod types;
mod value;
mod views;
mod written;
mod zero_copy;

use std::io::ErrorKind;
use std::path::Path;

use crate::os::files;

pub use changes::{ChangedKeys, is_taken_at_start};
pub use devices::{
    Device, Devices, Endpoint, Forwarding, LeftOut, Member, Plan, PortRest, is_strict,
};
pub use engine::NamedServers;
pub use error::{Errors, Fault, Position};
pub use reference::reference;
pub use resolv::ResolvConf;
pub use schema::{
    Access, ActionWord, AskWord, BlockWord, Cache, Control, Dns64, Edns, Filter, Forward,
    GroupWord, Identity, Include, Interface, LandlockWord, Local, Log, LogLevel, Memory, NftSet,
    PriorityWord, Protect, RangeWord, RateLimit, Rebind, RouteCheck, SeccompWord, Security, Shield,
    SpecialWord, Statistics, StrategyWord, SynCookiesWord, Tcp, Tier0Word, Upstream, UpstreamPorts,
    View, ViewDns64Word, Web, XdpMode,
};
pub use server::UpstreamServer;
pub use types::{
    AnswerNetwork, ClientNetwork, CookieSecret, Domain, FilePath, FilterName, HttpAddress,
    HttpHost, IncludedFile, InterfaceName, Ipv6Network, Nat64Prefix, NftSetName, OptionalPath,
    Suffix, ViewName,
};
pub use zero_copy::ZeroCopy;

use crate::text;
use error::ConfigText;
pub(crate) use hint::nearest;
pub use import::{Imported, import};
use read::Document;
use section::Placed;

/// A config larger than this, with all its files, is a mistake.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The config file, valid in itself. Whether it fits this machine is checked by [`Config::plan`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Interfaces to serve.
    pub interfaces: Vec<Interface>,
    /// Upstream servers.
    pub upstreams: Vec<Upstream>,
    /// How queries are forwarded.
    pub forward: Forward,
    /// The cache.
    pub cache: Cache,
    /// Capacities.
    pub memory: Memory,
    /// Local data.
    pub local: Local,
    /// Blocked and allowed names.
    pub filter: Filter,
    /// Rebind protection.
    pub rebind: Rebind,
    /// IPv6 addresses made of IPv4 ones.
    pub dns64: Dns64,
    /// Names whose addresses go into sets.
    pub nft_sets: Vec<NftSet>,
    /// Which clients are answered.
    pub access: Access,
    /// Clients with another policy.
    pub views: Vec<View>,
    /// Options of EDNS.
    pub edns: Edns,
    /// TCP connections of clients.
    pub tcp: Tcp,
    /// Limits per client.
    pub rate_limit: RateLimit,
    /// Protection against floods.
    pub shield: Shield,
    /// Protected hosts behind this one.
    pub protects: Vec<Protect>,
    /// Identification of the server.
    pub identity: Identity,
    /// The log.
    pub log: Log,
    /// Reports of statistics.
    pub statistics: Statistics,
    /// The control socket.
    pub control: Control,
    /// Status over HTTP.
    pub web: Web,
    /// Confinement of the process.
    pub security: Security,
    source: ConfigText,
}

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or has faults: all of them, with their lines.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        let file = text::path(path);
        match text_of(path, 0) {
            Ok(text) => Self::read(&file, path, &text).map_err(Errors::bounded),
            Err((None, problem)) => Err(Errors::whole_file(&file, problem)),
            Err((Some(valid), problem)) => {
                let mut source = ConfigText::new(&file, &valid);
                source.fault_at(valid.len(), "", problem, "");
                Err(source.take_errors())
            }
        }
    }

    /// Validates `text`; `file` is its name in errors, and what it includes is beside it.
    ///
    /// # Errors
    /// The text has faults: all of them, with their lines.
    pub fn parse(file: &str, text: &str) -> Result<Self, Errors> {
        Self::read(file, Path::new(file), text).map_err(Errors::bounded)
    }

    /// With every fault there is.
    fn read(file: &str, path: &Path, text: &str) -> Result<Self, Vec<Fault>> {
        let mut source = ConfigText::new(file, text);
        let texts = include::gather(&mut source, path, text);
        let Some(mut document) = Document::parse(&mut source, &texts) else {
            return Err(source.take_faults());
        };
        let interfaces = document.many::<Interface>();
        let upstreams = document.many::<Upstream>();
        let protects = document.many::<Protect>();
        let views = document.many::<View>();
        let nft_sets = document.many::<NftSet>();
        let config = Self {
            interfaces: Vec::new(),
            upstreams: Vec::new(),
            forward: document.one(),
            cache: document.one(),
            memory: document.one(),
            local: document.one(),
            filter: document.one(),
            rebind: document.one(),
            dns64: document.one(),
            nft_sets: Vec::new(),
            access: document.one(),
            views: Vec::new(),
            edns: document.one(),
            tcp: document.one(),
            rate_limit: document.one(),
            shield: document.one(),
            protects: Vec::new(),
            identity: document.one(),
            log: document.one(),
            statistics: document.one(),
            control: document.one(),
            web: document.one(),
            security: document.one(),
            source: ConfigText::new(file, ""),
        };
        document.finish();
        check::interfaces(&mut source, &interfaces);
        check::upstreams(&mut source, &upstreams, &interfaces, &views);
        check::sections(&mut source, &config);
        check::rate_limit(&mut source, &config.rate_limit);
        views::views(&mut source, &views, &upstreams, &config.filter);
        views::dns64(&mut source, &views, &config);
        check::nft_sets(&mut source, &nft_sets);
        shield::shield(&mut source, &config.shield, &interfaces);
        shield::protects(&mut source, &protects, &interfaces);
        if source.is_faulty() {
            return Err(source.take_faults());
        }
        Ok(Self {
            interfaces: sections(interfaces),
            upstreams: sections(upstreams),
            views: sections(views),
            nft_sets: sections(nft_sets),
            protects: sections(protects),
            source,
            ..config
        })
    }

    /// True if hosts are protected whose clients come by this interface.
    #[must_use]
    pub fn protects_on(&self, interface: &str) -> bool {
        let mut sections = self.protects.iter();
        sections.any(|section| section.interface.as_str() == interface)
    }

    /// VLAN IDs of all sections for this interface; 0 for the interface itself.
    #[must_use]
    pub fn vlans_of(&self, interface: &str) -> Vec<u16> {
        let served = self.interfaces.iter();
        let served = served.map(|section| (section.name.as_str(), section.vlan));
        let protects = self.protects.iter();
        let protects = protects.map(|section| (section.interface.as_str(), section.vlan));
        let all = served
            .chain(protects)
            .filter(|(name, _)| *name == interface);
        let mut vlans: Vec<u16> = all.map(|(_, vlan)| vlan).collect();
        vlans.sort_unstable();
        vlans.dedup();
        vlans
    }

    /// True if some of them are protected only in floods.
    #[must_use]
    pub fn asks_in_floods_on(&self, interface: &str) -> bool {
        let is_it = |section: &Protect| {
            section.interface.as_str() == interface && section.ask == AskWord::Auto
        };
        self.protects.iter().any(is_it)
    }

    /// Warnings about deprecated forms: old names of keys.
    #[must_use]
    pub fn warnings(&self) -> &[Fault] {
        self.source.warnings()
    }

    /// `FILE:LINE:COLUMN: KEY` of a key such as `cache.snapshot`, for errors in its use.
    #[must_use]
    pub fn locate(&self, key: &str) -> String {
        match self.source.offset(key).map(|at| self.source.place(at)) {
            Some((file, Position { line, column })) => format!("{file}:{line}:{column}: {key}"),
            None => format!("{}: {key}", self.source.file()),
        }
    }

    /// An error in the use of a value of this valid file, as a fault of its key.
    #[must_use]
    pub fn fault(&self, key: &str, problem: impl Into<String>, allowed: &str) -> Fault {
        let offset = self.source.offset(key);
        self.source
            .told(offset, key, problem.into(), allowed.into())
    }
}

/// Sections without their places.
fn sections<S>(placed: Vec<Placed<S>>) -> Vec<S> {
    placed.into_iter().map(|placed| placed.section).collect()
}

/// The text of a file behind others of the config, which have so many bytes together: 0 for the first.
///
/// # Errors
/// Why it has none, and what of it is text where a part is.
fn text_of(path: &Path, bytes_before: u64) -> Result<String, (Option<String>, String)> {
    let room = CONFIG_BYTES_MAX.saturating_sub(bytes_before);
    let bytes = files::read(path, room).map_err(|error| {
        let why = if bytes_before > 0 && error.kind() == ErrorKind::FileTooLarge {
            format!("with it, all files together have more than {CONFIG_BYTES_MAX} bytes")
        } else {
            files::why(&error)
        };
        (None, why)
    })?;
    if let Some(what) = files::no_text(&bytes) {
        return Err((None, what));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let valid = String::from_utf8_lossy(valid).into_owned();
        (Some(valid), "not UTF-8".to_owned())
    })
}

#[cfg(test)]
mod tests;
