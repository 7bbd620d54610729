//! Identical questions at one time are answered once.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use hashbrown::HashMap;
use parking_lot::Mutex;

type Flight<T> = BoxFuture<'static, T>;

/// The questions that are being answered.
pub struct Flights<K, T: Clone>(Arc<Mutex<HashMap<K, WeakShared<Flight<T>>>>>);

/// Whether a question was asked by others already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the first of its kind.
    First,
    /// It waits for the answer to another one.
    Joined,
}

impl<K, T: Clone> Clone for Flights<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash, T: Clone + Send + 'static> Flights<K, T> {
    /// The answer to a question: that of an identical one, or that of `work`, which others may join from now on. The work goes on while
    /// anybody waits for it, whoever came first, and is dropped with the last one.
    pub fn join(
        &self,
        key: K,
        work: impl Future<Output = T> + Send + 'static,
    ) -> (Role, Shared<Flight<T>>) {
        let mut flights = self.0.lock();
        // Those that were dropped, and those whose answer was given.
        flights.retain(|_, flight| {
            flight
                .upgrade()
                .is_some_and(|flight| flight.peek().is_none())
        });
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return (Role::Joined, flight);
        }
        let flight = work.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        (Role::First, flight)
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
        let (role, leader) = flights.join("a", leader);
        assert_eq!(role, Role::First);
        let leader = tokio::spawn(leader);
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let (_, other) = work(&begun);
        let (role, follower) = flights.join("a", other);
        assert_eq!(role, Role::Joined);
        let (_, other) = work(&begun);
        assert_eq!(flights.join("b", other).0, Role::First);
        leader.abort();
        assert!(leader.await.is_err());
        sender.send(7).unwrap();
        assert_eq!(follower.await, 7);
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_last_one_drops_the_work_and_an_answer_is_not_kept() {
        let (flights, begun) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let (sender, first) = work(&begun);
        drop(flights.join("a", first));
        assert!(sender.is_closed());
        for word in [1, 2] {
            let (sender, next) = work(&begun);
            let (role, flight) = flights.join("a", next);
            assert_eq!(role, Role::First);
            sender.send(word).unwrap();
            assert_eq!(flight.clone().await, word);
            drop(flight);
        }
        assert_eq!(flights.0.lock().len(), 1);
    }
}
