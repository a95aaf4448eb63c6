//! Input of policy from the config.

use std::net::IpAddr;

use xdnsd_core::policy::rebind::Ranges;
use xdnsd_core::policy::{Action, BlockAnswer, Kinds};

use super::Config;
use super::schema::{BlockWord, NftSet};
use super::types::{ClientNetwork, FilePath};
use super::views::is_named;
use crate::compile::acl::AclInput;
use crate::compile::hosts::LeaseFormat;
use crate::compile::local::{LeaseFile, LocalInput};
use crate::compile::prefix_list::PrefixInput;
use crate::compile::routes::RouteInput;
use crate::compile::set::{
    Dns64Input, FilteredFamilies, Links, ListsInput, NftSetInput, PolicyInput, RebindInput,
    ScreenInput,
};
use crate::compile::why::{Location, PolicyValue, ViewKey};

impl Config {
    /// Everything that policy is compiled from.
    #[must_use]
    pub fn policy(&self) -> PolicyInput {
        PolicyInput {
            acl: self.acl(),
            reflector_ports: self.access.reflector_ports.clone(),
            // Filled in with facts about the machine later.
            links: Links::default(),
            servers: Vec::new(),
            server_files: self.server_files(),
            groups: self.group_names(),
            settings: self.settings_of_reload(),
            local: self.local_data(),
            special: self.special(),
            lists: self.lists(),
            routes: self.routes(),
            rebind: self.rebind_protection(),
            screen: self.screen(),
            dns64: self.dns64_input(),
            nft_sets: self.nft_set_inputs(),
            views: self.view_inputs(),
        }
    }

    /// Files that name upstream servers.
    #[must_use]
    pub fn server_files(&self) -> Vec<std::path::PathBuf> {
        let files = self.upstreams.iter();
        let files = files.filter_map(|group| group.resolv_file.as_deref());
        files.map(Into::into).collect()
    }

    /// The same without files, so that faults of the config itself show on any machine.
    #[must_use]
    pub fn policy_without_files(&self) -> PolicyInput {
        let PolicyInput { local, lists, .. } = self.policy();
        PolicyInput {
            local: LocalInput {
                hosts: Vec::new(),
                leases: Vec::new(),
                ..local
            },
            lists: ListsInput {
                block: Vec::new(),
                allow: Vec::new(),
                compiled: Vec::new(),
                ..lists
            },
            ..self.policy()
        }
    }

    /// Denied and allowed prefixes.
    #[must_use]
    pub fn prefixes(&self) -> PrefixInput {
        let shield = &self.shield;
        let prefixes =
            |networks: &[ClientNetwork]| networks.iter().map(|network| network.0).collect();
        PrefixInput {
            deny: prefixes(&shield.deny),
            allow: prefixes(&shield.allow),
            deny_files: paths(&shield.deny_files),
            allow_files: paths(&shield.allow_files),
        }
    }

    fn acl(&self) -> AclInput {
        let access = &self.access;
        let rules = |networks: &[ClientNetwork], action| {
            let rules: Vec<_> = networks.iter().map(|network| (network.0, action)).collect();
            rules
        };
        AclInput {
            rules: [
                rules(&access.allow, Action::Allow),
                rules(&access.refuse, Action::Refuse),
                rules(&access.drop, Action::Drop),
            ]
            .concat(),
            default: access.others.into(),
        }
    }

    fn local_data(&self) -> LocalInput {
        let local = &self.local;
        let leases = |files: &[FilePath], format: LeaseFormat| {
            let file = |path: &FilePath| LeaseFile {
                path: path.as_path().into(),
                format,
            };
            files.iter().map(file).collect::<Vec<_>>()
        };
        let dnsmasq = leases(&local.dnsmasq_leases, LeaseFormat::Dnsmasq);
        let odhcpd = leases(&local.odhcpd_leases, LeaseFormat::Odhcpd);
        LocalInput {
            records: local.records.clone(),
            hosts: paths(&local.hosts),
            leases: [dnsmasq, odhcpd].concat(),
            zones: local.zones.iter().map(ToString::to_string).collect(),
            search_domain: local.search.first().map(ToString::to_string),
            reverse: local.reverse,
            ttl_secs: local.ttl,
            lease_ttl_secs: local.lease_ttl,
            never_leased: local.never_leased.iter().map(ToString::to_string).collect(),
            forward_plain_names: local.forward_plain_names,
        }
    }

    fn special(&self) -> Kinds {
        let words = self.local.special.iter();
        words.fold(Kinds::NONE, |kinds, word| kinds.with((*word).into()))
    }

    fn lists(&self) -> ListsInput {
        let filter = &self.filter;
        ListsInput {
            block: paths(&filter.block_files),
            allow: paths(&filter.allow_files),
            compiled: paths(&filter.compiled),
            block_names: filter.block.iter().map(ToString::to_string).collect(),
            allow_names: filter.allow.iter().map(ToString::to_string).collect(),
            take_shrunk: filter.take_shrunk,
            answer: self.block_answer(),
            ttl_secs: filter.ttl,
        }
    }

    fn block_answer(&self) -> BlockAnswer {
        let addresses = &self.filter.addresses;
        match self.filter.answer {
            BlockWord::Nxdomain => BlockAnswer::Nxdomain,
            BlockWord::Nodata => BlockAnswer::Nodata,
            BlockWord::Zero => BlockAnswer::ZeroAddress,
            BlockWord::Address => BlockAnswer::Address {
                v4: addresses.iter().find_map(|address| match address {
                    IpAddr::V4(address) => Some(address.octets()),
                    IpAddr::V6(_) => None,
                }),
                v6: addresses.iter().find_map(|address| match address {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(address) => Some(address.octets()),
                }),
            },
        }
    }

    /// Group numbers as in [`Config::servers`].
    fn routes(&self) -> Vec<RouteInput> {
        let order = self.group_order();
        let route = |(group, index): (usize, &usize)| RouteInput {
            suffixes: self.upstreams[*index]
                .domains
                .iter()
                .map(ToString::to_string)
                .collect(),
            group: group as u16,
        };
        order.iter().enumerate().skip(1).map(route).collect()
    }

    /// Names of the groups in the same order.
    #[must_use]
    pub fn group_names(&self) -> Vec<String> {
        let order = self.group_order().into_iter();
        order
            .map(|index| self.upstreams[index].name.clone())
            .collect()
    }

    /// Place in the file of a value that policy was compiled from.
    #[must_use]
    pub fn place_of(&self, value: PolicyValue) -> Location {
        let (key, path) = self.path_of(value);
        let is_written = self.source.has(&path);
        let place = self.source.offset(&path).filter(|_| is_written);
        let place = place.map(|offset| self.source.place(offset));
        let text = self.source.written_at(&path).filter(|_| path != key);
        Location {
            key: Some(key),
            file: place.map(|(file, _)| file.to_owned()),
            line: place.map(|(_, position)| position.line),
            text: text.map(|text| text.trim_matches(['"', '\'']).to_owned()),
        }
    }

    /// Key of a value, and its path in the file.
    fn path_of(&self, value: PolicyValue) -> (&'static str, String) {
        let item = |key: &'static str, index: usize| (key, format!("{key}[{index}]"));
        let whole = |key: &'static str| (key, key.to_owned());
        match value {
            PolicyValue::Client(index) => {
                let access = &self.access;
                let (allow, refuse) = (access.allow.len(), access.refuse.len());
                // In the order of `acl`.
                if index < allow {
                    item("access.allow", index)
                } else if index < allow + refuse {
                    item("access.refuse", index - allow)
                } else {
                    item("access.drop", index - allow - refuse)
                }
            }
            PolicyValue::OtherClients => whole("access.others"),
            PolicyValue::View { view, key } => path_of_view(view, key),
            PolicyValue::Record(index) => item("local.records", index),
            PolicyValue::Zone(index) => item("local.zones", index),
            PolicyValue::Special => whole("local.special"),
            PolicyValue::Block(index) => item("filter.block", index),
            PolicyValue::Allow(index) => item("filter.allow", index),
            PolicyValue::PlainNames => whole("local.forward_plain_names"),
            PolicyValue::Suffix { route, index } => {
                // In the order of `routes`: the first group has none.
                let upstream = self.group_order().get(route + 1).copied();
                let upstream = upstream.unwrap_or_default();
                let path = format!("upstream[{upstream}].domains[{index}]");
                ("upstream.domains", path)
            }
            PolicyValue::RebindRouted => whole("rebind.allow_routed"),
            PolicyValue::RebindAllow(index) => item("rebind.allow", index),
            PolicyValue::Bogus => whole("forward.bogus_nxdomain"),
            PolicyValue::WithoutA => whole("forward.filter_a"),
            PolicyValue::WithoutAaaa => whole("forward.filter_aaaa"),
            PolicyValue::Dns64 => whole("dns64.prefix"),
        }
    }

    fn rebind_protection(&self) -> RebindInput {
        let ranges = self.rebind.ranges.iter();
        RebindInput {
            ranges: ranges.fold(Ranges::NONE, |ranges, word| ranges.with((*word).into())),
            allowed: self.rebind.allow.iter().map(ToString::to_string).collect(),
            allow_routed: self.rebind.allow_routed,
        }
    }

    fn screen(&self) -> ScreenInput {
        let forward = &self.forward;
        let bogus = forward.bogus_nxdomain.iter();
        ScreenInput {
            bogus: bogus.map(|network| network.0).collect(),
            without: FilteredFamilies {
                a: forward.filter_a,
                aaaa: forward.filter_aaaa,
            },
        }
    }

    fn dns64_input(&self) -> Dns64Input {
        Dns64Input {
            prefix: self.dns64.prefix.prefix(),
            is_for_all: self.dns64.all_clients,
            exclude: self.dns64.exclude.iter().map(|network| network.0).collect(),
        }
    }

    fn nft_set_inputs(&self) -> Vec<NftSetInput> {
        let sections = self.nft_sets.iter();
        let input = |section: &NftSet| NftSetInput {
            names: section.names.iter().map(ToString::to_string).collect(),
            sets: section.sets.iter().map(|set| set.0.clone()).collect(),
        };
        sections.map(input).collect()
    }

    /// Indices into [`Config::upstreams`]: first the group for all other names, which is number 0, then the others.
    pub(super) fn group_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.upstreams.len()).collect();
        order.sort_by_key(|index| {
            let group = &self.upstreams[*index];
            (
                !group.domains.is_empty(),
                is_named(self.views.iter(), group),
            )
        });
        order
    }
}

/// Key of a view's value, and its path in the file.
fn path_of_view(view: usize, key: ViewKey) -> (&'static str, String) {
    let (key, path) = match key {
        ViewKey::Name => ("view.name", "name".to_owned()),
        ViewKey::Client(index) => ("view.clients", format!("clients[{index}]")),
        ViewKey::Block(index) => ("view.block", format!("block[{index}]")),
        ViewKey::Allow(index) => ("view.allow", format!("allow[{index}]")),
        ViewKey::Upstreams => ("view.upstreams", "upstreams".to_owned()),
        ViewKey::WithoutA => ("view.filter_a", "filter_a".to_owned()),
        ViewKey::WithoutAaaa => ("view.filter_aaaa", "filter_aaaa".to_owned()),
        ViewKey::Dns64 => ("view.dns64", "dns64".to_owned()),
    };
    (key, format!("view[{view}].{path}"))
}

fn paths(files: &[FilePath]) -> Vec<std::path::PathBuf> {
    files.iter().map(|file| file.as_path().into()).collect()
}
