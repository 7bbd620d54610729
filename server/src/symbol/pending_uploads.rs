//! Assignment of files to collectors, so that one collector sends a file and not a hundred. Pure: the time is an argument.
//!
//! An asked collector has the file assigned for some time, and for as long as it keeps sending. Until it begins, the request
//! is repeated with each of its windows, since an answer may be lost. A collector that did not deliver is not asked for the same
//! file again soon; another collector that has offered it is, with its next window. Offers stay queued: a program that ran in
//! one window only is not offered in the later ones.

use std::time::{Duration, Instant};

use elf::BuildId;
use hashbrown::HashMap;
use tracing::debug;

use super::error::UploadError;

/// Random id of one run of a collector.
pub type Instance = [u8; 16];

/// Files assigned to one collector at a time. It sends one after the other, at 4 MiB a second by default, and hears of the next
/// with its next window, 10 s later: common libraries have 1 to 5 MB.
pub const ASSIGNED_MAX: usize = 8;

/// Time for a collector to begin. Seven files of 500 MB before this one take 15 minutes at 4 MiB a second.
const BEGIN_TIME: Duration = Duration::from_secs(1800);

/// Time in which a collector must send something. It retries for longer than that when the server was away; a collector that was
/// asked meanwhile resumes the upload.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Least average rate, after [`SILENCE_MAX`]; a collector's own limit is not lower.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Longest assignment, whatever the collector does: 1 GiB takes this time at 64 KiB a second, the least that a collector's own
/// limit can be.
const ASSIGNED_TIME_MAX: Duration = Duration::from_secs(5 * 3600);

/// Time until a collector that did not deliver may be asked again. A file that it could not open, or that was refused, is the same
/// an hour later in most cases.
const RETRY_TIME: Duration = Duration::from_secs(3600);

/// Collectors remembered as having failed to deliver a file. With that many, no collector is asked for it until the first of them
/// may be asked again: the file is bad, not the collectors.
const FAILED_MAX: usize = 4;

/// Time that an offer stays queued. By then a short-lived program's file may be gone; a long-lived one is offered with each window.
const OFFER_TIME: Duration = Duration::from_secs(3600);

/// Collectors remembered as offering a file; others offer it again.
const OFFERED_MAX: usize = 8;

/// Files that one collector may have offered at a time: as many as it remembers itself. Eight collectors fill [`FILES_MAX`].
const OFFERS_MAX: usize = 512;

/// Files in the table: a Debian with everything has 2,500. 4,096 take some 1 MB; beyond that the oldest offer makes room, since a
/// collector that still has the file offers it with its next window.
const FILES_MAX: usize = 1 << 12;

#[derive(Debug)]
struct Assignment {
    instance: Instance,
    /// Deadline for the next piece.
    until: Instant,
    /// Deadline for the whole file.
    last: Instant,
    /// When the collector began, and the bytes that it sent since.
    progress: Option<(Instant, u64)>,
}

impl Assignment {
    fn new(instance: Instance, time: Duration, now: Instant) -> Self {
        Self {
            instance,
            until: now + time,
            last: now + ASSIGNED_TIME_MAX,
            progress: None,
        }
    }

    fn renew(&mut self, time: Duration, now: Instant) {
        self.until = self.last.min(now + time);
    }
}

#[derive(Debug, Default)]
struct File {
    assignment: Option<Assignment>,
    /// Collectors that did not deliver, and until when they are not asked.
    failed: Vec<(Instance, Instant)>,
    /// Collectors that offer the file, and since when.
    offered: Vec<(Instance, Instant)>,
}

impl File {
    /// Removes expired entries. A collector whose assignment expired has not delivered.
    fn expire(&mut self, now: Instant) {
        self.failed.retain(|(_, until)| now < *until);
        self.offered.retain(|(_, since)| now < *since + OFFER_TIME);
        if let Some(expired) = self.assignment.take_if(|assigned| assigned.until <= now) {
            self.note_failed(expired.instance, now);
        }
    }

    /// Since when a collector offers the file.
    fn offered_since(&self, instance: &Instance) -> Option<Instant> {
        let mut offered = self.offered.iter();
        let (_, since) = offered.find(|(offers, _)| offers == instance)?;
        Some(*since)
    }

    /// When the file was offered first, if it may be evicted: no collector sends it, and none has failed to.
    fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.assignment.is_none() && self.failed.is_empty();
        let first = self.offered.first().filter(|_| is_idle);
        first.map(|(_, since)| *since)
    }

    fn note_failed(&mut self, instance: Instance, now: Instant) {
        self.offered.retain(|(offers, _)| *offers != instance);
        self.failed.retain(|(failed, _)| *failed != instance);
        if self.failed.len() < FAILED_MAX {
            self.failed.push((instance, now + RETRY_TIME));
        }
    }

    fn may_ask(&self, instance: &Instance) -> bool {
        let has_failed = self.failed.iter().any(|(failed, _)| failed == instance);
        self.assignment.is_none() && !has_failed && self.failed.len() < FAILED_MAX
    }

    fn assignment_of(&mut self, instance: Instance) -> Option<&mut Assignment> {
        let assignment = self.assignment.as_mut();
        assignment.filter(|assignment| assignment.instance == instance)
    }
}

/// The files that one collector is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Files that it was asked for before and has not begun: it may not have heard.
    pub repeated: Vec<BuildId>,
    /// Files that it is asked for now.
    pub new: Vec<BuildId>,
    /// Offers that were dropped for lack of room, new or old.
    pub skipped: usize,
}

/// Offered files, and the collectors that they are assigned to.
#[derive(Debug, Default)]
pub struct PendingUploads {
    files: HashMap<BuildId, File>,
}

impl PendingUploads {
    /// Notes the files that a collector offers and the server lacks, and assigns it those that have waited longest.
    pub fn choose<'a>(
        &mut self,
        instance: Instance,
        lacking: impl Iterator<Item = &'a BuildId>,
        now: Instant,
    ) -> Requests {
        self.files.values_mut().for_each(|file| file.expire(now));
        self.remove_idle();
        let skipped = self.note_offers(instance, lacking, now);
        let (mut assigned, mut repeated, mut waiting) = (0, Vec::new(), Vec::new());
        for (build_id, file) in &mut self.files {
            if let Some(assignment) = file.assignment_of(instance) {
                assigned += 1;
                repeated.extend(assignment.progress.is_none().then_some(*build_id));
            } else if let Some(since) = file.offered_since(&instance)
                && file.may_ask(&instance)
            {
                waiting.push((since, *build_id));
            }
        }
        repeated.sort();
        waiting.sort();
        waiting.truncate(ASSIGNED_MAX.saturating_sub(assigned));
        let new: Vec<BuildId> = waiting.into_iter().map(|(_, build_id)| build_id).collect();
        for build_id in &new {
            if let Some(file) = self.files.get_mut(build_id) {
                file.assignment = Some(Assignment::new(instance, BEGIN_TIME, now));
            }
        }
        Requests {
            repeated,
            new,
            skipped,
        }
    }

    /// Queues a collector's offers as far as there is room. Returns the number of dropped offers.
    fn note_offers<'a>(
        &mut self,
        instance: Instance,
        lacking: impl Iterator<Item = &'a BuildId>,
        now: Instant,
    ) -> usize {
        let is_offered = |file: &File| file.offered_since(&instance).is_some();
        let mut offers = self.files.values().filter(|file| is_offered(file)).count();
        let mut skipped = 0;
        for build_id in lacking {
            let file = self.files.get(build_id);
            if file.is_some_and(is_offered) {
                continue;
            }
            let is_known = file.is_some();
            if offers >= OFFERS_MAX || (!is_known && !self.make_room(&mut skipped)) {
                skipped += 1;
                continue;
            }
            offers += 1;
            let file = self.files.entry(*build_id).or_default();
            if file.offered.len() < OFFERED_MAX {
                file.offered.push((instance, now));
            }
        }
        skipped
    }

    /// Evicts the file that waits longest if the table is full, and counts it. Returns whether there is room. At most
    /// [`OFFERS_MAX`] looks at [`FILES_MAX`] files for one window: 2 million, a few milliseconds.
    fn make_room(&mut self, evicted: &mut usize) -> bool {
        if self.files.len() < FILES_MAX {
            return true;
        }
        let idle = self.files.iter();
        let idle = idle.filter_map(|(build_id, file)| Some((file.idle_since()?, build_id)));
        let Some(oldest) = idle.min().map(|(_, build_id)| *build_id) else {
            return false;
        };
        self.files.remove(&oldest);
        *evicted += 1;
        true
    }

    /// A collector begins, or resumes after its connection broke. `is_begun`: the disk has a part of the file, which was asked for
    /// before the server restarted.
    ///
    /// # Errors
    /// The collector is not asked for this file.
    pub fn begin(
        &mut self,
        instance: Instance,
        build_id: &BuildId,
        is_begun: bool,
        now: Instant,
    ) -> Result<(), UploadError> {
        if is_begun && !self.files.contains_key(build_id) && self.make_room(&mut 0) {
            self.files.entry(*build_id).or_default();
        }
        let file = self.files.get_mut(build_id);
        let file = file.ok_or(UploadError::NotAsked)?;
        if file.assignment_of(instance).is_none() {
            file.expire(now);
            if !is_begun || !file.may_ask(&instance) {
                return Err(UploadError::NotAsked);
            }
        }
        let new = || Assignment::new(instance, SILENCE_MAX, now);
        let assignment = file.assignment.get_or_insert_with(new);
        assignment.renew(SILENCE_MAX, now);
        assignment.progress = Some((now, 0));
        Ok(())
    }

    /// Counts received bytes. 0 bytes ask whether the collector may go on, and do not extend its time.
    ///
    /// # Errors
    /// The collector is not asked for this file, or was too slow; another one may be asked then.
    pub fn note_progress(
        &mut self,
        instance: Instance,
        build_id: &BuildId,
        bytes: u64,
        now: Instant,
    ) -> Result<(), UploadError> {
        let assignment = self.assignment(instance, build_id);
        let assignment = assignment.ok_or(UploadError::NotAsked)?;
        let progress = assignment.progress.as_mut();
        let (begun, sent) = progress.ok_or(UploadError::NotAsked)?;
        *sent = sent.saturating_add(bytes);
        let elapsed = now.saturating_duration_since(*begun);
        let rate = *sent / elapsed.as_secs().max(1);
        if bytes > 0 {
            assignment.renew(SILENCE_MAX, now);
        }
        if elapsed > SILENCE_MAX && rate < BYTES_PER_SECOND_MIN {
            self.fail(instance, build_id, now);
            return Err(UploadError::TooSlow);
        }
        Ok(())
    }

    /// Extends an assignment while the server reads the file.
    pub fn extend(&mut self, instance: Instance, build_id: &BuildId, time: Duration, now: Instant) {
        if let Some(assignment) = self.assignment(instance, build_id) {
            assignment.renew(time, now);
        }
    }

    /// Ends an assignment whose file did not come. Returns whether the collector had it.
    pub fn fail(&mut self, instance: Instance, build_id: &BuildId, now: Instant) -> bool {
        let Some(file) = self.unassign(instance, build_id) else {
            return false;
        };
        debug!(%build_id, "a collector did not deliver a file that it was asked for");
        file.note_failed(instance, now);
        true
    }

    /// Ends an assignment whose file came or is not needed: a collector with a better file offers it again. Returns whether the
    /// collector had it.
    pub fn complete(&mut self, instance: Instance, build_id: &BuildId) -> bool {
        let file = self.unassign(instance, build_id);
        let was_assigned = file.map(|file| file.offered.clear()).is_some();
        self.remove_idle();
        was_assigned
    }

    fn assignment(&mut self, instance: Instance, build_id: &BuildId) -> Option<&mut Assignment> {
        self.files.get_mut(build_id)?.assignment_of(instance)
    }

    fn unassign(&mut self, instance: Instance, build_id: &BuildId) -> Option<&mut File> {
        let file = self.files.get_mut(build_id)?;
        file.assignment_of(instance)?;
        file.assignment = None;
        Some(file)
    }

    /// Number of assigned files.
    pub fn assigned(&self) -> usize {
        let is_assigned = |file: &&File| file.assignment.is_some();
        self.files.values().filter(is_assigned).count()
    }

    fn remove_idle(&mut self) {
        self.files.retain(|_, file| {
            file.assignment.is_some() || !file.failed.is_empty() || !file.offered.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Instance = [1; 16];
    const B: Instance = [2; 16];
    const SECOND: Duration = Duration::from_secs(1);

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_be_bytes()).unwrap()
    }

    /// Files that are asked for now and were not before.
    fn choose(
        pending: &mut PendingUploads,
        instance: Instance,
        numbers: &[u32],
        now: Instant,
    ) -> Vec<BuildId> {
        let ids: Vec<_> = numbers.iter().map(|number| id(*number)).collect();
        pending.choose(instance, ids.iter(), now).new
    }

    /// Check that a request is repeated with the collector's next windows until it begins or its time is over, and
    /// that no other collector gets it.
    #[test]
    fn a_lost_answer_is_repeated() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        assert_eq!(choose(&mut pending, A, &[1, 2], now), [id(1), id(2)]);
        let mut again = |instance, now| pending.choose(instance, [].iter(), now);
        let both = Requests {
            repeated: vec![id(1), id(2)],
            ..Requests::default()
        };
        assert_eq!(again(A, now + SECOND), both);
        assert_eq!(again(A, now + BEGIN_TIME - SECOND), both);
        assert_eq!(again(B, now + SECOND), Requests::default());
        pending.begin(A, &id(1), false, now + SECOND).unwrap();
        let chosen = pending.choose(A, [].iter(), now + SECOND);
        assert_eq!(chosen.repeated, [id(2)]);
        let chosen = pending.choose(A, [].iter(), now + BEGIN_TIME);
        assert_eq!(chosen, Requests::default());
    }

    /// Check that one collector is asked for a file at a time, and for a few files, and that a waiting file gets its
    /// turn, also when it is not offered again.
    #[test]
    fn one_collector_is_asked_at_a_time_and_for_few_files() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        let first: Vec<u32> = (1..=ASSIGNED_MAX as u32).collect();
        let ids: Vec<_> = first.iter().map(|number| id(*number)).collect();
        assert_eq!(choose(&mut pending, A, &first, now), ids);
        assert!(choose(&mut pending, A, &[50, 60], now).is_empty());
        assert_eq!(choose(&mut pending, B, &[1, 50], now + SECOND), [id(50)]);
        pending.begin(A, &id(1), false, now).unwrap();
        pending.complete(A, &id(1));
        assert_eq!(choose(&mut pending, A, &[70], now + SECOND), [id(60)]);
        assert_eq!(pending.assigned(), ASSIGNED_MAX + 1);
        // A received file is not asked for any more; a file that one collector has not is asked of another.
        assert!(choose(&mut pending, B, &[], now + SECOND).is_empty());
        pending.begin(B, &id(50), false, now).unwrap();
        pending.fail(B, &id(50), now);
        pending.begin(A, &id(2), false, now).unwrap();
        pending.complete(A, &id(2));
        assert_eq!(choose(&mut pending, A, &[], now + SECOND), [id(50)]);
    }

    /// Check that a file that does not come is asked of another collector, and of the same one only after a long
    /// while.
    #[test]
    fn a_file_that_does_not_come_is_asked_for_elsewhere() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        choose(&mut pending, A, &[1], now);
        assert!(choose(&mut pending, B, &[1], now + BEGIN_TIME - SECOND).is_empty());
        // The upload begins at the last moment, and then stops.
        let begun = now + BEGIN_TIME - SECOND;
        pending.begin(A, &id(1), false, begun).unwrap();
        pending
            .note_progress(A, &id(1), 1 << 20, begun + SECOND)
            .unwrap();
        assert!(choose(&mut pending, B, &[1], begun + SILENCE_MAX).is_empty());
        let over = begun + SECOND + SILENCE_MAX;
        assert!(choose(&mut pending, A, &[1], over).is_empty());
        assert_eq!(choose(&mut pending, B, &[1], over), [id(1)]);
        assert_eq!(
            pending.begin(A, &id(1), true, over),
            Err(UploadError::NotAsked)
        );
        assert_eq!(
            pending.note_progress(A, &id(1), 1, over),
            Err(UploadError::NotAsked)
        );
        pending.begin(B, &id(1), false, over).unwrap();
        pending.fail(B, &id(1), over);
        assert!(choose(&mut pending, B, &[1], over).is_empty());
        assert_eq!(choose(&mut pending, A, &[1], over + RETRY_TIME), [id(1)]);
    }

    #[test]
    fn files_that_were_not_asked_for_are_refused() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        assert_eq!(
            pending.begin(A, &id(1), false, now),
            Err(UploadError::NotAsked)
        );
        choose(&mut pending, A, &[1], now);
        assert_eq!(
            pending.begin(B, &id(1), true, now),
            Err(UploadError::NotAsked)
        );
        assert_eq!(
            pending.note_progress(A, &id(1), 1, now),
            Err(UploadError::NotAsked)
        );
        // An upload that began before a restart is known from the disk.
        let mut pending = PendingUploads::default();
        pending.begin(A, &id(1), true, now).unwrap();
        pending.note_progress(A, &id(1), 1, now).unwrap();
    }

    #[test]
    fn a_collector_that_sends_a_byte_a_minute_loses_the_file() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        choose(&mut pending, A, &[1], now);
        pending.begin(A, &id(1), false, now).unwrap();
        pending
            .note_progress(A, &id(1), 1, now + SILENCE_MAX)
            .unwrap();
        let later = now + 2 * SILENCE_MAX;
        assert_eq!(
            pending.note_progress(A, &id(1), 1, later),
            Err(UploadError::TooSlow)
        );
        assert_eq!(choose(&mut pending, B, &[1], later), [id(1)]);
    }

    /// Check that collectors with too many offers do not keep others from being asked or from sending, and do not
    /// evict failures.
    #[test]
    fn a_full_table_blocks_no_collector() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        assert_eq!(choose(&mut pending, A, &[1, 2, 3], now).len(), 3);
        pending.fail(A, &id(2), now);
        pending.fail(A, &id(3), now);
        let full = FILES_MAX / OFFERS_MAX;
        for number in 0..=full {
            let first = 1000 * (1 + number as u32);
            let many: Vec<u32> = (first..first + OFFERS_MAX as u32).collect();
            let at = now + SECOND * number as u32;
            choose(&mut pending, [10 + number as u8; 16], &many, at);
        }
        assert_eq!(pending.files.len(), FILES_MAX);
        let later = now + SECOND * 60;
        let chosen = pending.choose(B, [id(2), id(500), id(501)].iter(), later);
        assert_eq!(chosen.new, [id(2), id(500), id(501)]);
        assert_eq!((chosen.skipped, pending.files.len()), (2, FILES_MAX));
        assert!(choose(&mut pending, A, &[3], later).is_empty());
        pending.begin(A, &id(1), false, later).unwrap();
        // Nor from resuming after a restart, with a part on the disk.
        pending.begin(B, &id(700), true, later).unwrap();
        // The oldest offers are evicted, but not files that were asked for.
        assert!(pending.files.contains_key(&id(1000)));
        assert!(!pending.files.contains_key(&id(1000 + ASSIGNED_MAX as u32)));
    }

    /// Check that a file that is bad everywhere is given up, and that the table is bounded.
    #[test]
    fn the_table_is_bounded() {
        let (mut pending, now) = (PendingUploads::default(), Instant::now());
        let instance = |number: u8| [number; 16];
        for number in 0..10 {
            let chosen = choose(&mut pending, instance(number), &[1], now);
            assert_eq!(chosen.is_empty(), usize::from(number) >= FAILED_MAX);
            pending.fail(instance(number), &id(1), now);
        }
        assert_eq!(
            choose(&mut pending, instance(9), &[1], now + RETRY_TIME),
            [id(1)]
        );
        let mut pending = PendingUploads::default();
        let many: Vec<_> = (0..FILES_MAX as u32 + 100).map(id).collect();
        let chosen = pending.choose(A, many.iter(), now);
        assert_eq!(chosen.new.len(), ASSIGNED_MAX);
        assert_eq!(chosen.skipped, many.len() - OFFERS_MAX);
        assert_eq!(pending.files.len(), OFFERS_MAX);
        // A repeated offer takes no room.
        assert_eq!(pending.choose(A, many[..OFFERS_MAX].iter(), now).skipped, 0);
        choose(&mut pending, B, &[], now + BEGIN_TIME);
        choose(
            &mut pending,
            B,
            &[],
            now + BEGIN_TIME + RETRY_TIME + OFFER_TIME,
        );
        assert!(pending.files.is_empty());
    }
}
