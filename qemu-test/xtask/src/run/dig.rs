//! Asks one question with dig, and parses the output.

use std::net::IpAddr;

use anyhow::{Context, Result};

use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::output_of;

/// An answer as dig shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub status: String,
    /// `owner type data` of each record of the answer section, sorted.
    pub records: Vec<String>,
    /// The highest TTL of the answer section.
    pub ttl_secs: u32,
    /// Round trip as dig measured it.
    pub time_ms: String,
}

/// Asks `server` from a host.
pub fn ask(host: &Namespace, server: IpAddr, name: &str, kind: &str) -> Result<Answer> {
    let mut command = host.command("dig");
    // -r: ignore the user's .digrc.
    command.args([
        "-r",
        &format!("@{server}"),
        name,
        kind,
        "+tries=1",
        "+time=4",
        // A cookie is specific to one client, so the XDP program leaves such queries to user space.
        "+nocookie",
    ]);
    let text = output_of(&mut command)?;
    Answer::parse(&text).with_context(|| format!("dig printed no answer:\n{text}"))
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let mut answer = Self::default();
        let mut is_answer_section = false;
        for line in text.lines() {
            if let Some((_, rest)) = line.split_once("status: ") {
                answer.status = rest.split(',').next()?.to_owned();
            } else if line.starts_with(";; ") {
                is_answer_section = line == ";; ANSWER SECTION:";
            } else if is_answer_section && !line.is_empty() {
                let record = line.split_whitespace().collect::<Vec<_>>();
                let [owner, ttl, _class, kind, ref data @ ..] = record[..] else {
                    return None;
                };
                answer.ttl_secs = answer.ttl_secs.max(ttl.parse().ok()?);
                answer
                    .records
                    .push(format!("{owner} {kind} {}", data.join(" ")));
            }
            if let Some(time) = line.strip_prefix(";; Query time: ") {
                answer.time_ms = time.to_owned();
            }
        }
        answer.records.sort();
        Some(answer).filter(|answer| !answer.status.is_empty())
    }

    /// Data of the records, short enough for a line.
    pub fn summary(&self) -> String {
        const LEN_MAX: usize = 60;
        let data = self
            .records
            .iter()
            .filter_map(|record| record.splitn(3, ' ').nth(2));
        let summary = format!("{} {}", self.status, data.collect::<Vec<_>>().join(", "));
        match summary.char_indices().nth(LEN_MAX) {
            Some((end, _)) => format!("{}…", &summary[..end]),
            None => summary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    const TEXT: &str = ";; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 16662
;; flags: qr aa; QUERY: 1, ANSWER: 2, AUTHORITY: 1, ADDITIONAL: 3

;; QUESTION SECTION:
;alias.lab.test.\t\tIN\tA

;; ANSWER SECTION:
www.lab.test.\t\t12\tIN\tA\t192.0.2.1
alias.lab.test.\t\t300\tIN\tCNAME\twww.lab.test.

;; AUTHORITY SECTION:
lab.test.\t\t300\tIN\tNS\tns.lab.test.

;; Query time: 3 msec
";

    #[test]
    fn answer_section_is_read_and_nothing_else() {
        let answer = Answer::parse(TEXT).expect("an answer");
        assert_eq!(answer.status, "NOERROR");
        assert_eq!(
            answer.records,
            [
                "alias.lab.test. CNAME www.lab.test.",
                "www.lab.test. A 192.0.2.1"
            ]
        );
        assert_eq!(answer.ttl_secs, 300);
        assert_eq!(answer.time_ms, "3 msec");
        assert_eq!(answer.summary(), "NOERROR www.lab.test., 192.0.2.1");
    }

    #[test]
    fn no_answer_is_none() {
        assert_eq!(Answer::parse(";; communications error: timed out\n"), None);
    }
}
