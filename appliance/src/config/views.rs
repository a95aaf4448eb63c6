//! Views: contradictions, and the input of policy.

use xdnsd_core::policy::ranges::PREFIXES_MAX;
use xdnsd_core::policy::view::VIEWS_MAX;

use super::Config;
use super::error::ConfigText;
use super::schema::{Filter, Upstream, View, ViewDns64Word};
use super::section::Placed;
use super::types::{ClientNetwork, FilePath, FilterName, InterfaceName};
use crate::compile::set::{FilteredFamilies, ViewInput};
use crate::text;

/// Checks for views that are ambiguous, empty, or refer to missing items.
pub fn views(
    source: &mut ConfigText,
    views: &[Placed<View>],
    upstreams: &[Placed<Upstream>],
    filter: &Filter,
) {
    if views.len() >= VIEWS_MAX {
        let problem = format!("{} views are too many", views.len());
        source.fault("view", problem, format!("at most {}", VIEWS_MAX - 1));
    }
    for (index, placed) in views.iter().enumerate() {
        let Placed { path, section } = placed;
        let same = |earlier: &Placed<View>| earlier.section.name == section.name;
        if views[..index].iter().any(same) {
            let problem = format!("\"{}\" is the name of an earlier view", section.name);
            source.fault(&format!("{path}.name"), problem, "a name of its own");
        }
        let who = [format!("{path}.clients"), format!("{path}.interfaces")];
        let is_read = source.are_read(&[&who[0], &who[1]]);
        if section.clients.is_empty() && section.interfaces.is_empty() && is_read {
            let problem = format!("nobody is in the view \"{}\"", section.name);
            source.fault(path, problem, "clients, or interfaces, or both");
        }
        lists(source, path, section, filter);
        group(source, path, section, upstreams);
    }
    members(source, views);
}

/// Checks for lists that do not exist, or have no effect.
fn lists(source: &mut ConfigText, path: &str, view: &View, filter: &Filter) {
    let texts = filter.block_files.iter().chain(&filter.allow_files);
    let known: Vec<&FilePath> = texts.chain(&filter.compiled).collect();
    let are_read = source.are_read(&[
        "filter.block_files",
        "filter.allow_files",
        "filter.compiled",
    ]);
    for (index, list) in view.lists.iter().enumerate() {
        let path = format!("{path}.lists[{index}]");
        if view.lists[..index].contains(list) {
            source.fault(&path, format!("{list} stands twice"), "each list once");
        }
        if are_read && !known.contains(&list) {
            let shown: Vec<String> = known.iter().map(ToString::to_string).collect();
            let allowed = match shown.as_slice() {
                [] => "a file of [filter], which names none".to_owned(),
                shown => shown.join(", "),
            };
            source.fault(&path, format!("{list} is no file of [filter]"), allowed);
        }
    }
    let keys = [
        ("lists", view.lists.is_empty()),
        ("block", view.block.is_empty()),
        ("allow", view.allow.is_empty()),
    ];
    for (key, is_empty) in keys {
        if !view.filter && !is_empty {
            let path = format!("{path}.{key}");
            source.fault(&path, "not used with filter = false", "with filter = true");
        }
    }
}

/// Checks for clients who are to get addresses of DNS64 that cannot be made, or that are withheld from them.
pub fn dns64(source: &mut ConfigText, views: &[Placed<View>], config: &Config) {
    let Config { dns64, forward, .. } = config;
    let keys = ["dns64.prefix", "dns64.all_clients", "forward.filter_aaaa"];
    if !source.are_read(&keys) {
        return;
    }
    let has_prefix = dns64.prefix.prefix().is_some();
    let withheld = |key: &str| format!("{key} withholds from them what is made");
    if has_prefix && dns64.all_clients && forward.filter_aaaa {
        let allowed = "with forward.filter_aaaa = false, or all_clients = false";
        source.fault("dns64.prefix", withheld("forward.filter_aaaa"), allowed);
    }
    for Placed { path, section } in views {
        if section.dns64 != ViewDns64Word::On {
            continue;
        }
        let path = format!("{path}.dns64");
        if !has_prefix {
            let problem = "there is no prefix to make addresses of";
            source.fault(
                &path,
                problem,
                "with dns64.prefix = \"64:ff9b::/96\", for example",
            );
        } else if forward.filter_aaaa || section.filter_aaaa {
            let key = if forward.filter_aaaa {
                "forward.filter_aaaa"
            } else {
                "filter_aaaa"
            };
            source.fault(&path, withheld(key), format!("with {key} = false"));
        }
    }
}

/// Checks for a group that does not exist.
fn group(source: &mut ConfigText, path: &str, view: &View, upstreams: &[Placed<Upstream>]) {
    let mut names = upstreams.iter().map(|placed| placed.section.name.as_str());
    let names: Vec<&str> = names.by_ref().collect();
    let wanted = view.upstreams.as_str();
    if wanted.is_empty() || names.contains(&wanted) || !source.are_all("upstream", upstreams.len())
    {
        return;
    }
    let problem = format!(
        "no group of upstream servers is named {}",
        text::line(wanted)
    );
    source.fault(&format!("{path}.upstreams"), problem, names.join(", "));
}

/// Checks for clients in two views.
fn members(source: &mut ConfigText, views: &[Placed<View>]) {
    let mut clients: Vec<(ClientNetwork, &str)> = Vec::new();
    let mut interfaces: Vec<(&InterfaceName, &str)> = Vec::new();
    for Placed { path, section } in views {
        let name = section.name.as_str();
        for (index, client) in section.clients.iter().enumerate() {
            let path = format!("{path}.clients[{index}]");
            let earlier = clients.iter().find(|(known, _)| known == client);
            if let Some((_, other)) = earlier {
                let problem = format!("{client} is in the view \"{other}\" already");
                source.fault(&path, problem, "each network in one view");
            }
            clients.push((*client, name));
        }
        for (index, interface) in section.interfaces.iter().enumerate() {
            let path = format!("{path}.interfaces[{index}]");
            let earlier = interfaces.iter().find(|(known, _)| *known == interface);
            if let Some((_, other)) = earlier {
                let problem = format!("{interface} is in the view \"{other}\" already");
                source.fault(&path, problem, "each interface in one view");
            }
            interfaces.push((interface, name));
        }
    }
    if clients.len() > PREFIXES_MAX {
        let problem = format!("{} networks over all views are too many", clients.len());
        source.fault("view", problem, format!("at most {PREFIXES_MAX}"));
    }
}

/// True if a view names the group, so that it is not for all other names.
pub fn is_named<'v>(mut views: impl Iterator<Item = &'v View>, group: &Upstream) -> bool {
    views.any(|view| view.upstreams == group.name)
}

impl Config {
    /// Views as input of policy.
    pub(super) fn view_inputs(&self) -> Vec<ViewInput> {
        let names = self.group_names();
        let texts = |names: &[FilterName]| names.iter().map(ToString::to_string).collect();
        let view = |view: &View| {
            let group = names.iter().position(|name| *name == view.upstreams);
            ViewInput {
                name: view.name.to_string(),
                clients: view.clients.iter().map(|network| network.0).collect(),
                is_filtered: view.filter,
                files: view
                    .lists
                    .iter()
                    .map(|file| file.as_path().into())
                    .collect(),
                block_names: texts(&view.block),
                allow_names: texts(&view.allow),
                group: group.unwrap_or(0) as u16,
                has_local_names: view.local_names,
                without: FilteredFamilies {
                    a: view.filter_a,
                    aaaa: view.filter_aaaa,
                },
                dns64: view.dns64.own(),
            }
        };
        self.views.iter().map(view).collect()
    }
}
