//! Files of which a part has come from a collector: kept on the disk until the rest comes, also when the server is started
//! again, within a cap, and within an age that is looked at with each push ([`Partials::remove_old`]).
//!
//! `symbols/partial/<build id>.plan` says which parts come, `<build id>.data` has those that have come at their own places
//! (see [`super::plan`]). Nothing is synced: what a crash of the machine spoils does not have the digest that the collector
//! computes of its own file, and comes again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hashbrown::HashMap;
use tracing::{info, warn};

use super::build_id::BuildId;
use super::plan::{RANGES_MAX, UploadPlan};

/// How long a part waits for the rest: over a night, in which a node may be off.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What came within this time is on its way and stays, whatever else wants its room: as long as a collector may send nothing.
const QUIET_MIN: Duration = Duration::from_secs(60);

/// Parts that wait at most, however small.
const FILES_MAX: usize = 64;

/// Bytes of a plan with all the ranges there may be.
const PLAN_BYTES_MAX: u64 = 32 + 16 * RANGES_MAX as u64;

/// What is read at a time for a digest.
const CHUNK_BYTES: usize = 256 << 10;

/// How much of a file is here, and the digest of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of all its parts, one after the other.
    pub bytes: u64,
    /// Their BLAKE3 digest.
    pub digest: [u8; 32],
}

/// What is there of a file that is to be read.
#[derive(Debug)]
pub enum Whole {
    /// Nothing is there of it, or not any more.
    Gone,
    /// Something is missing.
    Lacking,
    /// All, for reading.
    File(File),
}

#[derive(Debug)]
struct Partial {
    plan: UploadPlan,
    /// Apart from the content, which is locked for as long as a digest of 4 GiB takes. Changes under the content's lock only.
    seen: Mutex<Seen>,
    content: Mutex<Content>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    received: u64,
    touched: SystemTime,
}

#[derive(Debug)]
struct Content {
    data: File,
    /// Of what was received; unknown after a start, until somebody asks.
    digest: Option<blake3::Hasher>,
    /// It may be being read: nothing is written until it is begun again.
    is_closed: bool,
}

/// The parts that wait.
#[derive(Debug)]
pub struct Partials {
    folder: PathBuf,
    /// Bytes of all plans together: what the disk may come to hold.
    bytes_max: u64,
    files: Mutex<HashMap<BuildId, Arc<Partial>>>,
}

impl Partials {
    /// Opens the directory, or makes one. What is damaged, too old or too much is removed.
    ///
    /// # Errors
    /// The disk.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let partials = Self {
            folder: folder.to_owned(),
            bytes_max,
            files: Mutex::default(),
        };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let is_plan = path
                .extension()
                .is_some_and(|extension| extension == "plan");
            match is_plan.then(|| read_partial(&path)).flatten() {
                Some((build_id, partial)) => {
                    let partial = Arc::new(partial);
                    partials.lock().insert(build_id, partial);
                }
                // Data goes with its plan, below.
                None if path
                    .extension()
                    .is_some_and(|extension| extension == "data") => {}
                None => fs::remove_file(&path)?,
            }
        }
        partials.remove_orphans()?;
        // Nothing is on its way yet.
        partials.make_room(0, SystemTime::now(), Duration::ZERO);
        Ok(partials)
    }

    fn remove_orphans(&self) -> io::Result<()> {
        let known: Vec<PathBuf> = self
            .lock()
            .keys()
            .flat_map(|build_id| self.paths(build_id))
            .collect();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !known.contains(&path) {
                warn!(path = %path.display(), "removed a part of a file that cannot be used");
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Whether a part of a file is here.
    pub fn has(&self, build_id: &BuildId) -> bool {
        self.lock().contains_key(build_id)
    }

    /// How much of a file is here that goes on when it is begun with this plan.
    pub fn received(&self, build_id: &BuildId, plan: &UploadPlan) -> u64 {
        let partial = self.find(build_id);
        let partial = partial.filter(|partial| partial.plan == *plan);
        partial.map_or(0, |partial| partial.seen().received)
    }

    /// Begins a file, or goes on with one whose plan is the same. Gives what has come of it; `None` when others on their way
    /// leave no room for it.
    ///
    /// # Errors
    /// The disk, or [`io::ErrorKind::QuotaExceeded`] when there is never room for it.
    pub fn begin(&self, build_id: &BuildId, plan: &UploadPlan) -> io::Result<Option<Received>> {
        if let Some(partial) = self.find(build_id)
            && partial.plan == *plan
        {
            return partial.go_on().map(Some);
        }
        self.remove(build_id);
        if plan.total_bytes() > self.bytes_max {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if !self.make_room(plan.total_bytes(), SystemTime::now(), QUIET_MIN) {
            return Ok(None);
        }
        self.create(build_id, plan)?.go_on().map(Some)
    }

    /// Under the lock, as [`Self::remove`]: the paths are those of what is in the table.
    fn create(&self, build_id: &BuildId, plan: &UploadPlan) -> io::Result<Arc<Partial>> {
        let [plan_path, data_path] = self.paths(build_id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let mut files = self.lock();
        let data = options.open(data_path)?;
        fs::write(plan_path, plan.encode())?;
        let partial = Arc::new(Partial::new(plan.clone(), data, 0, SystemTime::now()));
        files.insert(build_id.clone(), Arc::clone(&partial));
        Ok(partial)
    }

    /// Writes a piece, if it begins where the last one ended, or at 0, which begins anew. Gives whether it did, and how much is
    /// here now; `None` when there is no such file.
    ///
    /// # Errors
    /// The disk.
    pub fn write(
        &self,
        build_id: &BuildId,
        position: u64,
        piece: &[u8],
    ) -> io::Result<Option<(bool, u64)>> {
        let Some(partial) = self.find(build_id) else {
            return Ok(None);
        };
        partial.write(position, piece).map(Some)
    }

    /// Opens a file that is whole by now. It stays, and nothing is written to it until it is begun again.
    ///
    /// # Errors
    /// The disk.
    pub fn open_whole(&self, build_id: &BuildId) -> io::Result<Whole> {
        let Some(partial) = self.find(build_id) else {
            return Ok(Whole::Gone);
        };
        let mut content = lock(&partial.content);
        if partial.seen().received < partial.plan.total_bytes() {
            return Ok(Whole::Lacking);
        }
        content.data.set_len(partial.plan.file_bytes())?;
        content.is_closed = true;
        partial.touch();
        let [_, data_path] = self.paths(build_id);
        Ok(Whole::File(File::open(data_path)?))
    }

    /// Removes a file.
    pub fn remove(&self, build_id: &BuildId) {
        let mut files = self.lock();
        let Some(partial) = files.remove(build_id) else {
            return;
        };
        for path in self.paths(build_id) {
            if let Err(err) = fs::remove_file(&path) {
                warn!(path = %path.display(), %err, "failed to remove a part of a file");
            }
        }
        drop(files);
        // Here the disk gives its blocks back, which takes a while.
        drop(partial);
    }

    /// How many wait, and the bytes of them that have come.
    pub fn numbers(&self) -> (usize, u64) {
        let files = self.lock();
        let bytes = files.values().map(|partial| partial.seen().received);
        (files.len(), bytes.sum())
    }

    /// Removes what is too old; says whether there was any.
    pub fn remove_old(&self, now: SystemTime) -> bool {
        let files = self.lock();
        let is_old = |partial: &Partial| partial.age(now) >= AGE_MAX;
        let old = files.iter().filter(|(_, partial)| is_old(partial));
        let old: Vec<_> = old.map(|(build_id, _)| build_id.clone()).collect();
        drop(files);
        for build_id in &old {
            info!(%build_id, "removed a part of a file whose rest did not come");
            self.remove(build_id);
        }
        !old.is_empty()
    }

    /// Removes what is too old, and then what was touched least lately, until `bytes` more have room; says whether they do. What
    /// was touched within `quiet` stays, and all else if that makes not enough room.
    fn make_room(&self, bytes: u64, now: SystemTime, quiet: Duration) -> bool {
        self.remove_old(now);
        let weigh = |(build_id, partial): (&BuildId, &Arc<Partial>)| {
            let bytes = partial.plan.total_bytes();
            (partial.seen().touched, bytes, build_id.clone())
        };
        let mut waiting: Vec<_> = self.lock().iter().map(weigh).collect();
        waiting.sort();
        let mut all: u64 = waiting.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = waiting.len();
        let mut removed = Vec::new();
        for (touched, its_bytes, build_id) in waiting {
            if all.saturating_add(bytes) <= self.bytes_max && count < FILES_MAX {
                break;
            }
            if now.duration_since(touched).unwrap_or_default() < quiet {
                return false;
            }
            removed.push(build_id);
            all -= its_bytes;
            count -= 1;
        }
        for build_id in removed {
            info!(%build_id, "removed a part of a file for which there is no room");
            self.remove(&build_id);
        }
        true
    }

    fn paths(&self, build_id: &BuildId) -> [PathBuf; 2] {
        ["plan", "data"].map(|extension| self.folder.join(format!("{build_id}.{extension}")))
    }

    fn find(&self, build_id: &BuildId) -> Option<Arc<Partial>> {
        self.lock().get(build_id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, Arc<Partial>>> {
        lock(&self.files)
    }
}

impl Partial {
    fn new(plan: UploadPlan, data: File, received: u64, touched: SystemTime) -> Self {
        Self {
            plan,
            seen: Mutex::new(Seen { received, touched }),
            content: Mutex::new(Content {
                data,
                digest: None,
                is_closed: false,
            }),
        }
    }

    fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    fn touch(&self) {
        lock(&self.seen).touched = SystemTime::now();
    }

    fn age(&self, now: SystemTime) -> Duration {
        let age = now.duration_since(self.seen().touched);
        age.unwrap_or_default()
    }

    /// What has come, with its digest, for which it is read if need be.
    fn go_on(&self) -> io::Result<Received> {
        self.touch();
        let mut content = lock(&self.content);
        content.is_closed = false;
        let bytes = self.seen().received;
        let hasher = match content.digest.take() {
            Some(hasher) => hasher,
            None => content.read_digest(&self.plan, bytes)?,
        };
        let digest = hasher.finalize().into();
        content.digest = Some(hasher);
        // The digest of much takes long.
        self.touch();
        Ok(Received { bytes, digest })
    }

    fn write(&self, position: u64, piece: &[u8]) -> io::Result<(bool, u64)> {
        let mut content = lock(&self.content);
        let mut received = self.seen().received;
        if content.is_closed {
            return Ok((false, received));
        }
        if position == 0 && received > 0 {
            content.data.set_len(0)?;
            content.digest = Some(blake3::Hasher::new());
            received = 0;
            lock(&self.seen).received = 0;
        }
        let left = self.plan.total_bytes() - received;
        if position != received || piece.len() as u64 > left {
            return Ok((false, received));
        }
        let mut rest = piece;
        for place in self.plan.places(position, piece.len() as u64) {
            let (bytes, after) = rest.split_at(place.bytes as usize);
            content.data.write_all_at(bytes, place.offset)?;
            rest = after;
        }
        if let Some(digest) = &mut content.digest {
            digest.update(piece);
        }
        received += piece.len() as u64;
        *lock(&self.seen) = Seen {
            received,
            touched: SystemTime::now(),
        };
        Ok((true, received))
    }
}

impl Content {
    fn read_digest(&self, plan: &UploadPlan, received: u64) -> io::Result<blake3::Hasher> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        for place in plan.places(0, received) {
            let mut at = place.offset;
            let end = place.offset + place.bytes;
            while at < end {
                let chunk = &mut buffer[..(end - at).min(CHUNK_BYTES as u64) as usize];
                self.data.read_exact_at(chunk, at)?;
                hasher.update(chunk);
                at += chunk.len() as u64;
            }
        }
        Ok(hasher)
    }
}

/// What is left of a file before the server was started.
fn read_partial(plan_path: &Path) -> Option<(BuildId, Partial)> {
    let build_id = plan_path.file_stem()?.to_str()?.parse().ok()?;
    if fs::metadata(plan_path).ok()?.len() > PLAN_BYTES_MAX {
        return None;
    }
    let plan = UploadPlan::decode(&fs::read(plan_path).ok()?)?;
    let data_path = plan_path.with_extension("data");
    let data = OpenOptions::new()
        .read(true)
        .write(true)
        .open(data_path)
        .ok()?;
    let metadata = data.metadata().ok()?;
    let received = plan.received_at(metadata.len());
    let partial = Partial::new(plan, data, received, metadata.modified().ok()?);
    Some((build_id, partial))
}

/// What these locks guard is whole at each moment, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::plan::FileRange;
    use super::*;

    const MEGABYTE: u64 = 1 << 20;

    fn id(number: u32) -> BuildId {
        BuildId::from_bytes(&number.to_be_bytes()).unwrap()
    }

    fn plan(ranges: &[(u64, u64)]) -> UploadPlan {
        let range = |(offset, bytes): &(u64, u64)| FileRange {
            offset: *offset,
            bytes: *bytes,
        };
        UploadPlan::new(MEGABYTE, ranges.iter().map(range).collect()).unwrap()
    }

    fn received(bytes: &[u8]) -> Option<Received> {
        Some(Received {
            bytes: bytes.len() as u64,
            digest: blake3::hash(bytes).into(),
        })
    }

    /// Check that what has come is there after a restart with its digest, that it goes on there, and that the whole file has each
    /// byte in its place and zeros elsewhere.
    #[test]
    fn a_restart_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&[(1, 3), (10, 2), (100, 5)]);
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(partials.begin(&id(1), &plan).unwrap(), received(b""));
        assert_eq!(partials.write(&id(1), 0, b"abcd").unwrap(), Some((true, 4)));
        // What begins elsewhere, or is too much, is not taken.
        for (position, piece) in [(3, &b"x"[..]), (5, b"x"), (u64::MAX, b"x"), (4, b"1234567")] {
            assert_eq!(
                partials.write(&id(1), position, piece).unwrap(),
                Some((false, 4))
            );
        }
        let whole = partials.open_whole(&id(1)).unwrap();
        assert!(matches!(whole, Whole::Lacking));
        assert_eq!(partials.begin(&id(1), &plan).unwrap(), received(b"abcd"));
        drop(partials);
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(partials.numbers(), (1, 4));
        assert_eq!(partials.begin(&id(1), &plan).unwrap(), received(b"abcd"));
        assert_eq!(
            partials.write(&id(1), 4, b"efghij").unwrap(),
            Some((true, 10))
        );
        let Whole::File(file) = partials.open_whole(&id(1)).unwrap() else {
            panic!("the file is not whole");
        };
        // While it is read, nobody changes it.
        assert_eq!(partials.write(&id(1), 0, b"x").unwrap(), Some((false, 10)));
        let mut whole = vec![0; MEGABYTE as usize];
        file.read_exact_at(&mut whole, 0).unwrap();
        let mut expected = vec![0; MEGABYTE as usize];
        for (offset, bytes) in [(1, &b"abc"[..]), (10, b"de"), (100, b"fghij")] {
            expected[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        assert!(whole == expected && file.metadata().unwrap().len() == MEGABYTE);
        // It was not used, and is all there.
        assert_eq!(
            partials.begin(&id(1), &plan).unwrap(),
            received(b"abcdefghij")
        );
        partials.remove(&id(1));
        let whole = partials.open_whole(&id(1)).unwrap();
        assert!(matches!(whole, Whole::Gone));
        assert_eq!(partials.write(&id(1), 10, b"").unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_plan_and_position_0_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        partials.begin(&id(1), &plan(&[(0, 10)])).unwrap();
        partials.write(&id(1), 0, b"old").unwrap();
        let other = plan(&[(0, 11)]);
        assert_eq!(partials.begin(&id(1), &other).unwrap(), received(b""));
        partials.write(&id(1), 0, b"older").unwrap();
        assert_eq!(partials.write(&id(1), 0, b"new").unwrap(), Some((true, 3)));
        assert_eq!(partials.begin(&id(1), &other).unwrap(), received(b"new"));
        drop(partials);
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(partials.begin(&id(1), &other).unwrap(), received(b"new"));
    }

    /// Says that a part was touched last so long ago.
    fn let_rest(partials: &Partials, number: u32, time: Duration) {
        let partial = partials.find(&id(number)).unwrap();
        lock(&partial.seen).touched = SystemTime::now() - time;
    }

    /// Check that the cap holds, that what was touched least lately goes first, that what is on its way stays, and that age ends
    /// what waits.
    #[test]
    fn what_waits_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Partials::open(folder.path(), 100).unwrap();
        let begin = |number, bytes| partials.begin(&id(number), &plan(&[(0, bytes)]));
        let has = || [1, 2, 3].map(|number| partials.has(&id(number)));
        assert!(begin(1, 40).unwrap().is_some() && begin(2, 40).unwrap().is_some());
        assert!(begin(3, 40).unwrap().is_none());
        assert_eq!(has(), [true, true, false]);
        // What is at rest stays too when it makes not enough room.
        let_rest(&partials, 2, QUIET_MIN);
        assert!(begin(3, 80).unwrap().is_none());
        assert_eq!(has(), [true, true, false]);
        let_rest(&partials, 1, 2 * QUIET_MIN);
        assert!(begin(3, 40).unwrap().is_some());
        assert_eq!(has(), [false, true, true]);
        let refused = begin(4, 101).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        assert!(!partials.remove_old(SystemTime::now()));
        assert!(partials.remove_old(SystemTime::now() + AGE_MAX));
        assert_eq!(partials.numbers(), (0, 0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for number in 0..FILES_MAX as u32 {
            assert!(begin(number, 1).unwrap().is_some());
        }
        assert!(begin(FILES_MAX as u32, 1).unwrap().is_none());
        let_rest(&partials, 7, QUIET_MIN);
        assert!(begin(FILES_MAX as u32, 1).unwrap().is_some());
        assert!(partials.numbers().0 == FILES_MAX && !partials.has(&id(7)));
    }

    /// Check that what is counted and what makes room does not wait for a digest of another file.
    #[test]
    fn nobody_waits_for_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Arc::new(Partials::open(folder.path(), 100).unwrap());
        partials.begin(&id(1), &plan(&[(0, 60)])).unwrap();
        partials.write(&id(1), 0, b"abc").unwrap();
        let partial = partials.find(&id(1)).unwrap();
        let _digest = lock(&partial.content);
        let (done, is_done) = std::sync::mpsc::channel();
        let same = Arc::clone(&partials);
        std::thread::spawn(move || {
            let refused = same.begin(&id(2), &plan(&[(0, 60)])).unwrap();
            let begun = same.begin(&id(2), &plan(&[(0, 40)])).unwrap();
            done.send((same.numbers(), refused.is_none(), begun.is_some()))
        });
        let seen = is_done.recv_timeout(Duration::from_secs(10));
        assert_eq!(seen.unwrap(), ((2, 3), true, true));
    }

    /// Check that what is damaged is removed at start, whichever of both files it is.
    #[test]
    fn what_is_damaged_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        for number in 1..=3 {
            partials.begin(&id(number), &plan(&[(0, 10)])).unwrap();
            partials.write(&id(number), 0, b"abc").unwrap();
        }
        drop(partials);
        fs::write(path("00000001.plan"), "no plan").unwrap();
        fs::remove_file(path("00000002.data")).unwrap();
        fs::write(path("else"), "").unwrap();
        fs::write(path("00ff.data"), "").unwrap();
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(partials.numbers(), (1, 3));
        assert!(partials.has(&id(3)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
