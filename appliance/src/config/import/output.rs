//! The config as text. Each element stands on a line of its own, so that what the reader of configs refuses is known by its line.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use super::taken::{Draft, Group, NamesInSets, Served};
use super::{Imported, Line};
use crate::config::written::quoted;
use crate::config::{CONFIG_BYTES_MAX, Config};

/// A line of the config, and the line that it comes from.
#[derive(Clone, Debug)]
struct OutputLine {
    text: String,
    from: Option<Line>,
    /// Lines that stand and fall together. `None`: it always stands.
    block: Option<usize>,
    /// It may fall alone.
    is_element: bool,
}

#[derive(Default)]
struct Output {
    lines: Vec<OutputLine>,
    blocks: usize,
}

impl Output {
    fn plain(&mut self, text: impl Into<String>) {
        self.lines.push(OutputLine {
            text: text.into(),
            from: None,
            block: None,
            is_element: false,
        });
    }

    /// A line of the block that was begun last.
    fn of_block(&mut self, text: String, from: Option<&Line>) {
        self.lines.push(OutputLine {
            text,
            from: from.cloned(),
            block: Some(self.blocks),
            is_element: false,
        });
    }

    fn served(&mut self, served: &Served) {
        self.blocks += 1;
        self.plain("");
        self.of_block("[[interface]]".into(), None);
        self.of_block(
            format!("name = {}", quoted(&served.name)),
            served.from.as_ref(),
        );
        if served.vlan != 0 {
            self.of_block(format!("vlan = {}", served.vlan), None);
        }
        if let Some((port, from)) = &served.port {
            self.of_block(format!("port = {port}"), Some(from));
        }
        let addresses: Vec<_> = served
            .listen
            .iter()
            .map(|(address, from)| (quoted(&address.to_string()), from.clone()))
            .collect();
        self.list("listen", &addresses);
    }

    fn group(&mut self, group: &Group) {
        self.blocks += 1;
        self.plain("");
        self.of_block("[[upstream]]".into(), None);
        if !group.name.is_empty() {
            self.of_block(format!("name = {}", quoted(&group.name)), None);
        }
        self.list("servers", &shown(&group.servers));
        if let Some((path, from)) = &group.resolv_file {
            self.of_block(format!("resolv_file = {}", quoted(path)), from.as_ref());
        }
        self.list("domains", &shown(&group.domains));
        if let Some(from) = &group.trusted {
            self.of_block("trusted = true".into(), Some(from));
        }
    }

    fn nft_sets(&mut self, NamesInSets { names, sets }: &NamesInSets) {
        self.blocks += 1;
        self.plain("");
        self.of_block("[[nftset]]".into(), None);
        self.list("names", &shown(names));
        self.list("sets", &shown(sets));
    }

    /// A list of which each element may be refused; those around it stand.
    fn list(&mut self, key: &str, elements: &[(String, Line)]) {
        if elements.is_empty() {
            return;
        }
        self.of_block(format!("{key} = ["), None);
        for (element, from) in elements {
            self.lines.push(OutputLine {
                text: format!("    {element},"),
                from: Some(from.clone()),
                block: Some(self.blocks),
                is_element: true,
            });
        }
        self.of_block("]".into(), None);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            // Memory takes everything.
            let _ = writeln!(text, "{}", line.text);
        }
        text
    }
}

/// Texts as elements of a list.
fn shown(texts: &[(String, Line)]) -> Vec<(String, Line)> {
    let texts = texts.iter();
    texts
        .map(|(text, from)| (quoted(text), from.clone()))
        .collect()
}

/// Writes it, without what is refused: that is listed.
pub fn write(draft: Draft) -> Imported {
    let mut output = Output::default();
    let files: Vec<&str> = draft.files.iter().map(String::as_str).collect();
    output.plain(format!("# Made by `xdnsd import` of {}.", files.join(", ")));
    output.plain("# `xdnsd reference` lists every key.");
    draft.served.iter().for_each(|served| output.served(served));
    draft.groups.iter().for_each(|group| output.group(group));
    draft.nft_sets.iter().for_each(|sets| output.nft_sets(sets));
    for (section, keys) in draft.sections() {
        output.plain("");
        output.plain(format!("[{section}]"));
        for (key, values) in keys {
            output.blocks += 1;
            match values.as_slice() {
                [value] if !value.is_element => {
                    output.of_block(format!("{key} = {}", value.text), Some(&value.from));
                }
                values => {
                    let elements: Vec<_> = values
                        .iter()
                        .map(|value| (value.text.clone(), value.from.clone()))
                        .collect();
                    output.list(key, &elements);
                }
            }
        }
    }
    let mut listed = draft.listed;
    let mut told = HashSet::new();
    while let Some(refused) = refused(&output) {
        let before = output.lines.len();
        for (from, why) in remove(&mut output, &refused) {
            // What else falls with it is of the same line.
            if told.insert(from.place.clone()) {
                listed.push(from.told(&why));
            }
        }
        if output.lines.len() == before {
            // What is wrong is not what came from anywhere: whoever checks it is told.
            listed.extend(refused.into_iter().map(|(_, problem)| problem));
            break;
        }
    }
    let mut config = output.text();
    while config.contains("\n\n\n") {
        config = config.replace("\n\n\n", "\n\n");
    }
    if config.len() as u64 > CONFIG_BYTES_MAX {
        listed.push(format!(
            "the config has {} bytes, and no more than {CONFIG_BYTES_MAX} are read: give it names to block as filter.block_files",
            config.len()
        ));
    }
    Imported { config, listed }
}

/// Lines that are refused, from 0, and why.
fn refused(output: &Output) -> Option<Vec<(usize, String)>> {
    let faults = Config::read("config", Path::new("config"), &output.text()).err()?;
    let told = faults.iter().map(|fault| {
        let line = fault.position.map_or(0, |position| position.line);
        (
            line.saturating_sub(1),
            format!("{}: {}", fault.key, fault.problem),
        )
    });
    Some(told.collect())
}

/// Takes refused lines away, and the blocks of those that cannot go alone. Where they come from, and why each is refused.
fn remove(output: &mut Output, refused: &[(usize, String)]) -> Vec<(Line, String)> {
    let mut elements: HashMap<usize, &str> = HashMap::new();
    let mut blocks: HashMap<usize, &str> = HashMap::new();
    for (at, problem) in refused {
        match output.lines.get(*at) {
            Some(line) if line.is_element => {
                elements.entry(*at).or_insert(problem);
            }
            Some(OutputLine {
                block: Some(block), ..
            }) => {
                blocks.entry(*block).or_insert(problem);
            }
            Some(_) | None => {}
        }
    }
    let mut gone = Vec::new();
    let mut index = 0;
    output.lines.retain(|line| {
        let of_block = line.block.and_then(|block| blocks.get(&block));
        let why = elements.get(&index).or(of_block);
        index += 1;
        let from = line.from.as_ref().zip(why);
        gone.extend(from.map(|(from, why)| (from.clone(), (*why).to_owned())));
        why.is_none()
    });
    // A list of which nothing is left.
    while let Some(at) = output.lines.windows(2).position(is_empty_list) {
        output.lines.drain(at..at + 2);
    }
    gone
}

fn is_empty_list(lines: &[OutputLine]) -> bool {
    lines[0].text.ends_with(" = [") && lines[1].text == "]"
}
