//! The table and the page: the report's values, and those measured here.

use std::fmt::Write as _;

use super::plot::Figure;
use crate::bench::report::median;
use xdnsd_lab::family::Family;

/// Source of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The appliance, from upstream.
    FirstHit,
    /// The appliance, from its cache, over AF_XDP.
    CacheHit,
    /// The appliance, in its XDP program.
    HotName,
    /// The upstream, asked directly.
    Direct,
    /// dnsmasq, from upstream.
    DnsmasqFirst,
    /// dnsmasq, from its cache.
    DnsmasqHit,
}

impl What {
    /// All sources, in the table's order.
    const ALL: [Self; 6] = [
        Self::FirstHit,
        Self::CacheHit,
        Self::HotName,
        Self::Direct,
        Self::DnsmasqFirst,
        Self::DnsmasqHit,
    ];

    /// Name in the table and the figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstHit => "first hit",
            Self::CacheHit => "cache hit (AF_XDP)",
            Self::HotName => "cache hit (XDP program)",
            Self::Direct => "direct to upstream",
            Self::DnsmasqFirst => "dnsmasq, first hit",
            Self::DnsmasqHit => "dnsmasq, cache hit",
        }
    }

    /// Mean and median in the report's section VI, in seconds as there. For dnsmasq it only has a picture.
    fn theirs(self) -> Option<[f64; 2]> {
        match self {
            Self::FirstHit => Some([26.322_772, 25.766_722]),
            Self::CacheHit => Some([0.512_208, 0.022_440]),
            Self::Direct => Some([2.305_389, 1.328_159]),
            Self::HotName | Self::DnsmasqFirst | Self::DnsmasqHit => None,
        }
    }
}

/// Pairs whose medians are compared.
const RATIOS: [[What; 2]; 4] = [
    [What::FirstHit, What::CacheHit],
    [What::Direct, What::CacheHit],
    [What::DnsmasqHit, What::CacheHit],
    [What::CacheHit, What::HotName],
];

/// Measured latencies of one source.
#[derive(Clone, Debug)]
pub struct Series {
    /// Source of the answers.
    pub what: What,
    /// Address family of the queries.
    pub family: Family,
    /// Latency of each answer, in order of arrival, in microseconds.
    pub latencies_us: Vec<f64>,
}

impl Series {
    fn mean(&self) -> f64 {
        self.latencies_us.iter().sum::<f64>() / self.latencies_us.len() as f64
    }

    /// Median latency.
    pub fn median(&self) -> f64 {
        median(self.latencies_us.clone())
    }

    /// 99th percentile.
    fn p99(&self) -> f64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or(f64::NAN)
    }
}

/// The series of this source and family.
pub fn find(series: &[Series], what: What, family: Family) -> Option<&Series> {
    series
        .iter()
        .find(|one| one.what == what && one.family == family)
}

/// The table as text.
pub fn table(series: &[Series]) -> String {
    let unit = Family::ALL.map(|family| format!("over {}, us", family.name()));
    let mut text = line(["", "report, s", "", &unit[0], "", "", &unit[1], "", ""]);
    text += &line([
        "", "mean", "median", "mean", "median", "99 %", "mean", "median", "99 %",
    ]);
    for what in What::ALL {
        let theirs = what.theirs();
        let theirs = [0, 1].map(|at| theirs.map_or("-".to_owned(), |of| format!("{:.6}", of[at])));
        let mut cells = vec![what.name().to_owned()];
        cells.extend(theirs);
        for family in Family::ALL {
            let one = find(series, what, family);
            let shown = |of: fn(&Series) -> f64| {
                one.map_or_else(|| "-".to_owned(), |one| format!("{:.1}", of(one)))
            };
            cells.extend([
                shown(Series::mean),
                shown(Series::median),
                shown(Series::p99),
            ]);
        }
        text += &line(std::array::from_fn(|at| cells[at].as_str()));
    }
    text + &ratios(series)
}

/// A line for each ratio of medians.
fn ratios(series: &[Series]) -> String {
    let mut text = String::from("\n");
    for [of, to] in RATIOS {
        let theirs = match (of.theirs(), to.theirs()) {
            (Some([_, of]), Some([_, to])) => format!("{:.1}", of / to),
            _ => "-".to_owned(),
        };
        let ours = Family::ALL.map(|family| {
            let both = find(series, of, family).zip(find(series, to, family));
            both.map_or_else(
                || "-".to_owned(),
                |(of, to)| format!("{:.1}", of.median() / to.median()),
            )
        });
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "{} to {}: {theirs} times in the report, {} over IPv4, {} over IPv6",
            of.name(),
            to.name(),
            ours[0],
            ours[1]
        );
    }
    text
}

fn line(cells: [&str; 9]) -> String {
    let widths = [26, 11, 11, 14, 10, 10, 14, 10, 10];
    let first = format!("{:<26}", cells[0]);
    let rest = cells.iter().zip(widths).skip(1);
    let line = rest.fold(first, |line, (cell, width)| format!("{line}{cell:>width$}"));
    format!("{}\n", line.trim_end())
}

/// The page that shows the table and the figures.
pub fn page(heading: &str, conditions: &str, table: &str, figures: &[Figure]) -> String {
    let shown: String = figures
        .iter()
        .map(|figure| format!("![{}]({})\n\n", figure.title, figure.file))
        .collect();
    format!(
        "# The report's figures, made again\n\n\
         The report that this project began with (\"DNS resolver using AF_XDP Socket\", IIT Gandhinagar) compares first hits with hits\n\
         in the cache (figure 3), shows dnsmasq (figure 4), and compares an upstream that is asked directly with hits in the cache (figure\n\
         5). The same by the same tools: dig and dnsperf ask, tcpdump captures, tcpreplay sends the captured queries again, and tshark says\n\
         how long each answer took. The report's upstream was 8.8.8.8; here it is a server that answers late on purpose. The report\n\
         asked as fast as answers came, so that a query waited for those before it, and its seconds are not ours: compare the ratios.\n\n\
         {heading}\n{conditions}\n\n```text\n{table}```\n\n{}\n",
        shown.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::{Series, What, table};
    use xdnsd_lab::family::Family;

    fn series(what: What, family: Family, latencies_us: &[f64]) -> Series {
        Series {
            what,
            family,
            latencies_us: latencies_us.to_vec(),
        }
    }

    #[test]
    fn theirs_stands_beside_ours_and_ratios_are_of_medians() {
        let measured = [
            series(What::FirstHit, Family::V4, &[10_000.0, 12_000.0, 20_000.0]),
            series(What::CacheHit, Family::V4, &[20.0, 10.0, 60.0]),
            series(What::CacheHit, Family::V6, &[40.0]),
            series(What::HotName, Family::V6, &[10.0]),
        ];
        let table = table(&measured);
        let words = |start: &str| {
            let line = table.lines().find(|line| line.starts_with(start));
            let line = line.unwrap_or_else(|| panic!("no {start:?} in\n{table}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            words("first hit  "),
            "first hit 26.322772 25.766722 14000.0 12000.0 20000.0 - - -"
        );
        assert_eq!(
            words("cache hit (AF_XDP)  "),
            "cache hit (AF_XDP) 0.512208 0.022440 30.0 20.0 60.0 40.0 40.0 40.0"
        );
        assert_eq!(
            words("first hit to"),
            "first hit to cache hit (AF_XDP): 1148.2 times in the report, 600.0 over IPv4, - over IPv6"
        );
        assert_eq!(
            words("cache hit (AF_XDP) to"),
            "cache hit (AF_XDP) to cache hit (XDP program): - times in the report, - over IPv4, 4.0 over IPv6"
        );
    }

    #[test]
    fn of_a_hundred_answers_99_came_within() {
        let latencies_us: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let one = series(What::Direct, Family::V4, &latencies_us);
        assert_eq!(one.p99(), 198.0);
        assert_eq!(series(What::Direct, Family::V4, &[7.0]).p99(), 7.0);
    }
}
