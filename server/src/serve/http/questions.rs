//! Asks the store: each question gets a place in a lane, an account of memory and a time, and identical ones are answered once.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use listen::slots::Client;
use metrics::Figures;
use model::{ChargedBuffer, Question, QuestionMemory, Stop, TimeRange, Unread};
use query::names::NameSource;
use query::overlap::{OverlapSum, sum_overlap};
use query::{Profiles, Selection};
use serde::Serialize;
use store::{SeriesFilter, Snapshot, Store, StoreError};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::answer::Answered;
use super::encoding::{Encoded, Encoding, Form};
use super::error::{ApiError, ErrorKind};
use super::flights::{Flights, Joined, Role};
use super::lane::{Lane, LaneFull, Place, Ticket};
use super::metrics::HttpMetrics;
use super::progress::{NamedQuestions, Progress, Step};

/// Bytes that a light question reads at most: 1 MiB of segments are a million rows of a busy cluster or 100,000 of one machine, which take some
/// 10 ms.
const LIGHT_BYTES: u64 = 1 << 20;

/// A question for the sums of windows reads this part of what one for stacks does, or less.
const SUMS_SHARE: u64 = 16;

/// Part of the memory of questions that answers may take until they are read. The rest is for questions, however slowly clients read.
const ANSWERS_SHARE: usize = 4;

/// Data that a question reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The labels of series.
    Labels,
    /// The sums of windows.
    Sums,
    /// Stacks.
    Stacks,
}

impl Work {
    /// Bytes that it reads of a selection whose stacks have so many bytes.
    fn bytes(self, stack_bytes: u64) -> u64 {
        match self {
            Self::Labels => 0,
            Self::Sums => stack_bytes / SUMS_SHARE,
            Self::Stacks => stack_bytes,
        }
    }
}

/// Limits of questions.
#[derive(Clone, Copy, Debug)]
pub struct QuestionLimits {
    /// Questions that run in each lane.
    pub running_max: usize,
    /// Questions that wait for each lane.
    pub waiting_max: usize,
    /// Memory of all questions, with answers that are not read yet.
    pub bytes_max: usize,
    /// Time for waiting and running.
    pub time_max: Duration,
}

impl QuestionLimits {
    /// Bytes of all answers that are not read yet.
    pub fn answer_bytes_max(&self) -> usize {
        self.bytes_max / ANSWERS_SHARE
    }
}

/// Asks the store.
#[derive(Clone)]
pub struct Questions {
    store: Arc<dyn Store>,
    names: Arc<dyn NameSource>,
    limits: QuestionLimits,
    memory: Arc<QuestionMemory>,
    light: Arc<Lane>,
    heavy: Arc<Lane>,
    flights: Flights<FlightKey, Arc<Progress>, Result<Encoded, ApiError>>,
    named: NamedQuestions,
    metrics: HttpMetrics,
}

/// A request for an answer.
pub struct Asker {
    /// The client.
    pub client: Client,
    /// The path of the route.
    pub path: String,
    /// Its parameters, sorted; the range is in the selection.
    pub parameters: Vec<(String, String)>,
    /// The compression that the client takes.
    pub encoding: Encoding,
    /// The form that it takes.
    pub form: Form,
    /// The name by which it asks how far the question is.
    pub name: Option<String>,
}

/// Key of identical questions.
#[derive(PartialEq, Eq, Hash)]
struct FlightKey {
    path: String,
    parameters: Vec<(String, String)>,
    range: TimeRange,
    encoding: Encoding,
    form: Form,
    version: u64,
}

/// A question that is being answered.
pub struct Asked<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The store's windows of the range.
    pub snapshot: &'a dyn Snapshot,
    /// Series and range of the question.
    pub selection: &'a Selection,
    /// Names that the store's windows lack.
    pub names: &'a dyn NameSource,
    /// The form that the client takes.
    pub form: Form,
    encoding: Encoding,
    answer_bytes_max: usize,
}

impl Asked<'_> {
    /// The store's windows of the range, with names.
    pub fn profiles(&self) -> Profiles<'_> {
        Profiles::new(self.snapshot, self.names)
    }

    /// Makes an answer in JSON, which tells what could not be read, and what two collectors sampled.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn json(&self, answer: impl Serialize) -> Result<Encoded, ApiError> {
        self.encoding
            .json(&self.tell_losses(answer)?, self.buffer()?)
    }

    /// An answer that tells what could not be read, and what two collectors sampled.
    ///
    /// # Errors
    /// The store failed.
    pub fn tell_losses<T>(&self, answer: T) -> Result<Answered<T>, StoreError> {
        let overlap = sum_overlap(self.snapshot, &self.selection.selector)?;
        Ok(Answered::about(answer, self.snapshot, overlap))
    }

    /// Makes an answer in JSON that is not of the snapshot, and lacks this.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn json_lacking(
        &self,
        answer: impl Serialize,
        unread: Vec<Unread>,
    ) -> Result<Encoded, ApiError> {
        let answer = Answered::new(answer, unread, OverlapSum::default());
        self.encoding.json(&answer, self.buffer()?)
    }

    /// Makes another answer of what `write` writes.
    ///
    /// # Errors
    /// It failed, or there is no memory for it.
    pub fn bytes(
        &self,
        content_type: &'static str,
        write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<Encoded, ApiError> {
        self.encoding.write(content_type, self.buffer()?, write)
    }

    /// A buffer for an answer.
    ///
    /// # Errors
    /// The question was stopped.
    pub fn buffer(&self) -> Result<ChargedBuffer, StoreError> {
        let charge = self.snapshot.question().charge(0)?;
        Ok(ChargedBuffer::new(charge, self.answer_bytes_max))
    }
}

/// Version and cost of a question, before it gets a place.
struct Plan {
    version: u64,
    stack_bytes: u64,
}

fn plan(store: &dyn Store, work: Work, selection: &Selection) -> Result<Plan, StoreError> {
    let snapshot = store.snapshot(selection.range)?;
    let selector = &selection.selector;
    let filter = SeriesFilter {
        equal: Vec::new(),
        matches: &|labels| selector.matches(labels),
    };
    Ok(Plan {
        version: snapshot.version(),
        stack_bytes: match work {
            Work::Labels => 0,
            Work::Sums | Work::Stacks => snapshot.estimate_bytes(&filter),
        },
    })
}

/// Stops a question when nobody waits for it any more.
struct StopOnDrop {
    question: Option<Arc<Question>>,
    metrics: HttpMetrics,
}

impl StopOnDrop {
    fn stop(&mut self, reason: Stop) {
        let question = self.question.take();
        if question.is_some_and(|question| question.stop(reason)) {
            self.metrics.count_stopped(reason_of(reason));
        }
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop(Stop::Cancelled);
    }
}

impl Questions {
    /// Asks this store, whose windows get names from this source.
    pub fn new(
        store: Arc<dyn Store>,
        names: Arc<dyn NameSource>,
        limits: QuestionLimits,
        metrics: HttpMetrics,
    ) -> Self {
        let lane = || Lane::new(limits.running_max, limits.waiting_max);
        Self {
            store,
            names,
            limits,
            memory: QuestionMemory::new(limits.bytes_max),
            light: lane(),
            heavy: lane(),
            flights: Flights::default(),
            named: NamedQuestions::default(),
            metrics,
        }
    }

    /// Answers a question on a thread that may block. The work ends soon after the client went away.
    ///
    /// # Errors
    /// The answer's own, or there are too many questions, too little memory or too little time.
    pub async fn ask(
        &self,
        asker: Asker,
        work: Work,
        selection: Selection,
        answer: impl FnOnce(&Asked<'_>) -> Result<Encoded, ApiError> + Send + 'static,
    ) -> Result<Encoded, ApiError> {
        let Asker {
            client,
            path,
            parameters,
            encoding,
            form,
            name,
        } = asker;
        let (store, range) = (Arc::clone(&self.store), selection.range);
        let planned = spawn_blocking(move || {
            let plan = plan(&*store, work, &selection);
            plan.map(|plan| (plan, selection))
        });
        let (plan, selection) = planned.await.map_err(|err| note_panic(&err))??;
        let key = FlightKey {
            path,
            parameters,
            range,
            encoding,
            form,
            version: plan.version,
        };
        let lane = if work.bytes(plan.stack_bytes) <= LIGHT_BYTES {
            &self.light
        } else {
            &self.heavy
        };
        let progress = Progress::new(Arc::clone(lane));
        let (questions, own) = (self.clone(), Arc::clone(&progress));
        let run = async move {
            let answer_bytes_max = questions.limits.answer_bytes_max();
            let names = Arc::clone(&questions.names);
            let work = move |store: &dyn Store, question: &Arc<Question>| {
                let snapshot = store.ask(selection.range, question)?;
                answer(&Asked {
                    store,
                    snapshot: &*snapshot,
                    selection: &selection,
                    names: &*names,
                    form,
                    encoding,
                    answer_bytes_max,
                })
            };
            questions.run(client, &own, work).await
        };
        let Joined { role, note, answer } = self.flights.join(key, progress, run);
        if role == Role::Joined {
            self.metrics.joined.inc();
        }
        // Until the client has its answer, or goes away.
        let _named = name.map(|name| self.named.insert(name, note));
        answer.await
    }

    /// Waits for a place, and works within the time.
    async fn run(
        &self,
        client: Client,
        progress: &Progress,
        work: impl FnOnce(&dyn Store, &Arc<Question>) -> Result<Encoded, ApiError> + Send + 'static,
    ) -> Result<Encoded, ApiError> {
        let deadline = Instant::now() + self.limits.time_max;
        let entering = self.enter(client, progress.lane(), progress.ticket());
        let Ok(entered) = timeout_at(deadline, entering).await else {
            self.metrics.count_refused("timed_out");
            return Err(self.describe_stop(Stop::TimedOut));
        };
        let place = entered?;
        let question = Question::new(Arc::clone(&self.memory));
        progress.note_place(question.reading());
        let mut stop = StopOnDrop {
            question: Some(Arc::clone(&question)),
            metrics: self.metrics.clone(),
        };
        let questions = self.clone();
        let running = spawn_blocking(move || questions.work(&question, place, work));
        match timeout_at(deadline, running).await {
            Ok(done) => {
                stop.question = None;
                done.map_err(|err| note_panic(&err))?
            }
            Err(_) => {
                stop.stop(Stop::TimedOut);
                Err(self.describe_stop(Stop::TimedOut))
            }
        }
    }

    /// Works on a question to its end. It keeps its place until then.
    fn work(
        &self,
        question: &Arc<Question>,
        place: Place,
        work: impl FnOnce(&dyn Store, &Arc<Question>) -> Result<Encoded, ApiError>,
    ) -> Result<Encoded, ApiError> {
        let checked = question.check().map_err(StoreError::from);
        let result = match checked {
            Ok(()) => work(&*self.store, question),
            Err(err) => Err(err.into()),
        };
        let result = match question.stopped() {
            // The answer of a stopped question is incomplete.
            Some(stop) => {
                // The others were counted when the client went away, or the time was over.
                if !matches!(stop, Stop::Cancelled | Stop::TimedOut) {
                    self.metrics.count_stopped(reason_of(stop));
                }
                Err(self.describe_stop(stop))
            }
            None => result,
        };
        drop(place);
        result
    }

    fn describe_stop(&self, stop: Stop) -> ApiError {
        const MIB: usize = 1 << 20;
        let narrower = "ask for a shorter range or fewer series";
        match stop {
            Stop::Cancelled => ApiError::new(ErrorKind::Busy, stop.to_string()),
            Stop::TimedOut => {
                let seconds = self.limits.time_max.as_secs_f64();
                let message =
                    format!("the query took longer than the {seconds} s of --query-timeout");
                ApiError::new(ErrorKind::TimedOut, message).with_hint(narrower)
            }
            Stop::TooLarge { needed, bytes_max } => {
                let (needed, limit) = (needed.div_ceil(MIB), bytes_max / MIB);
                let message = format!(
                    "the query needs more memory than the {limit} MiB of --query-bytes-max: it asked for {needed} MiB so far"
                );
                let hint = format!("{narrower}, or raise --query-bytes-max of the server");
                ApiError::new(ErrorKind::TooLarge, message).with_hint(hint)
            }
            Stop::NoRoom { needed, bytes_max } => {
                let (needed, limit) = (needed.div_ceil(MIB), bytes_max / MIB);
                busy(&format!(
                    "other queries, and answers that clients have not read, take the memory that this query needs: it asked for {needed} \
                     of the {limit} MiB of --query-bytes-max so far"
                ))
            }
            Stop::LongAnswer { bytes_max } => {
                let limit = bytes_max / MIB;
                let message = format!(
                    "the answer has more than the {limit} MiB that answers may have, a quarter of --query-bytes-max"
                );
                let hint = format!(
                    "take a compressed answer (`curl --compressed`), {narrower}, or raise --query-bytes-max of the server"
                );
                ApiError::new(ErrorKind::TooLarge, message).with_hint(hint)
            }
        }
    }

    /// Runs something small on a thread that may block, in the lane of light questions.
    ///
    /// # Errors
    /// Its own, or there are too many questions.
    pub async fn run_light<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let nobody = Client::new(Ipv4Addr::UNSPECIFIED.into());
        let place = self.enter(nobody, &self.light, Ticket::issue()).await?;
        let running = spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        running.await.map_err(|err| note_panic(&err))?
    }

    async fn enter(
        &self,
        client: Client,
        lane: &Arc<Lane>,
        ticket: Ticket,
    ) -> Result<Place, ApiError> {
        let entered = lane.enter(client, ticket).await;
        entered.map_err(|LaneFull| {
            self.metrics.count_refused("queue_full");
            busy("too many queries run and wait at this moment")
        })
    }

    /// The state of the question with a name.
    pub fn step(&self, name: &str) -> Option<Step> {
        self.named.step(name)
    }

    /// Bytes of all answers that are not read yet.
    pub fn answer_bytes_max(&self) -> u64 {
        self.limits.answer_bytes_max() as u64
    }

    /// Shows the lanes and the memory.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let lanes = [
            ("light", self.light.counts()),
            ("heavy", self.heavy.counts()),
        ];
        figures.gauges(
            "queries_running",
            "Queries that run, by lane",
            ["lane"],
            lanes.map(|(lane, (running, _))| ([lane], running)),
        );
        figures.gauges(
            "queries_waiting",
            "Queries that wait for a place, by lane",
            ["lane"],
            lanes.map(|(lane, (_, waiting))| ([lane], waiting)),
        );
        figures.gauge(
            "queries_waiting_for_memory",
            "Queries that run, and wait for memory of others",
            self.memory.waiting(),
        );
        figures.gauge(
            "query_memory_bytes",
            "Memory of queries that run, and of answers that clients have not read yet",
            self.memory.used(),
        );
        figures.gauge(
            "query_cache_bytes",
            "Memory that queries leave, in which sums of segments are kept for the next ones",
            self.memory.spare(),
        );
        figures.gauge(
            "query_memory_max_bytes",
            "Memory that queries may take, --query-bytes-max",
            self.memory.bytes_max(),
        );
    }
}

fn busy(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Busy, message).with_hint("ask again in a few seconds")
}

/// The name of a reason in metrics.
fn reason_of(stop: Stop) -> &'static str {
    match stop {
        Stop::Cancelled => "cancelled",
        Stop::TimedOut => "timed_out",
        Stop::TooLarge { .. } => "too_large",
        Stop::NoRoom { .. } => "no_memory",
        Stop::LongAnswer { .. } => "long_answer",
    }
}

fn note_panic(err: &JoinError) -> ApiError {
    tracing::error!(%err, "a query panicked");
    let message = "the query failed; the server's log has the reason";
    ApiError::new(ErrorKind::Internal, message)
}
