//! Hints for unknown words: misspelt ones, or those of other programs.

/// Words of other programs, each with ours, the likeliest first. Words that are unknown in the context are skipped.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("0.0.0.0", &["zero"]),
    ("acl", &["access"]),
    ("adblock", &["filter"]),
    ("addn-hosts", &["hosts"]),
    ("address", &["listen", "addresses"]),
    ("all", &["always", "race"]),
    ("allowlist", &["allow_files", "allow"]),
    ("audit", &["log"]),
    ("blacklist", &["block_files", "block", "drop"]),
    ("blocking", &["filter"]),
    ("blocklist", &["block_files", "filter"]),
    ("blocklists", &["block_files", "filter"]),
    ("cache-size", &["entries"]),
    ("cachesize", &["entries"]),
    ("capacity", &["entries"]),
    ("conf-dir", &["include", "files"]),
    ("conf-file", &["include", "files"]),
    ("critical", &["error"]),
    ("deny", &["refuse", "block"]),
    ("denylist", &["block_files", "drop"]),
    ("device", &["name"]),
    ("dhcp", &["dnsmasq_leases", "local"]),
    ("disabled", &["off"]),
    ("dns", &["upstream"]),
    ("domain", &["domains", "search"]),
    ("driver", &["native"]),
    ("drv", &["native"]),
    ("enabled", &["on"]),
    ("enforce", &["on"]),
    ("false", &["off"]),
    ("fast", &["fastest"]),
    ("files", &["block_files", "hosts"]),
    ("first", &["ordered"]),
    ("forwarder", &["upstream"]),
    ("forwarders", &["upstream", "servers"]),
    ("hardening", &["security"]),
    ("hosts", &["local"]),
    ("ignore", &["drop"]),
    ("ip", &["listen"]),
    ("kill", &["on"]),
    ("lan", &["local", "interface"]),
    ("leases", &["dnsmasq_leases", "local"]),
    ("listen", &["interface"]),
    ("listen-address", &["listen"]),
    ("loglevel", &["level"]),
    ("lookup", &["sk_lookup"]),
    ("mode", &["xdp"]),
    ("nameserver", &["upstream", "servers"]),
    ("nameservers", &["upstream", "servers"]),
    ("network", &["interface", "allow"]),
    ("networks", &["interface", "allow"]),
    ("never", &["off"]),
    ("no", &["never", "off"]),
    ("none", &["off", "never", "drop"]),
    ("notice", &["info"]),
    ("null", &["zero"]),
    ("on", &["always", "auto"]),
    ("parallel", &["race"]),
    ("permissive", &["log"]),
    ("persist", &["snapshot"]),
    ("quiet", &["error", "off"]),
    ("records", &["local"]),
    ("reject", &["refuse"]),
    ("resolver", &["upstream"]),
    ("resolvers", &["upstream", "servers"]),
    ("rfc1918", &["private"]),
    ("sandbox", &["security", "seccomp"]),
    ("sequential", &["ordered"]),
    ("server", &["upstream", "servers"]),
    ("servers", &["upstream"]),
    ("silent", &["off"]),
    ("size", &["entries"]),
    ("skb", &["generic"]),
    ("static", &["records"]),
    ("stats", &["statistics"]),
    ("strict", &["ordered"]),
    ("timeout", &["give_up_ms", "idle_secs"]),
    ("true", &["always", "auto", "on"]),
    ("ttl", &["max_ttl"]),
    ("verbose", &["debug"]),
    ("verbosity", &["level"]),
    ("warning", &["warn"]),
    ("whitelist", &["allow_files", "allow"]),
    ("yes", &["always", "auto", "on"]),
];

/// The known word that was probably meant: in other letter case, from another program, or misspelt.
pub fn meant<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase();
    let plain = |word: &str| word.replace(['-', ' ', '.'], "_");
    let same = known.iter().find(|known| plain(known) == plain(&lower));
    let of_others = || {
        let (_, ours) = SYNONYMS.iter().find(|(others, _)| *others == lower)?;
        ours.iter()
            .find_map(|ours| known.iter().find(|known| *known == ours))
    };
    let found = same.or_else(of_others).or_else(|| longer(&lower, known));
    found.copied().or_else(|| nearest(word, known))
}

/// The known word that this one is a prefix of, or the other way round: `idle` is `idle_secs`, `information` is `info`.
fn longer<'l, 'k>(word: &str, known: &'l [&'k str]) -> Option<&'l &'k str> {
    const LEN_MIN: usize = 3;
    let begins = |long: &str, short: &str| short.len() >= LEN_MIN && long.starts_with(short);
    let is_like = |known: &&&str| begins(known, word) || begins(word, known);
    let distance = |known: &&&str| known.len().abs_diff(word.len());
    known.iter().filter(is_like).min_by_key(distance)
}

/// `, did you mean "…"?`, or nothing.
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    let meant = meant(word, known).map(|known| format!(", did you mean \"{known}\"?"));
    meant.unwrap_or_default()
}

/// Syntax of a section's heading.
pub fn heading(name: &str, many: bool) -> String {
    if many {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}

/// The known word with the most similar spelling, if any is similar.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&str| edit_distance(&word.to_lowercase(), known);
    let near = known.iter().copied().min_by_key(distance)?;
    let tolerated = near.len().max(word.len()).div_ceil(3);
    (distance(&near) <= tolerated).then_some(near)
}

/// Levenshtein distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::super::schema::SECTIONS;
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let known = ["servers", "strategy", "timeout_ms"];
        assert_eq!(nearest("server", &known), Some("servers"));
        assert_eq!(nearest("timeout", &known), Some("timeout_ms"));
        assert_eq!(nearest("Strategy", &known), Some("strategy"));
        assert_eq!(nearest("upstream", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn other_programs_words_are_ours() {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        for (word, ours) in [
            ("warning", Some("warn")),
            ("WARN", Some("warn")),
            ("err", Some("error")),
            ("information", Some("info")),
            ("verbose", Some("debug")),
            ("none", Some("off")),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(meant(word, &levels), ours, "{word}");
        }
        let access = ["allow", "refuse", "drop", "others"];
        assert_eq!(meant("deny", &access), Some("refuse"));
        assert_eq!(meant("blacklist", &access), Some("drop"));
        assert_eq!(
            meant("home-arpa", &["local", "home.arpa"]),
            Some("home.arpa")
        );
        assert_eq!(meant("idle", &["idle_secs"]), Some("idle_secs"));
    }

    /// A synonym for an unknown word would never be used.
    #[test]
    fn every_synonym_is_for_a_word_of_ours() {
        let keys = SECTIONS.iter().flat_map(|section| section.keys);
        let words = keys
            .clone()
            .flat_map(|key| key.words)
            .map(|(word, _)| *word);
        let mut known: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        known.extend(keys.map(|key| key.name).chain(words));
        known.push("private");
        for (others, ours) in SYNONYMS {
            for word in *ours {
                assert!(known.contains(word), "{others}: {word}");
            }
        }
    }

    #[test]
    fn edit_distances() {
        for (a, b, distance) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("vlan", "valn", 2),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }
}
