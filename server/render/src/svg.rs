//! A flame graph as an SVG with its own search and zoom, drawn by inferno.

use std::io::Write;

use anyhow::{Context, Result};
use inferno::flamegraph::{self, Options};
use model::ChargedBuffer;
use query::Tree;

use super::folded::{FoldedOptions, FoldedUnit, write_folded};

/// Options of a drawing.
#[derive(Clone, Debug)]
pub struct SvgOptions {
    /// Title above the graph.
    pub title: String,
    /// A second line.
    pub subtitle: Option<String>,
    /// Width in pixels.
    pub width: usize,
    /// Frames narrower than this percentage of the width are not drawn.
    pub min_width: f64,
}

/// Draws a tree that has samples, and writes it to `out`.
///
/// The folded stacks, from which inferno draws, have each name once for each stack that it is in. So frames that are not drawn in any
/// case are left out before; of one name in several files, each is looked at alone.
///
/// # Errors
/// inferno has nothing to draw, there is no memory for it, or `out` failed.
pub fn draw_svg(tree: &Tree, svg: SvgOptions, out: impl Write) -> Result<()> {
    let options = FoldedOptions {
        unit: FoldedUnit::Microseconds,
        ns_min: (tree.total().ns as f64 * svg.min_width / 100.0) as u64,
    };
    let mut folded = ChargedBuffer::new(tree.charge(), usize::MAX);
    write_folded(tree, options, &mut folded)?;
    let folded = std::str::from_utf8(folded.as_ref())?;
    let mut options = Options::default();
    options.title = svg.title;
    options.subtitle = svg.subtitle;
    options.image_width = Some(svg.width);
    options.min_width = svg.min_width;
    options.count_name = "µs of CPU".into();
    flamegraph::from_lines(&mut options, folded.lines(), out)
        .context("failed to draw the flame graph")
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::text::tree;

    #[test]
    fn names_cannot_become_markup() {
        let tree = tree("comm=a | main <script>alert(1)</script> | 3");
        let title = "<b>&\"'".to_owned();
        let options = SvgOptions {
            title,
            subtitle: Some("<b>incomplete".to_owned()),
            width: 1200,
            min_width: 0.1,
        };
        let mut svg = Vec::new();
        draw_svg(&tree, options, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert!(svg.contains("alert(1)"));
        assert!(!svg.contains("<script>alert"));
        assert!(!svg.contains("<b>") && svg.contains("incomplete"));
    }
}
