//! Identical questions at one time are answered once.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use hashbrown::HashMap;
use parking_lot::Mutex;

type Flight<T> = BoxFuture<'static, T>;

/// The questions that are being answered, each with a note for all who wait for it.
pub struct Flights<K, N, T: Clone>(Arc<Mutex<HashMap<K, Entry<N, T>>>>);

struct Entry<N, T: Clone> {
    flight: WeakShared<Flight<T>>,
    note: N,
}

/// A question that is being answered.
pub struct Joined<N, T: Clone> {
    /// Whether it was asked by others already.
    pub role: Role,
    /// The note of the one who asked first.
    pub note: N,
    /// The answer.
    pub answer: Shared<Flight<T>>,
}

/// Whether a question was asked by others already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the first of its kind.
    First,
    /// It waits for the answer to another one.
    Joined,
}

impl<K, N, T: Clone> Clone for Flights<K, N, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, N, T: Clone> Default for Flights<K, N, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash, N: Clone, T: Clone + Send + 'static> Flights<K, N, T> {
    /// The answer to a question: that of an identical one, or that of `work`, which others may join from now on. The work goes on while
    /// anybody waits for it, whoever came first, and is dropped with the last one.
    pub fn join(
        &self,
        key: K,
        note: N,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Joined<N, T> {
        let mut flights = self.0.lock();
        // Those that were dropped, and those whose answer was given.
        flights.retain(|_, entry| {
            let answer = entry.flight.upgrade();
            answer.is_some_and(|answer| answer.peek().is_none())
        });
        if let Some(entry) = flights.get(&key)
            && let Some(answer) = entry.flight.upgrade()
        {
            return Joined {
                role: Role::Joined,
                note: entry.note.clone(),
                answer,
            };
        }
        let answer = work.boxed().shared();
        if let Some(flight) = answer.downgrade() {
            let note = note.clone();
            flights.insert(key, Entry { flight, note });
        }
        Joined {
            role: Role::First,
            note,
            answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Work that ends with the sender's word, and counts that it began.
    fn work(
        begun: &Arc<AtomicUsize>,
    ) -> (
        oneshot::Sender<u8>,
        impl Future<Output = u8> + Send + 'static,
    ) {
        let (sender, word) = oneshot::channel();
        let begun = Arc::clone(begun);
        let work = async move {
            begun.fetch_add(1, Ordering::Relaxed);
            word.await.unwrap_or(0)
        };
        (sender, work)
    }

    #[tokio::test]
    async fn the_work_goes_on_while_anybody_waits() {
        let (flights, begun) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let (sender, leader) = work(&begun);
        let leader = flights.join("a", 1, leader);
        assert_eq!((leader.role, leader.note), (Role::First, 1));
        let leader = tokio::spawn(leader.answer);
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let (_, other) = work(&begun);
        let follower = flights.join("a", 2, other);
        assert_eq!((follower.role, follower.note), (Role::Joined, 1));
        let (_, other) = work(&begun);
        assert_eq!(flights.join("b", 3, other).role, Role::First);
        leader.abort();
        assert!(leader.await.is_err());
        sender.send(7).unwrap();
        assert_eq!(follower.answer.await, 7);
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_last_one_drops_the_work_and_an_answer_is_not_kept() {
        let (flights, begun) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let (sender, first) = work(&begun);
        drop(flights.join("a", (), first));
        assert!(sender.is_closed());
        for word in [1, 2] {
            let (sender, next) = work(&begun);
            let Joined { role, answer, .. } = flights.join("a", (), next);
            assert_eq!(role, Role::First);
            sender.send(word).unwrap();
            assert_eq!(answer.await, word);
        }
        assert_eq!(flights.0.lock().len(), 1);
    }
}
