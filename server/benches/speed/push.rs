//! Pushes a plan to a server, some messages at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::v1::PushRequest;
use proto::v1::ingest_client::IngestClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::plan::Plan;
use crate::process::runtime;
use crate::running;

/// Time after which a push that was refused for now is sent again: short, since the server's speed is measured.
const RETRY_TIME: Duration = Duration::from_millis(20);

/// Times that a push is sent: ten minutes.
const TRIES_MAX: usize = 30_000;

/// Time between two lines about the progress.
const PROGRESS_TIME: Duration = Duration::from_secs(10);

/// Pushes of one measurement.
struct Queue {
    plan: Arc<Plan>,
    next: AtomicUsize,
    retries: AtomicUsize,
}

/// Pushes that a server took.
pub(crate) struct Pushed {
    pub(crate) time: Duration,
    /// Pushes that were sent again.
    pub(crate) retries: usize,
}

/// Sends all pushes over as many connections as may be in flight.
pub(crate) fn push_all(grpc: SocketAddr, plan: &Arc<Plan>, in_flight: usize) -> Result<Pushed> {
    let queue = Arc::new(Queue {
        plan: Arc::clone(plan),
        next: AtomicUsize::new(0),
        retries: AtomicUsize::new(0),
    });
    runtime().block_on(async {
        let mut clients = Vec::new();
        for _ in 0..in_flight {
            clients.push(running::connect(grpc).await?);
        }
        let started = Instant::now();
        let progress = runtime().spawn(tell_progress(Arc::clone(&queue)));
        let send = |client| runtime().spawn(send_queued(client, Arc::clone(&queue)));
        let senders: Vec<_> = clients.into_iter().map(send).collect();
        for sender in senders {
            sender.await.context("a sender panicked")??;
        }
        progress.abort();
        Ok(Pushed {
            time: started.elapsed(),
            retries: queue.retries.load(Ordering::Relaxed),
        })
    })
}

async fn send_queued(mut client: IngestClient<Channel>, queue: Arc<Queue>) -> Result<()> {
    loop {
        let number = queue.next.fetch_add(1, Ordering::Relaxed);
        if number >= queue.plan.len() {
            return Ok(());
        }
        send(&mut client, queue.plan.request(number)?, &queue.retries).await?;
    }
}

/// Sends a push, again while the server has no room for it.
async fn send(
    client: &mut IngestClient<Channel>,
    request: PushRequest,
    retries: &AtomicUsize,
) -> Result<()> {
    for _ in 0..TRIES_MAX {
        match client.push(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::Unavailable => {
                retries.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RETRY_TIME).await;
            }
            Err(status) => return Err(status).context("failed to push"),
        }
    }
    bail!("the server took no more pushes")
}

async fn tell_progress(queue: Arc<Queue>) {
    loop {
        tokio::time::sleep(PROGRESS_TIME).await;
        let sent = queue.next.load(Ordering::Relaxed);
        eprintln!("sent {sent} of {} pushes", queue.plan.len());
    }
}
