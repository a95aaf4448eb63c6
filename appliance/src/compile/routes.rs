//! Compiles routed and allowed suffixes to the tables that `xdnsd_core::policy::route` reads.

use xdnsd_abi::hash::HashKey;

use super::name;
use super::prefix::Prefix;
use super::problem::Problem;
use super::table::TableBuilder;

/// An upstream group and the suffixes that it answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInput {
    /// Names, each with all names below it, such as `corp.example`, or prefixes for their reverse zones, such as `10.1.0.0/20`.
    pub suffixes: Vec<String>,
    /// Index of the group.
    pub group: u16,
}

/// Suffixes of an item of the config: the reverse zones of a prefix, or a name.
///
/// # Errors
/// It is neither.
pub fn parse_suffix(text: &str) -> Result<Vec<Vec<u8>>, String> {
    // A name has no slash, and an address is no name.
    let looks_like_prefix =
        text.contains('/') || text.contains(':') || text.parse::<std::net::IpAddr>().is_ok();
    if looks_like_prefix {
        let prefix: Prefix = text.parse().map_err(|error| format!("`{text}` {error}"))?;
        return Ok(prefix.reverse_zones());
    }
    let text = text.strip_prefix("*.").unwrap_or(text);
    name::parse(text)
        .map(|name| vec![name])
        .map_err(|error| format!("`{text}` {error}"))
}

/// Compiles the image of routes.
///
/// # Errors
/// A suffix is neither name nor prefix, or is routed to two groups.
pub fn compile_routes(
    routes: &[RouteInput],
    draw_key: impl FnMut() -> HashKey,
) -> Result<Vec<u8>, Problem> {
    let mut table = TableBuilder::default();
    for RouteInput { suffixes, group } in routes {
        for text in suffixes {
            for suffix in parse_suffix(text).map_err(|what| Problem::of("routes", what))? {
                if table
                    .get(&suffix)
                    .is_some_and(|other| other != u32::from(*group))
                {
                    let what = format!("`{}` is routed to two groups", name::display(&suffix));
                    return Err(Problem::of("routes", what));
                }
                table.insert(&suffix, u32::from(*group));
            }
        }
    }
    Ok(table.build(draw_key))
}

/// Compiles the image of a set of suffixes.
///
/// # Errors
/// A suffix is neither name nor prefix.
pub fn compile_suffixes<'t>(
    key: &str,
    suffixes: impl Iterator<Item = &'t String>,
    draw_key: impl FnMut() -> HashKey,
) -> Result<Vec<u8>, Problem> {
    let mut table = TableBuilder::default();
    for text in suffixes {
        for suffix in parse_suffix(text).map_err(|what| Problem::of(key, what))? {
            table.insert(&suffix, 0);
        }
    }
    Ok(table.build(draw_key))
}

#[cfg(test)]
mod tests {
    use super::super::table::random_key;
    use super::*;
    use xdnsd_core::policy::name::Labels;
    use xdnsd_core::policy::route::{Route, Routes, Suffixes};

    fn input(group: u16, suffixes: &[&str]) -> RouteInput {
        RouteInput {
            suffixes: suffixes.iter().map(|&text| text.into()).collect(),
            group,
        }
    }

    fn group(image: &[u8], name: &str) -> Option<u16> {
        let name = name::parse(name).expect("a name");
        let routes = Routes::view(image).expect("routes");
        routes
            .lookup(&Labels::new(&name).expect("well-formed"))
            .map(|Route { group, .. }| group)
    }

    #[test]
    fn the_longest_suffix_wins_by_whole_labels() {
        let routes = [
            input(1, &["corp.example"]),
            input(2, &["lab.corp.example.", "*.onion"]),
            input(3, &["."]),
        ];
        let image = compile_routes(&routes[..2], random_key).expect("compiled");
        assert_eq!(group(&image, "a.corp.example"), Some(1));
        assert_eq!(group(&image, "corp.example"), Some(1));
        assert_eq!(group(&image, "a.b.lab.corp.example"), Some(2));
        assert_eq!(group(&image, "x.onion"), Some(2));
        assert_eq!(group(&image, "acorp.example"), None);
        assert_eq!(group(&image, "example"), None);
        let image = compile_routes(&routes, random_key).expect("compiled");
        assert_eq!(
            group(&image, "example"),
            Some(3),
            "the root covers the rest"
        );
    }

    #[test]
    fn reverse_zones_by_prefix() {
        let image = compile_routes(
            &[input(4, &["10.1.0.0/20", "fd00::/8", "192.0.2.1"])],
            random_key,
        )
        .expect("compiled");
        assert_eq!(group(&image, "7.3.1.10.in-addr.arpa"), Some(4));
        assert_eq!(group(&image, "7.15.1.10.in-addr.arpa"), Some(4));
        assert_eq!(group(&image, "7.16.1.10.in-addr.arpa"), None);
        assert_eq!(
            group(&image, "1.1.10.in-addr.arpa"),
            Some(4),
            "the zone itself"
        );
        assert_eq!(
            group(&image, "1.10.in-addr.arpa"),
            None,
            "not its parent, which has others below it"
        );
        assert_eq!(group(&image, "1.d.f.ip6.arpa"), Some(4));
        assert_eq!(group(&image, "1.2.0.192.in-addr.arpa"), Some(4));
        assert_eq!(group(&image, "2.2.0.192.in-addr.arpa"), None);
    }

    #[test]
    fn what_is_neither_name_nor_prefix_is_refused() {
        for (text, part) in [
            ("a..b", "empty label"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("10.0.0.0/40", "more bits"),
        ] {
            let error = compile_routes(&[input(1, &[text])], random_key)
                .expect_err("wrong")
                .to_string();
            assert!(
                error.starts_with("routes: ") && error.contains(part),
                "{error}"
            );
        }
        let twice = [input(1, &["a.example"]), input(2, &["A.example."])];
        let error = compile_routes(&twice, random_key)
            .expect_err("wrong")
            .to_string();
        assert_eq!(error, "routes: `a.example.` is routed to two groups");
    }

    #[test]
    fn a_set_covers_its_names_and_all_below() {
        let names = ["example.org".to_owned(), "10.0.0.0/8".to_owned()];
        let image = compile_suffixes("allowed", names.iter(), random_key).expect("compiled");
        let set = Suffixes::view(&image).expect("a set");
        let covers = |name: &str| {
            let name = name::parse(name).expect("a name");
            set.covers(&Labels::new(&name).expect("well-formed"))
        };
        assert!(covers("example.org") && covers("a.example.org") && covers("1.10.in-addr.arpa"));
        assert!(!covers("org") && !covers("example.net"));
        let wrong = ["a..b".to_owned()];
        let error = compile_suffixes("allowed", wrong.iter(), random_key)
            .expect_err("wrong")
            .to_string();
        assert_eq!(error, "allowed: `a..b` has an empty label");
    }
}
