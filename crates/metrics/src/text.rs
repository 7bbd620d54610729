//! OpenMetrics -> Prometheus text 0.0.4. Pure.
//!
//! The encoders of `prometheus-client` cannot be extended, so this module translates its
//! OpenMetrics line by line. Both formats write values, labels and escapes in the same way. Text
//! 0.0.4 differs in the metadata: HELP and TYPE of a counter name `x_total`, an info is a gauge
//! `x_info`, an unknown type is `untyped`, and there is neither UNIT nor EOF.

use std::fmt::Write;

/// Translates the output of `prometheus-client`. It has no exemplars, which text 0.0.4 does not
/// support: this crate creates none.
pub(crate) fn from_openmetrics(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            help = about.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').unwrap_or((about, ""));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            // SANITY: writing to a string does not fail.
            let _ = writeln!(
                text,
                "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}"
            );
            help = "";
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
