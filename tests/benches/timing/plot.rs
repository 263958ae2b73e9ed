//! The figures as pictures.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::register_font;

use super::position::{Cell, Sample};

/// Debian's fonts-dejavu-core.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
const SIZE: (u32, u32) = (1000, 480);
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 110, 190), RGBColor(220, 100, 0), RGBColor(0, 140, 80), RGBColor(150, 60, 160)];

/// The font, once: without it pictures can't be drawn.
pub fn prepare() -> Result<()> {
    let font = std::fs::read(FONT).with_context(|| format!("{FONT}: is fonts-dejavu-core installed?"))?;
    // plotters keeps fonts for ever.
    register_font("sans-serif", FontStyle::Normal, font.leak()).map_err(|_| anyhow!("{FONT} is no font"))
}

/// What share of the positions is off by at most so much: one line for each cell.
pub fn errors(path: &Path, quantum: u32, cells: &[(Cell, Vec<Sample>)]) -> Result<()> {
    let area = BitMapBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let least = 0.001f64;
    let title = format!("Positions told against what the sink played, cycles of {quantum} frames at 48 kHz");
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((least..30.0).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("off by at most, ms")
        .y_desc("share of positions")
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((cell, samples), colour) in cells.iter().zip(COLOURS) {
        let mut errors: Vec<f64> = samples.iter().map(|sample| sample.error_ms.abs().max(least)).collect();
        errors.sort_by(f64::total_cmp);
        let count = errors.len() as f64;
        let step = (errors.len() / 2000).max(1);
        let line =
            errors.iter().enumerate().step_by(step).map(|(index, error)| (*error, index as f64 / count));
        let line: Vec<(f64, f64)> = line.chain(errors.last().map(|error| (*error, 1.0))).collect();
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(format!("period {} ms", cell.period_ms))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Error over time.
pub fn long(path: &Path, cell: &Cell, samples: &[Sample]) -> Result<()> {
    let area = BitMapBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (from, to) = match (samples.first(), samples.last()) {
        (Some(first), Some(last)) => (first.at, last.at),
        _ => return Ok(()),
    };
    let title = format!(
        "Error of each position over {:.0} s: the guest's clock is {:+.2} ppm off the sink's",
        to - from,
        cell.drift_ppm
    );
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..to - from, -1.0..0.2)?;
    chart.configure_mesh().x_desc("s").y_desc("ms").label_style(("sans-serif", 14)).draw()?;
    let dots = samples.iter().step_by((samples.len() / 40_000).max(1));
    let dots = dots.map(|sample| (sample.at - from, sample.error_ms.clamp(-1.0, 0.2)));
    chart.draw_series(dots.map(|at| Circle::new(at, 1, COLOURS[0].mix(0.4).filled())))?;
    area.present()?;
    Ok(())
}
