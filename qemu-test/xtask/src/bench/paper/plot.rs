//! The figures, as SVG.

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use super::report::{Series, What, find};
use xdnsd_lab::family::Family;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (800, 420);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0xe6, 0x7e, 0x22),
    RGBColor(0x1f, 0x61, 0x8d),
    RGBColor(0x5d, 0xad, 0xe2),
    RGBColor(0x1e, 0x84, 0x49),
    RGBColor(0x58, 0xd6, 0x8d),
];

/// A figure of the report.
#[derive(Debug)]
pub struct Figure {
    /// Its file.
    pub file: &'static str,
    /// Title above the figure.
    pub title: &'static str,
    what: &'static [What],
}

/// Reproduced figures.
pub const FIGURES: [Figure; 3] = [
    Figure {
        file: "figure-3.svg",
        title: "Figure 3: first hits and hits in the cache",
        what: &[What::FirstHit, What::CacheHit, What::HotName],
    },
    Figure {
        file: "figure-4.svg",
        title: "Figure 4: dnsmasq, and hits in our cache",
        what: &[What::DnsmasqFirst, What::DnsmasqHit, What::CacheHit],
    },
    Figure {
        file: "figure-5.svg",
        title: "Figure 5: the upstream asked directly, and hits in the cache",
        what: &[What::Direct, What::CacheHit, What::HotName],
    },
];

/// Draws a figure: the latency of each answer, in sequence, over both families.
pub fn draw(figure: &Figure, series: &[Series]) -> Result<String> {
    let both = |what: &What| Family::ALL.map(|family| find(series, *what, family));
    let lines: Vec<&Series> = figure.what.iter().flat_map(both).flatten().collect();
    let all = || lines.iter().flat_map(|line| line.latencies_us.iter());
    let most = lines.iter().map(|line| line.latencies_us.len()).max();
    let last = most
        .filter(|most| *most > 0)
        .context("nothing was measured")?;
    // Half the least and twice the most, so that no line runs along an edge.
    let low = all().copied().fold(f64::INFINITY, f64::min) / 2.0;
    let high = all().copied().fold(0.0, f64::max) * 2.0;
    let mut text = String::new();
    plot(&mut text, figure.title, &lines, (last, low..high))
        .map_err(|error| anyhow!("plotters: {error}"))?;
    // No trailing blanks, as in the repository's other text.
    Ok(text
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

type Outcome<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn plot<'a>(
    text: &'a mut String,
    title: &str,
    lines: &[&Series],
    (last, range): (usize, std::ops::Range<f64>),
) -> Outcome<'a> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0..last, range.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("answer")
        .y_desc("microseconds to the answer")
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS) {
        let points = line.latencies_us.iter().copied().enumerate();
        let family = line.family.name();
        let name = format!(
            "{} over {family}: median {:.0} us",
            line.what.name(),
            line.median()
        );
        chart
            .draw_series(LineSeries::new(points, colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::{FIGURES, draw};
    use crate::bench::paper::report::{Series, What};
    use xdnsd_lab::family::Family;

    #[test]
    fn a_figure_has_a_line_for_each_series_and_says_its_median() {
        let series = |what, latencies_us: &[f64]| Series {
            what,
            family: Family::V6,
            latencies_us: latencies_us.to_vec(),
        };
        let measured = [
            series(What::FirstHit, &[10_000.0, 11_000.0, 12_000.0]),
            series(What::CacheHit, &[20.0, 21.0, 30.0]),
            series(What::Direct, &[10_000.0]),
        ];
        let svg = draw(&FIGURES[0], &measured).expect("a figure");
        for part in [
            "<svg",
            "Figure 3",
            "first hit over IPv6: median 11000 us",
            "cache hit (AF_XDP) over IPv6: median 21 us",
            "</svg>",
        ] {
            assert!(svg.contains(part), "no {part:?} in\n{svg}");
        }
        assert!(!svg.contains("direct"), "another figure's:\n{svg}");
        assert!(draw(&FIGURES[0], &measured[2..]).is_err(), "no line at all");
    }
}
