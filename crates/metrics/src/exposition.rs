//! The two exposition formats, and the choice between them by the `Accept` header.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::text::from_openmetrics;

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text 0.0.4, which every scraper reads, and a person with `curl`.
    Text,
    /// OpenMetrics 1.0.0, only for scrapers that ask for it.
    OpenMetrics,
}

impl Exposition {
    /// Chooses by the value of an `Accept` header; a caller joins several headers by commas.
    ///
    /// Returns OpenMetrics if the header names it with at least the quality of text, else text,
    /// also for clients that accept neither: text helps a person more than an error.
    pub fn from_accept(accept: &str) -> Self {
        let openmetrics = find_quality(accept, "application/openmetrics-text", "1.0.0");
        let text = find_quality(accept, "text/plain", "0.0.4");
        let text = text.map_or(0.0, |found| found.quality);
        match openmetrics {
            Some(found) if found.is_named && found.quality > 0.0 && found.quality >= text => {
                Self::OpenMetrics
            }
            _ => Self::Text,
        }
    }

    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Encodes all metrics of a registry.
    ///
    /// # Errors
    ///
    /// A metric has a type that the formats do not support.
    pub fn encode(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut openmetrics = String::new();
        encode(&mut openmetrics, registry)?;
        Ok(match self {
            Self::Text => from_openmetrics(&openmetrics),
            Self::OpenMetrics => openmetrics,
        })
    }
}

/// The quality of a media type in an `Accept` header.
#[derive(Clone, Copy)]
struct Quality {
    /// The entry names the type itself, not a range that contains it.
    is_named: bool,
    quality: f32,
}

/// The quality in the most specific entry that covers a media type (RFC 9110, 12.5.1), or the
/// highest of several.
fn find_quality(accept: &str, media: &str, version: &str) -> Option<Quality> {
    let (kind, _) = media.split_once('/')?;
    let entries = accept.split(',').filter_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let range = parts.next()?;
        let specificity = match range.strip_suffix("/*") {
            Some("*") => 0,
            Some(range) if range.eq_ignore_ascii_case(kind) => 1,
            None if range.eq_ignore_ascii_case(media) => 2,
            _ => return None,
        };
        let mut quality = 1.0;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.parse().unwrap_or(0.0),
                "version" if specificity == 2 && value != version => return None,
                _ => {}
            }
        }
        Some((specificity, quality))
    });
    let (specificity, quality) = entries.max_by(|a: &(u8, f32), b| {
        let by_specificity = a.0.cmp(&b.0);
        by_specificity.then(a.1.total_cmp(&b.1))
    })?;
    Some(Quality {
        is_named: specificity == 2,
        quality,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that text is the default, and that OpenMetrics is chosen if it is named and text is
    /// not preferred.
    #[test]
    fn the_accept_header_chooses_the_format() {
        // Sent by Prometheus 2.42 and 3.x.
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8";
        for (accept, expected) in [
            (prometheus_2, Exposition::OpenMetrics),
            (prometheus_3, Exposition::OpenMetrics),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=1.0.0; Q=0.2, text/*; q=0.1",
                Exposition::OpenMetrics,
            ),
            (
                "application/openmetrics-text, text/plain, */*",
                Exposition::OpenMetrics,
            ),
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            ("application/*", Exposition::Text),
            (browser, Exposition::Text),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.3",
                Exposition::Text,
            ),
            (
                "application/openmetrics-text;q=0.2, text/*;q=0.3",
                Exposition::Text,
            ),
            ("application/openmetrics-text;q=0, */*", Exposition::Text),
            ("application/openmetrics-text;q=high", Exposition::Text),
            (
                "application/openmetrics-text;version=0.0.1, text/plain;q=0.5",
                Exposition::Text,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
                Exposition::Text,
            ),
            (";;,,=,/;q", Exposition::Text),
        ] {
            assert_eq!(Exposition::from_accept(accept), expected, "{accept}");
        }
    }
}
