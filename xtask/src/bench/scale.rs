//! How what lockc costs grows with rules, records of containers, tasks and denials: tables and a drawing.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

use anyhow::{Context as _, Result, bail, ensure};
use plotters::prelude::*;

use super::table::grouped;

/// What grows, as the guest calls it and as it is shown, and the colour of its curve.
const CURVES: &[(&str, &str, RGBColor)] = &[
    ("rules", "rules about paths", RGBColor(0xb0, 0x3a, 0x2e)),
    ("records", "records of containers", RGBColor(0x1f, 0x61, 0x8d)),
    ("tasks", "tasks of another container", RGBColor(0x1e, 0x84, 0x49)),
    ("denials", "denials in a second", RGBColor(0xb7, 0x95, 0x0b)),
];
/// What is measured, as the guest calls it and as it is shown.
const FIGURES: &[(&str, &str)] = &[
    ("open", "open + close in a container, instructions"),
    ("rename", "rename in a container, instructions"),
    ("start", "a container from start to end, instructions"),
    ("denied", "a denied open in a container, instructions"),
    ("reload", "reload, ms"),
    ("memory", "the daemon's resident memory, KiB"),
];
/// Numbers that are shown.
const NUMBERS: Range<f64> = 1.0..100_000.0;
/// Pixels of each diagram, which are above each other.
const SIZE: (u32, u32) = (640, 200);

/// Figure → what grows → number → value.
pub(super) struct Growth(BTreeMap<String, BTreeMap<String, BTreeMap<u32, f64>>>);

impl Growth {
    /// Reads `scale WHAT NUMBER FIGURE VALUE` lines.
    pub(super) fn parse(said: &str) -> Result<Self> {
        let mut all = BTreeMap::<String, BTreeMap<String, BTreeMap<u32, f64>>>::new();
        for line in said.lines().filter(|line| !line.starts_with("kernel ")) {
            let words: Vec<_> = line.split(' ').collect();
            let ["scale", what, number, figure, value] = words[..] else {
                bail!("the guest said {line:?}");
            };
            let said = || format!("the guest said {line:?}");
            ensure!(CURVES.iter().any(|curve| curve.0 == what), said());
            ensure!(FIGURES.iter().any(|known| known.0 == figure), said());
            let (number, value) =
                (number.parse().with_context(said)?, value.parse().with_context(said)?);
            let curves = all.entry(figure.to_owned()).or_default();
            curves.entry(what.to_owned()).or_default().insert(number, value);
        }
        ensure!(!all.is_empty(), "the guest has measured nothing");
        Ok(Self(all))
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (what, title, _) in CURVES {
            let rows = FIGURES
                .iter()
                .filter_map(|(figure, title)| Some((title, self.0.get(*figure)?.get(*what)?)));
            for (index, (figure, values)) in rows.enumerate() {
                if index == 0 {
                    let numbers: Vec<_> =
                        values.keys().map(|number| grouped(f64::from(*number), false)).collect();
                    let _ = writeln!(text, "\n| {title} | {} |", numbers.join(" | "));
                    let _ = writeln!(text, "|---|{}", "--:|".repeat(numbers.len()));
                }
                let cells: Vec<_> = values.values().map(|value| grouped(*value, false)).collect();
                let _ = writeln!(text, "| {figure} | {} |", cells.join(" | "));
            }
        }
        text
    }

    /// A diagram for each figure, from zero on, with a curve for each of what grows.
    pub(super) fn drawing(&self) -> Result<String> {
        let mut text = String::new();
        {
            let count = u32::try_from(FIGURES.len())?;
            let root =
                SVGBackend::with_string(&mut text, (SIZE.0, SIZE.1 * count)).into_drawing_area();
            root.fill(&WHITE)?;
            for ((figure, title), area) in FIGURES.iter().zip(root.split_evenly((FIGURES.len(), 1)))
            {
                if let Some(curves) = self.0.get(*figure) {
                    draw(&area, title, curves).with_context(|| format!("draw {figure}"))?;
                }
            }
            root.present()?;
        }
        Ok(text)
    }
}

type Area<'s> = DrawingArea<SVGBackend<'s>, plotters::coord::Shift>;

fn draw(area: &Area<'_>, title: &str, curves: &BTreeMap<String, BTreeMap<u32, f64>>) -> Result<()> {
    let highest = curves.values().flat_map(BTreeMap::values).copied().fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .margin_right(32)
        .x_label_area_size(24)
        .y_label_area_size(84)
        .build_cartesian_2d(NUMBERS.log_scale(), 0.0..highest * 1.15)?;
    let whole = |number: &f64| grouped(*number, false);
    let mut mesh = chart.configure_mesh();
    mesh.x_label_formatter(&whole).y_label_formatter(&whole);
    mesh.y_labels(5).light_line_style(WHITE).draw()?;
    for (what, title, colour) in CURVES {
        let Some(values) = curves.get(*what) else { continue };
        let points = values.iter().map(|(number, value)| (f64::from(*number), *value));
        chart
            .draw_series(LineSeries::new(points, colour).point_size(3))?
            .label(*title)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], *colour));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "kernel 6.12\nscale rules 1 open 800\nscale rules 1000 open 801.4\n\
        scale rules 1 memory 9000\nscale rules 1000 memory 9900\nscale records 1 open 799\n";

    #[test]
    fn what_was_measured_is_shown() {
        let growth = Growth::parse(SAID).unwrap();
        let table = growth.table().replace('\u{a0}', " ");
        let wanted = "\n| rules about paths | 1 | 1 000 |\n|---|--:|--:|\n\
            | open + close in a container, instructions | 800 | 801 |\n\
            | the daemon's resident memory, KiB | 9 000 | 9 900 |\n\
            \n| records of containers | 1 |\n|---|--:|\n\
            | open + close in a container, instructions | 799 |\n";
        assert_eq!(table, wanted);
        let drawing = growth.drawing().unwrap();
        assert!(
            drawing.starts_with("<svg ") && drawing.contains("records of containers"),
            "{drawing}"
        );
    }

    #[test]
    fn what_the_guest_should_not_say_is_an_error() {
        for said in [
            "",
            "kernel 6\n",
            "scale rules 1 open\n",
            "scale cats 1 open 1\n",
            "scale rules 1 fly 1\n",
        ] {
            assert!(Growth::parse(said).is_err(), "{said}");
        }
    }
}
