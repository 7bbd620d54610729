//! A flame graph as an SVG with its own search and zoom, drawn by inferno.

use anyhow::{Context, Result};
use inferno::flamegraph::{self, Options};
use query::Tree;

use super::folded::{FoldedUnit, fold};

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

/// Draws a tree that has samples.
///
/// # Errors
/// inferno has nothing to draw.
pub fn draw_svg(tree: &Tree, svg: SvgOptions) -> Result<Vec<u8>> {
    let folded = fold(tree, FoldedUnit::Microseconds);
    let mut options = Options::default();
    options.title = svg.title;
    options.subtitle = svg.subtitle;
    options.image_width = Some(svg.width);
    options.min_width = svg.min_width;
    options.count_name = "µs of CPU".into();
    let mut drawn = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut drawn)
        .context("failed to draw the flame graph")?;
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use query::text::tree;

    #[test]
    fn names_cannot_become_markup() {
        let tree = tree("comm=a | main <script>alert(1)</script> | 3");
        let title = "<b>&\"'".to_owned();
        let svg = draw_svg(
            &tree,
            SvgOptions {
                title,
                subtitle: Some("<b>incomplete".to_owned()),
                width: 1200,
                min_width: 0.1,
            },
        )
        .unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert!(svg.contains("alert(1)"));
        assert!(!svg.contains("<script>alert"));
        assert!(!svg.contains("<b>") && svg.contains("incomplete"));
    }
}
