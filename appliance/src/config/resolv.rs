//! Servers that others write down, in a file of the format of resolv.conf(5).

use std::path::{Path, PathBuf};

use super::error::BYTE_ORDER_MARK;
use super::{LeftOut, UpstreamServer};
use crate::compile::Problem;
use crate::os::files;
use crate::text;

/// A file larger than this is something else.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// What is meant for the resolver of the C library alone.
const IGNORED: [&str; 4] = ["search", "domain", "options", "sortlist"];

/// What such a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers, in its order, each once.
    pub servers: Vec<UpstreamServer>,
    /// Lines that say nothing here, each word's first.
    pub notes: Vec<Problem>,
    path: PathBuf,
    /// The line of each server.
    lines: Vec<usize>,
}

impl ResolvConf {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or names no server.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let bytes = files::read(path, FILE_BYTES_MAX);
        let bytes = bytes.map_err(|error| Problem::with_file(path, &error))?;
        let found = Self::parse(path, &String::from_utf8_lossy(&bytes));
        if found.servers.is_empty() {
            let first = found.notes.into_iter().find(|note| note.line.is_some());
            let why = first
                .map(|note| format!(" (line {}: {})", note.line.unwrap_or_default(), note.what));
            let what = format!("names no server{}", why.unwrap_or_default());
            return Err(Problem::of(path.display().to_string(), what));
        }
        Ok(found)
    }

    /// Why a server of it is not asked, with its line; or servers, with no line.
    #[must_use]
    pub fn told(&self, left_out: &LeftOut) -> Problem {
        let mut known = self.servers.iter().zip(&self.lines);
        let line = known.find(|(server, _)| Some(*server) == left_out.server.as_ref());
        let problem = &left_out.problem;
        match line {
            Some((_, line)) => {
                Problem::in_line(&self.path, *line, format!("{problem}: it is not asked"))
            }
            None => Problem::of(self.path.display().to_string(), problem.clone()),
        }
    }

    fn parse(path: &Path, written: &str) -> Self {
        let written = written.strip_prefix(BYTE_ORDER_MARK).unwrap_or(written);
        let mut found = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let mut ignored: Vec<&str> = Vec::new();
        for (number, line) in (1..).zip(written.lines()) {
            let mut words = line.split_whitespace();
            let (Some(word), value) = (words.next(), words.next()) else {
                continue;
            };
            if word.starts_with(['#', ';']) {
                continue;
            }
            let mut note = |what: String| found.notes.push(Problem::in_line(path, number, what));
            match (word, value) {
                ("nameserver", Some(value)) => match value.parse() {
                    Ok(server) if found.servers.contains(&server) => {}
                    Ok(server) => {
                        found.servers.push(server);
                        found.lines.push(number);
                    }
                    Err(problem) => note(problem),
                },
                ("nameserver", None) => note("a server has an address".to_owned()),
                (word, _) if ignored.contains(&word) => {}
                (word, _) => {
                    let why = if IGNORED.contains(&word) {
                        "is ignored: it is for programs of this machine"
                    } else {
                        "is not known in resolv.conf"
                    };
                    note(format!("`{}` {why}", text::line(word)));
                    ignored.push(word);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn said(notes: &[Problem]) -> Vec<String> {
        notes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_taken_in_order_and_what_is_ignored_is_told_once() {
        let text = "# made by a DHCP client\n; and pppd\n\nsearch lan example\n  nameserver\t192.0.2.1\r\n\
                    nameserver fe80::1%wan0 # the router\nnameserver 192.0.2.1\noptions edns0\noptions trust-ad\n\
                    nameserver fe80::1\nnameserver\nnameserver 0.0.0.0\nname 192.0.2.9\n";
        let found = ResolvConf::parse(Path::new("/r"), text);
        let servers: Vec<_> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fe80::1%wan0]:53"]);
        assert_eq!(
            said(&found.notes),
            [
                "/r:4: `search` is ignored: it is for programs of this machine",
                "/r:8: `options` is ignored: it is for programs of this machine",
                "/r:10: fe80::1 is link-local and does not name its interface",
                "/r:11: a server has an address",
                "/r:12: 0.0.0.0 is not the address of one server",
                "/r:13: `name` is not known in resolv.conf",
            ]
        );
    }

    #[test]
    fn a_byte_order_mark_loses_no_server() {
        let found = ResolvConf::parse(Path::new("/r"), "\u{feff}nameserver 192.0.2.1\n");
        assert_eq!(found.servers.len(), 1);
        assert_eq!(said(&found.notes), [""; 0]);
    }

    #[test]
    fn a_file_without_a_server_says_why() {
        let folder = Folder::new();
        for (content, why) in [
            ("", "names no server"),
            ("# nameserver 192.0.2.1\n", "names no server"),
            (
                "\nnameserver fe80::1\n",
                "names no server (line 2: fe80::1 is link-local and does not name its interface)",
            ),
        ] {
            let file = folder.write("resolv.conf", content);
            let problem = ResolvConf::read(&file).expect_err(content);
            assert_eq!(problem.to_string(), format!("{}: {why}", file.display()));
            assert!(!problem.is_missing);
        }
        let missing = ResolvConf::read(&folder.path().join("none")).expect_err("missing");
        assert!(missing.is_missing);
    }
}
