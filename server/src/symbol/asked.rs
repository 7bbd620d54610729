//! Which collector is asked for which file, so that one sends it and not a hundred. Pure: the time comes in as an argument.
//!
//! A collector that was asked has the file for itself for some time, and for as long as it goes on sending. Until it begins it
//! is asked with each window, since an answer may be lost. One that did not
//! deliver is not asked for the same file again soon; another one that has offered it is, with its next window. Offers wait
//! for their turn: a program that ran in one window only is not in the later ones.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tracing::debug;

use super::build_id::BuildId;

/// What tells one running collector from others.
pub type Instance = [u8; 16];

/// Files that one collector is asked for at a time. It sends one after the other, at 4 MiB a second unless told otherwise, and
/// hears what is next with its next window, 10 s later: usual libraries have 1 to 5 MB.
pub const ASKED_MAX: usize = 8;

/// How long a collector may take to begin. Seven files of 500 MB before this one take 15 minutes at 4 MiB a second.
const BEGIN_TIME: Duration = Duration::from_secs(1800);

/// How long it may then send nothing. It tries again for longer than that when the server was away; whoever was asked
/// meanwhile goes on where it was.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What it must send on average once it has had [`SILENCE_MAX`]; a collector's own limit is not lower.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// How long it may have a file for itself, whatever it does: 1 GiB comes in that time at 64 KiB a second, the least that a
/// collector's own limit can be.
const HOLD_TIME_MAX: Duration = Duration::from_secs(5 * 3600);

/// When one that did not deliver may be asked again. A file that it could not open, or that was refused, is the same an hour
/// later in most cases.
const AGAIN_TIME: Duration = Duration::from_secs(3600);

/// Collectors that did not deliver a file, of which it is remembered. After as many the file is asked for nowhere until the
/// first of them may be asked again: it is the file that is bad, and not the collectors.
const FAILED_MAX: usize = 4;

/// How long an offer waits for its turn. By then a short-lived program's file may be gone; a long-lived one is offered with
/// each window.
const OFFER_TIME: Duration = Duration::from_secs(3600);

/// Collectors of which it is remembered that they offer a file; others offer it again.
const OFFERED_MAX: usize = 8;

/// Files that one collector offers at a time: what it remembers itself. Eight collectors fill [`FILES_MAX`] with that.
const OFFERS_MAX: usize = 512;

/// Files of which something is remembered: a Debian with everything has 2,500. 4,096 take some 1 MB; beyond it the one that was
/// offered first is forgotten for another, since whoever still has it offers it with its next window.
const FILES_MAX: usize = 1 << 12;

/// Why a collector's file is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedError {
    /// It is not asked for it.
    NotAsked,
    /// It sent too little in its time.
    TooSlow,
}

#[derive(Debug)]
struct Holder {
    instance: Instance,
    /// Until when the next piece must come.
    until: Instant,
    /// Until when all must have come.
    last: Instant,
    /// When it began, and what it sent since.
    begun: Option<(Instant, u64)>,
}

impl Holder {
    fn new(instance: Instance, time: Duration, now: Instant) -> Self {
        Self {
            instance,
            until: now + time,
            last: now + HOLD_TIME_MAX,
            begun: None,
        }
    }

    fn renew(&mut self, time: Duration, now: Instant) {
        self.until = self.last.min(now + time);
    }
}

#[derive(Debug, Default)]
struct File {
    holder: Option<Holder>,
    failed: Vec<(Instance, Instant)>,
    /// Who has it, and since when that is known.
    offered: Vec<(Instance, Instant)>,
}

impl File {
    /// Forgets what is over. A holder whose time is over has not delivered.
    fn settle(&mut self, now: Instant) {
        self.failed.retain(|(_, until)| now < *until);
        self.offered.retain(|(_, since)| now < *since + OFFER_TIME);
        if let Some(holder) = self.holder.take_if(|holder| holder.until <= now) {
            self.note_failed(holder.instance, now);
        }
    }

    fn note_offered(&mut self, instance: Instance, now: Instant) {
        if !self.is_offered_by(&instance) && self.offered.len() < OFFERED_MAX {
            self.offered.push((instance, now));
        }
    }

    fn is_offered_by(&self, instance: &Instance) -> bool {
        self.offered.iter().any(|(offers, _)| offers == instance)
    }

    /// When it was offered first, if it may be forgotten for another one: nobody sends it, and nobody has failed to.
    fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.holder.is_none() && self.failed.is_empty();
        self.offered
            .first()
            .map(|(_, since)| *since)
            .filter(|_| is_idle)
    }

    /// Since when a collector that may be asked offers it.
    fn waits_since(&self, instance: &Instance) -> Option<Instant> {
        let mut offered = self.offered.iter();
        let (_, since) = offered.find(|(offers, _)| offers == instance)?;
        self.may_ask(instance).then_some(*since)
    }

    fn note_failed(&mut self, instance: Instance, now: Instant) {
        self.offered.retain(|(offers, _)| *offers != instance);
        self.failed.retain(|(failed, _)| *failed != instance);
        if self.failed.len() < FAILED_MAX {
            self.failed.push((instance, now + AGAIN_TIME));
        }
    }

    fn may_ask(&self, instance: &Instance) -> bool {
        let has_failed = self.failed.iter().any(|(failed, _)| failed == instance);
        self.holder.is_none() && !has_failed && self.failed.len() < FAILED_MAX
    }

    fn is_held_by(&self, instance: &Instance) -> bool {
        let holder = self.holder.as_ref();
        holder.is_some_and(|holder| holder.instance == *instance)
    }
}

/// What a collector is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// What it was asked for before and has not begun: it may not have heard.
    pub again: Vec<BuildId>,
    /// What it is asked for now.
    pub new: Vec<BuildId>,
    /// Offers for which there was no room: left out, or forgotten for newer ones.
    pub skipped: usize,
}

/// The files that collectors are asked for.
#[derive(Debug, Default)]
pub struct Asked {
    files: HashMap<BuildId, File>,
}

impl Asked {
    /// Notes what a collector offers that is lacking here, and chooses what it is asked for: what waits longest, after what it
    /// was asked for and has not begun.
    pub fn choose<'a>(
        &mut self,
        instance: Instance,
        lacking: impl Iterator<Item = &'a BuildId>,
        now: Instant,
    ) -> Chosen {
        self.files.values_mut().for_each(|file| file.settle(now));
        self.forget_idle();
        let skipped = self.note_offers(instance, lacking, now);
        let held = self.files.iter();
        let held = held.filter_map(|(id, file)| Some((id, file.holder.as_ref()?)));
        let held: Vec<_> = held.filter(|(_, it)| it.instance == instance).collect();
        let left = ASKED_MAX.saturating_sub(held.len());
        let unbegun = held.iter().filter(|(_, holder)| holder.begun.is_none());
        let mut again: Vec<BuildId> = unbegun.map(|(id, _)| (*id).clone()).collect();
        again.sort();
        let waiting = self.files.iter();
        let mut waiting: Vec<_> = waiting
            .filter_map(|(build_id, file)| Some((file.waits_since(&instance)?, build_id.clone())))
            .collect();
        waiting.sort();
        waiting.truncate(left);
        for (_, build_id) in &waiting {
            if let Some(file) = self.files.get_mut(build_id) {
                file.holder = Some(Holder::new(instance, BEGIN_TIME, now));
            }
        }
        Chosen {
            again,
            new: waiting.into_iter().map(|(_, build_id)| build_id).collect(),
            skipped,
        }
    }

    /// Notes what a collector offers, as far as there is room for it. Gives the number of offers that were left out or forgotten.
    fn note_offers<'a>(
        &mut self,
        instance: Instance,
        lacking: impl Iterator<Item = &'a BuildId>,
        now: Instant,
    ) -> usize {
        let offered = self.files.values();
        let mut offers = offered.filter(|it| it.is_offered_by(&instance)).count();
        let mut skipped = 0;
        for build_id in lacking {
            let file = self.files.get(build_id);
            if file.is_some_and(|file| file.is_offered_by(&instance)) {
                continue;
            }
            let is_known = file.is_some();
            if offers >= OFFERS_MAX || (!is_known && !self.make_room(&mut skipped)) {
                skipped += 1;
                continue;
            }
            offers += 1;
            let file = self.files.entry(build_id.clone()).or_default();
            file.note_offered(instance, now);
        }
        skipped
    }

    /// Forgets the file that waits longest if there is no room for another one, and counts it. Says whether there is room. At
    /// most [`OFFERS_MAX`] looks at [`FILES_MAX`] files for one window: 2 million, a few milliseconds.
    fn make_room(&mut self, forgotten: &mut usize) -> bool {
        if self.files.len() < FILES_MAX {
            return true;
        }
        let idle = self.files.iter();
        let idle = idle.filter_map(|(build_id, file)| Some((file.idle_since()?, build_id)));
        let Some(oldest) = idle.min().map(|(_, build_id)| build_id.clone()) else {
            return false;
        };
        self.files.remove(&oldest);
        *forgotten += 1;
        true
    }

    /// A collector begins, or goes on after its connection broke. `is_begun`: a part of the file is here already, which was
    /// asked for before the server was started again.
    ///
    /// # Errors
    /// It is not asked for this.
    pub fn begin(
        &mut self,
        instance: Instance,
        build_id: &BuildId,
        is_begun: bool,
        now: Instant,
    ) -> Result<(), AskedError> {
        if is_begun && !self.files.contains_key(build_id) && self.make_room(&mut 0) {
            self.files.entry(build_id.clone()).or_default();
        }
        let file = self.files.get_mut(build_id).ok_or(AskedError::NotAsked)?;
        if !file.is_held_by(&instance) {
            file.settle(now);
            if !is_begun || !file.may_ask(&instance) {
                return Err(AskedError::NotAsked);
            }
        }
        let new = || Holder::new(instance, SILENCE_MAX, now);
        let holder = file.holder.get_or_insert_with(new);
        holder.renew(SILENCE_MAX, now);
        holder.begun = Some((now, 0));
        Ok(())
    }

    /// Bytes have come from a collector that were taken. None only ask whether it may go on, and give it no more time.
    ///
    /// # Errors
    /// It is not asked for this, or was too slow; another one may be asked then.
    pub fn go_on(
        &mut self,
        instance: Instance,
        build_id: &BuildId,
        bytes: u64,
        now: Instant,
    ) -> Result<(), AskedError> {
        let file = self.files.get_mut(build_id).ok_or(AskedError::NotAsked)?;
        let holder = file.holder.as_mut();
        let holder = holder.filter(|holder| holder.instance == instance);
        let Some(holder) = holder else {
            return Err(AskedError::NotAsked);
        };
        let (begun, before) = holder.begun.ok_or(AskedError::NotAsked)?;
        let sent = before.saturating_add(bytes);
        holder.begun = Some((begun, sent));
        if bytes > 0 {
            holder.renew(SILENCE_MAX, now);
        }
        let elapsed = now.saturating_duration_since(begun);
        if elapsed > SILENCE_MAX && sent / elapsed.as_secs().max(1) < BYTES_PER_SECOND_MIN {
            self.note_failed(instance, build_id, now);
            return Err(AskedError::TooSlow);
        }
        Ok(())
    }

    /// The file is being read, which may take as long.
    pub fn hold_on(
        &mut self,
        instance: Instance,
        build_id: &BuildId,
        time: Duration,
        now: Instant,
    ) {
        let file = self.files.get_mut(build_id);
        let holder = file.and_then(|file| file.holder.as_mut());
        if let Some(holder) = holder.filter(|holder| holder.instance == instance) {
            holder.renew(time, now);
        }
    }

    /// A collector did not deliver.
    pub fn note_failed(&mut self, instance: Instance, build_id: &BuildId, now: Instant) {
        if let Some(file) = self.files.get_mut(build_id)
            && file.is_held_by(&instance)
        {
            debug!(%build_id, "a collector did not deliver a file that it was asked for");
            file.holder = None;
            file.note_failed(instance, now);
        }
    }

    /// A collector has delivered, or nobody needs the file any more: whoever has better offers it again.
    pub fn note_done(&mut self, instance: Instance, build_id: &BuildId) {
        if let Some(file) = self.files.get_mut(build_id)
            && file.is_held_by(&instance)
        {
            file.holder = None;
            file.offered.clear();
        }
        self.forget_idle();
    }

    /// How many files collectors are asked for.
    pub fn len(&self) -> usize {
        let held = |file: &&File| file.holder.is_some();
        self.files.values().filter(held).count()
    }

    /// Says whether nobody is asked for anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn forget_idle(&mut self) {
        let is_idle = |file: &File| file.failed.is_empty() && file.offered.is_empty();
        self.files
            .retain(|_, file| file.holder.is_some() || !is_idle(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Instance = [1; 16];
    const B: Instance = [2; 16];
    const SECOND: Duration = Duration::from_secs(1);

    fn id(number: u32) -> BuildId {
        BuildId::from_bytes(&number.to_be_bytes()).unwrap()
    }

    /// What is asked for now and was not before.
    fn choose(
        asked: &mut Asked,
        instance: Instance,
        numbers: &[u32],
        now: Instant,
    ) -> Vec<BuildId> {
        let ids: Vec<_> = numbers.iter().map(|number| id(*number)).collect();
        asked.choose(instance, ids.iter(), now).new
    }

    /// Check that a collector that does not hear what it is asked for hears it with its next window, until it begins or its time
    /// is over; and that no other one does.
    #[test]
    fn a_lost_answer_is_given_again() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        assert_eq!(choose(&mut asked, A, &[1, 2], now), [id(1), id(2)]);
        let mut again = |instance, now| asked.choose(instance, [].iter(), now);
        let both = Chosen {
            again: vec![id(1), id(2)],
            ..Chosen::default()
        };
        assert_eq!(again(A, now + SECOND), both);
        assert_eq!(again(A, now + BEGIN_TIME - SECOND), both);
        assert_eq!(again(B, now + SECOND), Chosen::default());
        asked.begin(A, &id(1), false, now + SECOND).unwrap();
        let chosen = asked.choose(A, [].iter(), now + SECOND);
        assert_eq!(chosen.again, [id(2)]);
        let chosen = asked.choose(A, [].iter(), now + BEGIN_TIME);
        assert_eq!(chosen, Chosen::default());
    }

    /// Check that each file is asked for once, of one collector a few, and that what waits gets its turn, also when it is not
    /// offered again.
    #[test]
    fn one_collector_is_asked_at_a_time_and_for_few_files() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let first: Vec<u32> = (1..=ASKED_MAX as u32).collect();
        let ids: Vec<_> = first.iter().map(|number| id(*number)).collect();
        assert_eq!(choose(&mut asked, A, &first, now), ids);
        assert!(choose(&mut asked, A, &[50, 60], now).is_empty());
        assert_eq!(choose(&mut asked, B, &[1, 50], now + SECOND), [id(50)]);
        asked.begin(A, &id(1), false, now).unwrap();
        asked.note_done(A, &id(1));
        assert_eq!(choose(&mut asked, A, &[70], now + SECOND), [id(60)]);
        assert_eq!(asked.len(), ASKED_MAX + 1);
        // What is there is not asked for any more; what its holder has not is asked of another that has.
        assert!(choose(&mut asked, B, &[], now + SECOND).is_empty());
        asked.begin(B, &id(50), false, now).unwrap();
        asked.note_failed(B, &id(50), now);
        asked.begin(A, &id(2), false, now).unwrap();
        asked.note_done(A, &id(2));
        assert_eq!(choose(&mut asked, A, &[], now + SECOND), [id(50)]);
    }

    /// Check that a file that does not come is asked for elsewhere, and where it did not come from, only after a long while.
    #[test]
    fn what_does_not_come_is_asked_for_elsewhere() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        choose(&mut asked, A, &[1], now);
        assert!(choose(&mut asked, B, &[1], now + BEGIN_TIME - SECOND).is_empty());
        // It comes at the last moment, and then no more.
        let begun = now + BEGIN_TIME - SECOND;
        asked.begin(A, &id(1), false, begun).unwrap();
        asked.go_on(A, &id(1), 1 << 20, begun + SECOND).unwrap();
        assert!(choose(&mut asked, B, &[1], begun + SILENCE_MAX).is_empty());
        let over = begun + SECOND + SILENCE_MAX;
        assert!(choose(&mut asked, A, &[1], over).is_empty());
        assert_eq!(choose(&mut asked, B, &[1], over), [id(1)]);
        assert_eq!(
            asked.begin(A, &id(1), true, over),
            Err(AskedError::NotAsked)
        );
        assert_eq!(asked.go_on(A, &id(1), 1, over), Err(AskedError::NotAsked));
        asked.begin(B, &id(1), false, over).unwrap();
        asked.note_failed(B, &id(1), over);
        assert!(choose(&mut asked, B, &[1], over).is_empty());
        assert_eq!(choose(&mut asked, A, &[1], over + AGAIN_TIME), [id(1)]);
    }

    #[test]
    fn nobody_sends_what_was_not_asked_for() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        assert_eq!(
            asked.begin(A, &id(1), false, now),
            Err(AskedError::NotAsked)
        );
        choose(&mut asked, A, &[1], now);
        assert_eq!(asked.begin(B, &id(1), true, now), Err(AskedError::NotAsked));
        assert_eq!(asked.go_on(A, &id(1), 1, now), Err(AskedError::NotAsked));
        // What was begun before a restart is known from the disk.
        let mut asked = Asked::default();
        asked.begin(A, &id(1), true, now).unwrap();
        asked.go_on(A, &id(1), 1, now).unwrap();
    }

    #[test]
    fn one_that_sends_a_byte_a_minute_is_not_waited_for() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        choose(&mut asked, A, &[1], now);
        asked.begin(A, &id(1), false, now).unwrap();
        asked.go_on(A, &id(1), 1, now + SILENCE_MAX).unwrap();
        let later = now + 2 * SILENCE_MAX;
        assert_eq!(asked.go_on(A, &id(1), 1, later), Err(AskedError::TooSlow));
        assert_eq!(choose(&mut asked, B, &[1], later), [id(1)]);
    }

    /// Check that collectors that offer more than there is room for keep nobody else from being asked, and nobody from sending what
    /// was asked for or from being left alone after a failure.
    #[test]
    fn a_full_table_keeps_nobody_out() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        assert_eq!(choose(&mut asked, A, &[1, 2, 3], now).len(), 3);
        asked.note_failed(A, &id(2), now);
        asked.note_failed(A, &id(3), now);
        let full = FILES_MAX / OFFERS_MAX;
        for number in 0..=full {
            let first = 1000 * (1 + number as u32);
            let many: Vec<u32> = (first..first + OFFERS_MAX as u32).collect();
            let at = now + SECOND * number as u32;
            choose(&mut asked, [10 + number as u8; 16], &many, at);
        }
        assert_eq!(asked.files.len(), FILES_MAX);
        let later = now + SECOND * 60;
        let chosen = asked.choose(B, [id(2), id(500), id(501)].iter(), later);
        assert_eq!(chosen.new, [id(2), id(500), id(501)]);
        assert_eq!((chosen.skipped, asked.files.len()), (2, FILES_MAX));
        assert!(choose(&mut asked, A, &[3], later).is_empty());
        asked.begin(A, &id(1), false, later).unwrap();
        // Nor from going on after a restart, where a part is on the disk.
        asked.begin(B, &id(700), true, later).unwrap();
        // The first that were offered are forgotten, but not those that were asked for.
        assert!(asked.files.contains_key(&id(1000)));
        assert!(!asked.files.contains_key(&id(1000 + ASKED_MAX as u32)));
    }

    /// Check that a file that is bad everywhere is given up, and that what is remembered is bounded.
    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let instance = |number: u8| [number; 16];
        for number in 0..10 {
            let chosen = choose(&mut asked, instance(number), &[1], now);
            assert_eq!(chosen.is_empty(), usize::from(number) >= FAILED_MAX);
            asked.note_failed(instance(number), &id(1), now);
        }
        assert_eq!(
            choose(&mut asked, instance(9), &[1], now + AGAIN_TIME),
            [id(1)]
        );
        let mut asked = Asked::default();
        let many: Vec<_> = (0..FILES_MAX as u32 + 100).map(id).collect();
        let chosen = asked.choose(A, many.iter(), now);
        assert_eq!(chosen.new.len(), ASKED_MAX);
        assert_eq!(chosen.skipped, many.len() - OFFERS_MAX);
        assert_eq!(asked.files.len(), OFFERS_MAX);
        // What is known already takes no room.
        assert_eq!(asked.choose(A, many[..OFFERS_MAX].iter(), now).skipped, 0);
        choose(&mut asked, B, &[], now + BEGIN_TIME);
        choose(
            &mut asked,
            B,
            &[],
            now + BEGIN_TIME + AGAIN_TIME + OFFER_TIME,
        );
        assert!(asked.files.is_empty() && asked.is_empty());
    }
}
