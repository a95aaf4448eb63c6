//! The tables.

use std::fmt::Write as _;

use super::callers::Share;
use super::cost::{CASES, Cost, Costs};
use super::losses::Losses;
use super::turn::{FLOODS, Outcome, Who, name};
use crate::bench::report::median;
use xdnsd_lab::bpf::{XDP_PASS, XDP_TX};

/// Goals: share served during a flood, in percent.
const UDP_GOAL: f64 = 99.5;
const TCP_GOAL: f64 = 99.0;
/// Goal: frames a second of a flood.
const FLOOD_GOAL: f64 = 1e6;
/// Goals: most cost per frame, as a ratio to the bare program's.
const DROP_GOAL: f64 = 1.5;
const COOKIE_GOAL: f64 = 2.0;
/// Goal: most nanoseconds for a frame to other hosts.
const PASS_GOAL: f64 = 30.0;

/// The turns of one subject: one outcome per flood.
#[derive(Debug)]
pub struct Row {
    /// The subject.
    pub who: Who,
    /// Its version; empty for ours.
    pub version: String,
    /// One per round.
    pub turns: Vec<[Outcome; FLOODS.len()]>,
}

impl Row {
    /// Share served, over all rounds.
    fn share(&self, flood: usize, of: fn(&Outcome) -> Share) -> f64 {
        let mut sum = Share::default();
        for turn in &self.turns {
            sum += of(&turn[flood]);
        }
        sum.percent()
    }

    fn median(&self, flood: usize, of: fn(&Outcome) -> f64) -> f64 {
        median(self.turns.iter().map(|turn| of(&turn[flood])).collect())
    }
}

/// All tables.
pub fn all(rows: &[Row], costs: &[Vec<Costs>]) -> String {
    format!("{}\n{}\n{}", served(rows), losses(rows), self::costs(costs))
}

/// Share served in each flood.
pub fn served(rows: &[Row]) -> String {
    let mut text = line([
        "flood",
        "subject",
        "frames/s",
        "no room/s",
        "UDP",
        "TCP",
        "of the bound",
        "goals",
    ]);
    for (at, flood) in FLOODS.into_iter().enumerate() {
        for row in rows {
            let (udp, tcp) = (
                row.share(at, |outcome| outcome.served.udp),
                row.share(at, |outcome| outcome.served.tcp),
            );
            let rate = row.median(at, |outcome| outcome.flood);
            let is_met = udp >= UDP_GOAL && tcp >= TCP_GOAL;
            let verdict = match row.who {
                Who::Peer(_) | Who::Bare => String::new(),
                Who::Appliance => goals(is_met, flood.is_none() || rate >= FLOOD_GOAL),
            };
            text += &line([
                name(flood),
                &format!("{} {}", row.who.name(), row.version),
                &format!("{rate:.0}"),
                &format!("{:.0}", row.median(at, |outcome| outcome.lost)),
                &format!("{udp:.2}%"),
                &format!("{tcp:.2}%"),
                &of_bound(rows, at, [udp, tcp]),
                &verdict,
            ]);
        }
    }
    let _ = writeln!(
        text,
        "\nThe bound is what callers get behind the bare filter, which drops the flood in some ten instructions and passes all else: \
         what the stand leaves to any program.\n\
         The goals: {UDP_GOAL} % of cached queries, {TCP_GOAL} % of new connections, at {FLOOD_GOAL} frames a second or more."
    );
    text
}

/// Shares over UDP and TCP, in percent of those behind the bare filter. Empty without that row.
fn of_bound(rows: &[Row], flood: usize, shares: [f64; 2]) -> String {
    let Some(bare) = rows.iter().find(|row| row.who == Who::Bare) else {
        return String::new();
    };
    let bounds = [
        bare.share(flood, |outcome| outcome.served.udp),
        bare.share(flood, |outcome| outcome.served.tcp),
    ];
    let [udp, tcp] = [0, 1].map(|at| 100.0 * shares[at] / bounds[at]);
    format!("{udp:.1}/{tcp:.1}")
}

fn goals(is_met: bool, is_flooded: bool) -> String {
    match (is_met, is_flooded) {
        (true, true) => "met".to_owned(),
        (true, false) => "met, but for the flood's rate".to_owned(),
        (false, _) => "missed".to_owned(),
    }
}

fn line(cells: [&str; 8]) -> String {
    let text = format!(
        "{:<9}{:<17}{:>10}{:>11}{:>9}{:>9}{:>14}  {}",
        cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6], cells[7]
    );
    text.trim_end().to_owned() + "\n"
}

/// Where callers' frames and answers were lost, over all rounds.
pub fn losses(rows: &[Row]) -> String {
    let mut text = "lost on the way, of callers' frames and of all answers:\n".to_owned();
    for (at, flood) in FLOODS.into_iter().enumerate() {
        for row in rows {
            let mut sum = Losses::default();
            let mut late = 0;
            for turn in &row.turns {
                sum += turn[at].losses;
                late += turn[at].served.late;
            }
            let _ = writeln!(
                text,
                "{:<9}{:<17}{}; {late} answers over UDP came too late",
                name(flood),
                row.who.name(),
                sum.in_words()
            );
        }
    }
    text
}

/// Costs of frames; one list per round.
pub fn costs(rounds: &[Vec<Costs>]) -> String {
    let mut text = format!(
        "{:<32}{:>9}{:>8}{:>11}{:>8}{:>8}{:>9}\n",
        "ns per frame", "program", "bare", "with the", "bare", "ratio", "goal"
    );
    let _ = writeln!(text, "{:<32}{:>9}{:>8}{:>11}", "", "", "", "driver");
    for (at, case) in CASES.into_iter().enumerate() {
        let middle = |of: &dyn Fn(&Costs) -> f64| {
            median(rounds.iter().map(|round| of(&round[at])).collect())
        };
        let frame = |cost: &Cost| cost.frame_ns.unwrap_or(f64::NAN);
        let [program, bare] = [
            middle(&|costs| costs.ours.program_ns),
            middle(&|costs| costs.bare.program_ns),
        ];
        let _ = write!(text, "{:<32}{program:>9.0}{bare:>8.0}", case.name);
        let (goal, is_met) = match case.verdict {
            XDP_PASS => {
                let more = program - bare;
                let _ = write!(text, "{:>11}{:>8}{more:>+8.0}", "", "");
                (format!("<= +{PASS_GOAL:.0}"), more <= PASS_GOAL)
            }
            verdict => {
                let ratio = middle(&|costs| frame(&costs.ours) / frame(&costs.bare));
                let most = if verdict == XDP_TX {
                    COOKIE_GOAL
                } else {
                    DROP_GOAL
                };
                let ours = middle(&|costs| frame(&costs.ours));
                let bare = middle(&|costs| frame(&costs.bare));
                let _ = write!(text, "{ours:>11.0}{bare:>8.0}{ratio:>8.2}");
                (format!("<= {most:.1}"), ratio <= most)
            }
        };
        let verdict = if is_met { "met" } else { "missed" };
        let _ = writeln!(text, "{goal:>9}  {verdict}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{CASES, Cost, Costs, FLOODS, Losses, Outcome, Row, Who, costs, served};
    use crate::bench::shield::callers::{Served, Share};
    use xdnsd_lab::peer::Peer;

    fn outcome(flood: f64, udp: u64, tcp: u64) -> Outcome {
        let share = |served| Share {
            asked: 1000,
            served,
        };
        Outcome {
            served: Served {
                udp: share(udp),
                tcp: share(tcp),
                late: 0,
            },
            flood,
            lost: 0.0,
            losses: Losses::default(),
        }
    }

    fn row(who: Who, turns: &[Outcome]) -> Row {
        Row {
            who,
            version: String::new(),
            turns: turns.iter().map(|turn| [*turn; FLOODS.len()]).collect(),
        }
    }

    #[test]
    fn shares_are_of_all_rounds_and_judged_for_us_alone() {
        for (turns, verdict) in [
            ([outcome(2e6, 1000, 990), outcome(2e6, 990, 990)], "met"),
            ([outcome(2e6, 1000, 990), outcome(2e6, 988, 990)], "missed"),
            (
                [outcome(2e6, 1000, 1000), outcome(2e6, 1000, 979)],
                "missed",
            ),
            (
                [outcome(1e5, 1000, 1000); 2],
                "met, but for the flood's rate",
            ),
        ] {
            let rows = [
                row(Who::Appliance, &turns),
                row(Who::Peer(Peer::Dnsmasq), &[outcome(1.0, 1, 1)]),
            ];
            let table = served(&rows);
            let line = table
                .lines()
                .find(|line| line.starts_with("syn") && line.contains("xdnsd"));
            let line = line.expect("a row");
            assert!(line.ends_with(&format!("  {verdict}")), "{line}");
            let line = table.lines().find(|line| line.contains("dnsmasq"));
            assert!(line.expect("a row").ends_with("0.10%    0.10%"), "{table}");
        }
    }

    #[test]
    fn the_bound_is_what_the_bare_filter_leaves() {
        let rows = [
            row(Who::Appliance, &[outcome(1.0, 900, 990)]),
            row(Who::Bare, &[outcome(1.0, 950, 1000)]),
        ];
        let table = served(&rows);
        let line = |who| {
            table
                .lines()
                .find(|line| line.contains(who))
                .expect("a row")
        };
        assert!(line("xdnsd").contains(" 94.7/99.0 "), "{table}");
        assert!(line("bare filter").ends_with(" 100.0/100.0"), "{table}");
    }

    #[test]
    fn costs_are_judged_by_their_kind() {
        let cost = |program_ns, frame_ns| Cost {
            program_ns,
            frame_ns: Some(frame_ns),
        };
        let of = |ours, bare| Costs { ours, bare };
        let round = CASES.map(|_| of(cost(31.0, 180.0), cost(2.0, 100.0)));
        let table = costs(&[round.to_vec()]);
        let line = |at: usize| {
            let line = table.lines().nth(2 + at).expect("a row");
            line.split_once(CASES[at].name).expect("its name").1
        };
        let words = |at: usize| line(at).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(0), "31 2 180 100 1.80 <= 2.0 met");
        assert_eq!(words(1), "31 2 180 100 1.80 <= 1.5 missed");
        assert_eq!(words(6), "31 2 +29 <= +30 met");
    }
}
