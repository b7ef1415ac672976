//! Plots as SVG: the quantity on a logarithmic axis, microseconds from 0 on the other.

use std::{
    fmt::{Result, Write},
    fs,
    path::Path,
};

use crate::flat::{Point, Series};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 620.0;
const BOTTOM: f64 = 250.0;

/// Draws each series into a file of its own in `dir`.
pub fn draw(dir: &Path, all: &[Series]) {
    for series in all.iter().filter(|series| !series.points.is_empty()) {
        let path = dir.join(series.file());
        fs::write(&path, svg(series))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

fn svg(series: &Series) -> String {
    let mut text = String::new();
    write(&mut text, series).unwrap();
    text
}

fn write(text: &mut String, series: &Series) -> Result {
    let highest = series
        .points
        .iter()
        .map(|it| it.micros.q3)
        .fold(1.0, f64::max);
    let top = step(highest) * (highest / step(highest)).ceil();
    let decades = series
        .points
        .iter()
        .map(|it| it.quantity.log10())
        .fold(1.0, f64::max);
    let x = |quantity: f64| LEFT + (RIGHT - LEFT) * quantity.log10().max(0.0) / decades;
    let y = |micros: f64| BOTTOM - (BOTTOM - TOP) * micros / top;
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>",
        series.title()
    )?;
    let mut tick = 0.0;
    while tick <= top {
        writeln!(
            text,
            "<path d=\"M{LEFT} {0:.1}H{RIGHT}\" stroke=\"#ddd\"/><text x=\"{1}\" y=\"{2:.1}\" \
             text-anchor=\"end\">{tick:.0}</text>",
            y(tick),
            LEFT - 6.0,
            y(tick) + 4.0
        )?;
        tick += step(highest);
    }
    for Point { quantity, micros } in &series.points {
        let at = x(*quantity);
        writeln!(
            text,
            "<path d=\"M{at:.1} {:.1}V{:.1}\" stroke=\"#888\"/><circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3\" \
             fill=\"#06c\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{quantity}</text>",
            y(micros.q1),
            y(micros.q3),
            y(micros.median),
            BOTTOM + 18.0
        )?;
    }
    let line = series
        .points
        .iter()
        .map(|it| format!("{:.1},{:.1}", x(it.quantity), y(it.micros.median)));
    writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\"/>\n<text x=\"{}\" y=\"{}\" \
         text-anchor=\"middle\">{} (dots: medians; bars: quartiles; microseconds for connect, request, response, \
         close)</text>\n</svg>",
        line.collect::<Vec<_>>().join(" "),
        f64::midpoint(LEFT, RIGHT),
        HEIGHT - 12.0,
        series.axis
    )
}

/// 1, 2 or 5 times a power of ten, so that there are five steps or so up to `highest`.
fn step(highest: f64) -> f64 {
    let highest = highest.max(1.0);
    let power = 10.0_f64.powf((highest / 5.0).log10().floor());
    let times = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|it| it * power * 5.0 >= highest);
    times.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::{step, svg};
    use crate::{
        flat::{Point, Series},
        stats::Spread,
    };

    #[test]
    fn every_point_is_drawn_once() {
        let point = |quantity| Point {
            quantity,
            micros: Spread::of(&[100.0, 110.0, 120.0]),
        };
        let series = Series {
            axis: "entries".to_owned(),
            points: vec![point(10.0), point(1_000.0)],
        };
        let drawn = svg(&series);
        assert_eq!(drawn.matches("<circle").count(), 2, "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn steps_are_round_numbers() {
        let rounded = [7.0, 130.0, 270.0, 0.0].map(|highest| format!("{}", step(highest)));
        assert_eq!(rounded, ["2", "50", "100", "0.2"]);
    }
}
