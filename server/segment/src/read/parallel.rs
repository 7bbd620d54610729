//! Work on chunks by several threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{Charge, Question};

use crate::read::Scratch;

/// How a question is worked on.
#[derive(Clone, Copy, Debug)]
pub struct Effort<'a> {
    /// Threads, the caller's own among them.
    pub threads: usize,
    /// What the work is for: it has the account of the memory, and may be stopped. What is returned then is not complete.
    pub question: Option<&'a Arc<Question>>,
}

impl Effort<'_> {
    /// One thread.
    pub const ONE: Self = Self {
        threads: 1,
        question: None,
    };

    pub(crate) fn is_stopped(&self) -> bool {
        self.question
            .is_some_and(|question| question.stopped().is_some())
    }

    /// A charge of so many bytes. If they are not there, the question is stopped, and the charge is empty.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        let charge = self.question.map(|question| question.charge(bytes));
        charge.and_then(Result::ok).unwrap_or_default()
    }

    /// What `work` makes of each task, in their order, each thread with a state of its own. `None` for what was not done when the question
    /// was stopped.
    pub(crate) fn map<T: Sync, S, O: Send>(
        &self,
        tasks: &[T],
        new: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &mut Scratch, &T) -> O + Sync,
    ) -> Vec<Option<O>> {
        let positions: Vec<usize> = (0..tasks.len()).collect();
        // The states stay in their threads, so that they need not be sent.
        let done = self.run(&positions, |next| {
            let (mut state, mut scratch) = (new(), Scratch::default());
            let mut done = Vec::new();
            while let Some(position) = next() {
                let made = work(&mut state, &mut scratch, &tasks[*position]);
                done.push((*position, made));
            }
            done
        });
        let mut all: Vec<Option<O>> = tasks.iter().map(|_| None).collect();
        for (position, made) in done.into_iter().flatten() {
            all[position] = Some(made);
        }
        all
    }

    /// Calls `work` for each task, each thread with a state of its own. Returns the states.
    pub(crate) fn for_each<T: Sync, S: Send>(
        &self,
        tasks: &[T],
        new: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &mut Scratch, &T) + Sync,
    ) -> Vec<S> {
        self.run(tasks, |next| {
            let (mut state, mut scratch) = (new(), Scratch::default());
            while let Some(task) = next() {
                work(&mut state, &mut scratch, task);
            }
            state
        })
    }

    /// Calls `work` in each thread, with a function that gives the next task.
    fn run<'t, T: Sync, O: Send>(
        &self,
        tasks: &'t [T],
        work: impl Fn(&dyn Fn() -> Option<&'t T>) -> O + Sync,
    ) -> Vec<O> {
        let next = AtomicUsize::new(0);
        let next_task = || {
            if self.is_stopped() {
                None
            } else {
                tasks.get(next.fetch_add(1, Ordering::Relaxed))
            }
        };
        let run = || work(&next_task);
        let helpers = self.threads.min(tasks.len()).saturating_sub(1);
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(run)).collect();
            let mut outputs = vec![run()];
            for helper in helpers {
                match helper.join() {
                    Ok(output) => outputs.push(output),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            outputs
        })
    }
}
