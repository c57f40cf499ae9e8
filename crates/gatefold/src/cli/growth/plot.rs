//! One axis as a plot: steps per second against size, both logarithmic.

use plotters::prelude::*;

use super::{Axis, Point};

const SIZE: (u32, u32) = (760, 480);

/// Of the series in their order; training in full, rollouts lighter.
const COLOURS: [RGBColor; 3] = [RGBColor(31, 90, 160), RGBColor(200, 80, 30), RGBColor(40, 130, 70)];

/// The points as an SVG document. Panics if there are none.
pub(super) fn svg(axis: &Axis, points: &[Point]) -> String {
    let mut document = String::new();
    draw(axis, points, &mut document).expect("drawing into a string");
    document
}

fn draw(axis: &Axis, points: &[Point], document: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(document, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let rates = points.iter().flat_map(|point| [point.result.tps, point.rollout()]);
    let (least, most) = rates.fold((f64::MAX, 0.0f64), |(least, most), x| (least.min(x), most.max(x)));
    let (first, last) = (axis.values[0] as f64, axis.values[axis.values.len() - 1] as f64);
    let mut chart = ChartBuilder::on(&root)
        .caption(axis.title, ("sans-serif", 16))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d((first / 1.15..last * 1.15).log_scale(), (least / 1.6..most * 1.6).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axis.counted)
        .y_desc("environment steps per second")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| in_words(*y))
        .y_labels(6)
        .max_light_lines(4)
        .light_line_style(RGBColor(240, 240, 240))
        .bold_line_style(RGBColor(215, 215, 215))
        .draw()?;
    for (&(series, _), colour) in axis.series.iter().zip(COLOURS.iter().cycle()) {
        let of = |rate: fn(&Point) -> f64| -> Vec<(f64, f64)> {
            let mine = points.iter().filter(|point| point.series == series);
            mine.map(|point| (point.value as f64, rate(point))).collect()
        };
        let curves = [("training", of(|p| p.result.tps), 1.0), ("rollouts alone", of(Point::rollout), 0.4)];
        for (what, curve, opacity) in curves {
            let style = colour.mix(opacity).stroke_width(2);
            let label = if axis.series.len() == 1 { what.to_string() } else { format!("{series}, {what}") };
            chart
                .draw_series(LineSeries::new(curve.clone(), style))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            chart
                .draw_series(curve.into_iter().map(|at| Circle::new(at, 3, colour.mix(opacity).filled())))?;
        }
    }
    // Where curves that rise, or fall, leave room.
    let rises = points.last().map(|last| last.result.tps) > points.first().map(|first| first.result.tps);
    let corner = if rises { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::LowerLeft };
    chart
        .configure_series_labels()
        .position(corner)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    root.present()?;
    Ok(())
}

/// 1500 as `1.5 k`.
fn in_words(rate: f64) -> String {
    match rate {
        1e6.. => format!("{} M", rate / 1e6),
        1e3.. => format!("{} k", rate / 1e3),
        _ => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use gatefold_runner::BenchResult;

    use super::super::AXES;
    use super::*;

    #[test]
    fn a_plot_has_its_title_its_units_and_every_point_of_both_curves() {
        let axis = &AXES[0];
        let point = |&value: &usize| {
            let result =
                BenchResult { tps: 1e4 * value as f64, transitions: 1000, seconds: 1.0, rollout_s: 0.01 };
            Point { axis: axis.name, series: axis.series[0].0, value, result }
        };
        let points: Vec<Point> = axis.values.iter().map(point).collect();
        let svg = svg(axis, &points);
        for text in [axis.title, axis.counted, "environment steps per second", "rollouts alone"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<circle").count(), 2 * points.len());
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn rates_are_told_in_thousands_and_millions() {
        assert_eq!([40.0, 1500.0, 2e6].map(in_words), ["40", "1.5 k", "2 M"]);
    }
}
