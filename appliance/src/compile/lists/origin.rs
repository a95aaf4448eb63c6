//! Finds the line of a list's text that a ruling comes from. Images keep no lines, so the text is read again on request.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use xdnsd_core::dns::name::is_within;
use xdnsd_core::policy::list::{List, Rank};
use xdnsd_core::policy::name::Labels;

use super::{LINE_MAX, ListBuilder, ListPurpose, decode, read_line};
use crate::compile::problem::Problem;
use crate::compile::room;
use crate::compile::rpz;
use crate::compile::rules::{Rule, parse_line};
use crate::os::files;

/// Maximum number of candidate rules of one file, kept until it is known which ones are taken back. When full, further ones are
/// ignored.
const CANDIDATES_MAX: usize = 64;

/// A question, and the ruling of the lists in force.
#[derive(Clone, Copy, Debug)]
pub struct Ruled<'a> {
    /// QNAME.
    pub name: &'a Labels<'a>,
    /// QTYPE.
    pub qtype: u16,
    /// Rank of the ruling.
    pub rank: Rank,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// Line number, from 1.
    pub number: usize,
    /// Text of the line.
    pub text: String,
}

impl Ruled<'_> {
    /// First line of the file with a rule that gives this ruling. `None` if the file has none by now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn line(&self, path: &Path, purpose: ListPurpose) -> Result<Option<FileLine>, Problem> {
        let wrong = |error: io::Error| Problem::with_file(path, &error);
        let file = files::open(path).map_err(wrong)?;
        let mut bytes = files::bytes_of(&file).map_err(wrong)?;
        self.line_of(BufReader::new(&mut bytes), purpose)
            .map_err(wrong)
    }

    fn line_of(
        &self,
        mut lines: impl BufRead,
        purpose: ListPurpose,
    ) -> io::Result<Option<FileLine>> {
        let mut candidates = Vec::new();
        let mut taken_back = HashSet::new();
        let (mut line, mut number) = (Vec::new(), 0);
        let mut is_first = true;
        while read_line(&mut lines, &mut line)? {
            number += 1;
            let text = decode(&line);
            if line.len() >= LINE_MAX {
                continue;
            }
            if is_first && rpz::begins(&text) {
                return self.line_of_zone(
                    lines,
                    FileLine {
                        number,
                        text: text.into_owned(),
                    },
                    purpose,
                );
            }
            is_first &= parse_line(&text).is_ok_and(|rules| rules.is_empty());
            let rules = parse_line(&text).unwrap_or_default();
            for rule in rules.iter().filter(|rule| self.is_about(rule)) {
                if rule.is_badfilter {
                    taken_back.insert(rule.text);
                } else if candidates.len() < CANDIDATES_MAX && self.is_by(rule, purpose) {
                    let text = text.trim().to_owned();
                    candidates.push((rule.text, FileLine { number, text }));
                }
            }
        }
        // Text 0 belongs to every rule that cannot be taken back.
        taken_back.remove(&0);
        let mut left = candidates.into_iter();
        let found = left.find(|(text, _)| !taken_back.contains(text));
        Ok(found.map(|(_, line)| line))
    }

    /// The same of a response policy zone, which begins with this line.
    fn line_of_zone(
        &self,
        mut lines: impl BufRead,
        first: FileLine,
        purpose: ListPurpose,
    ) -> io::Result<Option<FileLine>> {
        let mut zone = rpz::Reader::default();
        let FileLine { mut number, text } = first;
        let mut line = text.into_bytes();
        let mut about = Vec::new();
        loop {
            let text = decode(&line);
            zone.reserve(room::check_now)?;
            let name = zone.line(number, &text).unwrap_or_default();
            let is_about = name.is_some_and(|name| is_within(self.name.name(), &name));
            if is_about && about.len() < CANDIDATES_MAX {
                let text = text.trim().to_owned();
                about.push(FileLine { number, text });
            }
            if !read_line(&mut lines, &mut line)? {
                break;
            }
            number += 1;
        }
        let mut numbers = Vec::new();
        zone.rules(|number, rule| {
            if self.is_about(&rule) && self.is_by(&rule, purpose) {
                numbers.push(number);
            }
            Ok(())
        })?;
        Ok(about
            .into_iter()
            .find(|line| numbers.contains(&line.number)))
    }

    /// True if a name of the config, as [`ListBuilder::add_name`] takes it, gives this ruling.
    #[must_use]
    pub fn is_by_name(&self, text: &str, purpose: ListPurpose) -> bool {
        let mut builder = ListBuilder::with_key([0; 16]);
        builder.add_name(text, 0, purpose).is_ok() && self.is_by_builder(builder)
    }

    /// Cheap check that excludes most rules: whether the rule may apply to the name.
    fn is_about(&self, rule: &Rule) -> bool {
        is_within(self.name.name(), &rule.name)
    }

    fn is_by(&self, rule: &Rule, purpose: ListPurpose) -> bool {
        let mut builder = ListBuilder::with_key([0; 16]);
        builder.add(rule, 0, purpose);
        self.is_by_builder(builder)
    }

    /// Compiles the rule, because only an image knows its ruling.
    fn is_by_builder(&self, builder: ListBuilder) -> bool {
        let image = builder.build().unwrap_or_default();
        let list = List::view(&image).unwrap_or(List::EMPTY);
        list.ruling(self.name, self.qtype).rank == self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::name;
    use xdnsd_core::dns::rtype;

    const TEXT: &str = "! a list\n\
        ||example^$badfilter\n\
        ||example^\n\
        0.0.0.0 other.example ads.example # two\n\
        @@||good.ads.example^\n\
        ||ads.example^$important,dnstype=AAAA\n\
        ||cdn*.ads.example^\n\
        \u{1b}||no rule\n\
        ||ads.example^\n";

    fn line(name: &str, qtype: u16, rank: Rank, purpose: ListPurpose) -> Option<(usize, String)> {
        let name = name::parse(name).expect("a name");
        let name = Labels::new(&name).expect("well-formed");
        let ruled = Ruled {
            name: &name,
            qtype,
            rank,
        };
        let found = ruled.line_of(TEXT.as_bytes(), purpose).expect("memory");
        found.map(|line| (line.number, line.text))
    }

    #[test]
    fn the_line_is_the_first_that_rules_so_and_is_not_taken_back() {
        let (a, aaaa) = (rtype::A, rtype::AAAA);
        for (name, qtype, rank, expected) in [
            (
                "ads.example",
                a,
                Rank::Block,
                Some((4, "0.0.0.0 other.example ads.example # two")),
            ),
            ("x.ads.example", a, Rank::Block, Some((9, "||ads.example^"))),
            (
                "cdn7.ads.example",
                a,
                Rank::Block,
                Some((7, "||cdn*.ads.example^")),
            ),
            (
                "ads.example",
                aaaa,
                Rank::ImportantBlock,
                Some((6, "||ads.example^$important,dnstype=AAAA")),
            ),
            (
                "x.good.ads.example",
                a,
                Rank::Allow,
                Some((5, "@@||good.ads.example^")),
            ),
            ("www.example", a, Rank::Block, None),
            ("badexample", a, Rank::Block, None),
        ] {
            let found = line(name, qtype, rank, ListPurpose::Block);
            let expected = expected.map(|(number, text)| (number, text.to_owned()));
            assert_eq!(found, expected, "{name}");
        }
        let allowed = line("other.example", a, Rank::ImportantAllow, ListPurpose::Allow);
        assert_eq!(allowed.map(|(number, _)| number), Some(4));
    }

    #[test]
    fn the_line_of_a_response_policy_zone_is_found() {
        let zone = "; a policy\n$TTL 30\n@ SOA a. b. (\n 1 2 3 4 5 )\n*.ads.example CNAME .\nwww.ads.example CNAME *. ; why\n\
            ok.ads.example CNAME rpz-passthru.\nother.example CNAME .\n*.n.ads.example CNAME *.\n";
        for (name, rank, expected) in [
            (
                "a.ads.example",
                Rank::Block,
                Some((5, "*.ads.example CNAME .")),
            ),
            (
                "www.ads.example",
                Rank::Block,
                Some((6, "www.ads.example CNAME *. ; why")),
            ),
            (
                "a.n.ads.example",
                Rank::Block,
                Some((9, "*.n.ads.example CNAME *.")),
            ),
            (
                "ok.ads.example",
                Rank::Allow,
                Some((7, "ok.ads.example CNAME rpz-passthru.")),
            ),
            ("a.ok.ads.example", Rank::Block, None),
            ("ads.example", Rank::Block, None),
        ] {
            let wire = name::parse(name).expect("a name");
            let ruled = Ruled {
                name: &Labels::new(&wire).expect("well-formed"),
                qtype: rtype::A,
                rank,
            };
            let found = ruled.line_of(zone.as_bytes(), ListPurpose::Block);
            let found = found.expect("memory").map(|line| (line.number, line.text));
            let expected = expected.map(|(number, text)| (number, text.to_owned()));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_name_of_the_config_rules_as_its_list_does() {
        let name = name::parse("www.ads.example").expect("a name");
        let ruled = Ruled {
            name: &Labels::new(&name).expect("well-formed"),
            qtype: rtype::A,
            rank: Rank::Block,
        };
        let is_by = |text| ruled.is_by_name(text, ListPurpose::Block);
        assert!(is_by("ads.example") && is_by("*.ads.example"));
        assert!(!is_by("example.com") && !is_by("*.www.ads.example"));
        assert!(!ruled.is_by_name("ads.example", ListPurpose::Allow));
    }
}
