//! A plot: lines or points over two axes, drawn as SVG.
//!
//! Each plot is drawn twice, once for wide columns and once for narrow ones, so that its letters stay legible
//! at any width; the style sheet shows one of the two. Lines differ in colour *and* in dash, points in colour
//! and in shape: nothing rests on colour alone.
//!
//! # Promises
//! 1. A value that is missing is a gap in its line, not a zero and not a bridge.
//! 2. A value between two gaps is still seen, as a dot.
//! 3. A plot's size is bounded by its width in pixels, not by the length of the run.

use std::fmt::Write;

use super::{axis::Axis, text};

/// How many looks there are; see the style sheet's `s0` … `s7`.
pub(super) const LOOKS: usize = 8;

/// One line, or a row of points.
pub(super) struct Line {
    pub(super) name: String,
    /// Below [`LOOKS`].
    pub(super) look: usize,
    /// Points joined in this order; `None` breaks the line.
    pub(super) points: Vec<(f64, Option<f64>)>,
    /// Each point is marked by a shape.
    pub(super) marked: bool,
    /// The points are joined.
    pub(super) joined: bool,
}

/// One plot.
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// What it shows, for those who cannot see it and for those who wonder.
    pub(super) caption: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// A dashed level across the whole plot, with its name.
    pub(super) level: Option<(f64, String)>,
    /// Places at which something went wrong, marked at the bottom.
    pub(super) alarms: Vec<f64>,
    /// What is said when the pointer is near an x.
    pub(super) probes: Vec<(f64, String)>,
}

struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

const WIDE: Size =
    Size { class: "wide", width: 540.0, height: 300.0, left: 56.0, right: 14.0, top: 24.0, bottom: 40.0 };
const NARROW: Size =
    Size { class: "narrow", width: 350.0, height: 264.0, left: 52.0, right: 10.0, top: 24.0, bottom: 40.0 };

/// Width of a digit of the axes' letters.
const LETTER: f64 = 7.2;

impl Plot {
    /// The plot with its title, legend and caption.
    pub(super) fn figure(&self) -> String {
        format!(
            "<figure class=\"plot\"><figcaption><h3>{}</h3><p>{}</p></figcaption>{}{}{}</figure>\n",
            self.title,
            text::escape(&self.caption),
            self.legend(),
            self.draw(&WIDE),
            self.draw(&NARROW),
        )
    }

    fn legend(&self) -> String {
        let mut items = String::new();
        for line in &self.lines {
            let swatch = match (line.joined, line.marked) {
                (false, _) => shape(line.look, 12.0, 6.0),
                (true, marked) => {
                    let mark = if marked { shape(line.look, 12.0, 6.0) } else { String::new() };
                    format!("<path class=\"line s{}\" d=\"M0 6H24\"/>{mark}", line.look)
                }
            };
            let _ = write!(
                items,
                "<li><svg viewBox=\"0 0 24 12\" aria-hidden=\"true\">{swatch}</svg>{}</li>",
                text::escape(&line.name)
            );
        }
        if let Some((_, name)) = &self.level {
            let _ = write!(
                items,
                "<li><svg viewBox=\"0 0 24 12\" aria-hidden=\"true\"><path class=\"level\" d=\"M0 6H24\"/></svg>{}</li>",
                text::escape(name)
            );
        }
        if !self.alarms.is_empty() {
            items.push_str(
                "<li><svg viewBox=\"0 0 24 12\" aria-hidden=\"true\"><path class=\"alarm\" d=\"M12 1l5 10h-10z\"/></svg>errors</li>",
            );
        }
        format!("<ul class=\"legend\">{items}</ul>")
    }

    fn draw(&self, size: &Size) -> String {
        let mut svg = format!(
            "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}: {}\"{}>",
            size.class,
            size.width,
            size.height,
            self.title,
            text::escape(&self.caption),
            self.probe_attribute(size),
        );
        self.axes(size, &mut svg);
        let at = |(x, y): (f64, f64)| (size.x(self.x.place(x)), size.y(self.y.place(y)));
        if let Some((level, _)) = self.level {
            let _ = write!(
                svg,
                "<path class=\"level\" d=\"M{:.1} {:.1}H{:.1}\"/>",
                size.left,
                size.y(self.y.place(level)),
                size.width - size.right
            );
        }
        for line in &self.lines {
            let placed = line.points.iter().map(|(x, y)| y.map(|y| at((*x, y))));
            if line.joined {
                let path = path(placed.clone());
                let _ = write!(svg, "<path class=\"line s{}\" d=\"{path}\"/>", line.look);
            }
            // A line of one or two seconds would be overlooked.
            if line.marked || line.points.len() <= 2 {
                for (x, y) in placed.flatten() {
                    svg.push_str(&shape(line.look, x, y));
                }
            }
        }
        let mut before = f64::NEG_INFINITY;
        for alarm in &self.alarms {
            let x = size.x(self.x.place(*alarm));
            if x - before >= 4.0 {
                let _ = write!(svg, "<path class=\"alarm\" d=\"M{x:.1} {:.1}l5 9h-10z\"/>", size.bottom_edge() - 9.0);
                before = x;
            }
        }
        if !self.probes.is_empty() {
            let _ = write!(
                svg,
                "<path class=\"rule\" d=\"M0 {:.1}V{:.1}\" visibility=\"hidden\"/>",
                size.top,
                size.bottom_edge()
            );
        }
        svg.push_str("</svg>");
        svg
    }

    fn axes(&self, size: &Size, svg: &mut String) {
        for tick in &self.y.ticks {
            let y = size.y(self.y.place(tick.value));
            let class = if tick.text.is_empty() { "faint" } else { "grid" };
            let _ =
                write!(svg, "<path class=\"{class}\" d=\"M{:.1} {y:.1}H{:.1}\"/>", size.left, size.width - size.right);
            if !tick.text.is_empty() {
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    size.left - 6.0,
                    y + 4.0,
                    tick.text
                );
            }
        }
        let mut free_from = f64::NEG_INFINITY;
        for tick in &self.x.ticks {
            let half = tick.text.chars().count() as f64 * LETTER / 2.0;
            let x = size.x(self.x.place(tick.value));
            let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {:.1}v4\"/>", size.bottom_edge());
            let middle = x.clamp(half, size.width - half);
            if middle - half < free_from {
                continue;
            }
            free_from = middle + half + 8.0;
            let _ = write!(
                svg,
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                size.bottom_edge() + 17.0,
                tick.text
            );
        }
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{:.1} {:.1}H{:.1}\"/><text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text><text class=\"label\" x=\"0\" y=\"11\">{}</text>",
            size.left,
            size.bottom_edge(),
            size.width - size.right,
            size.width - size.right,
            size.height - 6.0,
            self.x.label,
            self.y.label,
        );
    }

    /// What the pointer finds, by x in the picture's own units, as JSON.
    fn probe_attribute(&self, size: &Size) -> String {
        if self.probes.is_empty() {
            return String::new();
        }
        let mut probes: Vec<(f64, &str)> = Vec::new();
        for (x, words) in &self.probes {
            let x = (size.x(self.x.place(*x)) * 10.0).round() / 10.0;
            if probes.last().is_none_or(|(before, _)| (x - before).abs() >= 1.5) {
                probes.push((x, words));
            }
        }
        let json = serde_json::to_string(&probes).unwrap_or_default();
        format!(" data-probe=\"{}\"", text::escape(&json))
    }
}

impl Size {
    fn x(&self, share: f64) -> f64 {
        self.left + share * (self.width - self.left - self.right)
    }

    fn y(&self, share: f64) -> f64 {
        self.bottom_edge() - share * (self.bottom_edge() - self.top)
    }

    fn bottom_edge(&self) -> f64 {
        self.height - self.bottom
    }
}

/// A line through the points, with gaps (promises 1 and 2). Points that fall on the same pixel as the one before
/// are left out (promise 3).
fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut before: Option<(f64, f64)> = None;
    for point in points {
        match (before, point) {
            (Some((x, y)), Some((next_x, next_y))) if (next_x - x).abs() < 0.4 && (next_y - y).abs() < 0.4 => continue,
            // A round cap makes a dot of a line of no length.
            (None, Some((x, y))) => _ = write!(path, "M{x:.1} {y:.1}h0"),
            (Some(_), Some((x, y))) => _ = write!(path, "L{x:.1} {y:.1}"),
            (_, None) => {}
        }
        before = point;
    }
    path
}

/// A mark: the shape goes by the look.
fn shape(look: usize, x: f64, y: f64) -> String {
    let outline = match look % LOOKS {
        0 => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        1 => "m-4-4h8v8h-8z",
        2 => "m0-5l5 5l-5 5l-5-5z",
        3 => "m0-5l5 9h-10z",
        4 => "m0 5l5-9h-10z",
        5 => "m-5-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z",
        6 => "m-5-3h10v6h-10z",
        _ => "m-3-5h6v10h-6z",
    };
    format!("<path class=\"mark s{look}\" d=\"M{x:.1} {y:.1}{outline}\"/>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_is_a_gap_and_a_lonely_one_a_dot() {
        let drawn = path([Some((0.0, 1.0)), Some((2.0, 3.0)), None, Some((6.0, 1.0)), None].into_iter());
        assert_eq!(drawn, "M0.0 1.0h0L2.0 3.0M6.0 1.0h0", "promises 1 and 2");
    }

    #[test]
    fn a_long_run_is_not_a_large_picture() {
        let points = (0..1_000_000).map(|at| (f64::from(at) * 5e-4, Some(7.0))).map(|(x, y)| y.map(|y| (x, y)));
        assert!(path(points).len() < 20_000, "promise 3");
    }
}
