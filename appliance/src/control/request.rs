//! Checks the words of a request before the daemon is asked.

use super::socket::CommandError;
use super::{commands, shield, why};

/// Finds what is wrong with the words of a request, as far as that shows without the daemon. It shares the daemon's parsers.
///
/// # Errors
/// In words.
pub fn check(request: &str) -> Result<(), String> {
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    let words = words.strip_prefix(&["json"]).unwrap_or(&words);
    let checked = match words {
        ["why", words @ ..] => return why::question(words).map(drop),
        ["pause", words @ ..] => return commands::pause_of(words).map(drop),
        ["resume", words @ ..] => return commands::client_of(words).map(drop),
        ["shield", "deny" | "allow", words @ ..] => shield::prefix_of(words, true).map(drop),
        ["shield", "forget", words @ ..] => shield::prefix_of(words, false).map(drop),
        ["cache", "dump" | "flush", words @ ..] => commands::name_of(words).map(drop),
        _ => return Ok(()),
    };
    checked.map_err(|error| match error {
        CommandError::Refused(problem) => problem,
        CommandError::Io(error) => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same rule for all: the client refuses exactly what the daemon would refuse by the words alone.
    #[test]
    fn wrong_words_are_known_before_anybody_is_asked() {
        for request in [
            "why",
            "why a..b",
            "why a.b B",
            "why a.b A 192.0.2.1 x",
            "why a.b A fe80::1%",
            "why a.b A 2001:db8::1%lan0",
            "why a.b A 192.0.2.1%lan0",
            "json why a.b 1 2",
            "cache dump a..b",
            "json cache dump a b",
            "cache flush a b",
            "pause soon",
            "pause 5m 5m",
            "pause 5m 192.0.2.1/24",
            "pause 5m 192.0.2.1 x",
            "resume now",
            "shield deny",
            "shield deny lan",
            "shield deny 192.0.2.1/24",
            "shield deny fe80::1%lan0",
            "shield deny 192.0.2.1 0",
            "shield allow 192.0.2.1 x",
            "shield allow 192.0.2.1 1 2",
            "shield forget 192.0.2.1 1",
        ] {
            assert!(check(request).is_err(), "{request}");
        }
        for request in [
            "stats",
            "json stats",
            "upstreams",
            "reload",
            "why a.b",
            "why a.b fe80::50%lan0",
            "json why a.b AAAA 2001:db8::1",
            "cache dump",
            "cache flush a.b",
            "cache save",
            "pause",
            "pause 5m",
            "pause 5m 192.0.2.0/24",
            "resume",
            "resume fd00::1",
            "shield status",
            "shield deny 192.0.2.0/24 60",
            "shield allow ::/0",
            "shield forget 192.0.2.1",
        ] {
            assert_eq!(check(request), Ok(()), "{request}");
        }
    }

    #[test]
    fn a_client_may_be_named_with_its_interface() {
        let client =
            |word: &str| why::question(&["a.b", "AAAA", word]).map(|question| question.client);
        let address = "fe80::50".parse().ok();
        for word in [
            "fe80::50",
            "fe80::50%lan0",
            "fe80::50%3",
            "FE80::50%br-lan.10",
        ] {
            assert_eq!(client(word), Ok(address), "{word}");
        }
        for (word, problem) in [
            ("fe80::50%", "`fe80::50%` has no interface behind %"),
            (
                "2001:db8::1%lan0",
                "`2001:db8::1%lan0`: an address that is not link-local names no interface: 2001:db8::1",
            ),
            (
                "192.0.2.1%lan0",
                "`192.0.2.1%lan0`: an address that is not link-local names no interface: 192.0.2.1",
            ),
            (
                "x%lan0",
                "`x%lan0` is neither a type, such as AAAA, nor a client's address",
            ),
        ] {
            assert_eq!(client(word), Err(problem.into()));
        }
    }
}
