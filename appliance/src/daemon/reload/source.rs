//! A set as workers take it.

use std::sync::Arc;

use xdnsd_core::engine::Settings;
use xdnsd_core::forward::upstreams::UpstreamConfig;
use xdnsd_core::policy::{Policy, Views};

use crate::compile::set::PolicySet;
use crate::os::nf_tables::SetQueue;
use crate::worker::PolicySource;

impl PolicySource for PolicySet {
    fn policy(&self) -> Policy<'_> {
        self.view()
    }

    fn policies(&self) -> Vec<Policy<'_>> {
        Self::policies(self)
    }

    fn views<'p>(&'p self, policies: &'p [Policy<'p>]) -> Views<'p> {
        Self::views(self, policies)
    }

    fn views_id(&self) -> u32 {
        Self::views_id(self)
    }

    fn servers(&self) -> Option<&[UpstreamConfig]> {
        // `None` if each server is in the zone of a missing interface.
        Some(Self::servers(self))
    }

    fn set_queue(&self) -> Option<&Arc<SetQueue>> {
        Self::set_queue(self)
    }

    fn settings(&self) -> Option<&Settings> {
        Some(Self::settings(self))
    }
}
