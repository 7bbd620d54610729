//! Uploads of files by collectors: which files collectors are asked for, and the indexes made of them.
//!
//! In: offers that collectors make beside their profiles, and pieces of files. Out: indexes in the [`IndexStore`],
//! made as those of other uploads. A file is identified by the file id that its collector gave it, in the form of a
//! build id: any file can claim the build id of another. Every call may block for as long as the disk takes;
//! [`CollectorUploads::finish`] for as long as an index takes.
//!
//! With a window, a collector offers files by which it could have named and did not: its time was up, its child died of the
//! debug information, or may not use it. The server compares that with the names that the window lacks and the indexes that it
//! has, and asks one collector. The collector sends ranges of the file (67 to 80 % of the bytes of C++ and Rust programs, none
//! of their code), which are written at their own offsets into a file that is empty elsewhere; the same child makes the same
//! index of it. Before an upload resumes after a break, the collector compares the digest of the received bytes with its own: a
//! changed file, or writes that a power cut lost, begin anew. Calls are unary and small, so that a silent sender holds an entry
//! in a table only. Sending takes 4.2 ms of CPU a megabyte (29 files of a machine that compiles, 105 MB, with `--name-cpu 0`).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use elf::{BuildId, Layout};
use metrics::Figures;
use parking_lot::Mutex;
use symbolize::index::Rank;
use tracing::{debug, info};

use super::error::{AddError, UploadError};
use super::index_store::{Added, IndexStore, IndexSummary};
use super::known_layouts::LayoutSource;
use super::metrics::SymbolMetrics;
use super::partial_uploads::{PartialUploads, Received};
use super::pending_uploads::{Instance, PendingUploads};
use super::plan::UploadPlan;

/// Bytes of one piece.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// Time for a file to wait for the child that makes indexes and to be read by it: longer than the child's own limit.
const FINISH_TIME: Duration = Duration::from_secs(1800);

/// Files that become indexes at once, or are read for their digest. The child makes one at a time; another may wait.
const READING_MAX: usize = 2;

/// Time for a collector to retry when the server failed to make the index; it waits a minute at most.
const RETRY_TIME: Duration = Duration::from_secs(120);

/// Time without requests after the disk was full. Every collector would be refused again with each window, 10 s later.
const FULL_TIME: Duration = Duration::from_secs(60);

/// Content of a file that a collector has and has not used itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offer {
    /// Nothing.
    None,
    /// Names of functions.
    SymbolTable,
    /// Names, inlined calls, files and lines.
    DebugInfo,
    /// The collector has not looked at the file: it may be anything.
    Unknown,
}

/// A file with frames in a push that have worse names than the file could give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingNames {
    /// Its file id.
    pub file_id: BuildId,
    /// The build id that it claims.
    pub build_id: BuildId,
    /// Content that the collector could send.
    pub offer: Offer,
    /// Information that its frames lack: names, or with [`Rank::DebugInfo`] files and lines only.
    pub lacks: Rank,
}

/// A file that a collector is about to send.
#[derive(Clone, Debug)]
pub struct UploadStart {
    /// Its file id.
    pub file_id: BuildId,
    /// The build id that it claims.
    pub build_id: BuildId,
    /// Its content.
    pub offer: Offer,
    /// The ranges that will be sent.
    pub plan: UploadPlan,
    /// Its load segments, if the collector knows them.
    pub layout: Option<Layout>,
}

/// Answer to an [`UploadStart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// The server has an index that is as good.
    Unneeded,
    /// The collector sends the bytes after these.
    Resume(Received),
}

/// Takes files from collectors.
pub struct CollectorUploads {
    indexes: Arc<IndexStore>,
    metrics: SymbolMetrics,
    pending: Mutex<PendingUploads>,
    partial: PartialUploads,
    /// Files that are read at the moment.
    reading: Mutex<Vec<BuildId>>,
    /// The disk was full: no collector is asked before this time.
    full_until: Mutex<Option<Instant>>,
}

impl CollectorUploads {
    /// Opens the partly received files. Together they may have as many bytes as one file.
    ///
    /// # Errors
    /// The disk.
    pub fn open(indexes: Arc<IndexStore>, metrics: SymbolMetrics) -> io::Result<Self> {
        let folder = indexes.folder().join("partial");
        let partial = PartialUploads::open(&folder, indexes.file_bytes_max())?;
        Ok(Self {
            indexes,
            metrics,
            pending: Mutex::default(),
            partial,
            reading: Mutex::default(),
            full_until: Mutex::default(),
        })
    }

    /// Writes the figures.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let (files, bytes) = self.partial.numbers();
        figures.gauge(
            "symbol_asked_waiting",
            "Files that collectors are asked for and have not sent yet",
            self.pending.lock().assigned(),
        );
        figures.gauge(
            "symbol_partials",
            "Files of which a part has come from a collector",
            files,
        );
        figures.gauge(
            "symbol_partials_bytes",
            "Bytes of these parts on the disk",
            bytes,
        );
    }

    /// Chooses the files that a collector is asked for: those of this or an earlier push that it has and that would give better
    /// names. Files that it has not begun are repeated.
    pub fn choose(&self, instance: Instance, missing: &[MissingNames]) -> Vec<BuildId> {
        // At most 64 to look at: not worth a clock of its own.
        self.partial.remove_old(SystemTime::now());
        let full_until = *self.full_until.lock();
        if full_until.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let wanted = missing
            .iter()
            .filter(|file| self.is_wanted([&file.file_id, &file.build_id], file.offer, file.lacks))
            .map(|file| &file.file_id);
        // Collected before the lock, which a look at the indexes does not need.
        let wanted: Vec<_> = wanted.collect();
        let mut pending = self.pending.lock();
        let requests = pending.choose(instance, wanted.into_iter(), Instant::now());
        self.metrics.asked.inc_by(requests.new.len() as u64);
        self.metrics.offers_skipped.inc_by(requests.skipped as u64);
        [requests.repeated, requests.new].concat()
    }

    fn is_wanted(&self, [file_id, build_id]: [&BuildId; 2], offer: Offer, lacks: Rank) -> bool {
        // An index without a layout names nothing, and a collector that sends the file sends its layout first.
        let has_layout = |found: &IndexSummary| found.has_layout;
        let present = match self.indexes.find(build_id).filter(has_layout) {
            // It is not the file of some process, and names every file with the build id.
            Some(_) => Some(Rank::DebugInfo),
            None => {
                let sent = self.indexes.find_sent(file_id).filter(has_layout);
                sent.map(|found| found.head.rank)
            }
        };
        match offer {
            Offer::None => false,
            Offer::SymbolTable => lacks == Rank::SymbolTable && present.is_none(),
            Offer::DebugInfo | Offer::Unknown => present < Some(Rank::DebugInfo),
        }
    }

    /// Starts the upload of a file that the collector was asked for.
    ///
    /// # Errors
    /// The file is not taken.
    pub fn start(
        &self,
        instance: Instance,
        start: &UploadStart,
    ) -> Result<StartOutcome, UploadError> {
        let UploadStart {
            file_id,
            build_id,
            offer,
            plan,
            layout,
        } = start;
        self.begin(instance, file_id)?;
        if let Some(layout) = layout {
            self.indexes
                .learn_layout(file_id, layout, LayoutSource::Profile);
        }
        if !self.is_wanted([file_id, build_id], *offer, Rank::SymbolTable) {
            self.end(instance, file_id, Ok("unneeded"));
            return Ok(StartOutcome::Unneeded);
        }
        let received = self.make_ready(file_id, plan);
        match &received {
            Ok(received) => {
                self.metrics.resumed_bytes.inc_by(received.bytes);
            }
            Err(err) => self.end(instance, file_id, Err(err)),
        }
        received.map(StartOutcome::Resume)
    }

    fn begin(&self, instance: Instance, file_id: &BuildId) -> Result<(), UploadError> {
        let is_begun = self.partial.has(file_id);
        let mut pending = self.pending.lock();
        pending.begin(instance, file_id, is_begun, Instant::now())
    }

    fn make_ready(&self, file_id: &BuildId, plan: &UploadPlan) -> Result<Received, UploadError> {
        let bytes_max = self.indexes.file_bytes_max();
        if plan.file_bytes() > bytes_max {
            return Err(UploadError::TooLarge(plan.file_bytes(), bytes_max));
        }
        let received = self.partial.received(file_id, plan);
        self.indexes.check_room(plan.total_bytes() - received)?;
        // The received bytes are read for their digest.
        let _slot = self.acquire_read_slot(file_id)?;
        self.partial.begin(file_id, plan)
    }

    /// A collector has looked at a file that it was asked for, and has nothing of it, or no longer has it. The received parts stay
    /// for other collectors, which may have sent them.
    ///
    /// # Errors
    /// It was not asked for it.
    pub fn give_up(&self, instance: Instance, file_id: &BuildId) -> Result<(), UploadError> {
        self.begin(instance, file_id)?;
        self.pending.lock().fail(instance, file_id, Instant::now());
        self.metrics.sent.of(["given_up"]).inc();
        Ok(())
    }

    /// Takes the next piece of a file. Returns the bytes received so far.
    ///
    /// # Errors
    /// The piece is not taken.
    pub fn take_piece(
        &self,
        instance: Instance,
        file_id: &BuildId,
        position: u64,
        piece: &[u8],
    ) -> Result<u64, UploadError> {
        let taken = self.write_piece(instance, file_id, position, piece);
        if let Err(err) = &taken {
            self.end(instance, file_id, Err(err));
        }
        taken
    }

    fn write_piece(
        &self,
        instance: Instance,
        file_id: &BuildId,
        position: u64,
        piece: &[u8],
    ) -> Result<u64, UploadError> {
        let note_progress = |bytes| {
            let mut pending = self.pending.lock();
            pending.note_progress(instance, file_id, bytes, Instant::now())
        };
        // First, so that no other collector learns anything of the file.
        note_progress(0)?;
        if piece.is_empty() || piece.len() > PIECE_BYTES_MAX {
            return Err(UploadError::Malformed("a piece has 1 byte to 1 MiB"));
        }
        let bytes = piece.len() as u64;
        self.indexes.check_room(bytes)?;
        let (is_taken, received) = self.partial.write(file_id, position, piece)?;
        if is_taken {
            self.metrics.sent_bytes.inc_by(bytes);
            note_progress(bytes)?;
        }
        Ok(received)
    }

    /// Makes the index of a file that is complete. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The file is not taken.
    pub fn finish(
        &self,
        instance: Instance,
        file_id: &BuildId,
        build_id: &BuildId,
    ) -> Result<Added, UploadError> {
        let added = self.add(instance, file_id, build_id);
        let result = added.as_ref().map(|added| match added {
            Added::Stored(_) => "stored",
            Added::Unchanged(_) => "unchanged",
        });
        self.end(instance, file_id, result);
        added
    }

    fn add(
        &self,
        instance: Instance,
        file_id: &BuildId,
        build_id: &BuildId,
    ) -> Result<Added, UploadError> {
        let now = Instant::now();
        self.pending
            .lock()
            .note_progress(instance, file_id, 0, now)?;
        let _slot = self.acquire_read_slot(file_id)?;
        self.indexes.check_room(0)?;
        let file = self.partial.open_complete(file_id)?;
        let extend = |time| {
            let mut pending = self.pending.lock();
            pending.extend(instance, file_id, time, Instant::now());
        };
        extend(FINISH_TIME);
        let added = self.indexes.add_sent(file_id, build_id, file);
        if matches!(added, Err(AddError::Failed(_))) {
            extend(RETRY_TIME);
        }
        Ok(added?)
    }

    /// Ends an upload, or leaves it to a retry. Removes the received parts if they are of no more use and the collector was the one
    /// that may send them.
    fn end(
        &self,
        instance: Instance,
        file_id: &BuildId,
        result: Result<&'static str, &UploadError>,
    ) {
        let name = result.unwrap_or_else(UploadError::name);
        match result {
            Ok(_) => debug!(%file_id, name, "a collector has sent a file that it was asked for"),
            Err(err) => info!(%file_id, %err, "refused a file that a collector was asked for"),
        }
        self.metrics.sent.of([name]).inc();
        // The rest of an unneeded file may still be better than the index.
        let present = self.indexes.find_sent(file_id);
        let is_over =
            name != "unneeded" || present.is_none_or(|found| found.head.rank == Rank::DebugInfo);
        let now = Instant::now();
        // Locked to the end, so that no other collector begins the file meanwhile.
        let mut pending = self.pending.lock();
        let removes = match result {
            // It is no better than the index, and will not be with the next window.
            Ok("unchanged") => pending.fail(instance, file_id, now),
            Ok(_) => pending.complete(instance, file_id) && is_over,
            Err(UploadError::Add(AddError::DiskFull(_))) => {
                *self.full_until.lock() = Some(now + FULL_TIME);
                // That is no collector's fault: each that offers the file is asked again.
                pending.complete(instance, file_id);
                false
            }
            // A file that is too large has not begun: the parts are of another collector.
            Err(err) if err.is_final() => {
                pending.fail(instance, file_id, now) && !matches!(err, UploadError::TooLarge(..))
            }
            Err(_) => false,
        };
        if removes {
            self.partial.remove(file_id);
        }
    }

    /// Acquires one of the slots for reading a file. Never waits: a collector retries, also one whose connection broke while its file
    /// became an index.
    fn acquire_read_slot(&self, file_id: &BuildId) -> Result<ReadSlot<'_>, UploadError> {
        let mut reading = self.reading.lock();
        if reading.len() >= READING_MAX || reading.contains(file_id) {
            return Err(UploadError::Busy);
        }
        reading.push(*file_id);
        Ok(ReadSlot {
            reading: &self.reading,
            file_id: *file_id,
        })
    }
}

/// A file that is read at the moment.
struct ReadSlot<'a> {
    reading: &'a Mutex<Vec<BuildId>>,
    file_id: BuildId,
}

impl Drop for ReadSlot<'_> {
    fn drop(&mut self) {
        self.reading
            .lock()
            .retain(|file_id| *file_id != self.file_id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::child::ChildLimits;
    use super::super::fetch_queue::FetchQueue;
    use super::super::index_store::IndexStoreOptions;
    use super::*;
    use elf::FileRange;

    const A: Instance = [1; 16];
    const B: Instance = [2; 16];
    const FILE_BYTES_MAX: u64 = 4 << 30;

    /// A server that leaves `reserve_bytes` of the disk free; it has no program that makes indexes.
    fn open(folder: &tempfile::TempDir, reserve_bytes: u64) -> CollectorUploads {
        let metrics = SymbolMetrics::default();
        CollectorUploads::open(
            Arc::new(open_indexes(folder, reserve_bytes, &metrics)),
            metrics,
        )
        .unwrap()
    }

    fn open_indexes(
        folder: &tempfile::TempDir,
        reserve_bytes: u64,
        metrics: &SymbolMetrics,
    ) -> IndexStore {
        let options = IndexStoreOptions {
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
        let queue = FetchQueue::new(Duration::from_secs(1));
        IndexStore::open(options, metrics.clone(), queue).unwrap()
    }

    fn claimed() -> BuildId {
        BuildId::new(&[1; 20]).unwrap()
    }

    fn id() -> BuildId {
        BuildId::new(&[7; 20]).unwrap()
    }

    fn start(bytes: u64) -> UploadStart {
        let range = FileRange { offset: 0, bytes };
        UploadStart {
            file_id: id(),
            build_id: claimed(),
            offer: Offer::DebugInfo,
            plan: UploadPlan::new(bytes, vec![range]).unwrap(),
            layout: None,
        }
    }

    fn ask(uploads: &CollectorUploads, instance: Instance) -> Vec<BuildId> {
        let missing = MissingNames {
            file_id: id(),
            build_id: claimed(),
            offer: Offer::DebugInfo,
            lacks: Rank::DebugInfo,
        };
        uploads.choose(instance, &[missing])
    }

    /// Bytes that this collector need not send.
    fn received(uploads: &CollectorUploads, instance: Instance, bytes: u64) -> u64 {
        match uploads.start(instance, &start(bytes)).unwrap() {
            StartOutcome::Resume(received) => received.bytes,
            StartOutcome::Unneeded => panic!("the file is not needed"),
        }
    }

    /// Check that a collector that was not asked, or has not the file, does not end the upload of another.
    #[test]
    fn a_collector_ends_only_its_own_upload() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = open(&folder, 0);
        assert_eq!(ask(&uploads, A), [id()]);
        assert_eq!(received(&uploads, A, 10), 0);
        uploads.take_piece(A, &id(), 0, b"abc").unwrap();
        for piece in [&b""[..], &[0; PIECE_BYTES_MAX + 1], b"x"] {
            let refused = uploads.take_piece(B, &id(), 3, piece).unwrap_err();
            assert!(matches!(refused, UploadError::NotAsked), "{refused}");
        }
        assert!(uploads.give_up(B, &id()).is_err());
        let wrong = UploadError::Malformed("of one that had it before");
        uploads.end(B, &id(), Err(&wrong));
        uploads.end(B, &id(), Ok("unchanged"));
        assert_eq!(uploads.take_piece(A, &id(), 3, b"def").unwrap(), 6);
        // Another collector resumes, and has nothing of the file, or another file.
        uploads.give_up(A, &id()).unwrap();
        assert_eq!(received(&uploads, B, 10), 6);
        let large = uploads.start(B, &start(FILE_BYTES_MAX + 1));
        assert!(matches!(large, Err(UploadError::TooLarge(..))));
        assert_eq!(received(&uploads, [3; 16], 10), 6);
        // The assigned collector may end it by a mistake.
        assert!(uploads.take_piece([3; 16], &id(), 6, b"").is_err());
        assert_eq!(uploads.partial.numbers(), (0, 0));
    }

    /// Check that a failure of the server costs neither the file nor its collector's assignment.
    #[test]
    fn failures_of_the_server_are_retried() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = open(&folder, 0);
        ask(&uploads, A);
        received(&uploads, A, 3);
        uploads.take_piece(A, &id(), 0, b"abc").unwrap();
        for _ in 0..2 {
            let failed = uploads.finish(A, &id(), &claimed()).unwrap_err();
            assert!(
                matches!(failed, UploadError::Add(AddError::Failed(_))),
                "{failed}"
            );
            assert_eq!(received(&uploads, A, 3), 3);
        }
        // A file that was removed meanwhile is sent again.
        uploads.partial.remove(&id());
        let gone = uploads.finish(A, &id(), &claimed()).unwrap_err();
        assert!(matches!(gone, UploadError::NotAsked), "{gone}");
        assert_eq!(received(&uploads, A, 3), 0);
    }

    /// Check that a full disk is noticed with each piece and before the index is made, that the received parts stay, and that no
    /// collector is asked for a while, and then the same one too.
    #[test]
    fn a_full_disk_is_no_collectors_fault() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = open(&folder, 0);
        received_all(&uploads);
        let full = open(&folder, u64::MAX);
        let begin = || {
            full.pending
                .lock()
                .begin(A, &id(), true, Instant::now())
                .unwrap()
        };
        begin();
        // Not at a boundary of anything.
        let refused = full.take_piece(A, &id(), 100_003, b"x").unwrap_err();
        assert_eq!(refused.name(), "disk_full");
        begin();
        assert_eq!(
            full.finish(A, &id(), &claimed()).unwrap_err().name(),
            "disk_full"
        );
        let refused = full.start(A, &start(3)).unwrap_err();
        assert_eq!(refused.name(), "disk_full");
        assert_eq!(full.partial.numbers(), (1, 3));
        assert!(full.pending.lock().assigned() == 0 && ask(&full, A).is_empty());
        *full.full_until.lock() = Some(Instant::now());
        assert_eq!(ask(&full, A), [id()]);
    }

    fn received_all(uploads: &CollectorUploads) {
        ask(uploads, A);
        received(uploads, A, 3);
        uploads.take_piece(A, &id(), 0, b"abc").unwrap();
    }

    /// Check that a file resumes on a disk with room for its rest only.
    #[test]
    fn received_bytes_need_no_room() {
        const HERE: u64 = 1 << 20;
        let (here, rest) = (HERE, 10);
        let folder = tempfile::tempdir().unwrap();
        let uploads = open(&folder, 0);
        ask(&uploads, A);
        received(&uploads, A, here + rest);
        drop(uploads);
        // A hole, which takes no blocks.
        let path = folder.path().join(format!("partial/{}.data", id()));
        let data = std::fs::OpenOptions::new().write(true).open(path);
        data.unwrap().set_len(here).unwrap();
        let metrics = SymbolMetrics::default();
        let indexes = open_indexes(&folder, 0, &metrics).with_free_bytes(|_| Ok(HERE / 2));
        let uploads = CollectorUploads::open(Arc::new(indexes), metrics).unwrap();
        assert_eq!(received(&uploads, A, here + rest), here);
        let more = uploads.start(A, &start(here + rest + 1)).unwrap_err();
        assert_eq!(more.name(), "disk_full");
    }
}
