//! Tests of sets for the addresses of names.

use super::*;

const HEAD: &str = "[[interface]]\nname = \"lan0\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n";

fn told(more: &str) -> String {
    let parsed = Config::parse("f", &format!("{HEAD}{more}"));
    parsed.expect_err("a fault").to_string()
}

#[test]
fn what_is_wrong_with_a_set_is_told_with_its_line() {
    let section = "[[nftset]]\nnames = [\"a.example\"]\nsets = [\"t#s\"]\n";
    let a_set = "allowed: a list of 1 to 8, each a set such as \"inet#fw4#vpn4\": [4#|6#][FAMILY#]TABLE#SET";
    for (more, expected) in [
        (
            "[[nftset]]\nsets = [\"t#s\"]\n".to_owned(),
            "f:5:1: nftset.names: is missing".to_owned(),
        ),
        (
            "[[nftset]]\nnames = [\"a.example\"]\nsets = []\n".to_owned(),
            "f:7:8: nftset.sets: the list is empty; allowed: a list of 1 to 8, each a set".to_owned(),
        ),
        (
            "[[nftset]]\nnames = [\"a..example\"]\nsets = [\"t#s\"]\n".to_owned(),
            "f:6:10: nftset.names: \"a..example\" has an empty label".to_owned(),
        ),
        (
            "[[nftset]]\nnames = [\"a.example\"]\nsets = [\"vpn\"]\n".to_owned(),
            format!(
                "f:7:9: nftset.sets: \"vpn\" is not a table and a set with # in between; {a_set}"
            ),
        ),
        (
            "[[nftset]]\nnames = [\"a.example\"]\nsets = [\"ipv4#t#s\"]\n".to_owned(),
            format!(
                "f:7:9: nftset.sets: \"ipv4#t#s\" has none of the families inet, ip, arp, netdev, bridge, ip6; {a_set}"
            ),
        ),
        (
            format!("{section}[[nftset]]\nnames = [\"b.example\", \"A.example.\"]\nsets = [\"t#s\"]\n"),
            "f:9:23: nftset.names: A.example. stands in nftset[0].names[0] already; allowed: each name once, with all of its sets".to_owned(),
        ),
        (
            "[[nftset]]\nnames = [\"a.example\"]\nsets = [\"t#s\", \"t#s\"]\n".to_owned(),
            "f:7:16: nftset.sets: t#s stands twice; allowed: each set once".to_owned(),
        ),
    ] {
        let told = told(&more);
        assert!(told.starts_with(&expected), "{more}\n{told}");
    }
    let many: String = (0..65)
        .map(|n| format!("[[nftset]]\nnames = [\"n{n}.example\"]\nsets = [\"t#s\"]\n"))
        .collect();
    assert!(told(&many).contains("65 sections are too many; allowed: at most 64"));
}

#[test]
fn every_key_reaches_policy() {
    let text = format!(
        "{HEAD}[[nftset]]\nnames = [\"a.example\"]\nsets = [\"4#t#s\"]\n[[nftset]]\nnames = [\".\"]\nsets = [\"inet#t#s\", \"t#r\"]\n"
    );
    let config = Config::parse("f", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = config.policy().nft_sets.into_iter().map(|input| {
        let sets = input.sets.iter().map(ToString::to_string);
        (input.names.join(" "), sets.collect::<Vec<_>>().join(" "))
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            ("a.example".to_owned(), "4#t#s".to_owned()),
            (".".to_owned(), "inet#t#s t#r".to_owned())
        ]
    );
}
