//! Work on chunks by several threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::read::Scratch;

/// How a question is worked on.
#[derive(Clone, Copy, Debug)]
pub struct Effort<'a> {
    /// Threads, the caller's own among them.
    pub threads: usize,
    /// Set when nobody waits for the answer any more; what is returned then is not complete.
    pub is_cancelled: Option<&'a AtomicBool>,
}

impl Effort<'_> {
    /// One thread.
    pub const ONE: Self = Self {
        threads: 1,
        is_cancelled: None,
    };

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
            .is_some_and(|is_cancelled| is_cancelled.load(Ordering::Relaxed))
    }

    /// What `work` makes of each task, in their order, each thread with a state of its own. `None` for what was not done when the question
    /// was cancelled.
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
        let next_task = || match self.is_cancelled() {
            true => None,
            false => tasks.get(next.fetch_add(1, Ordering::Relaxed)),
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
