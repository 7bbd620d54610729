//! Requests whose head is too large. hyper refuses them by itself, before a route, and its answer has no body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// The JSON of an answer with one of these statuses: 414 (URI too long) or 431 (header fields too large).
pub type RefusalBody = fn(StatusCode) -> String;

/// An answer that is written in place of hyper's.
pub(crate) struct Refusal {
    bytes: Vec<u8>,
    written: usize,
    /// Length of hyper's answer.
    replaced: usize,
}

impl Refusal {
    /// The answer in place of one that hyper made by itself; `None` for others. The caller knows that no route made it.
    pub(crate) fn of(answer: &[u8], body: RefusalBody) -> Option<Self> {
        let statuses = [
            StatusCode::URI_TOO_LONG,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ];
        let status = statuses.into_iter().find(|status| {
            answer.starts_with(format!("HTTP/1.1 {} ", status.as_u16()).as_bytes())
        })?;
        let body = body(status);
        let answer_line = format!("HTTP/1.1 {status}\r\ncontent-type: application/json");
        let length = body.len();
        let bytes =
            format!("{answer_line}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        Some(Self {
            bytes: bytes.into_bytes(),
            written: 0,
            replaced: answer.len(),
        })
    }

    /// Writes the rest. Ready with the length of hyper's answer when all is written.
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        while self.written < self.bytes.len() {
            let rest = &self.bytes[self.written..];
            match ready!(Pin::new(&mut *stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Poll::Ready(Ok(self.replaced))
    }
}
