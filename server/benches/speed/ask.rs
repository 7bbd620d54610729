//! Asks a store its questions, cold and warm.

use std::ops::Range;
use std::time::Instant;

use anyhow::Result;

use crate::plan::Plan;
use crate::process::Process;
use crate::questions::{QUESTIONS, Question};
use crate::running;
use crate::store::{Store, checked};

/// How questions are asked.
pub(crate) struct Rounds {
    /// Each the first question of a new process.
    pub(crate) cold: usize,
    /// To the last of these processes.
    pub(crate) warm: usize,
    /// For `accept-encoding`.
    pub(crate) encoding: String,
}

/// Times of one question, in milliseconds.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) wall_ms: Vec<f64>,
    pub(crate) cpu_ms: f64,
}

/// Times and sizes of the answers to a question.
pub(crate) struct Answers {
    pub(crate) question: &'static Question,
    pub(crate) cold: Times,
    pub(crate) warm: Times,
    pub(crate) bytes: usize,
    pub(crate) peak_bytes: u64,
    /// The last body, unpacked.
    pub(crate) body: Vec<u8>,
    pub(crate) error: Option<String>,
}

/// Asks all questions that the store's labels allow.
pub(crate) fn ask_all(store: &Store, plan: &Plan, rounds: &Rounds) -> Result<Vec<Answers>> {
    let mut all = Vec::new();
    for question in &QUESTIONS {
        let value = question.label.and_then(|label| plan.busiest(label));
        if question.label.is_some() && value.is_none() {
            continue;
        }
        eprintln!("asking for {}", question.name);
        let mut answers = Answers {
            question,
            cold: Times::default(),
            warm: Times::default(),
            bytes: 0,
            peak_bytes: 0,
            body: Vec::new(),
            error: None,
        };
        let asker = Asker {
            plan,
            starts: plan.starts(),
            value,
            encoding: &rounds.encoding,
        };
        ask_rounds(store, &asker, rounds, &mut answers)?;
        all.push(answers);
    }
    Ok(all)
}

fn ask_rounds(
    store: &Store,
    asker: &Asker<'_>,
    rounds: &Rounds,
    answers: &mut Answers,
) -> Result<()> {
    for round in 0..rounds.cold {
        let (process, _) = store.start_cold()?;
        let mut cold = std::mem::take(&mut answers.cold);
        asker.ask(&process, round, &mut cold, answers)?;
        answers.cold = cold;
        if round + 1 == rounds.cold {
            let mut warm = Times::default();
            for round in rounds.cold..rounds.cold + rounds.warm {
                asker.ask(&process, round, &mut warm, answers)?;
            }
            answers.warm = warm;
        }
        checked(process.stop())?;
    }
    Ok(())
}

struct Asker<'p> {
    plan: &'p Plan,
    /// Starts of windows.
    starts: Vec<i64>,
    value: Option<String>,
    encoding: &'p str,
}

impl Asker<'_> {
    /// Nearly all windows: from the middle of one of the first to that of one of the last, in each round others.
    fn range(&self, round: usize) -> Range<i64> {
        let last = self.starts.len() - 1;
        let middle_ms = 5_000 + round as i64;
        self.starts[1 + round % 4] + middle_ms..self.starts[last - 1 - round / 4 % 4] + middle_ms
    }

    fn ask(
        &self,
        process: &Process,
        round: usize,
        times: &mut Times,
        answers: &mut Answers,
    ) -> Result<()> {
        let range = self.range(round);
        let value = self.value.as_deref();
        let path = answers.question.path(&range, value);
        let headers = format!("accept-encoding: {}\r\n", self.encoding);
        checked(process.forget_peak())?;
        let cpu_seconds = checked(process.cpu_seconds())?;
        let started = Instant::now();
        let answer = running::get_with(process.http, &path, &headers)?;
        times.wall_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        times.cpu_ms += (checked(process.cpu_seconds())? - cpu_seconds) * 1000.0;
        answers.peak_bytes = answers.peak_bytes.max(checked(process.peak_bytes())?);
        answers.bytes = answer.body.len();
        match answers.question.check(&answer, self.plan, &range, value) {
            Ok(body) => answers.body = body,
            Err(err) => {
                eprintln!("{path}: {err:#}");
                answers.error.get_or_insert(format!("{err:#}"));
            }
        }
        Ok(())
    }
}
