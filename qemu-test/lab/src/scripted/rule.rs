//! Treatment of a question, and the names that it applies to.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Asked;

/// Treatment of a question for one name.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Number of first questions to lose.
    pub drop_first: usize,
    /// Sent over UDP before the answer, all at once.
    pub before: Vec<Stray>,
    /// Delay of the answer.
    pub delay: Duration,
    /// `None` for silence.
    pub answer: Option<Make>,
}

/// A datagram other than the answer, or from another source.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Source of the datagram.
    pub sender: Sender,
    /// Content of the datagram.
    pub message: Make,
}

/// Source of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The asked server.
    Server,
    /// Another port of its address.
    OtherPort,
    /// Another address.
    OtherAddress,
}

/// Makes a message from the question that it answers.
#[derive(Clone)]
pub struct Make(Arc<MakeBytes>);

type MakeBytes = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

impl Make {
    /// Uses this closure.
    #[must_use]
    pub fn new(make: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// The message. An empty one is not sent.
    #[must_use]
    pub fn bytes(&self, asked: &Asked) -> Vec<u8> {
        (self.0)(asked)
    }
}

impl fmt::Debug for Make {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Make")
    }
}

impl Rule {
    /// Never answers.
    #[must_use]
    pub fn silence() -> Self {
        Self {
            drop_first: 0,
            before: Vec::new(),
            delay: Duration::ZERO,
            answer: None,
        }
    }

    /// Answers at once.
    #[must_use]
    pub fn answer(make: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self {
            answer: Some(Make::new(make)),
            ..Self::silence()
        }
    }
}

/// The script: rules by server (`None`: any) and name.
#[derive(Debug)]
pub(super) struct Rules {
    /// Names are in lower case with a final dot, and may begin with `*.`.
    by_name: HashMap<(Option<IpAddr>, String), Rule>,
    otherwise: Rule,
}

impl Rules {
    pub(super) fn new(otherwise: Rule) -> Self {
        Self {
            by_name: HashMap::new(),
            otherwise,
        }
    }

    pub(super) fn set(&mut self, server: Option<IpAddr>, name: &str, rule: Rule) {
        self.by_name
            .insert((server, name.to_ascii_lowercase()), rule);
    }

    /// Returns the rule to apply this time.
    pub(super) fn take(&mut self, asked: &Asked) -> Rule {
        let rule = match self.find(asked) {
            Some(key) => self.by_name.get_mut(&key),
            None => Some(&mut self.otherwise),
        };
        let Some(rule) = rule else {
            return Rule::silence();
        };
        if rule.drop_first > 0 {
            rule.drop_first -= 1;
            return Rule::silence();
        }
        rule.clone()
    }

    /// Key of the rule: the name itself, then wildcards from near to far; the server's own rules first.
    fn find(&self, asked: &Asked) -> Option<(Option<IpAddr>, String)> {
        if self.by_name.is_empty() {
            return None;
        }
        let name = asked.name().to_ascii_lowercase();
        let parents = name
            .match_indices('.')
            .map(|(at, _)| format!("*{}", &name[at..]));
        for candidate in std::iter::once(name.clone()).chain(parents) {
            for server in [Some(asked.server.ip()), None] {
                let key = (server, candidate.clone());
                if self.by_name.contains_key(&key) {
                    return Some(key);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Asked;
    use super::{Rule, Rules};

    /// A rule that answers with this text.
    fn saying(text: &'static str) -> Rule {
        Rule::answer(|_| text.as_bytes().to_vec())
    }

    fn said(rules: &mut Rules, server: &str, name: &[u8]) -> String {
        let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let query = [&header, name, &[0, 0, 1, 0, 1]].concat();
        let server = format!("{server}:53").parse().expect("an address");
        let asked = Asked::over_udp(&query, server, server).expect("a query");
        let answer = rules.take(&asked).answer;
        let bytes = answer.map_or(b"silence".to_vec(), |answer| answer.bytes(&asked));
        String::from_utf8(bytes).expect("a text")
    }

    #[test]
    fn the_nearest_rule_counts_and_the_servers_own_before_all_others() {
        let mut rules = Rules::new(saying("otherwise"));
        let one = "192.0.2.1".parse().expect("an address");
        rules.set(None, "*.Test.", saying("far"));
        rules.set(None, "*.b.test.", saying("near"));
        rules.set(None, "a.b.TEST.", saying("itself"));
        rules.set(Some(one), "*.test.", saying("far at one"));
        rules.set(Some(one), "a.b.test.", saying("itself at one"));
        for (server, name, wanted) in [
            ("192.0.2.2", b"\x01A\x01b\x04tEst".as_slice(), "itself"),
            ("192.0.2.1", b"\x01a\x01b\x04test", "itself at one"),
            ("192.0.2.2", b"\x01c\x01b\x04test", "near"),
            // A nearer wildcard takes precedence over the server's own.
            ("192.0.2.1", b"\x01c\x01b\x04test", "near"),
            ("192.0.2.1", b"\x01b\x04test", "far at one"),
            ("192.0.2.2", b"\x01b\x04test", "far"),
            ("192.0.2.1", b"\x04test", "otherwise"),
            ("192.0.2.1", b"\x05other", "otherwise"),
        ] {
            assert_eq!(said(&mut rules, server, name), wanted, "{name:?}");
        }
    }

    #[test]
    fn the_first_questions_are_lost_as_many_as_the_rule_says() {
        let losing = |text| Rule {
            drop_first: 2,
            ..saying(text)
        };
        let mut rules = Rules::new(losing("otherwise"));
        rules.set(None, "a.", losing("a"));
        let mut three = |name: &[u8]| [(); 3].map(|()| said(&mut rules, "192.0.2.1", name));
        assert_eq!(three(b"\x01a"), ["silence", "silence", "a"]);
        assert_eq!(three(b"\x01b"), ["silence", "silence", "otherwise"]);
    }
}
