//! The upstream groups of a config, and what a policy is made of besides its files.

use xdnsd_core::forward::upstreams::UpstreamConfig;

use crate::compile::set::{Links, PolicyInput};
use crate::config::{Config, Plan};

/// The upstream groups of a config, by their numbers.
#[derive(Clone)]
pub(super) struct Groups {
    names: Vec<String>,
    views: Vec<String>,
    /// As the workers have them.
    pub servers: Vec<UpstreamConfig>,
}

impl Groups {
    pub fn of(config: &Config, plan: &Plan) -> Self {
        Self {
            names: config.group_names(),
            views: config
                .views
                .iter()
                .map(|view| view.name.to_string())
                .collect(),
            servers: config.servers(plan),
        }
    }

    /// Whether each number means the group, or the view, that it meant.
    pub fn continue_those_of(&self, earlier: &Self) -> bool {
        let groups = self.names.iter().zip(&earlier.names);
        let views = self.views.iter().zip(&earlier.views);
        let mut pairs = groups.chain(views);
        pairs.all(|(name, before)| name == before)
    }
}

pub(super) fn input(config: &Config, groups: &Groups, links: &Links) -> PolicyInput {
    PolicyInput {
        servers: groups.servers.clone(),
        links: links.clone(),
        ..config.policy()
    }
}
