//! Admission of queries: some run, some wait, the others are refused.
//!
//! A lane has a number of places. Who finds none waits in a queue of its client, and the queues take turns: a client that asks for much
//! waits for itself. Clients behind one proxy have one address, and so are one client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use listen::slots::Client;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Bounds the running and the waiting queries of a kind.
pub struct Lane {
    running_max: usize,
    waiting_max: usize,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    running: usize,
    /// The clients that wait, in the order of their turns, each with its queries in their order.
    queues: VecDeque<ClientQueue>,
}

struct ClientQueue {
    client: Client,
    waiting: VecDeque<WaitingQuery>,
}

struct WaitingQuery {
    ticket: Ticket,
    sender: oneshot::Sender<Place>,
}

/// Identity of a query while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// One that no other query has.
    pub fn issue() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A place in a lane; the next one gets it when this is dropped.
pub struct Place(Arc<Lane>);

/// The lane has no room for more waiting queries.
#[derive(Debug, PartialEq, Eq)]
pub struct LaneFull;

impl Lane {
    /// A lane for so many running and waiting queries.
    pub fn new(running_max: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self {
            running_max,
            waiting_max,
            state: Mutex::default(),
        })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// The queue is full, and this client has as many queries in it as any other.
    pub async fn enter(
        self: &Arc<Self>,
        client: Client,
        ticket: Ticket,
    ) -> Result<Place, LaneFull> {
        let turn = {
            let mut state = self.state.lock();
            state.forget_gone();
            if state.running < self.running_max {
                state.running += 1;
                return Ok(Place(Arc::clone(self)));
            }
            if state.waiting() >= self.waiting_max && !state.make_room(client) {
                return Err(LaneFull);
            }
            let (sender, turn) = oneshot::channel();
            state.push(client, WaitingQuery { ticket, sender });
            turn
        };
        turn.await.map_err(|_| LaneFull)
    }

    /// Numbers of the running and the waiting queries.
    pub fn counts(&self) -> (usize, usize) {
        let mut state = self.state.lock();
        state.forget_gone();
        (state.running, state.waiting())
    }

    /// Place of a query in the order of turns, 1 for the next one; 0 if it does not wait.
    pub fn position(&self, ticket: Ticket) -> usize {
        let mut state = self.state.lock();
        state.forget_gone();
        state.position(ticket)
    }

    fn leave(self: &Arc<Self>) {
        let next = {
            let mut state = self.state.lock();
            let next = state.pop();
            state.running -= usize::from(next.is_none());
            next
        };
        // Not under the lock: a place that finds its receiver gone is dropped, and goes to the next one.
        if let Some(next) = next {
            drop(next.sender.send(Place(Arc::clone(self))));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl LaneState {
    fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting.len()).sum()
    }

    fn position(&self, ticket: Ticket) -> usize {
        let round_of = |queue: &ClientQueue| {
            let mut waiting = queue.waiting.iter();
            waiting.position(|query| query.ticket == ticket)
        };
        let mut queues = self.queues.iter().enumerate();
        let found = queues.find_map(|(turn, queue)| Some((turn, round_of(queue)?)));
        let Some((turn, round)) = found else {
            return 0;
        };
        // Each client has had a turn in the rounds before, and those before this client have had one in this round.
        let queues = self.queues.iter().enumerate();
        let before = queues.map(|(other, queue)| {
            let turns = round + usize::from(other < turn);
            queue.waiting.len().min(turns)
        });
        1 + before.sum::<usize>()
    }

    fn push(&mut self, client: Client, query: WaitingQuery) {
        let found = self.queues.iter_mut().find(|queue| queue.client == client);
        match found {
            Some(queue) => queue.waiting.push_back(query),
            None => self.queues.push_back(ClientQueue {
                client,
                waiting: VecDeque::from([query]),
            }),
        }
    }

    /// Takes the first query of the client whose turn it is; its next one waits until the other clients had theirs.
    fn pop(&mut self) -> Option<WaitingQuery> {
        self.forget_gone();
        let mut queue = self.queues.pop_front()?;
        let first = queue.waiting.pop_front();
        if !queue.waiting.is_empty() {
            self.queues.push_back(queue);
        }
        first
    }

    /// Forgets queries that nobody waits for.
    fn forget_gone(&mut self) {
        for queue in &mut self.queues {
            queue.waiting.retain(|query| !query.sender.is_closed());
        }
        self.queues.retain(|queue| !queue.waiting.is_empty());
    }

    /// Refuses the last query of the client with most, if it has more than this client would have then.
    fn make_room(&mut self, client: Client) -> bool {
        let own = self.queues.iter().find(|queue| queue.client == client);
        let own = own.map_or(0, |queue| queue.waiting.len());
        let most = self.queues.iter_mut();
        let Some(most) = most.max_by_key(|queue| queue.waiting.len()) else {
            return false;
        };
        let is_larger = most.waiting.len() > own + 1;
        if is_larger {
            most.waiting.pop_back();
        }
        is_larger
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::Ipv4Addr;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use super::*;

    fn client(number: u8) -> Client {
        Client::new(Ipv4Addr::new(10, 0, 0, number).into())
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Place, LaneFull>> + 'a>>;

    fn poll(waiting: &mut Waiting<'_>) -> Option<Result<Place, LaneFull>> {
        let mut context = Context::from_waker(Waker::noop());
        match waiting.as_mut().poll(&mut context) {
            std::task::Poll::Ready(entered) => Some(entered),
            std::task::Poll::Pending => None,
        }
    }

    fn enter(lane: &Arc<Lane>, number: u8) -> Waiting<'_> {
        enter_as(lane, number, Ticket::issue())
    }

    fn enter_as(lane: &Arc<Lane>, number: u8, ticket: Ticket) -> Waiting<'_> {
        let mut waiting: Waiting<'_> = Box::pin(lane.enter(client(number), ticket));
        assert!(poll(&mut waiting).is_none(), "a place is free");
        waiting
    }

    fn enter_now(lane: &Arc<Lane>, number: u8) -> Result<Place, LaneFull> {
        let mut entering = pin!(lane.enter(client(number), Ticket::issue()));
        let mut context = Context::from_waker(Waker::noop());
        match entering.as_mut().poll(&mut context) {
            std::task::Poll::Ready(entered) => entered,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }

    /// Check that a client with many queries and one with few take turns, and that each knows its place in the order.
    #[test]
    fn clients_take_turns() {
        let lane = Lane::new(1, 10);
        let mut place = Some(enter_now(&lane, 1).unwrap());
        let clients = [1, 1, 1, 2, 2, 3];
        let enter = |number: u8| {
            let ticket = Ticket::issue();
            (number, ticket, enter_as(&lane, number, ticket))
        };
        let mut waiting: Vec<(u8, Ticket, Waiting<'_>)> = clients.map(enter).into();
        let position = |(_, ticket, _): &(u8, Ticket, Waiting<'_>)| lane.position(*ticket);
        let positions: Vec<usize> = waiting.iter().map(position).collect();
        assert_eq!(positions, [1, 4, 6, 2, 5, 3]);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let next = waiting.iter().position(|query| position(query) == 1);
            drop(place.take());
            let entered = waiting.iter_mut().enumerate();
            let (at, entered) = entered
                .filter_map(|(at, (_, _, waiting))| Some((at, poll(waiting)?)))
                .next()
                .unwrap();
            assert_eq!((Some(at), position(&waiting[at])), (next, 0));
            place = Some(entered.unwrap());
            order.push(waiting.remove(at).0);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
        assert_eq!(lane.counts(), (1, 0));
    }

    #[test]
    fn a_query_that_gave_up_takes_no_place() {
        let lane = Lane::new(1, 1);
        let place = enter_now(&lane, 1).unwrap();
        let waiting = enter(&lane, 1);
        assert_eq!(enter_now(&lane, 1).err(), Some(LaneFull));
        drop(waiting);
        let mut waiting = enter(&lane, 1);
        drop(place);
        let place = poll(&mut waiting).unwrap().unwrap();
        // One that has got its place, and never looks.
        let waiting = enter(&lane, 1);
        drop(place);
        assert_eq!(lane.counts(), (1, 0));
        drop(waiting);
        assert_eq!(lane.counts(), (0, 0));
    }

    /// Check that of a full queue the last query of the client with most gives way to another client, down to equal numbers.
    #[test]
    fn a_client_cannot_fill_the_queue() {
        let lane = Lane::new(1, 4);
        let _place = enter_now(&lane, 1).unwrap();
        let mut first: Vec<_> = (0..4).map(|_| enter(&lane, 1)).collect();
        assert_eq!(enter_now(&lane, 1).err(), Some(LaneFull));
        let _second = [enter(&lane, 2), enter(&lane, 2)];
        let is_refused: Vec<bool> = first
            .iter_mut()
            .map(|waiting| matches!(poll(waiting), Some(Err(LaneFull))))
            .collect();
        assert_eq!(is_refused, [false, false, true, true]);
        assert_eq!(enter_now(&lane, 2).err(), Some(LaneFull));
        assert_eq!(lane.counts(), (1, 4));
    }
}
