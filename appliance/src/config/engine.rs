//! Settings for the engine and the log.

use xdnsd_abi::rate::Rate;
use xdnsd_core::answer::TtlBounds;
use xdnsd_core::cache::snapshot::ServersTag;
use xdnsd_core::engine::{CookieSecrets, Settings};
use xdnsd_core::forward::pending::crowd::CrowdLimits;
use xdnsd_core::forward::upstreams::{Strategy, UpstreamConfig};
use xdnsd_core::limits::{UDP_MESSAGE_MAX, UPSTREAMS};
use xdnsd_core::rate::RateLimits;

use super::schema::{LogLevel, PriorityWord, RateLimit, StrategyWord, Upstream};
use super::{Config, Plan, UpstreamServer};
use crate::logging::{self, Priorities};

impl From<StrategyWord> for Strategy {
    fn from(word: StrategyWord) -> Self {
        match word {
            StrategyWord::Ordered => Self::Ordered,
            StrategyWord::Fastest => Self::Fastest,
            StrategyWord::Race => Self::Race,
        }
    }
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl From<PriorityWord> for Priorities {
    fn from(word: PriorityWord) -> Self {
        match word {
            PriorityWord::Auto => Self::Auto,
            PriorityWord::Always => Self::Always,
            PriorityWord::Never => Self::Never,
        }
    }
}

impl RateLimit {
    /// Limits in the engine's type.
    #[must_use]
    pub const fn rules(&self) -> RateLimits {
        if self.queries == 0 && self.misses == 0 {
            return RateLimits::NONE;
        }
        RateLimits {
            queries: Rate::new(self.queries, self.burst_secs),
            misses: Rate::new(self.misses, self.burst_secs),
            slips: Rate::new(self.slips, 1),
            newcomers: self.newcomers,
            answer_size: self.answer_size as usize,
        }
    }
}

impl Config {
    /// Applies the settings of the log.
    pub fn set_log(&self) {
        logging::set_level(self.log.level.into());
        logging::set_priorities(self.log.priority.into());
    }

    /// Settings of the engine.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            tcp_idle_100ms: self.tcp.idle_secs * 10,
            version: kept(&self.identity.version),
            identity: kept(&self.identity.id),
            ..self.settings_of_reload()
        }
    }

    /// Settings that a reload changes; the rest are defaults.
    #[must_use]
    pub fn settings_of_reload(&self) -> Settings {
        let (cache, forward) = (&self.cache, &self.forward);
        Settings {
            ttl: TtlBounds {
                min_secs: cache.min_ttl,
                max_secs: cache.max_ttl,
                negative_max_secs: cache.negative_max_ttl,
            },
            serve_stale: cache.serve_stale,
            stale_max_secs: cache.stale_max_ttl,
            stale_after_ms: cache.stale_after_ms.into(),
            give_up_ms: forward.give_up_ms.into(),
            failure_ttl_secs: forward.failure_ttl,
            prefetch: cache.prefetch,
            rotate: cache.rotate,
            random_case: forward.random_case,
            bounds: CrowdLimits {
                zone: forward.zone_questions,
                group: forward.group_questions,
            },
            cookies: None,
            rates: self.rate_limit.rules(),
            nocookie_udp_size: match self.edns.nocookie_udp_size {
                max if usize::from(max) == UDP_MESSAGE_MAX => usize::MAX,
                max => max.into(),
            },
            ..Settings::DEFAULT
        }
    }

    /// Secrets for DNS cookies: the config's, or else `drawn`, a random one. `None` if cookies are off.
    #[must_use]
    pub fn cookies(&self, drawn: [u8; 16]) -> Option<CookieSecrets> {
        let secret = match self.edns.cookie_secrets.as_slice() {
            [] => CookieSecrets::Made(drawn),
            [current] => CookieSecrets::Given {
                current: current.0,
                previous: current.0,
            },
            [current, previous, ..] => CookieSecrets::Given {
                current: current.0,
                previous: previous.0,
            },
        };
        self.edns.cookies.then_some(secret)
    }

    /// Upstream servers of `plan`, which was made from this config; group 0 is the default group.
    #[must_use]
    pub fn servers(&self, plan: &Plan) -> Vec<UpstreamConfig> {
        let mut servers = Vec::new();
        for (group, index) in self.group_order().into_iter().enumerate() {
            let Upstream {
                trusted,
                edns,
                strategy,
                ..
            } = self.upstreams[index];
            let strategy = strategy.own().unwrap_or(self.forward.strategy).into();
            servers.extend(plan.servers[index].iter().map(|to| UpstreamConfig {
                to: *to,
                // A file has at most limits::UPSTREAMS groups, as each has a server.
                group: group as u8,
                trusted,
                edns,
                strategy,
            }));
        }
        servers
    }

    /// The servers of every group, by its number. `found` has those of the groups' files, in the order of the config.
    #[must_use]
    pub fn named_servers(&self, found: &[Vec<UpstreamServer>]) -> Vec<NamedServers> {
        let order = self.group_order().into_iter();
        let named = order.map(|index| {
            let upstream = &self.upstreams[index];
            let found = found.get(index).into_iter().flatten();
            NamedServers {
                servers: upstream.servers.iter().chain(found).cloned().collect(),
                trusted: upstream.trusted,
            }
        });
        named.collect()
    }

    /// The servers of the default group, in any order; unknown if a file names some.
    #[must_use]
    pub fn servers_tag(&self) -> ServersTag {
        let default = self.group_order().first().copied();
        let Some(group) = default.and_then(|index| self.upstreams.get(index)) else {
            return ServersTag::default();
        };
        if group.resolv_file.as_deref().is_some() {
            return ServersTag::default();
        }
        let mut words: Vec<String> = group.servers.iter().map(ToString::to_string).collect();
        words.sort();
        words.push(group.trusted.to_string());
        ServersTag::of(&words.join(" "))
    }
}

/// The servers of a group as the config and its file name them, whether they can be reached at the moment or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServers {
    servers: Vec<UpstreamServer>,
    /// True if their AD bit is passed on.
    trusted: bool,
}

impl NamedServers {
    /// Groups, by number, in whose name an answer may no longer be given: a server of theirs is not named any more, or is trusted
    /// otherwise.
    #[must_use]
    pub fn replaced(before: &[Self], now: &[Self]) -> Vec<u8> {
        let numbers = 0..before.len().min(UPSTREAMS) as u8;
        let is_replaced = |number: &u8| {
            let before = &before[usize::from(*number)];
            now.get(usize::from(*number)).is_none_or(|now| {
                let mut servers = before.servers.iter();
                now.trusted != before.trusted || servers.any(|server| !now.servers.contains(server))
            })
        };
        numbers.filter(is_replaced).collect()
    }
}

/// A text with static lifetime, for the workers. The config is read once for them.
fn kept(text: &str) -> Option<&'static str> {
    (!text.is_empty()).then(|| &*String::leak(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan_with;

    const HEAD: &str = "[interface]\nname = \"lan0\"\n[upstream]\nservers = [\"192.0.2.1\"]\n";
    const KEY: [u8; 16] = *b"random, perhaps.";

    fn valid(more: &str) -> Config {
        Config::parse("f", &format!("{HEAD}{more}")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn an_empty_section_is_the_engines_default() {
        assert_eq!(valid("").settings(), Settings::DEFAULT);
    }

    #[test]
    fn a_group_is_replaced_when_a_server_goes_or_is_trusted_otherwise() {
        let config = |default: &str, corp: &str| {
            let text = format!(
                "[interface]\nname = \"lan0\"\n[[upstream]]\n{default}\n[[upstream]]\nname = \"corp\"\ndomains = [\"corp\"]\n{corp}\n"
            );
            Config::parse("f", &text).unwrap_or_else(|errors| panic!("{errors}"))
        };
        let two = "servers = [\"192.0.2.1\", \"192.0.2.2\"]";
        let one = "servers = [\"192.0.2.2\"]";
        let before = config(two, one).named_servers(&[]);
        let replaced = |default: &str, corp: &str, found: &[Vec<UpstreamServer>]| {
            NamedServers::replaced(&before, &config(default, corp).named_servers(found))
        };
        let nobody: [u8; 0] = [];
        assert_eq!(replaced(two, one, &[]), nobody);
        assert_eq!(replaced(two, two, &[]), nobody, "one more");
        assert_eq!(replaced(one, one, &[]), [0]);
        let other = "servers = [\"192.0.2.2:54\"]";
        assert_eq!(replaced(two, other, &[]), [1]);
        let trusted = format!("{one}\ntrusted = true");
        assert_eq!(replaced(two, &trusted, &[]), [1]);
        let by_file = [vec!["192.0.2.1".parse().expect("an address")]];
        assert_eq!(replaced(one, one, &by_file), nobody, "a file names it now");
        assert_eq!(NamedServers::replaced(&before, &before[..1]), [1]);
        let tag = |default: &str| config(default, one).servers_tag();
        let turned = "servers = [\"192.0.2.2\", \"192.0.2.1\"]";
        assert_eq!(tag(two), tag(turned));
        for other in [one.to_owned(), format!("{two}\ntrusted = true")] {
            assert!(tag(two).differs_from(tag(&other)), "{other}");
        }
        let by_file = tag(&format!("{two}\nresolv_file = \"/run/resolv.conf\""));
        assert_eq!(by_file, ServersTag::default());
    }

    #[test]
    fn every_key_reaches_the_engine() {
        let config = valid(
            "trusted = true\nedns = false\n[forward]\nstrategy = \"race\"\ngive_up_ms = 3000\nrandom_case = false\n\
             failure_ttl = 9\nzone_questions = 10\ngroup_questions = 11\n[cache]\nmin_ttl = 1\nmax_ttl = 2\nnegative_max_ttl = 3\nserve_stale = false\n\
             stale_max_ttl = 4\nstale_after_ms = 5\nprefetch = false\nrotate = false\n\
             [edns]\nnocookie_udp_size = 600\n[rate_limit]\nqueries = 20\nmisses = 10\nburst_secs = 7\nslips = 3\nnewcomers = 4\nanswer_size = 600\n[tcp]\nidle_secs = 7\n\
             [identity]\nversion = \"v\"\nid = \"i\"\n",
        );
        let expected = Settings {
            ttl: TtlBounds {
                min_secs: 1,
                max_secs: 2,
                negative_max_secs: 3,
            },
            serve_stale: false,
            stale_max_secs: 4,
            stale_after_ms: 5,
            give_up_ms: 3000,
            failure_ttl_secs: 9,
            prefetch: false,
            rotate: false,
            random_case: false,
            bounds: CrowdLimits {
                zone: 10,
                group: 11,
            },
            cookies: None,
            rates: RateLimits {
                queries: Rate::new(20, 7),
                misses: Rate::new(10, 7),
                slips: Rate::new(3, 1),
                newcomers: 4,
                answer_size: 600,
            },
            nocookie_udp_size: 600,
            tcp_idle_100ms: 70,
            version: Some("v"),
            identity: Some("i"),
        };
        assert_eq!(config.settings(), expected);
        let plan = plan_with("192.0.2.1:53");
        let [server] = config.servers(&plan)[..] else {
            panic!("one server")
        };
        assert_eq!(
            (server.to, server.group, server.trusted, server.edns),
            (plan.servers[0][0], 0, true, false)
        );
        assert_eq!(server.strategy, Strategy::Race);
        let config = valid("strategy = \"fastest\"\n[forward]\nstrategy = \"race\"\n");
        assert_eq!(config.servers(&plan)[0].strategy, Strategy::Fastest);
    }

    #[test]
    fn secrets_of_the_file_go_before_the_drawn_one() {
        let given =
            |secrets: &str| valid(&format!("[edns]\ncookie_secrets = [{secrets}]\n")).cookies(KEY);
        let (one, two) = (
            "\"00000000000000000000000000000001\"",
            "\"00000000000000000000000000000002\"",
        );
        let secret = |last: u8| u128::from(last).to_be_bytes();
        let expected = |current, previous| {
            Some(CookieSecrets::Given {
                current: secret(current),
                previous: secret(previous),
            })
        };
        assert_eq!(given(&format!("{one}, {two}")), expected(1, 2));
        assert_eq!(given(one), expected(1, 1));
        assert_eq!(given(""), Some(CookieSecrets::Made(KEY)));
        assert_eq!(valid("[edns]\ncookies = false\n").cookies(KEY), None);
    }
}
