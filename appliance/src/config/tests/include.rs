//! Configs of several files.

use super::*;
use crate::testing::Folder;

const UP: &str = "[[upstream]]\nservers = [\"192.0.2.1\"]\n";

/// What is wrong with a config in this folder, without the folder's name.
fn said(folder: &Folder) -> Vec<String> {
    let errors = Config::load(&folder.path().join("xdnsd.toml")).expect_err("it is wrong");
    let here = format!("{}/", folder.path().display());
    let faults = errors.faults().iter();
    faults
        .map(|fault| fault.to_string().replace(&here, ""))
        .collect()
}

fn folder(files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    for (name, content) in files {
        if let Some((below, _)) = name.rsplit_once('/') {
            std::fs::create_dir_all(folder.path().join(below)).expect("made");
        }
        folder.write(name, content);
    }
    folder
}

#[test]
fn files_are_one_config_in_the_order_of_their_names() {
    let folder = folder(&[
        (
            "xdnsd.toml",
            "[include]\nfiles = [\"wan/up.toml\", \"conf.d/*.toml\", \"more\"]\n\
             [[interface]]\nname = \"lan0\"\n[cache]\nmin_ttl = 1\n",
        ),
        ("wan/up.toml", UP),
        (
            "conf.d/20-b.toml",
            "[[interface]]\nname = \"b0\"\n[cache]\nmax_ttl = 60\n",
        ),
        (
            "conf.d/10-a.toml",
            "\u{feff}[interface]\nname = \"a0\"\n[include]\nfiles = [\"sub/x.conf\"]\n",
        ),
        (
            "conf.d/sub/x.conf",
            "# of a0\n[[interface]]\nname = \"x0\"\n",
        ),
        ("conf.d/.hidden.toml", "no TOML"),
        ("conf.d/30.toml.dpkg-new", "no TOML"),
        ("more/a.toml", "[local]\nzones = [\"lan\"]\n"),
        ("more/b.txt", "no TOML"),
    ]);
    let file = folder.path().join("xdnsd.toml");
    let config = Config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    let names = config
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["lan0", "a0", "x0", "b0"]);
    assert_eq!((config.cache.min_ttl, config.cache.max_ttl), (1, 60));
    assert_eq!(config.upstreams.len(), 1);
    assert_eq!(config.local.zones[0].to_string(), "lan");
    // Whatever shows later is told with the file that says it.
    let here = folder.path().display();
    assert_eq!(
        config.locate("cache.max_ttl"),
        format!("{here}/conf.d/20-b.toml:4:1: cache.max_ttl")
    );
    assert_eq!(
        config.locate("cache.min_ttl"),
        format!("{here}/xdnsd.toml:6:1: cache.min_ttl")
    );
    assert_eq!(
        config
            .fault("upstream[0].servers[0]", "silent", "")
            .to_string(),
        format!("{here}/wan/up.toml:2:12: upstream.servers: silent")
    );
    let missing = config.plan(&devices()).missing.to_string();
    let place =
        format!("{here}/conf.d/sub/x.conf:3:1: interface.name: no interface x0 on this machine; ");
    assert!(missing.contains(&place), "{missing}");
}

#[test]
fn a_key_that_stands_in_two_files_is_told_with_both_places() {
    let folder = folder(&[
        (
            "xdnsd.toml",
            "[interface]\nname = \"lan0\"\n[upstream]\nservers = [\"192.0.2.1\"]\n\
             [cache]\n# so\nmax_ttl = 60\n[include]\nfiles = [\"*.inc\"]\n",
        ),
        ("1.inc", "[cache]\nmin_ttl = 1\nmax_ttl = 61\n"),
        ("2.inc", "\n[cache]\nmin_ttl = 2\n"),
    ]);
    assert_eq!(
        said(&folder),
        [
            "1.inc:3:1: cache.max_ttl: `max_ttl` stands twice, first in xdnsd.toml:7",
            "2.inc:3:1: cache.min_ttl: `min_ttl` stands twice, first in 1.inc:2",
        ]
    );
    // Twice in one file is told as ever.
    folder.write("2.inc", "[local]\nttl = 1\nttl = 2\n");
    folder.write("1.inc", "");
    assert_eq!(
        said(&folder),
        ["2.inc:3:1: local.ttl: `ttl` stands twice, first in line 2"]
    );
}

#[test]
fn faults_of_a_further_file_are_told_with_its_lines() {
    let main = "[include]\nfiles = [\"more.toml\"]\n[interface]\nname = \"lan0\"\n";
    for (more, expected) in [
        (
            "[upstream]\nservers = [\"192.0.2.1\"]\n\n[cache]\nmin_ttl = 9999\nfoo = 1\n",
            vec![
                "more.toml:5:11: cache.min_ttl: 9999 is out of range; allowed: seconds, an integer from 0 to 3600",
                "more.toml:6:1: cache.foo: unknown key; ",
            ],
        ),
        (
            "[upstream]\nservers = [192.0.2.1]\n",
            vec!["more.toml:2:12: upstream.servers: addresses stand in quotes: [\"192.0.2.1\"]; "],
        ),
        (
            "[upstream]\nservers = [\"192.0.2.1\"",
            vec!["more.toml:2:11: upstream.servers: the list has no closing ]; "],
        ),
        (
            "domain-needed\nserver=192.0.2.1\n",
            vec!["more.toml:1:1: this looks like dnsmasq's configuration; xdnsd reads TOML"],
        ),
        (
            "\n[upstream]\n",
            vec!["more.toml:2:1: upstream.servers: is missing, and there is no resolv_file; "],
        ),
        (
            "",
            vec!["xdnsd.toml: upstream: no section says whom to ask; "],
        ),
        // The byte-order mark has no column.
        (
            "\u{feff}[cashe]\n[upstream]\nservers = [\"192.0.2.1\"]\n",
            vec!["more.toml:1:2: cashe: unknown section, "],
        ),
    ] {
        let folder = folder(&[("xdnsd.toml", main), ("more.toml", more)]);
        let said = said(&folder);
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }
    let said_of_one = errors_of(&format!("\u{feff}[cashe]\n{SMALLEST}"));
    assert!(
        said_of_one[0].starts_with("f:1:2: cashe: unknown section, "),
        "{said_of_one:?}"
    );
    let folder = folder(&[("xdnsd.toml", main)]);
    std::fs::write(
        folder.path().join("more.toml"),
        b"[upstream]\nname = \"\xff\"\n",
    )
    .expect("written");
    assert_eq!(said(&folder), ["more.toml:2:9: not UTF-8"]);
}

#[test]
fn what_cannot_be_included_is_told_where_it_is_named() {
    for (files, expected) in [
        (
            "[\"none.toml\"]",
            "xdnsd.toml:2:10: include.files: none.toml: ",
        ),
        (
            "[\"none/*.toml\"]",
            "xdnsd.toml:2:10: include.files: none: ",
        ),
        (
            "[\"\"]",
            "xdnsd.toml:2:10: include.files: \"\" is not a path; ",
        ),
        (
            "[\"a\", \"*/x.toml\"]",
            "xdnsd.toml:2:15: include.files: \"*/x.toml\": one * may stand in the last part of a path; ",
        ),
        (
            "[\"*/\"]",
            "xdnsd.toml:2:10: include.files: \"*/\": one * may stand in the last part of a path; ",
        ),
        ("\"a\"", "xdnsd.toml:2:9: include.files: "),
        (
            "[\"./xdnsd.toml\"]",
            "xdnsd.toml:2:10: include.files: ./xdnsd.toml is read already, as xdnsd.toml; allowed: each file once",
        ),
        (
            "[\"a\", \"b\"]",
            "b:2:10: include.files: a is read already, as a; allowed: each file once",
        ),
        (
            "[\"0\"]",
            "7:2:10: include.files: 8 is included 9 files deep; allowed: at most 8",
        ),
    ] {
        let mut all = vec![
            (
                "xdnsd.toml".to_owned(),
                format!("[include]\nfiles = {files}\n{SMALLEST}"),
            ),
            ("a".to_owned(), String::new()),
            ("b".to_owned(), "[include]\nfiles = [\"a\"]\n".to_owned()),
        ];
        // The one that is named first is one file deep.
        all.extend((0..20).map(|number| {
            let text = format!("[include]\nfiles = [\"{}\"]\n", number + 1);
            (number.to_string(), text)
        }));
        let all: Vec<(&str, &str)> = all
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let said = said(&folder(&all));
        assert!(
            said.len() == 1 && said[0].starts_with(expected),
            "{said:?}\n{expected}"
        );
    }
    let folder = folder(&[
        (
            "xdnsd.toml",
            &format!("[include]\nfiles = [\"d\"]\n{SMALLEST}"),
        ),
        ("d/00.toml", ""),
    ]);
    for number in 1..70 {
        folder.write(&format!("d/{number:02}.toml"), "# nothing\n");
    }
    assert_eq!(
        said(&folder),
        ["xdnsd.toml:2:10: include.files: this is a file too many; allowed: at most 64 files"]
    );
    folder.write("d/00.toml", "#".repeat(1 << 20));
    let problem = "xdnsd.toml:2:10: include.files: d/00.toml: with it, all files together have more than 1048576 bytes";
    assert_eq!(said(&folder)[0], problem);
    // What no file says is told of where it may stand.
    let said = errors_of(&format!("include = \"a\"\n{SMALLEST}"));
    assert!(
        said[0].starts_with(
            "f:1:11: include: is a section that stands once: [include], and its keys below"
        ),
        "{said:?}"
    );
}
