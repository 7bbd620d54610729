//! The routes below `/api/v1/debuginfo`: uploads of files with symbols, and the list of their indexes.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use elf::{BuildId, ParseBuildIdError};
use http_body_util::BodyExt;
use serde::Serialize;
use symbolize::index::IndexHead;
use tokio::sync::mpsc;
use tracing::info;

use super::HttpState;
use super::error::{ApiError, ErrorKind};
use super::parameters::Parameters;
use crate::symbol::IndexStore;
use crate::symbol::error::AddError;
use crate::symbol::index_store::{Added, IndexSummary};

/// Uploads at once. Each may take 4 GiB of the disk for as long as it lasts, and they become indexes one after the other.
pub const UPLOADS_MAX: usize = 2;

/// Chunks that wait for the disk. hyper's have up to 400 KiB.
const CHUNKS_MAX: usize = 8;

/// Time in which a client must send something.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Least average rate of a client after [`SILENCE_MAX`]: a hundredth of a slow home connection's. Otherwise two
/// clients that send a byte a minute would block all others.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Bytes of a refused file that are still read, and for how long: they are on their way when the answer is sent.
const DRAIN_BYTES_MAX: usize = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Bytes between two checks of the disk's free space.
const ROOM_BYTES: u64 = 64 << 20;

/// Window of a zstd frame, as a power of two: 128 MiB, the most that `zstd` makes without `--long`.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Entries of a list in one answer.
const LIST_MAX: usize = 100_000;

/// One index.
#[derive(Serialize)]
pub struct IndexAnswer {
    build_id: String,
    rank: &'static str,
    bytes: u64,
    source_bytes: u64,
    origin: String,
    created_ms: u64,
    used_ms: u64,
    /// Whether the file's load segments are known; without them the index names nothing.
    has_layout: bool,
    unreadable_functions: u64,
}

impl From<IndexSummary> for IndexAnswer {
    fn from(listed: IndexSummary) -> Self {
        let IndexSummary {
            head,
            bytes,
            used_s,
            has_layout,
        } = listed;
        Self {
            build_id: head.build_id.to_string(),
            rank: head.rank.name(),
            bytes,
            source_bytes: head.source_bytes,
            origin: head.origin,
            created_ms: head.created_ms,
            used_ms: used_s.saturating_mul(1000),
            has_layout,
            unreadable_functions: head.unreadable,
        }
    }
}

/// `GET /api/v1/debuginfo`
#[derive(Serialize)]
pub struct ListAnswer {
    indexes: Vec<IndexAnswer>,
    total: usize,
    bytes: u64,
    bytes_max: u64,
}

/// `PUT /api/v1/debuginfo/{build_id}`
#[derive(Serialize)]
pub struct UploadAnswer {
    result: &'static str,
    message: String,
    #[serde(flatten)]
    index: Option<IndexAnswer>,
}

/// `GET /api/v1/debuginfo`
pub async fn list(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Json<ListAnswer>, ApiError> {
    let limit = parameters
        .allow(&["limit"])?
        .number("limit", 1000, 0..=LIST_MAX)?;
    let symbols = state.symbols;
    let query = move || {
        let indexes = symbols.list();
        Ok(Json(ListAnswer {
            total: indexes.len(),
            bytes: indexes.iter().map(|index| index.bytes).sum(),
            bytes_max: symbols.bytes_max(),
            indexes: indexes
                .into_iter()
                .take(limit)
                .map(IndexAnswer::from)
                .collect(),
        }))
    };
    state.questions.run_light(query).await
}

/// `GET` and `HEAD /api/v1/debuginfo/{build_id}`
pub async fn status(
    State(state): State<HttpState>,
    Path(build_id): Path<String>,
    parameters: Parameters,
) -> Result<Json<IndexAnswer>, ApiError> {
    parameters.allow(&[])?;
    let build_id = read_build_id(&build_id)?;
    let found = state.symbols.find(&build_id);
    found
        .map(|listed| Json(listed.into()))
        .ok_or_else(|| not_found(&build_id))
}

/// `DELETE /api/v1/debuginfo/{build_id}`
pub async fn remove(
    State(state): State<HttpState>,
    Path(build_id): Path<String>,
    parameters: Parameters,
) -> Result<Json<UploadAnswer>, ApiError> {
    parameters.allow(&[])?;
    let build_id = read_build_id(&build_id)?;
    let symbols = state.symbols;
    let query = move || match symbols.remove(&build_id) {
        Ok(true) => Ok(Json(UploadAnswer {
            result: "removed",
            message: format!("the index of {build_id} is gone"),
            index: None,
        })),
        Ok(false) => Err(not_found(&build_id)),
        Err(err) => Err(ApiError::new(
            ErrorKind::Internal,
            format!("failed to remove the index: {err}"),
        )),
    };
    state.questions.run_light(query).await
}

/// `PUT /api/v1/debuginfo/{build_id}`
pub async fn upload(
    State(state): State<HttpState>,
    Path(build_id): Path<String>,
    headers: HeaderMap,
    parameters: Parameters,
    mut body: Body,
) -> Result<Json<UploadAnswer>, ApiError> {
    let answer = take(&state, parameters, &build_id, &headers, &mut body).await;
    let (result, bytes) = match &answer {
        Ok(taken) => (taken.answer.result, taken.bytes),
        Err(failed) => (failed.result, failed.bytes),
    };
    let metrics = state.symbols.metrics();
    metrics.uploads.of([result]).inc();
    metrics.upload_bytes.inc_by(bytes);
    match answer {
        Ok(taken) => Ok(Json(taken.answer)),
        Err(failed) => {
            info!(
                build_id,
                result,
                error = failed.error.line(),
                "refused a file with symbols"
            );
            // A client that waits for 100 Continue has sent nothing.
            if !headers.contains_key(EXPECT) {
                let _ = tokio::time::timeout(DRAIN_TIME, drain(&mut body)).await;
            }
            Err(*failed.error)
        }
    }
}

/// An accepted file, and its bytes.
struct Accepted {
    answer: UploadAnswer,
    bytes: u64,
}

/// A refused file: the name of the reason in metrics, and the received bytes.
struct Rejected {
    error: Box<ApiError>,
    result: &'static str,
    bytes: u64,
}

impl Rejected {
    fn new(result: &'static str, error: ApiError) -> Self {
        Self {
            error: Box::new(error),
            result,
            bytes: 0,
        }
    }
}

impl From<AddError> for Rejected {
    fn from(err: AddError) -> Self {
        Self::new(err.name(), err.into())
    }
}

async fn take(
    state: &HttpState,
    parameters: Parameters,
    build_id: &str,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Accepted, Rejected> {
    let bad = |error| Rejected::new("bad_request", error);
    parameters.allow(&[]).map_err(bad)?;
    let build_id = read_build_id(build_id).map_err(bad)?;
    let encoding = Encoding::read(headers).map_err(bad)?;
    let bytes_max = state.symbols.file_bytes_max();
    let stated: u64 = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    if stated > bytes_max {
        return Err(too_large(bytes_max));
    }
    let Ok(place) = Arc::clone(&state.uploads).try_acquire_owned() else {
        let busy = format!("{UPLOADS_MAX} files are being taken at this moment");
        let busy = ApiError::new(ErrorKind::Busy, busy).with_hint("send it again in some seconds");
        return Err(Rejected::new("busy", busy));
    };
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    let symbols = Arc::clone(&state.symbols);
    let work = tokio::task::spawn_blocking(move || {
        let taken = keep(&symbols, &build_id, encoding, stated, chunks);
        drop(place);
        taken
    });
    let sent = send_chunks(body, sender).await;
    let taken = work.await.unwrap_or_else(|err| {
        tracing::error!(%err, "taking a file with symbols panicked");
        let message = "the server failed; its log has the reason";
        Err(Rejected::new(
            "failed",
            ApiError::new(ErrorKind::Internal, message),
        ))
    });
    // The client's failure says more than an incomplete file.
    sent?;
    taken
}

/// A part of a file, or its end: a broken connection only closes the channel.
enum Chunk {
    Bytes(Bytes),
    End,
}

async fn send_chunks(body: &mut Body, sender: mpsc::Sender<Chunk>) -> Result<(), Rejected> {
    let started = Instant::now();
    let mut bytes = 0u64;
    let slow =
        |message: String| Rejected::new("too_slow", ApiError::new(ErrorKind::TooSlow, message));
    loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(frame) => frame,
            Err(_) => {
                return Err(slow(format!(
                    "nothing came for {} s",
                    SILENCE_MAX.as_secs()
                )));
            }
        };
        let chunk = match frame {
            None => Chunk::End,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Chunk::Bytes(data),
                Err(_trailers) => continue,
            },
            Some(Err(err)) => {
                let message = format!("the file did not come to its end: {err}");
                return Err(Rejected::new(
                    "aborted",
                    ApiError::new(ErrorKind::BadFile, message),
                ));
            }
        };
        let is_end = matches!(chunk, Chunk::End);
        if let Chunk::Bytes(data) = &chunk {
            bytes += data.len() as u64;
        }
        // The receiver is gone; its result has the reason.
        if sender.send(chunk).await.is_err() || is_end {
            return Ok(());
        }
        let elapsed = started.elapsed();
        if elapsed > SILENCE_MAX && bytes / elapsed.as_secs().max(1) < BYTES_PER_SECOND_MIN {
            return Err(slow(format!(
                "{bytes} bytes came in {} s, and a file must come with {BYTES_PER_SECOND_MIN} a second",
                elapsed.as_secs()
            )));
        }
    }
}

/// Reads on for a while: closing a connection with unread bytes resets it, and the client does not see the answer.
async fn drain(body: &mut Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > DRAIN_BYTES_MAX {
            return;
        }
    }
}

/// Writes the file as it arrives, and makes its index.
fn keep(
    symbols: &IndexStore,
    build_id: &BuildId,
    encoding: Encoding,
    stated: u64,
    mut chunks: mpsc::Receiver<Chunk>,
) -> Result<Accepted, Rejected> {
    symbols.check_room(stated)?;
    let file = symbols.make_incoming().map_err(AddError::from)?;
    let incoming = Incoming {
        file,
        symbols,
        bytes: 0,
        checked: 0,
        failed: None,
    };
    let mut unpacker = encoding.unpack(incoming).map_err(AddError::from)?;
    let mut is_whole = false;
    while let Some(chunk) = chunks.blocking_recv() {
        let written = match chunk {
            Chunk::Bytes(bytes) => unpacker.write_all(&bytes),
            Chunk::End => {
                is_whole = true;
                unpacker.finish()
            }
        };
        if let Err(err) = written {
            let incoming = unpacker.incoming();
            return Err(match incoming.failed.take() {
                Some(failed) => failed,
                None => Rejected {
                    bytes: incoming.bytes,
                    ..explain_unpacking(&err, encoding)
                },
            });
        }
        if is_whole {
            break;
        }
    }
    let incoming = unpacker.incoming();
    let bytes = incoming.bytes;
    if !is_whole {
        let error = ApiError::new(ErrorKind::BadFile, "the file did not come to its end");
        return Err(Rejected {
            bytes,
            ..Rejected::new("aborted", error)
        });
    }
    let mut file = incoming.file.try_clone().map_err(AddError::from)?;
    file.seek(SeekFrom::Start(0)).map_err(AddError::from)?;
    let placed = symbols
        .add(build_id, file, "upload")
        .map_err(|err| Rejected {
            bytes,
            ..Rejected::from(err)
        })?;
    let (result, message) = describe(&placed);
    let answer = UploadAnswer {
        result,
        message,
        index: symbols.find(build_id).map(IndexAnswer::from),
    };
    Ok(Accepted { answer, bytes })
}

fn describe(placed: &Added) -> (&'static str, String) {
    let kind = |head: &IndexHead| head.rank.name().replace('_', " ");
    match placed {
        Added::Stored(head) => (
            "stored",
            format!("the index of {} has a {}", head.build_id, kind(head))
                .replace("a debug info", "debug information"),
        ),
        Added::Unchanged(head) => (
            "unchanged",
            format!(
                "nothing changed: the present index of {} ({}) is as good or better",
                head.build_id,
                kind(head)
            ),
        ),
    }
}

fn explain_unpacking(err: &io::Error, encoding: Encoding) -> Rejected {
    if encoding == Encoding::Identity {
        return AddError::from(io::Error::new(err.kind(), err.to_string())).into();
    }
    let message = format!(
        "the body is not the {} that Content-Encoding says: {err}",
        encoding.name()
    );
    Rejected::new("bad_encoding", ApiError::new(ErrorKind::BadFile, message))
}

fn too_large(bytes_max: u64) -> Rejected {
    let message = format!("the file is larger than {bytes_max} bytes (--symbol-file-bytes-max)");
    let error = ApiError::new(ErrorKind::FileTooLarge, message);
    let hint = "send debug information alone (objcopy --only-keep-debug), or raise the limit";
    Rejected::new("too_large", error.with_hint(hint))
}

fn read_build_id(text: &str) -> Result<BuildId, ApiError> {
    text.parse().map_err(|err: ParseBuildIdError| {
        ApiError::in_parameter(ErrorKind::BadParameter, "build_id", err.to_string())
            .with_hint("`readelf -n FILE` shows it")
    })
}

fn not_found(build_id: &BuildId) -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        format!("there are no symbols of {build_id}"),
    )
}

/// Encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        match value.as_bytes() {
            b"identity" => Ok(Self::Identity),
            b"gzip" => Ok(Self::Gzip),
            b"zstd" => Ok(Self::Zstd),
            _ => Err(ApiError::new(
                ErrorKind::BadParameter,
                format!("Content-Encoding {value:?} is not known; gzip, zstd and identity are"),
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn unpack(self, incoming: Incoming<'_>) -> io::Result<Unpacker<'_>> {
        Ok(match self {
            Self::Identity => Unpacker::Identity(incoming),
            Self::Gzip => Unpacker::Gzip(Box::new(flate2::write::MultiGzDecoder::new(incoming))),
            Self::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(incoming)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Unpacker::Zstd(Box::new(decoder))
            }
        })
    }
}

enum Unpacker<'a> {
    Identity(Incoming<'a>),
    Gzip(Box<flate2::write::MultiGzDecoder<Incoming<'a>>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Incoming<'a>>>),
}

impl<'a> Unpacker<'a> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Identity(out) => out.flush(),
            Self::Gzip(out) => out.try_finish(),
            Self::Zstd(out) => out.flush(),
        }
    }

    fn incoming(&mut self) -> &mut Incoming<'a> {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(out) => out.get_mut(),
            Self::Zstd(out) => out.get_mut(),
        }
    }
}

/// The file, within its limit and the disk's.
struct Incoming<'a> {
    file: File,
    symbols: &'a IndexStore,
    bytes: u64,
    /// Bytes up to which the free space was checked.
    checked: u64,
    /// The cause of a failed write; decompressors only pass on an error's kind.
    failed: Option<Rejected>,
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let after = self.bytes + bytes.len() as u64;
        let bytes_max = self.symbols.file_bytes_max();
        let mut failed = (after > bytes_max).then(|| too_large(bytes_max));
        if failed.is_none() && after > self.checked {
            failed = self
                .symbols
                .check_room(ROOM_BYTES)
                .err()
                .map(Rejected::from);
            self.checked = after + ROOM_BYTES;
        }
        if let Some(failed) = failed {
            self.failed = Some(Rejected {
                bytes: self.bytes,
                ..failed
            });
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
