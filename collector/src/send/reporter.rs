//! The thread that tells the server what this collector does: at its start, at each change, once a minute and at its end.
//!
//! In: the report, whenever it changes. Out: the same over a connection of its own, so that it passes windows that wait. Only the
//! last report counts, so nothing is kept: one that fails is sent again as it is then.

use std::sync::mpsc;
use std::time::Duration;

use metrics::{Figures, Registry};
use proto::v1::ReportRequest;
use proto::v1::ingest_client::IngestClient;
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use super::backoff::Backoff;
use super::link::{Link, SendError};
use crate::metrics::Stats;
use crate::threads::spawn;

/// Time for the last report, after which the collector ends without it.
const END_TIME: Duration = Duration::from_secs(1);

/// Times of reporting.
#[derive(Clone, Copy, Debug)]
pub struct ReporterTimes {
    /// Time between two reports. The server counts a node as silent after 150 s.
    pub interval: Duration,
    /// Time for a connection, and for an answer.
    pub answer: Duration,
    /// Wait after the first failure; it doubles with each further one, up to the interval.
    pub retry_first: Duration,
    /// Time after which a server is asked again that did not know reports.
    pub unknown: Duration,
}

impl Default for ReporterTimes {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            answer: Duration::from_secs(5),
            retry_first: Duration::from_secs(1),
            unknown: Duration::from_secs(3600),
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReporterStats {
    /// Reports that the server took.
    pub sent: u64,
    /// Reports that did not reach it, or that it refused.
    pub failed: u64,
    /// Reports that it did not know: its version is older than they are.
    pub unknown: u64,
}

impl ReporterStats {
    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.counters(
            "node_reports",
            "Reports of this node's state, by result: taken by the server, failed, or unknown to a server of an earlier version",
            ["result"],
            [
                (["sent"], self.sent),
                (["failed"], self.failed),
                (["unknown"], self.unknown),
            ],
        );
    }
}

/// Sends reports from a thread of its own.
#[derive(Debug)]
pub struct Reporter {
    report: watch::Sender<ReportRequest>,
    stats: Stats<ReporterStats>,
    closing: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
}

impl Reporter {
    /// Starts the thread, which sends this first report. The server need not be there yet.
    ///
    /// # Errors
    /// The address cannot be understood, or the thread not be started.
    pub fn start(
        server: &str,
        first: ReportRequest,
        times: ReporterTimes,
    ) -> Result<Self, SendError> {
        let link = Link::prepare(server, times.answer)?;
        let (report, reports) = watch::channel(first);
        let (closing, is_closing) = watch::channel(false);
        let (end, ended) = mpsc::channel();
        let stats: Stats<ReporterStats> = Stats::default();
        let thread = ReporterThread {
            endpoint: link.endpoint,
            client: None,
            reports,
            times,
            backoff: Backoff::new(times.retry_first, times.interval),
            stats: stats.clone(),
        };
        spawn("report", move || {
            link.runtime.block_on(thread.run(is_closing));
            // Nobody waits when the time is over.
            let _ = end.send(());
        })?;
        Ok(Self {
            report,
            stats,
            closing,
            ended,
        })
    }

    /// Changes the report. If that makes a difference it is sent at once.
    pub fn update(&self, change: impl FnOnce(&mut ReportRequest)) {
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    /// Registers the counts.
    pub fn register(&self, registry: &mut Registry) {
        self.stats.register(registry, ReporterStats::show);
    }

    /// Counts since the start.
    pub fn stats(&self) -> ReporterStats {
        self.stats.lock().clone()
    }
}

/// Sends the report as it is now, if the server takes it within a second.
impl Drop for Reporter {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        let _ = self.ended.recv_timeout(END_TIME);
    }
}

struct ReporterThread {
    endpoint: Endpoint,
    client: Option<IngestClient<Channel>>,
    reports: watch::Receiver<ReportRequest>,
    times: ReporterTimes,
    backoff: Backoff,
    stats: Stats<ReporterStats>,
}

impl ReporterThread {
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        loop {
            let wait = tokio::select! {
                biased;
                _ = closing.wait_for(|is_closing| *is_closing) => break,
                wait = self.send() => wait,
            };
            tokio::select! {
                biased;
                _ = closing.wait_for(|is_closing| *is_closing) => break,
                // An error: nobody is left who could change it.
                Ok(()) = self.reports.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.send().await;
    }

    /// Sends the report as it is now. Returns the time until the next one.
    async fn send(&mut self) -> Duration {
        let report = self.reports.borrow_and_update().clone();
        let new = || IngestClient::new(self.endpoint.connect_lazy());
        let mut client = self.client.take().unwrap_or_else(new);
        let answer = tokio::time::timeout(self.times.answer, client.report(report)).await;
        let failure = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(status),
            Err(_) => Some(tonic::Status::deadline_exceeded("no answer in time")),
        };
        let mut stats = self.stats.lock();
        let Some(status) = failure else {
            stats.sent += 1;
            self.backoff.reset();
            self.client = Some(client);
            return self.times.interval;
        };
        if status.code() == Code::Unimplemented {
            stats.unknown += 1;
            return self.times.unknown;
        }
        stats.failed += 1;
        debug!(%status, "failed to report the node's state");
        self.backoff.wait()
    }
}
