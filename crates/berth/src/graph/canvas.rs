//! SVG of what the layout placed. Lines lie below boxes, and boxes below words, so that every word can be read.

use std::fmt::Write as _;

use layout::core::{
    format::{ClipHandle, RenderBackend},
    geometry::Point,
    style::StyleAttr,
};

/// Of every word, in pixels.
pub(super) const FONT_SIZE: usize = 14;
/// Empty space around the drawing.
const MARGIN: f64 = 20.0;
/// The mean width of a letter, in parts of the font size: sans-serif ones differ, and a box may be a little wide.
const LETTER: f64 = 0.6;
/// From one line of text to the next, in parts of the font size.
const LINE: f64 = 1.3;

/// The room a text takes.
pub(super) fn size_of(text: &str) -> Point {
    let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    let font = FONT_SIZE as f64;
    Point::new(longest as f64 * font * LETTER, text.lines().count() as f64 * font * LINE)
}

/// Three layers, and the corners of all that is in them.
#[derive(Default)]
pub(super) struct Canvas {
    lines: String,
    boxes: String,
    words: String,
    corners: Option<(Point, Point)>,
}

impl Canvas {
    pub(super) fn finish(self) -> String {
        let (low, high) = self.corners.unwrap_or((Point::zero(), Point::zero()));
        let (x, y) = (low.x - MARGIN, low.y - MARGIN);
        let (width, height) = (high.x - low.x + 2.0 * MARGIN, high.y - low.y + 2.0 * MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"{x:.1} {y:.1} {width:.1} {height:.1}\" \
             font-family=\"sans-serif\" text-anchor=\"middle\">\n\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#ffffff\"/>\n{}{}{}</svg>\n",
            self.lines, self.boxes, self.words
        )
    }

    fn reach(&mut self, point: Point) {
        let (low, high) = self.corners.unwrap_or((point, point));
        let low = Point::new(low.x.min(point.x), low.y.min(point.y));
        self.corners = Some((low, Point::new(high.x.max(point.x), high.y.max(point.y))));
    }

    /// The head of an arrow at `tip`, for a line that comes from `from`.
    fn head(&mut self, from: Point, tip: Point, colour: &str) {
        let (x, y) = (tip.x - from.x, tip.y - from.y);
        let length = x.hypot(y).max(1.0);
        let (x, y) = (x / length, y / length);
        let corner = |side: f64| Point::new(tip.x - 10.0 * x - side * 4.5 * y, tip.y - 10.0 * y + side * 4.5 * x);
        let (left, right) = (corner(1.0), corner(-1.0));
        // Writing to a text cannot fail, here and below.
        let _ = writeln!(
            self.lines,
            "<polygon points=\"{:.1},{:.1} {:.1},{:.1} {:.1},{:.1}\" fill=\"{colour}\"/>",
            tip.x, tip.y, left.x, left.y, right.x, right.y
        );
    }
}

/// `#rrggbb`, which more programs understand than a colour with its opacity.
fn colour(look: &StyleAttr) -> String {
    look.line_color.to_web_color().chars().take(7).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl RenderBackend for Canvas {
    fn draw_rect(&mut self, xy: Point, size: Point, look: &StyleAttr, _: Option<String>, _: Option<ClipHandle>) {
        self.reach(xy);
        self.reach(Point::new(xy.x + size.x, xy.y + size.y));
        let fill: String =
            look.fill_color.map_or_else(|| "none".to_owned(), |fill| fill.to_web_color().chars().take(7).collect());
        let _ = writeln!(
            self.boxes,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{}\" fill=\"{fill}\" stroke=\"{}\" stroke-width=\"{}\"/>",
            xy.x,
            xy.y,
            size.x,
            size.y,
            look.rounded,
            colour(look),
            look.line_width
        );
    }

    fn draw_text(&mut self, middle: Point, text: &str, look: &StyleAttr) {
        let size = size_of(text);
        let corner = Point::new(middle.x - size.x / 2.0, middle.y - size.y / 2.0);
        self.reach(corner);
        self.reach(Point::new(corner.x + size.x, corner.y + size.y));
        // Boxes are rounded. Of a line's words the layout keeps the look only where the line is short, so all of them look alike.
        if look.rounded == 0 {
            // The line makes room.
            let _ = writeln!(
                self.words,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#ffffff\"/>",
                corner.x, corner.y, size.x, size.y
            );
        }
        let font = FONT_SIZE as f64;
        for (index, line) in text.lines().enumerate() {
            let y = corner.y + font * (LINE * index as f64 + 1.0);
            let _ = writeln!(
                self.words,
                "<text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"{font}\" fill=\"#111111\">{}</text>",
                middle.x,
                escaped(line)
            );
        }
    }

    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        dashed: bool,
        (at_start, at_end): (bool, bool),
        look: &StyleAttr,
        _: Option<String>,
        _: &str,
    ) {
        let [(start, out), (into, next), more @ ..] = path else { return };
        let mut curve = format!(
            "M {:.1} {:.1} C {:.1} {:.1}, {:.1} {:.1}, {:.1} {:.1}",
            start.x, start.y, out.x, out.y, into.x, into.y, next.x, next.y
        );
        for (into, next) in more {
            let _ = write!(curve, " S {:.1} {:.1}, {:.1} {:.1}", into.x, into.y, next.x, next.y);
        }
        for (a, b) in path {
            self.reach(*a);
            self.reach(*b);
        }
        let colour = colour(look);
        let dash = if dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let width = look.line_width;
        let _ = writeln!(
            self.lines,
            "<path d=\"{curve}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"{dash}/>"
        );
        if at_start {
            self.head(*out, *start, &colour);
        }
        if let (true, Some((into, end))) = (at_end, path.last()) {
            self.head(*into, *end, &colour);
        }
    }

    // Boxes, words and arrows are all that is ever placed.
    fn draw_line(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}
