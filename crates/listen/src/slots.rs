//! Slots that clients share: for connections, and for messages in transfer. Does no IO.
//!
//! While slots are free, an address gets as many as it requests, since one proxy's address stands
//! for many clients. When no slot is free, a newcomer preempts a slot whose holder waits for its
//! client, of the address with most slots. From its own address it preempts only a slot whose
//! holder has sent no request, is idle for a while, or is too slow. A slot whose request is in
//! progress is never preempted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Minimum idle or slow time before a newcomer of the same address may preempt a slot: longer than
/// any round trip, shorter than a person waits for a page.
const GRACE: Duration = Duration::from_secs(1);

/// A client below this rate, in bytes a second, is slow: a hundredth of a slow home connection.
pub const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// A limited number of slots.
pub struct SlotPool {
    max: usize,
    holders: Mutex<TakenSlots>,
    /// Notified when a slot becomes free.
    freed: Notify,
}

#[derive(Default)]
struct TakenSlots {
    next: u64,
    taken: HashMap<u64, Arc<SlotHolder>>,
}

/// A client, the unit in which slots are counted. For IPv6 it is the /64 network, since a host has
/// 2^64 addresses there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// The client with this address.
    pub fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self(Ipv6Addr::from_bits(network).into())
            }
            address => Self(address),
        }
    }
}

/// Activity of a slot's holder, in the order in which slots are preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// No request yet.
    New,
    /// Answered, and may send another request.
    Idle,
    /// The client sends or receives bytes.
    Transferring,
    /// The server works on a request.
    Busy,
}

/// The state of a holder at one moment.
#[derive(Clone, Copy, Debug)]
pub struct HolderSnapshot {
    /// The current activity.
    pub activity: Activity,
    /// Time since this activity began.
    pub time: Duration,
    /// Whether it transfers less than [`BYTES_PER_SECOND_MIN`].
    pub is_slow: bool,
}

/// The holder of a slot.
pub struct SlotHolder {
    client: Client,
    state: Mutex<HolderRecord>,
    revoked: Notify,
}

struct HolderRecord {
    activity: Activity,
    since: Instant,
    /// Bytes transferred since then.
    bytes: u64,
    /// Number of requests in progress.
    running: usize,
    /// Bytes of an answer in memory that the client has not read.
    unread: u64,
}

/// A slot; dropping it frees it.
pub struct Slot {
    slots: Arc<SlotPool>,
    number: u64,
    holder: Arc<SlotHolder>,
}

impl SlotPool {
    /// A pool of `max` slots.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            holders: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Acquires a slot. If none is free, preempts another one and notifies its holder.
    pub fn acquire(self: &Arc<Self>, client: Client) -> Option<AcquiredSlot> {
        let now = Instant::now();
        let mut holders = self.holders.lock();
        let mut preempted = None;
        if holders.taken.len() >= self.max {
            let number = holders.find_preemptible(client, now)?;
            preempted = holders.taken.remove(&number);
            if let Some(holder) = &preempted {
                holder.revoked.notify_one();
            }
        }
        let holder = Arc::new(SlotHolder {
            client,
            state: Mutex::new(HolderRecord {
                activity: Activity::New,
                since: now,
                bytes: 0,
                running: 0,
                unread: 0,
            }),
            revoked: Notify::new(),
        });
        holders.next += 1;
        let number = holders.next;
        holders.taken.insert(number, Arc::clone(&holder));
        Some(AcquiredSlot {
            slot: Slot {
                slots: Arc::clone(self),
                number,
                holder,
            },
            is_preempted: preempted.is_some(),
        })
    }

    /// Acquires a slot, and waits at most `time` for one.
    pub async fn acquire_within(
        self: &Arc<Self>,
        client: Client,
        time: Duration,
    ) -> Option<AcquiredSlot> {
        let until = Instant::now() + time;
        loop {
            let freed = self.freed.notified();
            if let Some(taken) = self.acquire(client) {
                return Some(taken);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // Retry periodically, since holders may become slow.
            let _ = tokio::time::timeout(left.min(GRACE / 4), freed).await;
        }
    }

    /// Accounts for an answer's bytes in memory until the holder is idle again. `false` if the
    /// answers of all holders would exceed `bytes_max`. Before that, revokes slots of the client
    /// with most unread bytes, as long as it has more than the newcomer would have.
    pub fn reserve_unread(
        &self,
        newcomer: &SlotHolder,
        bytes: u64,
        bytes_max: u64,
        mut note_loss: impl FnMut(),
    ) -> bool {
        let mut holders = self.holders.lock();
        loop {
            let mut kept: HashMap<Client, u64> = HashMap::new();
            for holder in holders.taken.values() {
                *kept.entry(holder.client).or_default() += holder.state.lock().unread;
            }
            if kept.values().sum::<u64>().saturating_add(bytes) <= bytes_max {
                newcomer.state.lock().unread = bytes;
                return true;
            }
            let own = kept.get(&newcomer.client).copied().unwrap_or(0);
            let largest = kept.values().copied().max().unwrap_or(0);
            if largest <= own.saturating_add(bytes) {
                return false;
            }
            let oldest = holders.taken.iter().filter_map(|(number, holder)| {
                let state = holder.state.lock();
                let yields = kept[&holder.client] == largest && state.unread > 0;
                yields.then_some((state.since, *number))
            });
            let Some((_, number)) = oldest.min() else {
                return false;
            };
            if let Some(holder) = holders.taken.remove(&number) {
                holder.revoked.notify_one();
                note_loss();
            }
        }
    }

    /// Revokes the slots of all holders for which `is_over` is true, and returns their number.
    pub fn expire(&self, is_over: impl Fn(HolderSnapshot) -> bool) -> usize {
        let now = Instant::now();
        self.end(|holder| is_over(holder.snapshot(now)))
    }

    /// Revokes the slots of holders that were slow for the whole of `time`. Each interval counts by
    /// itself: at the start of an answer the kernel's buffers take some MB at once.
    pub fn expire_slow(&self, time: Duration) -> usize {
        let now = Instant::now();
        self.end(|holder| {
            let state = holder.snapshot(now);
            if state.activity != Activity::Transferring || state.time <= time {
                return false;
            }
            if !state.is_slow {
                holder.begin(Activity::Transferring);
            }
            state.is_slow
        })
    }

    fn end(&self, is_over: impl Fn(&mut HolderRecord) -> bool) -> usize {
        let mut holders = self.holders.lock();
        let before = holders.taken.len();
        holders.taken.retain(|_, holder| {
            let is_over = is_over(&mut holder.state.lock());
            if is_over {
                holder.revoked.notify_one();
            }
            !is_over
        });
        before - holders.taken.len()
    }
}

/// An acquired slot.
pub struct AcquiredSlot {
    /// The slot.
    pub slot: Slot,
    /// Whether it was preempted from another holder.
    pub is_preempted: bool,
}

impl TakenSlots {
    /// The slot that a newcomer may preempt.
    fn find_preemptible(&self, newcomer: Client, now: Instant) -> Option<u64> {
        let mut counts: HashMap<Client, usize> = HashMap::new();
        for holder in self.taken.values() {
            *counts.entry(holder.client).or_default() += 1;
        }
        let own = counts.get(&newcomer).copied().unwrap_or(0);
        // The newcomer must not end up with more slots than that client.
        let largest = counts
            .values()
            .copied()
            .max()
            .filter(|most| *most > own + 1);
        let yielding = self.taken.iter().filter_map(|(number, holder)| {
            let state = holder.state.lock();
            let yields = match largest {
                Some(most) => counts[&holder.client] == most && state.activity != Activity::Busy,
                None => state.yields_to_equals(now),
            };
            yields.then_some((state.activity, state.since, *number))
        });
        yielding.min().map(|(_, _, number)| number)
    }
}

impl HolderRecord {
    fn begin(&mut self, activity: Activity) {
        self.activity = activity;
        self.since = Instant::now();
        self.bytes = 0;
        if activity == Activity::Idle {
            self.unread = 0;
        }
    }

    fn snapshot(&self, now: Instant) -> HolderSnapshot {
        let time = now.saturating_duration_since(self.since);
        let bytes_min = BYTES_PER_SECOND_MIN.saturating_mul(time.as_millis() as u64) / 1000;
        HolderSnapshot {
            activity: self.activity,
            time,
            is_slow: self.bytes < bytes_min,
        }
    }

    fn yields_to_equals(&self, now: Instant) -> bool {
        let HolderSnapshot {
            activity,
            time,
            is_slow,
        } = self.snapshot(now);
        match activity {
            Activity::New => true,
            Activity::Idle => time >= GRACE,
            Activity::Transferring => time >= GRACE && is_slow,
            Activity::Busy => false,
        }
    }
}

impl SlotHolder {
    /// The client that holds the slot.
    pub fn client(&self) -> Client {
        self.client
    }

    /// Begins an activity.
    pub fn begin(&self, activity: Activity) {
        self.state.lock().begin(activity);
    }

    /// Notes that the holder has sent a request.
    pub fn note_request(&self) {
        let mut state = self.state.lock();
        if state.activity == Activity::New {
            state.begin(Activity::Idle);
        }
    }

    /// Notes transferred bytes.
    pub fn note_bytes(&self, bytes: usize) {
        self.state.lock().bytes += bytes as u64;
    }

    /// Marks the holder as busy until the result is dropped. Several requests may be in progress at
    /// once.
    pub fn work(self: &Arc<Self>) -> Work {
        let mut state = self.state.lock();
        state.running += 1;
        if state.running == 1 {
            state.begin(Activity::Busy);
        }
        Work {
            holder: Arc::clone(self),
            next: Activity::Idle,
        }
    }

    /// Completes when the slot is revoked.
    pub async fn revoked(&self) {
        self.revoked.notified().await;
    }
}

/// A request in progress.
pub struct Work {
    holder: Arc<SlotHolder>,
    next: Activity,
}

impl Work {
    /// Ends the work; the answer is now sent to the client.
    pub fn answer(mut self) {
        self.next = Activity::Transferring;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.holder.state.lock();
        state.running -= 1;
        if state.running == 0 {
            state.begin(self.next);
        }
    }
}

impl Slot {
    /// The pool of this slot.
    pub fn slots(&self) -> &Arc<SlotPool> {
        &self.slots
    }

    /// The holder of this slot.
    pub fn holder(&self) -> &Arc<SlotHolder> {
        &self.holder
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.holders.lock().taken.remove(&self.number);
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::new(IpAddr::from([192, 0, 2, last]))
    }

    fn take(slots: &Arc<SlotPool>, last: u8, activity: Activity) -> Slot {
        let slot = slots.acquire(client(last)).expect("a slot is free").slot;
        slot.holder().begin(activity);
        slot
    }

    /// Backdates a holder's activity beyond [`GRACE`].
    fn age(slot: &Slot) {
        let mut state = slot.holder.state.lock();
        state.since = state
            .since
            .checked_sub(2 * GRACE)
            .expect("the machine is up for longer");
    }

    fn has(slots: &Arc<SlotPool>, slot: &Slot) -> bool {
        slots.holders.lock().taken.contains_key(&slot.number)
    }

    #[test]
    fn one_address_gets_all_slots_while_some_are_free() {
        let slots = SlotPool::new(100);
        let held: Vec<_> = (0..100).map(|_| take(&slots, 1, Activity::Busy)).collect();
        assert!(slots.acquire(client(1)).is_none(), "work is not preempted");
        assert!(slots.acquire(client(2)).is_none(), "not even to others");
        drop(held);
        take(&slots, 1, Activity::Busy);
    }

    #[test]
    fn holders_without_a_request_are_preempted_first_oldest_first() {
        let slots = SlotPool::new(4);
        let idle = take(&slots, 1, Activity::Idle);
        age(&idle);
        let first = take(&slots, 1, Activity::New);
        let second = take(&slots, 1, Activity::New);
        let busy = take(&slots, 1, Activity::Busy);
        let newcomer = slots.acquire(client(1)).unwrap();
        assert!(newcomer.is_preempted);
        assert!(!has(&slots, &first) && has(&slots, &second));
        newcomer.slot.holder().begin(Activity::Busy);
        let next = take(&slots, 1, Activity::Busy);
        assert!(!has(&slots, &second) && has(&slots, &idle));
        let last = take(&slots, 1, Activity::Busy);
        assert!(!has(&slots, &idle) && has(&slots, &busy));
        assert!(slots.acquire(client(1)).is_none());
        drop((next, last));
    }

    #[test]
    fn fresh_and_fast_holders_keep_their_slots_among_equals() {
        let slots = SlotPool::new(2);
        let idle = take(&slots, 1, Activity::Idle);
        let transferring = take(&slots, 1, Activity::Transferring);
        age(&transferring);
        transferring.holder().note_bytes(1 << 20);
        assert!(slots.acquire(client(1)).is_none());
        let slow = transferring.holder.state.lock().bytes;
        transferring.holder.state.lock().bytes = slow / 1000;
        take(&slots, 1, Activity::Busy);
        assert!(!has(&slots, &transferring) && has(&slots, &idle));
    }

    #[test]
    fn the_address_with_most_slots_is_preempted_until_shares_are_equal() {
        let slots = SlotPool::new(6);
        let held: Vec<_> = (0..6)
            .map(|_| take(&slots, 1, Activity::Transferring))
            .collect();
        let others: Vec<_> = (0..3).map(|_| take(&slots, 2, Activity::Busy)).collect();
        assert!(slots.acquire(client(2)).is_none(), "each has three");
        assert!(others.iter().all(|slot| has(&slots, slot)));
        assert_eq!(held.iter().filter(|slot| has(&slots, slot)).count(), 3);
    }

    #[test]
    fn a_holder_that_becomes_slow_loses_its_slot() {
        let slots = SlotPool::new(2);
        let slot = take(&slots, 1, Activity::Transferring);
        slot.holder().note_bytes(1 << 20);
        assert_eq!(slots.expire_slow(GRACE), 0, "its time is not over");
        age(&slot);
        assert_eq!(slots.expire_slow(GRACE), 0, "it was not slow");
        slot.holder().note_bytes(1 << 10);
        age(&slot);
        assert_eq!(slots.expire_slow(GRACE), 1);
        let working = take(&slots, 1, Activity::Busy);
        age(&working);
        assert_eq!(slots.expire_slow(GRACE), 0);
        assert_eq!(slots.expire(|state| state.time > GRACE), 1);
    }

    #[test]
    fn unread_answers_are_bounded_and_the_client_with_most_loses_slots() {
        let slots = SlotPool::new(10);
        let keep = |slot: &Slot, bytes| slots.reserve_unread(slot.holder(), bytes, 100, || ());
        let answered = |last| take(&slots, last, Activity::Transferring);
        let (first, second, third) = (answered(1), answered(1), answered(1));
        assert!(keep(&first, 40) && keep(&second, 40));
        assert!(
            !keep(&third, 40),
            "its own client has no more than the largest"
        );
        assert!(keep(&third, 20), "there is room for it");
        let other = answered(2);
        assert!(keep(&other, 30), "another client has less");
        assert!(!has(&slots, &first) && has(&slots, &second));
        assert!(!keep(&answered(3), 101));
        second.holder().begin(Activity::Idle);
        assert!(keep(&answered(1), 50), "what was read makes room");
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let client = |text: &str| Client::new(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1:2:3"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_freed_slot_goes_to_a_waiting_client() {
        let slots = SlotPool::new(1);
        let held = take(&slots, 1, Activity::Busy);
        assert!(
            slots
                .acquire_within(client(2), Duration::ZERO)
                .await
                .is_none()
        );
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move {
                slots
                    .acquire_within(client(2), Duration::from_secs(60))
                    .await
                    .is_some()
            }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_holder_is_notified_when_its_slot_is_revoked() {
        let slots = SlotPool::new(1);
        let held = take(&slots, 1, Activity::New);
        let newcomer = slots.acquire(client(1)).unwrap();
        held.holder().revoked().await;
        drop(held);
        assert!(
            has(&slots, &newcomer.slot),
            "the slot is the newcomer's now"
        );
    }
}
