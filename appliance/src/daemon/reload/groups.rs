//! The upstream groups of a config, and what a policy is made of besides its files.

use xdnsd_core::forward::upstreams::UpstreamConfig;

use crate::compile::set::{Links, PolicyInput};
use crate::config::{Config, Plan};

/// Upstream groups of a config, by number.
#[derive(Clone)]
pub(super) struct Groups {
    names: Vec<String>,
    views: Vec<String>,
    /// Configuration of the servers, as the workers have it.
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

    /// True if each number still means the same group or view.
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
