//! Files that collectors are asked for: which, and what becomes of what they send.
//!
//! In: what collectors offer beside their profiles, and pieces of files. Out: indexes on the [`Shelf`], made as those of
//! uploads are. Everything here may block for as long as the disk takes; [`Intake::finish`] for as long as an index takes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, info};

use super::asked::{Asked, AskedError, Instance};
use super::build_id::BuildId;
use super::index::Rank;
use super::known_layouts::LayoutSource;
use super::layout::Layout;
use super::partial::{Partials, Received, Whole};
use super::plan::UploadPlan;
use super::shelf::{COLLECTOR_ORIGIN, PlaceError, Placed, Shelf};
use crate::metrics::Metrics;

/// Bytes of one piece.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// How long a file may wait for the one child that makes indexes, and for its own turn in it: longer than its own limit.
const FINISH_TIME: Duration = Duration::from_secs(1800);

/// Files that become indexes at once, or are read for their digest. The child makes one at a time; another may wait.
const READING_MAX: usize = 2;

/// How long a collector may take to come again when the server failed to make the index; it waits a minute at most.
const RETRY_TIME: Duration = Duration::from_secs(120);

/// How long nobody is asked after the disk was full. Every collector would be told the same with each window, 10 s later.
const FULL_TIME: Duration = Duration::from_secs(60);

/// What a collector has of a file and has not used itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offer {
    /// Nothing.
    None,
    /// Names of functions.
    SymbolTable,
    /// Names, inlined calls, files and lines.
    DebugInfo,
    /// Nobody has looked at the file: it may be anything.
    Unknown,
}

/// A file of which a push had frames that the node could not name as well as they can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its build id.
    pub build_id: BuildId,
    /// What the collector could send of it.
    pub offer: Offer,
    /// What is lacking: names, or with [`Rank::DebugInfo`] files and lines only.
    pub lacks: Rank,
}

/// Why what a collector sends is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It is not asked for that.
    #[error("this collector is not asked for this file, or not any more")]
    NotAsked,
    /// It was too slow.
    #[error("too little came of this file in its time")]
    TooSlow,
    /// A request that cannot be.
    #[error("{0}")]
    Malformed(&'static str),
    /// More than a file may have.
    #[error("the file has {0} bytes, and at most {1} are taken (--symbol-file-bytes-max)")]
    TooLarge(u64, u64),
    /// Other files are being read.
    #[error("this file or others are being read at this moment")]
    Busy,
    /// The file is not taken.
    #[error("{0}")]
    Place(#[from] PlaceError),
}

impl IntakeError {
    /// As metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::TooSlow => "too_slow",
            Self::Malformed(_) => "malformed",
            Self::TooLarge(..) => "too_large",
            Self::Busy => "busy",
            Self::Place(err) => err.name(),
        }
    }

    /// Whether that is the file's fault, or its sender's: what came of it is forgotten then, and this sender not asked again
    /// soon.
    fn is_final(&self) -> bool {
        match self {
            Self::NotAsked
            | Self::TooSlow
            | Self::Busy
            | Self::Place(PlaceError::DiskFull(_) | PlaceError::Failed(_)) => false,
            Self::Malformed(_) | Self::TooLarge(..) | Self::Place(PlaceError::Refused(_)) => true,
        }
    }
}

impl From<AskedError> for IntakeError {
    fn from(err: AskedError) -> Self {
        match err {
            AskedError::NotAsked => Self::NotAsked,
            AskedError::TooSlow => Self::TooSlow,
        }
    }
}

impl From<io::Error> for IntakeError {
    fn from(err: io::Error) -> Self {
        Self::Place(err.into())
    }
}

/// A file that a collector is about to send.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Its build id.
    pub build_id: BuildId,
    /// What it has.
    pub offer: Offer,
    /// What comes of it.
    pub plan: UploadPlan,
    /// Where its program is loaded, if the collector knows.
    pub layout: Option<Layout>,
}

/// What is to come of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: what is there is as good.
    Unneeded,
    /// What comes after this.
    GoOn(Received),
}

/// Takes files from collectors.
pub struct Intake {
    shelf: Arc<Shelf>,
    metrics: Arc<Metrics>,
    asked: Mutex<Asked>,
    partials: Partials,
    /// Files that are read at the moment.
    reading: Mutex<Vec<BuildId>>,
    /// Until when nobody is asked, since the disk was full.
    full_until: Mutex<Option<Instant>>,
}

impl Intake {
    /// Opens what has come of files so far. As much may wait as one file may have.
    ///
    /// # Errors
    /// The disk.
    pub fn open(shelf: Arc<Shelf>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let partials = Partials::open(&shelf.folder().join("partial"), shelf.file_bytes_max())?;
        let intake = Self {
            shelf,
            metrics,
            asked: Mutex::default(),
            partials,
            reading: Mutex::default(),
            full_until: Mutex::default(),
        };
        intake.show_numbers();
        Ok(intake)
    }

    /// Chooses what a collector is asked for: files of this push, or of one before, that are lacking something which it has and
    /// the shelf has not. What it has not begun is among it again.
    pub fn choose(&self, instance: Instance, lacking: &[Lacking]) -> Vec<BuildId> {
        // At most 64 to look at: not worth a clock of its own.
        if self.partials.remove_old(SystemTime::now()) {
            self.show_numbers();
        }
        let full_until = *lock(&self.full_until);
        if full_until.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let wanted = lacking
            .iter()
            .filter(|file| self.is_wanted(&file.build_id, file.offer, file.lacks))
            .map(|file| &file.build_id);
        // Collected before the lock, which a look at the shelf does not need.
        let wanted: Vec<_> = wanted.collect();
        let mut asked = self.asked();
        let chosen = asked.choose(instance, wanted.into_iter(), Instant::now());
        self.metrics.count_symbol_asked(chosen.new.len());
        self.metrics.count_symbol_offers_skipped(chosen.skipped);
        self.metrics.show_symbol_asked(asked.len());
        let mut build_ids = chosen.again;
        build_ids.extend(chosen.new);
        build_ids
    }

    fn is_wanted(&self, build_id: &BuildId, offer: Offer, lacks: Rank) -> bool {
        let found = self.shelf.find(build_id);
        // Without a layout it names nothing; whoever sends the file sends that first.
        let has = found.filter(|found| found.has_layout).map(|found| {
            match found.head.origin == COLLECTOR_ORIGIN {
                true => found.head.rank,
                // No collector's file replaces it: to ask for one would be in vain.
                false => Rank::DebugInfo,
            }
        });
        match offer {
            Offer::None => false,
            Offer::SymbolTable => lacks == Rank::SymbolTable && has.is_none(),
            Offer::DebugInfo | Offer::Unknown => has < Some(Rank::DebugInfo),
        }
    }

    /// A collector has a file that it was asked for.
    ///
    /// # Errors
    /// It is not taken.
    pub fn begin(&self, instance: Instance, beginning: &Beginning) -> Result<Begun, IntakeError> {
        let Beginning {
            build_id,
            offer,
            plan,
            layout,
        } = beginning;
        let is_begun = self.partials.has(build_id);
        self.asked()
            .begin(instance, build_id, is_begun, Instant::now())?;
        if let Some(layout) = layout {
            self.shelf
                .learn_layout(build_id, layout, LayoutSource::Profile);
        }
        let begun = if self.is_wanted(build_id, *offer, Rank::SymbolTable) {
            self.make_ready(build_id, plan).map(Begun::GoOn)
        } else {
            Ok(Begun::Unneeded)
        };
        match &begun {
            Ok(Begun::Unneeded) => self.end(instance, build_id, Ok("unneeded")),
            Ok(Begun::GoOn(received)) => self.metrics.add_symbol_resumed_bytes(received.bytes),
            Err(err) => self.end(instance, build_id, Err(err)),
        }
        begun
    }

    fn make_ready(&self, build_id: &BuildId, plan: &UploadPlan) -> Result<Received, IntakeError> {
        let bytes_max = self.shelf.file_bytes_max();
        if plan.file_bytes() > bytes_max {
            return Err(IntakeError::TooLarge(plan.file_bytes(), bytes_max));
        }
        let here = self.partials.received(build_id, plan);
        self.shelf.check_room(plan.total_bytes() - here)?;
        // What is here may have to be read for its digest.
        let _turn = self.take_turn(build_id)?;
        let begun = self.partials.begin(build_id, plan)?;
        begun.ok_or(IntakeError::Busy)
    }

    /// A collector has looked at a file that it was asked for, and has nothing of it, or has not what it had. What has come
    /// of it stays for others, who may have sent it.
    ///
    /// # Errors
    /// It was not asked for it.
    pub fn give_up(&self, instance: Instance, build_id: &BuildId) -> Result<(), IntakeError> {
        let is_begun = self.partials.has(build_id);
        self.asked()
            .begin(instance, build_id, is_begun, Instant::now())?;
        self.asked().note_failed(instance, build_id, Instant::now());
        debug!(%build_id, "a collector gave up a file that it was asked for");
        self.metrics.count_symbol_sent("given_up");
        self.show_numbers();
        Ok(())
    }

    /// The next piece of a file. Gives how much is here.
    ///
    /// # Errors
    /// It is not taken.
    pub fn take_piece(
        &self,
        instance: Instance,
        build_id: &BuildId,
        position: u64,
        piece: &[u8],
    ) -> Result<u64, IntakeError> {
        let taken = self.write_piece(instance, build_id, position, piece);
        if let Err(err) = &taken {
            self.end(instance, build_id, Err(err));
        }
        taken
    }

    fn write_piece(
        &self,
        instance: Instance,
        build_id: &BuildId,
        position: u64,
        piece: &[u8],
    ) -> Result<u64, IntakeError> {
        // First, so that nobody else is told anything of the file.
        self.asked().go_on(instance, build_id, 0, Instant::now())?;
        if piece.is_empty() || piece.len() > PIECE_BYTES_MAX {
            return Err(IntakeError::Malformed("a piece has 1 byte to 1 MiB"));
        }
        let bytes = piece.len() as u64;
        self.shelf.check_room(bytes)?;
        let written = self.partials.write(build_id, position, piece)?;
        let (is_taken, received) = written.ok_or(IntakeError::NotAsked)?;
        if is_taken {
            self.metrics.add_symbol_received_bytes(bytes);
            self.asked()
                .go_on(instance, build_id, bytes, Instant::now())?;
        }
        Ok(received)
    }

    /// All of a file is here: has its index made. Blocks for as long as that takes.
    ///
    /// # Errors
    /// It is not taken.
    pub fn finish(&self, instance: Instance, build_id: &BuildId) -> Result<Placed, IntakeError> {
        let placed = self.place(instance, build_id);
        if let Ok(Placed::Unchanged(_)) = &placed {
            // It is no better than what is there, and will not be with the next window.
            self.asked().note_failed(instance, build_id, Instant::now());
        }
        self.end(
            instance,
            build_id,
            placed.as_ref().map(|placed| match placed {
                Placed::Stored(_) => "stored",
                Placed::Unchanged(_) => "unchanged",
            }),
        );
        placed
    }

    fn place(&self, instance: Instance, build_id: &BuildId) -> Result<Placed, IntakeError> {
        self.asked().go_on(instance, build_id, 0, Instant::now())?;
        let _turn = self.take_turn(build_id)?;
        self.shelf.check_room(0)?;
        let file = match self.partials.open_whole(build_id)? {
            Whole::File(file) => file,
            Whole::Gone => return Err(IntakeError::NotAsked),
            Whole::Lacking => {
                return Err(IntakeError::Malformed("a part of the file has not come"));
            }
        };
        let hold_on = |time| {
            self.asked()
                .hold_on(instance, build_id, time, Instant::now());
        };
        hold_on(FINISH_TIME);
        let placed = self.shelf.place(build_id, file, COLLECTOR_ORIGIN);
        if matches!(placed, Err(PlaceError::Failed(_))) {
            hold_on(RETRY_TIME);
        }
        Ok(placed?)
    }

    /// A file has come to its end, one way or another.
    fn end(
        &self,
        instance: Instance,
        build_id: &BuildId,
        result: Result<&'static str, &IntakeError>,
    ) {
        match result {
            Ok(name) => {
                debug!(%build_id, name, "a collector has sent a file that it was asked for");
                self.metrics.count_symbol_sent(name);
                // What another one sends may be better than what is there.
                let is_over = !self.is_wanted(build_id, Offer::DebugInfo, Rank::DebugInfo);
                let forgets = is_over || name != "unneeded";
                self.release(instance, build_id, forgets, |asked| {
                    asked.note_done(instance, build_id);
                });
            }
            Err(err) => {
                info!(%build_id, %err, "refused a file that a collector was asked for");
                self.metrics.count_symbol_sent(err.name());
                if err.is_final() {
                    // One that is too large has not begun: what is there has come of another.
                    let forgets = !matches!(err, IntakeError::TooLarge(..));
                    self.release(instance, build_id, forgets, |asked| {
                        asked.note_failed(instance, build_id, Instant::now());
                    });
                } else if matches!(err, IntakeError::Place(PlaceError::DiskFull(_))) {
                    // That is nobody's fault: whoever offers it is asked again.
                    *lock(&self.full_until) = Some(Instant::now() + FULL_TIME);
                    self.release(instance, build_id, false, |asked| {
                        asked.note_done(instance, build_id);
                    });
                }
            }
        }
        self.show_numbers();
    }

    /// A collector has a file for itself no more. What has come of it is forgotten if `forgets`, and if it was this collector's
    /// until now: under the lock, so that nobody else begins it meanwhile.
    fn release(
        &self,
        instance: Instance,
        build_id: &BuildId,
        forgets: bool,
        release: impl FnOnce(&mut Asked),
    ) {
        let mut asked = self.asked();
        let before = asked.len();
        release(&mut asked);
        let was_held = asked.len() < before;
        if was_held && forgets {
            self.partials.remove(build_id);
        } else if !was_held {
            debug!(%build_id, ?instance, "a collector had a file no more");
        }
    }

    /// Waits for nobody: a collector comes again. One whose connection broke while its file became an index does so too.
    fn take_turn(&self, build_id: &BuildId) -> Result<Turn<'_>, IntakeError> {
        let mut reading = lock(&self.reading);
        if reading.len() >= READING_MAX || reading.contains(build_id) {
            return Err(IntakeError::Busy);
        }
        reading.push(build_id.clone());
        Ok(Turn {
            reading: &self.reading,
            build_id: build_id.clone(),
        })
    }

    fn show_numbers(&self) {
        let (files, bytes) = self.partials.numbers();
        self.metrics.show_symbol_partials(files, bytes);
        self.metrics.show_symbol_asked(self.asked().len());
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        lock(&self.asked)
    }
}

/// A file that is read at the moment.
struct Turn<'a> {
    reading: &'a Mutex<Vec<BuildId>>,
    build_id: BuildId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(self.reading).retain(|it| *it != self.build_id);
    }
}

/// What these locks guard is whole at each moment, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::child::ChildLimits;
    use super::super::plan::FileRange;
    use super::super::shelf::ShelfOptions;
    use super::super::wanted::Wanted;
    use super::*;

    const A: Instance = [1; 16];
    const B: Instance = [2; 16];
    const FILE_BYTES_MAX: u64 = 4 << 30;

    /// A server with so many bytes of the disk that are not for symbols; it has no program that makes indexes.
    fn open(folder: &tempfile::TempDir, reserve_bytes: u64) -> Intake {
        let options = ShelfOptions {
            path: folder.path().to_owned(),
            bytes_max: 1 << 20,
            file_bytes_max: FILE_BYTES_MAX,
            reserve_bytes,
            program: folder.path().join("none"),
            child: ChildLimits {
                data_bytes_max: 1 << 30,
                cpu_seconds_max: 1,
                index_bytes_max: 1 << 20,
            },
        };
        let metrics = Arc::new(Metrics::new());
        let wanted = Wanted::new(Duration::from_secs(1));
        let shelf = Shelf::open(options, Arc::clone(&metrics), wanted).unwrap();
        Intake::open(Arc::new(shelf), metrics).unwrap()
    }

    fn id() -> BuildId {
        BuildId::from_bytes(&[7; 20]).unwrap()
    }

    fn beginning(bytes: u64) -> Beginning {
        let range = FileRange { offset: 0, bytes };
        Beginning {
            build_id: id(),
            offer: Offer::DebugInfo,
            plan: UploadPlan::new(bytes, vec![range]).unwrap(),
            layout: None,
        }
    }

    fn ask(intake: &Intake, instance: Instance) -> Vec<BuildId> {
        let lacking = Lacking {
            build_id: id(),
            offer: Offer::DebugInfo,
            lacks: Rank::DebugInfo,
        };
        intake.choose(instance, &[lacking])
    }

    /// How much is here for this collector.
    fn received(intake: &Intake, instance: Instance, bytes: u64) -> u64 {
        match intake.begin(instance, &beginning(bytes)).unwrap() {
            Begun::GoOn(received) => received.bytes,
            Begun::Unneeded => panic!("the file is not needed"),
        }
    }

    /// Check that what has come goes on whatever those do that do not send it: not asked, or asked and without the file.
    #[test]
    fn nobody_ends_what_another_has_sent() {
        let folder = tempfile::tempdir().unwrap();
        let intake = open(&folder, 0);
        assert_eq!(ask(&intake, A), [id()]);
        assert_eq!(received(&intake, A, 10), 0);
        intake.take_piece(A, &id(), 0, b"abc").unwrap();
        for piece in [&b""[..], &[0; PIECE_BYTES_MAX + 1], b"x"] {
            let refused = intake.take_piece(B, &id(), 3, piece).unwrap_err();
            assert!(matches!(refused, IntakeError::NotAsked), "{refused}");
        }
        assert!(intake.give_up(B, &id()).is_err());
        let wrong = IntakeError::Malformed("of one that had it before");
        intake.end(B, &id(), Err(&wrong));
        intake.end(B, &id(), Ok("unchanged"));
        assert_eq!(intake.take_piece(A, &id(), 3, b"def").unwrap(), 6);
        // Another one goes on, and finds that it has nothing, or something else.
        intake.give_up(A, &id()).unwrap();
        assert_eq!(received(&intake, B, 10), 6);
        let large = intake.begin(B, &beginning(FILE_BYTES_MAX + 1));
        assert!(matches!(large, Err(IntakeError::TooLarge(..))));
        assert_eq!(received(&intake, [3; 16], 10), 6);
        // Whose it is may spoil it.
        assert!(intake.take_piece([3; 16], &id(), 6, b"").is_err());
        assert_eq!(intake.partials.numbers(), (0, 0));
    }

    /// Check that what the server fails at costs neither the file nor its sender's turn.
    #[test]
    fn what_the_server_fails_at_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let intake = open(&folder, 0);
        ask(&intake, A);
        received(&intake, A, 3);
        intake.take_piece(A, &id(), 0, b"abc").unwrap();
        for _ in 0..2 {
            let failed = intake.finish(A, &id()).unwrap_err();
            assert!(
                matches!(failed, IntakeError::Place(PlaceError::Failed(_))),
                "{failed}"
            );
            assert_eq!(received(&intake, A, 3), 3);
        }
        // What was removed meanwhile comes again.
        intake.partials.remove(&id());
        let gone = intake.finish(A, &id()).unwrap_err();
        assert!(matches!(gone, IntakeError::NotAsked), "{gone}");
        assert_eq!(received(&intake, A, 3), 0);
    }

    /// Check that a full disk is seen with each piece and before the index is made, and that what has come stays and nobody is
    /// asked until later, and then the same one too.
    #[test]
    fn a_full_disk_is_nobodys_fault() {
        let folder = tempfile::tempdir().unwrap();
        let intake = open(&folder, 0);
        received_all(&intake);
        let full = open(&folder, u64::MAX);
        let begin = || full.asked().begin(A, &id(), true, Instant::now()).unwrap();
        begin();
        // Not at a boundary of anything.
        let refused = full.take_piece(A, &id(), 100_003, b"x").unwrap_err();
        assert_eq!(refused.name(), "disk_full");
        begin();
        assert_eq!(full.finish(A, &id()).unwrap_err().name(), "disk_full");
        let refused = full.begin(A, &beginning(3)).unwrap_err();
        assert_eq!(refused.name(), "disk_full");
        assert_eq!(full.partials.numbers(), (1, 3));
        assert!(full.asked().is_empty() && ask(&full, A).is_empty());
        *lock(&full.full_until) = Some(Instant::now());
        assert_eq!(ask(&full, A), [id()]);
    }

    fn received_all(intake: &Intake) {
        ask(intake, A);
        received(intake, A, 3);
        intake.take_piece(A, &id(), 0, b"abc").unwrap();
    }

    /// Check that a file of which most is here goes on where only the rest has room.
    #[test]
    fn what_is_here_needs_no_room() {
        let (here, rest) = (1 << 30, 10);
        let folder = tempfile::tempdir().unwrap();
        let intake = open(&folder, 0);
        ask(&intake, A);
        received(&intake, A, here + rest);
        drop(intake);
        // A hole, which takes nothing.
        let path = folder.path().join(format!("partial/{}.data", id()));
        let data = std::fs::OpenOptions::new().write(true).open(path);
        data.unwrap().set_len(here).unwrap();
        let stat = rustix::fs::statvfs(folder.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let intake = open(&folder, free.saturating_sub(here / 2));
        assert_eq!(received(&intake, A, here + rest), here);
        let more = intake.begin(A, &beginning(here + rest + 1)).unwrap_err();
        assert_eq!(more.name(), "disk_full");
    }
}
