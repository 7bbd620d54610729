//! Receives collectors' messages, before anything of them is decoded.
//!
//! A message that is being received holds one of a few slots, since it may have 32 MiB. One that stalls loses it, to the next
//! message or to time, so that a collector that stops in the middle stops nobody else. What has come is counted
//! ([`crate::receive::entries`]) and handed on as a whole. Health checks are small, and hold no slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use listen::connections::RequestConnection;
use listen::slots::{Activity, Client, Slot, SlotHolder, SlotPool};
use tonic::Status;
use tracing::warn;

use crate::receive::entries::{BEGIN_UPLOAD, Counted, PLAIN, PUSH, REPORT, check_message};
use crate::receive::metrics::ReceiveMetrics;
use crate::receive::refusal::{Refusal, RefusalReason};

/// gRPC's prefix of a message: a byte for compression, and the length.
const PREFIX_BYTES: usize = 5;

/// A piece of a file of 1 MiB and its names, in messages about symbols; gRPC's usual limit is 4 MiB.
const SYMBOLS_BYTES_MAX: usize = 4 << 20;

/// A node's report: 64 checks of 3 KiB at most, and usually thirty of 200 bytes.
const REPORT_BYTES_MAX: usize = 256 << 10;

/// A health check has the name of a service.
const HEALTH_BYTES_MAX: usize = 4 << 10;

/// Limits of receiving.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveLimits {
    /// Windows at once, from the first byte to the answer.
    pub windows_max: usize,
    /// Messages about symbols, and reports of nodes, at once.
    pub symbols_max: usize,
    /// Largest message with a window.
    pub window_bytes_max: usize,
    /// Wait of a message for a slot.
    pub wait_max: Duration,
    /// Time in which something of a message must arrive.
    pub silence_max: Duration,
    /// Time for a whole message.
    pub time_max: Duration,
}

impl ReceiveLimits {
    /// - 32 windows of 32 MiB are 1 GiB at worst and some 30 MB usually; the store's queue takes twice as many.
    /// - 16 messages about symbols are 64 MiB; one of them may make an index, which takes seconds.
    /// - A collector waits for 30 s until its window is acknowledged. 10 s of waiting and 10 s of silence leave time for the store.
    /// - 60 s are for senders that wait longer: 32 MiB at half a megabyte a second.
    pub fn new(window_bytes_max: usize) -> Self {
        Self {
            windows_max: 32,
            symbols_max: 16,
            window_bytes_max,
            wait_max: Duration::from_secs(10),
            silence_max: Duration::from_secs(10),
            time_max: Duration::from_secs(60),
        }
    }
}

/// Receives messages.
pub struct Receiver {
    limits: ReceiveLimits,
    windows: Arc<SlotPool>,
    symbols: Arc<SlotPool>,
    metrics: ReceiveMetrics,
}

/// A kind of message.
struct Kind<'a> {
    counted: &'static Counted,
    slots: Option<&'a Arc<SlotPool>>,
    bytes_max: usize,
}

impl Receiver {
    /// A receiver with these limits.
    pub fn new(limits: ReceiveLimits, metrics: ReceiveMetrics) -> Arc<Self> {
        Arc::new(Self {
            limits,
            windows: SlotPool::new(limits.windows_max),
            symbols: SlotPool::new(limits.symbols_max),
            metrics,
        })
    }

    /// The kind of messages of a path; `None` for unknown paths.
    fn kind(&self, path: &str) -> Option<Kind<'_>> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let counted = match method {
            "Push" => &PUSH,
            "BeginUpload" => &BEGIN_UPLOAD,
            "Report" => &REPORT,
            _ => &PLAIN,
        };
        let (slots, bytes_max) = match service {
            // Small, and not behind windows: a node that waits to send these has something to say.
            "pilotlight.v1.Ingest" if method == "Report" => (Some(&self.symbols), REPORT_BYTES_MAX),
            "pilotlight.v1.Ingest" => (Some(&self.windows), self.limits.window_bytes_max),
            "pilotlight.v1.Symbols" => (Some(&self.symbols), SYMBOLS_BYTES_MAX),
            "grpc.health.v1.Health" => (None, HEALTH_BYTES_MAX),
            _ => return None,
        };
        Some(Kind {
            counted,
            slots,
            bytes_max,
        })
    }

    /// Receives a message, and the slot that it holds until it is answered.
    async fn take(
        &self,
        kind: &Kind<'_>,
        request: &mut Request,
    ) -> Result<(Bytes, Option<Slot>), Refusal> {
        let slot = match kind.slots {
            Some(slots) => {
                let connection = request.extensions().get::<RequestConnection>();
                let client = connection.map(|connection| connection.holder.client());
                Some(self.acquire_slot(slots, client).await?)
            }
            None => None,
        };
        let holder = slot.as_ref().map(Slot::holder);
        let revoked = async {
            match holder {
                Some(holder) => holder.revoked().await,
                None => std::future::pending().await,
            }
        };
        let bytes = tokio::select! {
            bytes = self.receive(kind, request.body_mut(), holder) => bytes?,
            () = revoked => return Err(too_slow("its slot was given to another message")),
        };
        if let Some(message) = bytes.get(PREFIX_BYTES..) {
            check_message(message, kind.counted)?;
        }
        Ok((bytes, slot))
    }

    async fn acquire_slot(
        &self,
        slots: &Arc<SlotPool>,
        client: Option<Client>,
    ) -> Result<Slot, Refusal> {
        let busy = |message: &str| Refusal::new(RefusalReason::Busy, message);
        let client = client.ok_or_else(|| busy("the request came over no connection"))?;
        let taken = slots.acquire_within(client, self.limits.wait_max).await;
        let taken = taken
            .ok_or_else(|| busy("the server receives as many messages as it can; send it again"))?;
        taken.slot.holder().begin(Activity::Transferring);
        Ok(taken.slot)
    }

    async fn receive(
        &self,
        kind: &Kind<'_>,
        body: &mut Body,
        holder: Option<&Arc<SlotHolder>>,
    ) -> Result<Bytes, Refusal> {
        let until = Instant::now() + self.limits.time_max;
        let mut received = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let frame = tokio::time::timeout(left.min(self.limits.silence_max), body.frame());
            let frame = match frame.await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(err))) => {
                    let message = format!("the message did not come to its end: {err}");
                    return Err(Refusal::new(RefusalReason::Slow, message));
                }
                Ok(None) => return Ok(received.into()),
                Err(_) => return Err(too_slow("it stopped, or came too slowly")),
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if let Some(holder) = holder {
                holder.note_bytes(data.len());
            }
            received.extend_from_slice(data);
            if let Some(length) = stated_length(&received) {
                if length > kind.bytes_max {
                    let max = kind.bytes_max;
                    let message =
                        format!("a message of {length} bytes, and at most {max} are taken");
                    return Err(Refusal::new(RefusalReason::TooLarge, message));
                }
                let whole = PREFIX_BYTES + length;
                if received.len() > whole {
                    let message = "more than one message in a request that has one";
                    return Err(Refusal::new(RefusalReason::Malformed, message));
                }
                received.reserve_exact(whole - received.len());
            }
        }
    }
}

/// The length from a message's prefix, when that has arrived.
fn stated_length(received: &[u8]) -> Option<usize> {
    let [_, length @ ..] = received.first_chunk::<PREFIX_BYTES>()?;
    Some(u32::from_be_bytes(*length) as usize)
}

fn too_slow(why: &str) -> Refusal {
    Refusal::new(
        RefusalReason::Slow,
        format!("the message was not received: {why}"),
    )
}

/// Receives a request's message, and hands it on.
pub async fn receive(
    State(receiver): State<Arc<Receiver>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(kind) = receiver.kind(request.uri().path()) else {
        return next.run(request).await;
    };
    match receiver.take(&kind, &mut request).await {
        Ok((message, slot)) => {
            let connection: Option<RequestConnection> = request.extensions().get().cloned();
            let _works = slot.as_ref().map(|slot| {
                let connection = connection.map(|connection| connection.holder.work());
                (connection, slot.holder().work())
            });
            let (parts, _) = request.into_parts();
            next.run(Request::from_parts(parts, Body::from(message)))
                .await
        }
        Err(refusal) => {
            receiver.metrics.count_refused(refusal.reason.name());
            let path = request.uri().path();
            warn!(path, reason = refusal.reason.name(), %refusal, "refused a message");
            Status::from(refusal).into_http()
        }
    }
}
