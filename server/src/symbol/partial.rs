//! Files of which a part has come from a collector: kept on the disk until the rest comes, also when the server is started
//! again, within a cap and an age.
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

#[derive(Debug)]
struct Partial {
    plan: UploadPlan,
    data: File,
    received: u64,
    /// Of what was received; unknown after a start, until somebody asks.
    digest: Option<blake3::Hasher>,
    touched: SystemTime,
}

/// The parts that wait.
#[derive(Debug)]
pub struct Partials {
    folder: PathBuf,
    /// Bytes of all plans together: what the disk may come to hold.
    bytes_max: u64,
    files: Mutex<HashMap<BuildId, Arc<Mutex<Partial>>>>,
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
                    let partial = Arc::new(Mutex::new(partial));
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
        partials.make_room(0, SystemTime::now());
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

    /// Begins a file, or goes on with one whose plan is the same. Gives what has come of it.
    ///
    /// # Errors
    /// The disk, or [`io::ErrorKind::QuotaExceeded`] when what waits leaves no room for it.
    pub fn begin(&self, build_id: &BuildId, plan: &UploadPlan) -> io::Result<Received> {
        if let Some(partial) = self.find(build_id) {
            let mut partial = lock(&partial);
            if partial.plan == *plan {
                partial.touched = SystemTime::now();
                return partial.look();
            }
        }
        self.remove(build_id);
        if !self.make_room(plan.total_bytes(), SystemTime::now()) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let [plan_path, data_path] = self.paths(build_id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let data = options.open(data_path)?;
        fs::write(plan_path, plan.encode())?;
        let mut partial = Partial {
            plan: plan.clone(),
            data,
            received: 0,
            digest: None,
            touched: SystemTime::now(),
        };
        let received = partial.look()?;
        let partial = Arc::new(Mutex::new(partial));
        self.lock().insert(build_id.clone(), partial);
        Ok(received)
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
        lock(&partial).write(position, piece).map(Some)
    }

    /// Takes a file out, that is whole by now. `None` when there is none, or something is missing.
    ///
    /// # Errors
    /// The disk.
    pub fn take(&self, build_id: &BuildId) -> io::Result<Option<File>> {
        let Some(partial) = self.find(build_id) else {
            return Ok(None);
        };
        let file = {
            let partial = lock(&partial);
            if partial.received < partial.plan.total_bytes() {
                return Ok(None);
            }
            partial.data.set_len(partial.plan.file_bytes())?;
            partial.data.try_clone()?
        };
        self.remove(build_id);
        Ok(Some(file))
    }

    /// Removes a file.
    pub fn remove(&self, build_id: &BuildId) {
        if self.lock().remove(build_id).is_none() {
            return;
        }
        for path in self.paths(build_id) {
            if let Err(err) = fs::remove_file(&path) {
                warn!(path = %path.display(), %err, "failed to remove a part of a file");
            }
        }
    }

    /// How many wait, and the bytes of them that have come.
    pub fn numbers(&self) -> (usize, u64) {
        let files: Vec<_> = self.lock().values().cloned().collect();
        let bytes = files.iter().map(|partial| lock(partial).received).sum();
        (files.len(), bytes)
    }

    /// Removes what is too old, and then what was touched least lately, until `bytes` more have room; says whether they do.
    fn make_room(&self, bytes: u64, now: SystemTime) -> bool {
        if bytes > self.bytes_max {
            return false;
        }
        let files = self.lock().clone();
        let weigh = |(build_id, partial): (BuildId, Arc<Mutex<Partial>>)| {
            let partial = lock(&partial);
            (partial.touched, partial.plan.total_bytes(), build_id)
        };
        let mut waiting: Vec<_> = files.into_iter().map(weigh).collect();
        waiting.sort();
        let mut all: u64 = waiting.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = waiting.len();
        for (touched, its_bytes, build_id) in waiting {
            let age = now.duration_since(touched).unwrap_or_default();
            let fits = all.saturating_add(bytes) <= self.bytes_max && count < FILES_MAX;
            if fits && age < AGE_MAX {
                break;
            }
            info!(%build_id, ?age, "removed a part of a file whose rest did not come");
            self.remove(&build_id);
            all -= its_bytes;
            count -= 1;
        }
        true
    }

    fn paths(&self, build_id: &BuildId) -> [PathBuf; 2] {
        ["plan", "data"].map(|extension| self.folder.join(format!("{build_id}.{extension}")))
    }

    fn find(&self, build_id: &BuildId) -> Option<Arc<Mutex<Partial>>> {
        self.lock().get(build_id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, Arc<Mutex<Partial>>>> {
        lock(&self.files)
    }
}

impl Partial {
    /// What has come, with its digest, for which it is read if need be.
    fn look(&mut self) -> io::Result<Received> {
        if self.digest.is_none() {
            self.digest = Some(self.read_digest()?);
        }
        let digest = self.digest.as_ref().map(blake3::Hasher::finalize);
        Ok(Received {
            bytes: self.received,
            digest: digest.map_or([0; 32], Into::into),
        })
    }

    fn read_digest(&self) -> io::Result<blake3::Hasher> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        for place in self.plan.places(0, self.received) {
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

    fn write(&mut self, position: u64, piece: &[u8]) -> io::Result<(bool, u64)> {
        if position == 0 && self.received > 0 {
            self.data.set_len(0)?;
            self.received = 0;
            self.digest = Some(blake3::Hasher::new());
        }
        let left = self.plan.total_bytes() - self.received;
        if position != self.received || piece.len() as u64 > left {
            return Ok((false, self.received));
        }
        let mut rest = piece;
        for place in self.plan.places(position, piece.len() as u64) {
            let (bytes, after) = rest.split_at(place.bytes as usize);
            self.data.write_all_at(bytes, place.offset)?;
            rest = after;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(piece);
        }
        self.received += piece.len() as u64;
        self.touched = SystemTime::now();
        Ok((true, self.received))
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
    let partial = Partial {
        received: plan.received_at(metadata.len()),
        plan,
        data,
        digest: None,
        touched: metadata.modified().ok()?,
    };
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

    fn received(bytes: &[u8]) -> Received {
        Received {
            bytes: bytes.len() as u64,
            digest: blake3::hash(bytes).into(),
        }
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
        assert!(partials.take(&id(1)).unwrap().is_none());
        assert_eq!(partials.begin(&id(1), &plan).unwrap(), received(b"abcd"));
        drop(partials);
        let partials = Partials::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(partials.numbers(), (1, 4));
        assert_eq!(partials.begin(&id(1), &plan).unwrap(), received(b"abcd"));
        assert_eq!(
            partials.write(&id(1), 4, b"efghij").unwrap(),
            Some((true, 10))
        );
        let file = partials.take(&id(1)).unwrap().unwrap();
        let mut whole = vec![0; MEGABYTE as usize];
        file.read_exact_at(&mut whole, 0).unwrap();
        let mut expected = vec![0; MEGABYTE as usize];
        for (offset, bytes) in [(1, &b"abc"[..]), (10, b"de"), (100, b"fghij")] {
            expected[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        assert!(whole == expected && file.metadata().unwrap().len() == MEGABYTE);
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

    /// Check that the cap holds, that what was touched least lately goes first, and that age ends what waits.
    #[test]
    fn what_waits_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let partials = Partials::open(folder.path(), 100).unwrap();
        for number in 1..=3 {
            partials.begin(&id(number), &plan(&[(0, 40)])).unwrap();
        }
        let has: Vec<_> = (1..=3).map(|number| partials.has(&id(number))).collect();
        assert_eq!(has, [false, true, true]);
        let refused = partials.begin(&id(4), &plan(&[(0, 101)])).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        assert!(partials.make_room(0, SystemTime::now() + AGE_MAX));
        assert_eq!(partials.numbers(), (0, 0));
        for number in 0..2 * FILES_MAX as u32 {
            partials.begin(&id(number), &plan(&[(0, 1)])).unwrap();
        }
        assert_eq!(partials.numbers().0, FILES_MAX);
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
