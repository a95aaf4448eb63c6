use super::*;
use std::collections::BTreeMap;

type List = Vec<(PrefixBits, u32)>;

const DENY: u32 = verdict::DENY as u32;
const ALLOW: u32 = verdict::ALLOW as u32;

fn list(rules: &[(&str, u32)]) -> List {
    let parse = |(text, value): &(&str, u32)| (bits(text.parse().expect("a prefix")), *value);
    let mut list: List = rules.iter().map(parse).collect();
    list.sort_unstable();
    list
}

fn holds(prefix: &PrefixBits, addr: [u8; 16]) -> bool {
    let shift = 128 - u32::from(prefix.len);
    let top = |addr: [u8; 16]| u128::from_be_bytes(addr).checked_shr(shift).unwrap_or(0);
    top(prefix.addr) == top(addr)
}

/// Verdict of the longest prefix.
fn judge<'a>(list: impl IntoIterator<Item = (&'a PrefixBits, &'a u32)>, addr: [u8; 16]) -> u32 {
    let holding = list.into_iter().filter(|(prefix, _)| holds(prefix, addr));
    holding
        .max_by_key(|(prefix, _)| prefix.len)
        .map_or(0, |(_, value)| *value)
}

/// Applies the steps, and asserts that each address has a verdict of either list at every moment.
fn go(old: &List, new: &List) -> usize {
    let probes: Vec<[u8; 16]> = old
        .iter()
        .chain(new)
        .map(|(prefix, _)| prefix.addr)
        .collect();
    let mut trie: BTreeMap<PrefixBits, u32> = old.iter().copied().collect();
    let pairs = |list: &List| list.clone().into_iter().collect::<BTreeMap<_, _>>();
    let (before, after) = (pairs(old), pairs(new));
    let steps = steps(old, new, PREFIXES_ROOM);
    for step in &steps {
        match step {
            Step::Insert(prefix, value) => drop(trie.insert(*prefix, *value)),
            Step::Remove(prefix) => assert!(trie.remove(prefix).is_some()),
        }
        for probe in &probes {
            let now = judge(&trie, *probe);
            let either = [judge(&before, *probe), judge(&after, *probe)];
            assert!(
                either.contains(&now),
                "{step:?} {probe:?}: {now} of {either:?}"
            );
        }
    }
    assert_eq!(trie, after);
    steps.len()
}

#[test]
fn an_address_has_the_verdict_of_the_old_list_or_of_the_new_one_at_every_moment() {
    let nested = list(&[
        ("10.0.0.0/8", DENY),
        ("10.1.0.0/16", ALLOW),
        ("10.1.2.0/24", DENY),
        ("::/0", DENY),
    ]);
    let other = list(&[
        ("10.0.0.0/7", ALLOW),
        ("10.1.0.0/16", DENY),
        ("10.1.2.9", ALLOW),
        ("2001:db8::/32", DENY),
    ]);
    let none = list(&[]);
    for old in [&nested, &other, &none] {
        for new in [&nested, &other, &none] {
            let count = go(old, new);
            assert_eq!(count == 0, old == new, "what stays costs nothing");
        }
    }
    // Every choice of verdicts for nested prefixes.
    let texts = ["0.0.0.0/0", "128.0.0.0/1", "128.0.0.0/2", "128.0.0.0/3"];
    let choice = |number: usize| {
        let value = |at: usize| (number / 3_usize.pow(at as u32) % 3) as u32;
        let rules: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| (*text, value(at)))
            .collect();
        list(
            &rules
                .into_iter()
                .filter(|(_, value)| *value != 0)
                .collect::<Vec<_>>(),
        )
    };
    for old in 0..81 {
        for new in 0..81 {
            go(&choice(old), &choice(new));
        }
    }
}

#[test]
fn what_is_said_lies_over_the_config_and_leaves_it_as_it_was() {
    // From the second file, and from the first and the last.
    let config = list(&[
        ("10.0.0.0/8", DENY | 0b10 << 8),
        ("10.1.0.0/16", ALLOW | 0x8001 << 8),
    ]);
    let said = |text: &str, verdict| Override {
        prefix: text.parse().expect("a prefix"),
        verdict,
        until: None,
    };
    let over = [
        said("10.1.0.0/16", Verdict::Deny),
        said("::/0", Verdict::Allow),
    ];
    let merged = merged(&config, &over);
    let expected = list(&[
        ("10.0.0.0/8", DENY | DENY << 8 | 0b10 << 16),
        ("10.1.0.0/16", DENY | ALLOW << 8 | 0x8001 << 16),
        ("::/0", ALLOW),
    ]);
    assert_eq!(merged, expected);
    for (file, own) in [
        (0, vec!["10.1.0.0/16"]),
        (1, vec!["10.0.0.0/8"]),
        (2, vec![]),
        (15, vec!["10.1.0.0/16"]),
    ] {
        let found = of_source(&merged, Sources::of(file)).into_iter();
        let found: Vec<String> = found.map(|prefix| prefix.to_string()).collect();
        assert_eq!(found, own, "{file}");
    }
    for text in [
        "10.1.0.0/16",
        "::/0",
        "0.0.0.0/0",
        "2001:db8::/32",
        "::ffff:0:0/95",
    ] {
        if let Ok(prefix) = text.parse::<Prefix>() {
            assert_eq!(prefix_of(bits(prefix)), prefix);
        }
    }
}

/// Half of a list would drop clients that the other half allows.
#[test]
fn more_clients_than_there_is_room_for_are_left_to_user_space() {
    let one = |number| {
        let address = std::net::Ipv4Addr::from_bits(number).into();
        (Prefix::masked(address, 32), Verdict::Deny)
    };
    let clients: Vec<_> = (0..=ACCESS_DROP_MAX).map(one).collect();
    let prefixes = Prefixes::default();
    let problem = prefixes.drop_clients(&clients).expect_err("one too many");
    assert!(
        problem.contains("room for 64 prefixes of `access`, not for 65"),
        "{problem}"
    );
    assert_eq!(prefixes.state().tries(), 0);
}

#[test]
fn two_full_lists_do_not_fit_together_so_the_old_one_goes_first() {
    let many = |first: u32| {
        let prefix = |number: u32| {
            bits(Prefix::masked(
                std::net::Ipv4Addr::from_bits(first + number).into(),
                32,
            ))
        };
        (0..PREFIXES_MAX)
            .map(|number| (prefix(number), DENY))
            .collect::<List>()
    };
    let (old, new) = (many(0), many(1 << 24));
    let steps = steps(&old, &new, PREFIXES_ROOM);
    assert_eq!(steps.len(), 2 * PREFIXES_MAX as usize);
    let mut count = old.len();
    for step in steps {
        count = match step {
            Step::Insert(..) => count + 1,
            Step::Remove(_) => count - 1,
        };
        assert!(count <= PREFIXES_MAX as usize);
    }
}
