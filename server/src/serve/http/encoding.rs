//! Compression of answers: gzip or zstd, if the client takes one.
//!
//! An answer is written straight into its encoder, on the account of the question, so that it is never in memory as a whole without compression, and a client that
//! reads slowly holds the compressed bytes only. A layer over the routes would compress while the client reads, and hold all of it.

use std::io::{self, BufWriter, Write};

use axum::body::Bytes;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use model::ChargedBuffer;
use serde::Serialize;

use super::columns;
use super::error::{ApiError, ErrorKind};

/// The fastest: the client waits for the whole answer. In the bench `query`, a flame graph of 200,000 nodes has 5.4 MB of JSON, which
/// takes 1.0 to write, 1.9 with gzip (1.2 MB) and 1.4 with zstd (0.8 MB).
const GZIP_LEVEL: u32 = 1;

/// As for gzip.
const ZSTD_LEVEL: i32 = 1;

/// Bytes of JSON that are compressed at once: serde writes a few bytes at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// None.
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A form of answers that have columns of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// JSON.
    Json,
    /// JSON, and the columns behind it.
    Columns,
}

/// The body of an answer, and its headers. The bytes are on the account of the question until the last client has read them.
#[derive(Clone)]
pub struct Encoded {
    encoding: Encoding,
    content_type: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    bytes: Bytes,
}

impl Encoding {
    /// The best one that a client takes.
    pub fn accepted(headers: &HeaderMap) -> Self {
        if is_accepted(headers, ACCEPT_ENCODING, "zstd") {
            Self::Zstd
        } else if is_accepted(headers, ACCEPT_ENCODING, "gzip") {
            Self::Gzip
        } else {
            Self::Identity
        }
    }

    /// Writes an answer as JSON.
    ///
    /// # Errors
    /// It has no form in JSON, or `buffer` is full.
    pub fn json(self, answer: &impl Serialize, buffer: ChargedBuffer) -> Result<Encoded, ApiError> {
        self.write("application/json", buffer, |writer| {
            Ok(serde_json::to_writer(writer, answer)?)
        })
    }

    /// Makes an answer of what `write` writes.
    ///
    /// # Errors
    /// It or the encoder failed, or `buffer` is full.
    pub fn write(
        self,
        content_type: &'static str,
        buffer: ChargedBuffer,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Encoded, ApiError> {
        let written = match self {
            Self::Identity => buffered(buffer, write),
            Self::Gzip => {
                let gzip = GzEncoder::new(buffer, Compression::new(GZIP_LEVEL));
                buffered(gzip, write).and_then(GzEncoder::finish)
            }
            Self::Zstd => new_zstd(buffer)
                .and_then(|zstd| buffered(zstd, write))
                .and_then(zstd::Encoder::finish),
        };
        let buffer = written.map_err(|err| {
            let message = format!("failed to write the answer: {err}");
            ApiError::new(ErrorKind::Internal, message)
        })?;
        Ok(Encoded {
            encoding: self,
            ..Encoded::new(content_type, buffer)
        })
    }
}

impl Encoded {
    /// An answer that is not compressed, or by its own form.
    pub fn new(content_type: &'static str, mut buffer: ChargedBuffer) -> Self {
        buffer.shrink();
        Self {
            encoding: Encoding::Identity,
            content_type,
            headers: Vec::new(),
            bytes: Bytes::from_owner(buffer),
        }
    }

    /// Adds a header, if there is one.
    #[must_use]
    pub fn with_header(mut self, header: impl Into<Option<(HeaderName, HeaderValue)>>) -> Self {
        self.headers.extend(header.into());
        self
    }
}

impl Form {
    /// The one that a client takes: JSON, unless it names the other one.
    pub fn accepted(headers: &HeaderMap) -> Self {
        if is_accepted(headers, ACCEPT, columns::MEDIA_TYPE) {
            Self::Columns
        } else {
            Self::Json
        }
    }
}

/// A browser checks the sum at the end, as that of gzip.
fn new_zstd(buffer: ChargedBuffer) -> io::Result<zstd::Encoder<'static, ChargedBuffer>> {
    let mut zstd = zstd::Encoder::new(buffer, ZSTD_LEVEL)?;
    zstd.include_checksum(true)?;
    Ok(zstd)
}

/// Whether one of a header's lines has this coding or media type.
fn is_accepted(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let lines = headers.get_all(header).iter();
    let mut texts = lines.filter_map(|line| line.to_str().ok());
    texts.any(|text| text.split(',').any(|item| is_taken(item, name)))
}

/// Whether an item of such a header is this one, and does not refuse it (`gzip;q=0`).
fn is_taken(item: &str, coding: &str) -> bool {
    let (name, weight) = item.split_once(';').unwrap_or((item, ""));
    let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
    name.trim().eq_ignore_ascii_case(coding) && weight.parse().is_ok_and(|weight: f32| weight > 0.0)
}

fn buffered<W: Write>(
    encoder: W,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<W> {
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, encoder);
    write(&mut writer)?;
    writer.into_inner().map_err(|err| err.into_error())
}

impl IntoResponse for Encoded {
    fn into_response(self) -> Response {
        let encoding = match self.encoding {
            Encoding::Identity => None,
            Encoding::Gzip => Some([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]),
            Encoding::Zstd => Some([(CONTENT_ENCODING, HeaderValue::from_static("zstd"))]),
        };
        let headers = [(CONTENT_TYPE, self.content_type), (VARY, "accept-encoding")];
        let mut response = (encoding, headers, self.bytes).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses() {
        for (lines, expected) in [
            (vec![], Encoding::Identity),
            (vec!["gzip, deflate, br, zstd"], Encoding::Zstd),
            (vec!["gzip, deflate"], Encoding::Gzip),
            (vec!["br", "GZIP;q=0.5"], Encoding::Gzip),
            (vec!["zstd;q=0, gzip; q=0.001"], Encoding::Gzip),
            (vec!["gzip;q=0", "identity"], Encoding::Identity),
            (vec!["gzip;q=many, x-gzip, *"], Encoding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(Encoding::accepted(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn columns_are_for_clients_that_name_them() {
        for (line, expected) in [
            (None, Form::Json),
            (Some("*/*"), Form::Json),
            (Some("application/json"), Form::Json),
            (Some("application/vnd.pilotlight.columns"), Form::Columns),
            (
                Some("application/json;q=0.5, application/vnd.pilotlight.columns;q=0.9"),
                Form::Columns,
            ),
            (Some("application/vnd.pilotlight.columns;q=0"), Form::Json),
        ] {
            let line = line.map(|line| (ACCEPT, HeaderValue::from_static(line)));
            let headers = HeaderMap::from_iter(line);
            assert_eq!(Form::accepted(&headers), expected, "{headers:?}");
        }
    }
}
