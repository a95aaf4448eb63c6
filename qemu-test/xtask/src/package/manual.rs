//! Manual pages (man-pages(7)): xdnsd(8) from `xdnsd help`, xdnsd.toml(5) from `xdnsd reference`.

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

use super::usage::Help;

/// Files that the daemon reads, writes and listens at, in packages.
const FILES: [(&str, &str); 3] = [
    (
        "/etc/xdnsd/xdnsd.toml",
        "The config file, see xdnsd.toml(5).",
    ),
    (
        "/run/xdnsd/control.sock",
        "The control socket, where the config names no other.",
    ),
    (
        "/var/lib/xdnsd",
        "The snapshot of the cache, and what the shield keeps.",
    ),
];

fn page(name: &str, section: &str) -> Roff {
    let mut page = Roff::new();
    let version = concat!("xdnsd ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name, section, "", version, ""]);
    page
}

fn title(page: &mut Roff, text: &str) {
    page.control("SH", [text]);
}

/// A tagged paragraph.
fn item(page: &mut Roff, head: Vec<Inline>, body: &[String]) {
    page.control("TP", []).text(head);
    for (number, line) in body.iter().enumerate() {
        if number > 0 {
            page.control("br", []);
        }
        page.text([roman(line)]);
    }
}

/// xdnsd(8).
pub fn commands(help: &Help) -> String {
    let mut page = page("XDNSD", "8");
    title(&mut page, "NAME");
    page.text([roman(
        "xdnsd - a DNS forwarder for routers on XDP and AF_XDP",
    )]);
    title(&mut page, "SYNOPSIS");
    page.text([
        bold("xdnsd"),
        roman(" "),
        italic("COMMAND"),
        roman(" [options] [arguments]"),
    ]);
    title(&mut page, "COMMANDS");
    for command in &help.commands {
        let head = vec![
            bold(&command.name),
            roman(format!(" {}", command.arguments)),
        ];
        item(&mut page, head, &command.about);
    }
    title(&mut page, "NOTES");
    for note in &help.notes {
        page.control("PP", []).text([roman(note)]);
    }
    title(&mut page, "FILES");
    for (file, what) in FILES {
        item(&mut page, vec![italic(file)], &[what.to_owned()]);
    }
    title(&mut page, "SEE ALSO");
    page.text([
        bold("xdnsd.toml"),
        roman("(5), "),
        bold("resolv.conf"),
        roman("(5)"),
    ]);
    page.render()
}

/// xdnsd.toml(5), from the reference in Markdown.
pub fn config(reference: &str) -> String {
    let mut page = page("XDNSD.TOML", "5");
    title(&mut page, "NAME");
    page.text([roman("xdnsd.toml - the config file of xdnsd")]);
    title(&mut page, "DESCRIPTION");
    let (mut line, mut level) = (Vec::new(), None);
    for event in Parser::new(reference) {
        match event {
            Event::Start(Tag::Heading { level: of, .. }) => level = Some(of),
            Event::End(TagEnd::Heading(_)) => {
                head(&mut page, level.take(), std::mem::take(&mut line));
            }
            Event::Text(text) => line.push(roman(text.as_ref())),
            Event::Code(text) => line.push(bold(text.as_ref())),
            Event::SoftBreak | Event::HardBreak => line.push(roman(" ")),
            Event::End(TagEnd::Paragraph) => {
                page.control("PP", []).text(std::mem::take(&mut line));
            }
            Event::End(TagEnd::Item) => {
                page.control("IP", ["\\(bu", "2"])
                    .text(std::mem::take(&mut line));
            }
            Event::Start(_)
            | Event::End(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::Html(_)
            | Event::InlineHtml(_)
            | Event::FootnoteReference(_)
            | Event::Rule
            | Event::TaskListMarker(_) => {}
        }
    }
    title(&mut page, "SEE ALSO");
    page.text([bold("xdnsd"), roman("(8)")]);
    page.render()
}

/// Sections of the config become sections of the page, keys subsections. The document's title is already in the header.
fn head(page: &mut Roff, level: Option<HeadingLevel>, text: Vec<Inline>) {
    let request = match level {
        Some(HeadingLevel::H2) => "SH",
        Some(HeadingLevel::H3) => "SS",
        _ => return,
    };
    let words = text.into_iter().map(|part| match part {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text,
        Inline::LineBreak => " ".to_owned(),
    });
    page.control(request, [words.collect::<String>().as_str()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::usage;

    #[test]
    fn commands_stand_with_what_they_take_and_do() {
        let page = commands(&usage::tests::help());
        for line in [
            ".TH XDNSD 8",
            ".SH COMMANDS",
            "\\fBcache dump\\fR [\\-\\-socket PATH] [\\-\\-json] [NAME]",
            "\\-\\-json: a line each",
            "Exit status: 0 done.",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    #[test]
    fn sections_and_keys_are_heads_and_what_troff_reads_is_text() {
        let reference = "# All\n\nTOML.\n\n## [[one]]\n\nA `word` of\n.it\n\n### `key`\n\n- Allowed: a \\ and\n- Default: `'x'`\n";
        let page = config(reference);
        for line in [
            "TOML.\n",
            ".SH [[one]]",
            "A \\fBword\\fR of .it\n",
            ".SS key",
            ".IP \\(bu 2\nAllowed: a \\\\ and\n",
            "Default: \\fB\\*(Aqx\\*(Aq\\fR\n",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
