//! Chooses the contents that are resident in the kernel, and those that are evicted.
//!
//! Pages, blocks and numbers of rules are limited. A content that lacks any of them evicts the least recently used ones. Contents
//! in use stay, since their rows would be needed again at once. Two exceptions keep a hostile program from filling the tables:
//! contents of a process that has more than its share are evicted for others, and a content in use that has waited for
//! [`STARVED_NS`] evicts the largest ones that have been resident for as long, so that each is resident for a time.

use std::cmp::Reverse;

use profiler_bpf::unwind::Row;
use rustc_hash::FxHashMap;

use super::{
    Tables,
    contents::{Content, ContentId},
    files::FileState,
    resident::Amounts,
};

/// A content that was used within this time is in use: evaluating its file again costs more than copying the stacks of the
/// waiting file.
const IN_USE_NS: u64 = 2_000_000_000;

/// After this wait a content is starved. After this time a resident content may be evicted for a starved one.
const STARVED_NS: u64 = 10_000_000_000;

/// Back-off of a file for which there was no room.
const RETRY_NS: u64 = 10_000_000_000;

/// A process's share of the capacity while others wait for room: a quarter.
const PROCESS_SHARE: u64 = 4;

/// The part of the capacity that is freed at once, if so much is not in use: a thirty-second, since each search costs time.
const FREED_PART: u64 = 32;

/// A resident content that may be evicted.
struct Candidate {
    id: ContentId,
    /// Candidates of a lower rank go first.
    rank: Rank,
    /// Within a rank, the lowest goes first.
    order: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Not in use, the least recently used first.
    Unused,
    /// In use by one process only, which has more than its share; the least recently used first.
    OverShare,
    /// In use and resident for [`STARVED_NS`], the largest first.
    LongResident,
}

impl Tables {
    /// Writes the rows of a waiting content into the kernel's tables. Gives whether there was room.
    pub(super) fn place(&mut self, id: ContentId, now_ns: u64) -> bool {
        let Some(rows) = self.contents.get(id).and_then(Content::waiting) else {
            return true;
        };
        let Ok(placed) = self.resident.place(rows, self.epochs.current()) else {
            return false;
        };
        self.contents.set_resident(id, placed, now_ns);
        self.change_users_of(id);
        true
    }

    /// Evicts contents so that this one has room when their grace period is over; none, if evicting all candidates would free too
    /// little. Gives whether there will be room.
    pub(super) fn make_room(&mut self, id: ContentId, now_ns: u64) -> bool {
        let Some(missing) = self.missing_for(id) else {
            return true;
        };
        let candidates = self.list_candidates(id, missing, now_ns);
        let victims = self.choose_victims(candidates, missing);
        let will_have_room = !victims.is_empty();
        for victim in victims {
            self.evict(victim, now_ns);
        }
        will_have_room
    }

    /// Whether room is being made for a content that waits. Others do not take it.
    pub(super) fn is_making_room(&self) -> bool {
        self.resident.is_freeing() && self.contents.waiting_count() > 0
    }

    /// The amounts that must become free for a content that waits; `None` when enough will.
    fn missing_for(&self, id: ContentId) -> Option<Amounts> {
        let rows = self.contents.get(id)?.waiting()?;
        let missing = self.resident.missing_for(rows);
        if !missing.is_nothing() {
            return Some(missing);
        }
        // Enough is free, but not contiguous.
        (!self.resident.is_freeing()).then_some(rows.needed)
    }

    fn list_candidates(&self, id: ContentId, missing: Amounts, now_ns: u64) -> Vec<Candidate> {
        let Some(newcomer) = self.contents.get(id) else {
            return Vec::new();
        };
        let mut shares: FxHashMap<u32, Amounts> = FxHashMap::default();
        let mut owners: FxHashMap<ContentId, u32> = FxHashMap::default();
        for (resident, content, placed) in self.contents.resident() {
            if let Some(pid) = self.sole_user(content) {
                owners.insert(resident, pid);
                let share = shares.entry(pid).or_default();
                *share = share.plus(placed.taken);
            }
        }
        let share_max = self.resident.capacity().divided_by(PROCESS_SHARE);
        let is_over_share = |pid: u32, more: Amounts| {
            let share = shares.get(&pid).copied().unwrap_or_default();
            share.plus(more).exceeds(share_max)
        };
        let needed = newcomer
            .waiting()
            .map(|rows| rows.needed)
            .unwrap_or_default();
        let owner = self.sole_user(newcomer);
        let newcomer_over_share = owner.filter(|pid| is_over_share(*pid, needed));
        let is_starved = self.used_ns(newcomer) + IN_USE_NS >= now_ns
            && newcomer.since_ns + STARVED_NS <= now_ns;
        let mut candidates = Vec::new();
        for (resident, content, placed) in self.contents.resident() {
            let used_ns = self.used_ns(content);
            let is_long_resident = content.since_ns + STARVED_NS <= now_ns;
            let owner = owners.get(&resident).copied();
            let must_give = match (newcomer_over_share, owner) {
                // A process over its share evicts its own contents only.
                (Some(newcomer), Some(owner)) => newcomer == owner && is_long_resident,
                (None, Some(owner)) => is_over_share(owner, Amounts::default()),
                (_, None) => false,
            };
            let (rank, order) = if used_ns + IN_USE_NS < now_ns {
                (Rank::Unused, used_ns)
            } else if must_give {
                (Rank::OverShare, used_ns)
            } else if is_starved && is_long_resident && newcomer_over_share.is_none() {
                (
                    Rank::LongResident,
                    u64::MAX - placed.taken.of_first(missing),
                )
            } else {
                continue;
            };
            candidates.push(Candidate {
                id: resident,
                rank,
                order,
            });
        }
        candidates.sort_by_key(|candidate| (candidate.rank, candidate.order));
        candidates
    }

    /// The first candidates that together free the missing amounts; none if all of them do not. [`FREED_PART`] more is taken of the
    /// contents that are not in use.
    fn choose_victims(&self, candidates: Vec<Candidate>, missing: Amounts) -> Vec<ContentId> {
        let mut freed = Amounts::default();
        let spare = self.resident.capacity().divided_by(FREED_PART);
        let wanted = missing.plus(spare).where_any_of(missing);
        // A rule's number becomes free with its last user.
        let mut users_left: FxHashMap<u16, u32> = FxHashMap::default();
        let mut victims = Vec::new();
        for candidate in candidates {
            let is_enough = freed.missing(missing).is_nothing();
            if is_enough && (candidate.rank > Rank::Unused || freed.missing(wanted).is_nothing()) {
                break;
            }
            let content = self.contents.get(candidate.id);
            let Some(placed) = content.and_then(Content::placed) else {
                continue;
            };
            let mut rules = 0;
            for number in placed.rules() {
                let users = || self.resident.rules().users(*number);
                let left = users_left.entry(*number).or_insert_with(users);
                *left = left.saturating_sub(1);
                rules += u64::from(*left == 0);
            }
            freed = freed.plus(Amounts {
                rules,
                ..placed.taken
            });
            victims.push(candidate.id);
        }
        if !freed.missing(missing).is_nothing() {
            victims.clear();
        }
        victims
    }

    /// The last time at which a file with this content was sampled.
    fn used_ns(&self, content: &Content) -> u64 {
        let files = content.files.iter().filter_map(|key| self.files.get(key));
        let used_ns = files.map(|file| file.used_ns()).max();
        used_ns.unwrap_or(0).max(content.touched_ns)
    }

    /// The one process that maps files with this content, if it is one.
    fn sole_user(&self, content: &Content) -> Option<u32> {
        let files = content.files.iter().filter_map(|key| self.files.get(key));
        let mut users = files.flat_map(|file| &file.users);
        let first = *users.next()?;
        users.all(|pid| *pid == first).then_some(first)
    }

    /// Brings contents that wait into the kernel where there is room now, and makes room for those that are in use. While
    /// room is being made for one, those that came later do not take it: an evicted content would be back at once.
    pub(super) fn place_waiting(&mut self, now_ns: u64) {
        let waiting: Vec<ContentId> = self.contents.waiting().collect();
        for id in waiting {
            if self.place(id, now_ns) {
                continue;
            }
            let content = self.contents.get(id);
            let is_used =
                content.is_some_and(|content| self.used_ns(content) + IN_USE_NS >= now_ns);
            if is_used && self.make_room(id, now_ns) {
                return;
            }
        }
    }

    /// Takes a content out of the kernel, and forgets it. Its files are evaluated again when a sample asks.
    pub(super) fn evict(&mut self, id: ContentId, now_ns: u64) {
        self.stats.evictions += 1;
        self.drop_content(id, now_ns);
    }

    /// Forgets a content. Its files may be asked for again from `retry_ns` on.
    pub(super) fn drop_content(&mut self, id: ContentId, retry_ns: u64) {
        let Some(content) = self.contents.remove(id) else {
            return;
        };
        for key in &content.files {
            if let Some(file) = self.files.get_mut(key) {
                file.state = FileState::Absent { retry_ns };
            }
            self.change_users(key);
        }
        if let Some(placed) = content.into_placed() {
            self.resident.retire(placed, self.epochs.current());
        }
    }

    /// Keeps the rows that wait for room, but for the content that came last, to a quarter of what is in the kernel. What
    /// nobody uses goes first, then the largest: one large file drops no other.
    pub(super) fn limit_waiting(&mut self, newest: ContentId, now_ns: u64) {
        let bytes_max = self.resident.capacity().words * size_of::<Row>() as u64 / 4;
        let others = self.contents.waiting().filter(|id| *id != newest);
        let others = others.filter_map(|id| {
            let content = self.contents.get(id)?;
            let is_used = self.used_ns(content) + IN_USE_NS >= now_ns;
            Some((is_used, Reverse(content.waiting()?.bytes()), id))
        });
        let mut others: Vec<(bool, Reverse<u64>, ContentId)> = others.collect();
        let mut bytes: u64 = others.iter().map(|(_, bytes, _)| bytes.0).sum();
        others.sort_unstable();
        for (_, content_bytes, id) in others {
            if bytes <= bytes_max {
                return;
            }
            bytes -= content_bytes.0;
            self.drop_content(id, now_ns + RETRY_NS);
        }
    }

    /// Takes everything out of the kernel's tables.
    pub(super) fn evict_all(&mut self, now_ns: u64) {
        let resident: Vec<ContentId> = self.contents.resident().map(|(id, ..)| id).collect();
        for id in resident {
            self.evict(id, now_ns);
        }
    }
}
