//! Differences between two configs, and which of them need a restart.

use super::Config;
use super::section::Section;

/// Keys whose value only a start takes, by section; an empty list stands for the whole section. A reload takes all others.
const TAKEN_AT_START: &[(&str, &[&str])] = &[
    ("interface", &[]),
    ("forward", &["busy_poll_us", "upstream_ports"]),
    (
        "cache",
        &["entries", "tier0", "snapshot", "snapshot_interval_secs"],
    ),
    ("memory", &[]),
    ("edns", &["cookies", "cookie_secrets"]),
    ("tcp", &[]),
    (
        "shield",
        &[
            "drop_garbage",
            "syn_cookies",
            "tcp_options",
            "ports",
            "syn_threshold",
            "calm_secs",
            "state_file",
        ],
    ),
    ("protect", &[]),
    ("identity", &[]),
    ("statistics", &[]),
    ("control", &[]),
    ("web", &[]),
    ("security", &[]),
];

/// True if only a start takes the value of a key.
#[must_use]
pub fn is_taken_at_start(section: &str, key: &str) -> bool {
    let mut known = TAKEN_AT_START.iter();
    known.any(|(name, keys)| *name == section && (keys.is_empty() || keys.contains(&key)))
}

/// Changed keys as `section.key`, each once, in the reference's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedKeys {
    /// Keys that a reload takes over.
    pub taken: Vec<String>,
    /// Keys that need a restart.
    pub at_start: Vec<String>,
}

impl Config {
    /// Differences to an earlier config.
    #[must_use]
    pub fn changes(&self, earlier: &Self) -> ChangedKeys {
        let mut changes = ChangedKeys::default();
        changes.of_all(&self.interfaces, &earlier.interfaces);
        changes.of_all(&self.upstreams, &earlier.upstreams);
        changes.of(&self.forward, &earlier.forward);
        changes.of(&self.cache, &earlier.cache);
        changes.of(&self.memory, &earlier.memory);
        changes.of(&self.local, &earlier.local);
        changes.of(&self.filter, &earlier.filter);
        changes.of(&self.rebind, &earlier.rebind);
        changes.of(&self.dns64, &earlier.dns64);
        changes.of_all(&self.nft_sets, &earlier.nft_sets);
        changes.of(&self.access, &earlier.access);
        changes.of_all(&self.views, &earlier.views);
        changes.of(&self.edns, &earlier.edns);
        changes.of(&self.tcp, &earlier.tcp);
        changes.of(&self.rate_limit, &earlier.rate_limit);
        changes.of(&self.shield, &earlier.shield);
        changes.of_all(&self.protects, &earlier.protects);
        changes.of(&self.identity, &earlier.identity);
        changes.of(&self.log, &earlier.log);
        changes.of(&self.statistics, &earlier.statistics);
        changes.of(&self.control, &earlier.control);
        changes.of(&self.web, &earlier.web);
        changes.of(&self.security, &earlier.security);
        changes
    }
}

impl ChangedKeys {
    /// What a reload has taken over, in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let taken = match (self.taken.is_empty(), self.at_start.is_empty()) {
            (true, true) => "nothing".to_owned(),
            (true, false) => "nothing that a reload takes over".to_owned(),
            (false, _) => self.taken.join(", "),
        };
        format!("changed in the config: {taken}")
    }

    fn of<S: Section>(&mut self, section: &S, earlier: &S) {
        for key in section.changed(earlier) {
            self.note(S::NAME, key);
        }
    }

    /// Compares sections that may occur several times, by their order.
    fn of_all<S: Section>(&mut self, sections: &[S], earlier: &[S]) {
        for (section, earlier) in sections.iter().zip(earlier) {
            self.of(section, earlier);
        }
        if sections.len() != earlier.len() {
            self.note(S::NAME, "");
        }
    }

    /// Notes a changed key, or with an empty key that the number of sections differs.
    fn note(&mut self, section: &str, key: &str) {
        let keys = if is_taken_at_start(section, key) {
            &mut self.at_start
        } else {
            &mut self.taken
        };
        let name = match key {
            "" => format!("[[{section}]]"),
            key => format!("{section}.{key}"),
        };
        if !keys.contains(&name) {
            keys.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::SECTIONS;

    const LEAST: &str = "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n";

    fn config(text: &str) -> Config {
        Config::parse("f", text).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn what_only_a_start_takes_are_keys() {
        for (name, keys) in TAKEN_AT_START {
            let section = SECTIONS.iter().find(|section| section.name == *name);
            let known = section.expect("a section").keys;
            for key in *keys {
                assert!(known.iter().any(|known| known.name == *key), "{name}.{key}");
            }
        }
    }

    #[test]
    fn each_key_with_another_value_is_named_once() {
        let other = LEAST
            .replace("lo", "eth0")
            .replace("192.0.2.1", "192.0.2.2");
        let more = "[[interface]]\nname = \"eth1\"\nport = 5353\n[[upstream]]\nname = \"b\"\n\
             servers = [\"192.0.2.3\"]\ndomains = [\"b.example\"]\n[cache]\nentries = 7\nmax_ttl = 60\n[memory]\nworkers = 2\n\
             [local]\nrecords = [\"a.lan A 192.0.2.1\"]\n[filter]\nblock = [\"a.example\"]\n\
             [rebind]\nranges = [\"private\"]\n[dns64]\nprefix = \"64:ff9b::/96\"\n[[nftset]]\nnames = [\"a.example\"]\nsets = [\"t#s\"]\n[access]\nothers = \"allow\"\n[[view]]\nname = \"guests\"\nclients = [\"192.0.2.0/24\"]\n[edns]\ncookies = false\n\
             [tcp]\nidle_secs = 7\n[identity]\nid = \"a\"\n[log]\nlevel = \"warn\"\n\
             [statistics]\ninterval_secs = 60\n[control]\nsocket = \"/s\"\n[web]\nlisten = [\"127.0.0.1:80\"]\n[security]\nlandlock = \"off\"\n[shield]\ncalm_secs = 7\n\
             [rate_limit]\nmisses = 7\n[[protect]]\ninterface = \"wan0\"\naddresses = [\"192.0.2.80\"]\nports = [80]\n\
             [forward]\nstrategy = \"race\"\nbusy_poll_us = 0\n";
        let changes = config(&format!("{other}{more}")).changes(&config(LEAST));
        assert_eq!(
            changes.taken,
            [
                "upstream.servers",
                "[[upstream]]",
                "forward.strategy",
                "cache.max_ttl",
                "local.records",
                "filter.block",
                "rebind.ranges",
                "dns64.prefix",
                "[[nftset]]",
                "access.others",
                "[[view]]",
                "rate_limit.misses",
                "log.level"
            ]
        );
        assert_eq!(
            changes.at_start,
            [
                "interface.name",
                "[[interface]]",
                "forward.busy_poll_us",
                "cache.entries",
                "memory.workers",
                "edns.cookies",
                "tcp.idle_secs",
                "shield.calm_secs",
                "[[protect]]",
                "identity.id",
                "statistics.interval_secs",
                "control.socket",
                "web.listen",
                "security.landlock"
            ]
        );
        // What other files say counts, not which they are.
        let sections = SECTIONS.iter().filter(|section| section.name != "include");
        for section in sections {
            let mut all = changes.taken.iter().chain(&changes.at_start);
            assert!(
                all.any(|key| key.contains(section.name)),
                "{}",
                section.name
            );
        }
        let same = config(&format!("{LEAST}# a comment\n[cache]\nmin_ttl = 0\n"));
        assert_eq!(same.changes(&config(LEAST)), ChangedKeys::default());
    }
}
