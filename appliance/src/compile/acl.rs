//! Compiles the ACL of clients to the ranges that `xdnsd_core::policy::acl` reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use xdnsd_core::policy::acl::{Action, PREFIXES_MAX};

use super::prefix::Prefix;
use super::prefix_list::Verdict;
use super::problem::Problem;
use super::ranges::{self, Span};

/// Input: which clients are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclInput {
    /// Prefixes and the action for their clients. The longest prefix that contains a client's address decides.
    pub rules: Vec<(Prefix, Action)>,
    /// Action for all other clients.
    pub default: Action,
}

impl Default for AclInput {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            default: Action::Allow,
        }
    }
}

/// Compiles the image. Empty if all clients are answered.
///
/// # Errors
/// Too many prefixes, or a prefix with two actions.
pub fn compile(input: &AclInput) -> Result<Vec<u8>, Problem> {
    if input.rules.len() > PREFIXES_MAX {
        let what = format!(
            "{} prefixes are too many; allowed: {PREFIXES_MAX}",
            input.rules.len()
        );
        return Err(Problem::of("acl", what));
    }
    for (index, (prefix, action)) in input.rules.iter().enumerate() {
        let is_contrary =
            |(other, other_action): &&(Prefix, Action)| other == prefix && other_action != action;
        if input.rules[..index].iter().any(|rule| is_contrary(&rule)) {
            return Err(Problem::of(
                "acl",
                format!("{prefix} is named with two actions"),
            ));
        }
    }
    if input.default == Action::Allow
        && input
            .rules
            .iter()
            .all(|(_, action)| *action == Action::Allow)
    {
        return Ok(Vec::new());
    }
    let lay = |cut, is_ipv4| {
        ranges::sorted(&input.rules, is_ipv4).fold(cut, |cut, (prefix, action)| {
            ranges::lay(cut, Span::of(&prefix), |_| action)
        })
    };
    Ok(ranges::compile(input.default, lay, |action| action as u8))
}

/// Clients that are dropped for their address alone, for the XDP programs: the longest prefix decides, and a client that none
/// denies is for user space to judge. Empty if there are none.
#[must_use]
pub fn dropped(input: &AclInput) -> Vec<(Prefix, Verdict)> {
    let verdict = |action| match action {
        Action::Drop => Verdict::Deny,
        // User space says which of them are answered.
        Action::Allow | Action::Refuse | Action::Local => Verdict::Allow,
    };
    // No client has an IPv4-mapped address: it counts by its IPv4 address.
    let rules = input.rules.iter();
    let mut rules: Vec<_> = rules
        .filter(|(prefix, _)| prefix.unmapped() == *prefix)
        .map(|(prefix, action)| (*prefix, verdict(*action)))
        .collect();
    if input.default == Action::Drop {
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for all in all.map(|address| Prefix::masked(address, 0)) {
            if !rules.iter().any(|(prefix, _)| *prefix == all) {
                rules.push((all, Verdict::Deny));
            }
        }
    }
    let has_any = rules.iter().any(|(_, verdict)| *verdict == Verdict::Deny);
    if has_any { rules } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use xdnsd_core::policy::acl::Acl;

    fn input(rules: &[(&str, Action)], default: Action) -> AclInput {
        let rules = rules
            .iter()
            .map(|&(prefix, action)| (prefix.parse().expect("a prefix"), action))
            .collect();
        AclInput { rules, default }
    }

    fn action(image: &[u8], client: &str) -> Action {
        Acl::view(image)
            .expect("an ACL")
            .action(client.parse().expect("an address"))
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = [
            ("192.168.1.66", Action::Drop),
            ("192.168.0.0/16", Action::Allow),
            ("192.168.1.0/24", Action::Refuse),
            ("fd00::/8", Action::Allow),
        ];
        let image = compile(&input(&rules, Action::Drop)).expect("compiled");
        let cases = [
            ("192.167.255.255", Action::Drop),
            ("192.168.0.0", Action::Allow),
            ("192.168.0.255", Action::Allow),
            ("192.168.1.0", Action::Refuse),
            ("192.168.1.65", Action::Refuse),
            ("192.168.1.66", Action::Drop),
            ("192.168.1.67", Action::Refuse),
            ("192.168.2.0", Action::Allow),
            ("192.169.0.0", Action::Drop),
            ("fd12::1", Action::Allow),
            ("fe80::1", Action::Drop),
            ("::ffff:192.168.2.1", Action::Allow),
        ];
        for (client, expected) in cases {
            assert_eq!(action(&image, client), expected, "{client}");
        }
    }

    /// Compared with the definition: the longest prefix that contains the address.
    #[test]
    fn ranges_say_what_the_prefixes_say() {
        let mut state = 1u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let actions = [Action::Allow, Action::Refuse, Action::Drop];
        for _ in 0..50 {
            let mut rules: Vec<(Prefix, Action)> = Vec::new();
            for _ in 0..40 {
                let (bits, len) = (draw() & 0xff, 24 + (draw() % 9) as u8);
                let prefix = Prefix::masked(
                    std::net::Ipv4Addr::from_bits(0x0a00_0000 | bits).into(),
                    len,
                );
                if !rules.iter().any(|(other, _)| *other == prefix) {
                    rules.push((prefix, actions[draw() as usize % 3]));
                }
            }
            let input = AclInput {
                rules,
                default: actions[draw() as usize % 3],
            };
            let image = compile(&input).expect("compiled");
            for bits in 0x09ff_fffe..=0x0a00_0102u32 {
                let address: IpAddr = std::net::Ipv4Addr::from_bits(bits).into();
                let holds = |(prefix, _): &&(Prefix, Action)| {
                    Prefix::masked(address, prefix.length()) == *prefix
                };
                let longest = input
                    .rules
                    .iter()
                    .filter(holds)
                    .max_by_key(|(prefix, _)| prefix.length());
                let expected = longest.map_or(input.default, |(_, action)| *action);
                assert_eq!(
                    Acl::view(&image).expect("an ACL").action(address),
                    expected,
                    "{address} {input:?}"
                );
            }
        }
    }

    #[test]
    fn the_ends_of_the_address_space() {
        let rules = [
            ("0.0.0.0/0", Action::Allow),
            ("255.255.255.255", Action::Drop),
            ("::/0", Action::Allow),
        ];
        let image = compile(&input(&rules, Action::Refuse)).expect("compiled");
        assert_eq!(action(&image, "0.0.0.0"), Action::Allow);
        assert_eq!(action(&image, "255.255.255.254"), Action::Allow);
        assert_eq!(action(&image, "255.255.255.255"), Action::Drop);
        assert_eq!(
            action(&image, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            Action::Allow
        );
    }

    #[test]
    fn everyone_is_an_empty_image() {
        assert_eq!(compile(&AclInput::default()), Ok(Vec::new()));
        let image =
            compile(&input(&[("10.0.0.0/8", Action::Allow)], Action::Allow)).expect("compiled");
        assert_eq!(image.len(), 0);
        assert_eq!(action(&image, "192.0.2.1"), Action::Allow);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let twice = input(
            &[("10.0.0.0/8", Action::Allow), ("10.0.0.0/8", Action::Drop)],
            Action::Refuse,
        );
        assert_eq!(
            compile(&twice).expect_err("wrong").to_string(),
            "acl: 10.0.0.0/8 is named with two actions"
        );
        let prefix = |n: u32| {
            (
                Prefix::masked(std::net::Ipv4Addr::from_bits(n << 8).into(), 24),
                Action::Allow,
            )
        };
        let most = AclInput {
            rules: (0..PREFIXES_MAX as u32).map(prefix).collect(),
            default: Action::Drop,
        };
        assert!(Acl::view(&compile(&most).expect("compiled")).is_ok());
        let more = AclInput {
            rules: (0..=PREFIXES_MAX as u32).map(prefix).collect(),
            default: Action::Drop,
        };
        assert!(compile(&more).is_err());
    }

    /// Compared with the ranges that workers look into: whom the longest prefix denies they drop, and nobody else.
    #[test]
    fn who_is_dropped_by_address_alone_is_whom_workers_drop() {
        let rules = [
            ("10.0.0.0/8", Action::Drop),
            ("10.1.0.0/16", Action::Allow),
            ("10.1.1.0/24", Action::Refuse),
            ("10.1.1.1", Action::Drop),
            ("::ffff:10.1.2.0/120", Action::Drop),
            ("fd00::/8", Action::Drop),
            ("fd00::1", Action::Allow),
        ];
        let clients = [
            "9.255.255.255",
            "10.0.0.0",
            "10.1.0.0",
            "10.1.1.0",
            "10.1.1.1",
            "10.1.2.1",
            "11.0.0.0",
            "fc00::1",
            "fd00::",
            "fd00::1",
            "fe00::",
        ];
        for default in [Action::Allow, Action::Refuse, Action::Drop, Action::Local] {
            let input = input(&rules, default);
            let image = compile(&input).expect("compiled");
            let dropped = dropped(&input);
            for client in clients {
                let address: IpAddr = client.parse().expect("an address");
                let holds = |(prefix, _): &&(Prefix, Verdict)| {
                    Prefix::masked(address, prefix.length()) == *prefix
                };
                let longest = dropped.iter().filter(holds);
                let longest = longest.max_by_key(|(prefix, _)| prefix.length());
                let is_denied = longest.is_some_and(|(_, verdict)| *verdict == Verdict::Deny);
                let is_dropped = action(&image, client) == Action::Drop;
                assert_eq!(is_denied, is_dropped, "{default:?} {client}");
            }
        }
        for default in [Action::Allow, Action::Refuse, Action::Local] {
            let nobody = input(&rules[1..3], default);
            assert_eq!(dropped(&nobody), [], "nothing to look for");
        }
        let all = [("0.0.0.0/0", Action::Allow), ("::/0", Action::Refuse)];
        assert_eq!(dropped(&input(&all, Action::Drop)), [], "nobody is left");
    }
}
