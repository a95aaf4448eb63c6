//! Reads sections from TOML with positions. Every fault is noted and reading goes on, so that one run reports all.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::ConfigText;
use super::hint::{self, did_you_mean, heading};
use super::schema::{Include, SECTIONS, heading_of, sections_with};
use super::section::{Fields, Placed, Section};
use super::{foreign, merge, syntax};

/// True for a table, or a list of tables.
fn is_section(value: &Spanned<DeValue<'_>>) -> bool {
    match value.get_ref() {
        DeValue::Table(_) => true,
        DeValue::Array(elements) => elements.iter().any(|element| element.get_ref().is_table()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    }
}

/// The sections of one file. `None`: it is another program's, and nothing in it can be said to be wrong.
fn one_file<'i>(source: &mut ConfigText, number: usize, text: &'i str) -> Option<DeTable<'i>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let table = table.into_inner();
    let has_sections = table.values().any(is_section);
    let is_anothers = table.keys().any(|key| foreign::is_dnscrypts(key.get_ref()));
    let written = text.trim_start_matches(' ');
    if (!errors.is_empty() || !has_sections || is_anothers)
        && let Some(whose) = foreign::recognise(written)
    {
        let how = match whose {
            foreign::DNSMASQS => "`xdnsd import` makes one of it",
            _ => "see config/home-router.toml",
        };
        let problem = format!("this looks like {whose}; xdnsd reads TOML, {how}");
        match number {
            0 => source.fault_of_all(problem),
            _ => source.fault_at(text.len() - written.len(), "", problem, ""),
        }
        return None;
    }
    let errors = errors.iter().map(|error| {
        let place = error.span().unwrap_or_default();
        (place, error.message().to_owned())
    });
    syntax::note(source, text, errors);
    Some(table)
}

/// The file while its sections are taken out.
pub struct Document<'s, 'i> {
    source: &'s mut ConfigText,
    table: DeTable<'i>,
}

impl<'s, 'i> Document<'s, 'i> {
    /// What was parsed already.
    pub const fn over(source: &'s mut ConfigText, table: DeTable<'i>) -> Self {
        Self { source, table }
    }

    /// Parses the texts of all files, as `include` gathers them. `None`: one is not TOML, which was noted with its
    /// places, or could not be had.
    pub fn parse(source: &'s mut ConfigText, texts: &'i [String]) -> Option<Self> {
        let mut all = DeTable::new();
        for (number, text) in texts.iter().enumerate() {
            let mut sections = one_file(source, number, text)?;
            // What it names was read with it.
            sections.remove_entry(Include::NAME);
            merge::merge(source, &mut all, sections);
        }
        (!source.is_faulty()).then_some(Self { source, table: all })
    }

    /// Takes out the section that names further files, of the file that has this path.
    pub fn include(mut self, path: String) -> Include {
        let table = self.one_table::<Include>().unwrap_or_default();
        let section = self.section(path, table);
        section.expect("every key has a default")
    }

    /// Takes out a section that may occur once; a missing one is the same as an empty one. All of its keys have defaults, which
    /// replace invalid values.
    pub fn one<S: Section>(&mut self) -> S {
        let table = self.one_table::<S>().unwrap_or_default();
        let section = self.section(S::NAME.into(), table);
        section.expect("a section that may stand once has a default for every key")
    }

    fn one_table<S: Section>(&mut self) -> Option<DeTable<'i>> {
        let (name, value) = self.table.remove_entry(S::NAME)?;
        self.source.remember(S::NAME, name.span());
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            let problem = format!(
                "is a section that stands once: [{}], and its keys below",
                S::NAME
            );
            self.source.fault_at(span.start, S::NAME, problem, "");
            return None;
        };
        Some(table)
    }

    /// Takes out a section that may occur several times. A single table is the same as an array of one.
    pub fn many<S: Section>(&mut self) -> Vec<Placed<S>> {
        let Some((name, value)) = self.table.remove_entry(S::NAME) else {
            return Vec::new();
        };
        self.source.remember(S::NAME, name.span());
        let span = value.span();
        let value = value.into_inner();
        let tables: Vec<_> = if let DeValue::Array(tables) = value {
            tables.into_iter().collect()
        } else {
            vec![Spanned::new(span, value)]
        };
        let mut sections = Vec::new();
        for (index, value) in tables.into_iter().enumerate() {
            let path = format!("{}[{index}]", S::NAME);
            let span = value.span();
            self.source.remember(&path, span.clone());
            let DeValue::Table(table) = value.into_inner() else {
                let problem = format!("is a section: [[{}]], and its keys below", S::NAME);
                self.source.fault_at(span.start, S::NAME, problem, "");
                continue;
            };
            let section = self.section(path.clone(), table);
            sections.extend(section.map(|section| Placed { path, section }));
        }
        sections
    }

    fn section<S: Section>(&mut self, path: String, table: DeTable<'i>) -> Option<S> {
        let source = &mut *self.source;
        let mut fields = Fields {
            source,
            path,
            table,
        };
        let section = S::read(&mut fields);
        let Fields { path, table, .. } = fields;
        for (name, value) in &table {
            unknown_key::<S>(self.source, &path, name, value);
        }
        section
    }

    /// Notes what is left. A misspelt section is not reported as missing as well.
    pub fn finish(self) {
        let known: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        for (name, value) in &self.table {
            let (place, name) = (name.span(), name.get_ref());
            let homes = sections_with(name);
            let problem = if homes.is_empty() || is_section(value) {
                if let Some(meant) = hint::meant(name, &known) {
                    self.source.remember(meant, place.clone());
                }
                format!("unknown section{}", did_you_mean(name, &known))
            } else {
                for home in &homes {
                    let section = home.trim_matches(['[', ']']);
                    self.source.remember(section, place.clone());
                }
                format!(
                    "a key stands below the line of its section: {}",
                    homes.join(" or ")
                )
            };
            self.source
                .fault_at(place.start, name, problem, known.join(", "));
        }
    }
}

/// Notes an unknown key: misspelt, of another section, or a section itself.
fn unknown_key<S: Section>(
    source: &mut ConfigText,
    path: &str,
    name: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) {
    let (place, name) = (name.span().start, name.get_ref());
    let known: Vec<&str> = S::KEYS.iter().map(|key| key.name).collect();
    let homes = sections_with(name);
    let problem = if let Some(heading) = heading_of(name) {
        format!("is a section, on a line of its own: {heading}")
    } else if is_section(value) {
        syntax::no_own_name(&heading(S::NAME, S::MANY), name)
    } else if homes.is_empty() {
        format!("unknown key{}", did_you_mean(name, &known))
    } else {
        format!("this is a key of {}", homes.join(" and "))
    };
    source.fault_at(place, &format!("{path}.{name}"), problem, known.join(", "));
}
