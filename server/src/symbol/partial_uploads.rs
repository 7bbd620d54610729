//! Partly received files: on the disk until the rest comes, across restarts of the server, within a cap and a maximal age
//! ([`PartialUploads::remove_old`] is called with each push).
//!
//! `symbols/partial/<build id>.plan` has the ranges that come, `<build id>.data` the received bytes at their own offsets (see
//! [`super::plan`]). Nothing is synced: bytes that a crash of the machine damaged have another digest than the collector's
//! file, and are sent again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use elf::BuildId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::error::UploadError;
use super::plan::{PLAN_BYTES_MAX, UploadPlan};

/// Age at which a part is removed: over a night, in which a node may be off.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A part that was written to within this time is not evicted: as long as a collector may send nothing.
const QUIET_MIN: Duration = Duration::from_secs(60);

/// Parts at most, however small.
const FILES_MAX: usize = 64;

/// Bytes read at a time for a digest.
const CHUNK_BYTES: usize = 256 << 10;

/// Received bytes of a file, and their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of all ranges, one after the other.
    pub bytes: u64,
    /// BLAKE3 digest of these bytes.
    pub digest: [u8; 32],
}

#[derive(Debug)]
struct PartialUpload {
    plan: UploadPlan,
    /// Changes under the content's lock only, which is held for as long as a digest of 4 GiB takes.
    progress: Mutex<Progress>,
    content: Mutex<Content>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    received: u64,
    touched: SystemTime,
}

#[derive(Debug)]
struct Content {
    data: File,
    /// The file may be being read: nothing is written until the upload begins again.
    is_closed: bool,
}

/// The partly received files.
#[derive(Debug)]
pub struct PartialUploads {
    folder: PathBuf,
    /// Bytes of all plans together, which the disk may come to hold.
    bytes_max: u64,
    files: Mutex<HashMap<BuildId, Arc<PartialUpload>>>,
}

impl PartialUploads {
    /// Opens the directory, or makes one. Removes damaged and old parts, and those above the cap.
    ///
    /// # Errors
    /// The disk.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let uploads = Self {
            folder: folder.to_owned(),
            bytes_max,
            files: Mutex::default(),
        };
        for entry in fs::read_dir(folder)? {
            if let Some((build_id, upload)) = read_upload(&entry?.path()) {
                uploads.files.lock().insert(build_id, Arc::new(upload));
            }
        }
        uploads.remove_unknown()?;
        // No upload is under way yet.
        uploads.make_room(0, SystemTime::now(), Duration::ZERO);
        Ok(uploads)
    }

    fn remove_unknown(&self) -> io::Result<()> {
        let known: Vec<PathBuf> = self
            .files
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
        self.files.lock().contains_key(build_id)
    }

    /// Bytes of a file that need not be sent again by a collector with this plan.
    pub fn received(&self, build_id: &BuildId, plan: &UploadPlan) -> u64 {
        let upload = self.find(build_id).ok();
        let upload = upload.filter(|upload| upload.plan == *plan);
        upload.map_or(0, |upload| upload.progress().received)
    }

    /// Begins a file, or resumes one with the same plan.
    ///
    /// # Errors
    /// The disk, [`UploadError::Busy`] when other uploads that are under way leave no room, or the file is larger than the cap.
    pub fn begin(&self, build_id: &BuildId, plan: &UploadPlan) -> Result<Received, UploadError> {
        if let Ok(upload) = self.find(build_id)
            && upload.plan == *plan
        {
            return Ok(upload.resume()?);
        }
        self.remove(build_id);
        if plan.total_bytes() > self.bytes_max {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded).into());
        }
        if !self.make_room(plan.total_bytes(), SystemTime::now(), QUIET_MIN) {
            return Err(UploadError::Busy);
        }
        Ok(self.create(build_id, plan)?.resume()?)
    }

    /// Holds the lock as [`Self::remove`] does: the paths belong to the entry in the table.
    fn create(&self, build_id: &BuildId, plan: &UploadPlan) -> io::Result<Arc<PartialUpload>> {
        let [plan_path, data_path] = self.paths(build_id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let mut files = self.files.lock();
        let data = options.open(data_path)?;
        fs::write(plan_path, plan.encode())?;
        let upload = Arc::new(PartialUpload::new(plan.clone(), data, 0, SystemTime::now()));
        files.insert(*build_id, Arc::clone(&upload));
        Ok(upload)
    }

    /// Writes a piece, if it begins where the last one ended, or at 0, which begins anew. Returns whether it did, and the received
    /// bytes.
    ///
    /// # Errors
    /// The disk, or there is no such file.
    pub fn write(
        &self,
        build_id: &BuildId,
        position: u64,
        piece: &[u8],
    ) -> Result<(bool, u64), UploadError> {
        Ok(self.find(build_id)?.write(position, piece)?)
    }

    /// Opens a complete file for reading. It stays on the disk, and nothing is written to it until the upload begins again.
    ///
    /// # Errors
    /// The disk, a part is missing, or there is no such file.
    pub fn open_complete(&self, build_id: &BuildId) -> Result<File, UploadError> {
        let upload = self.find(build_id)?;
        let mut content = upload.content.lock();
        if upload.progress().received < upload.plan.total_bytes() {
            return Err(UploadError::Malformed("a part of the file has not come"));
        }
        content.data.set_len(upload.plan.file_bytes())?;
        content.is_closed = true;
        upload.touch();
        let [_, data_path] = self.paths(build_id);
        Ok(File::open(data_path)?)
    }

    /// Removes a file.
    pub fn remove(&self, build_id: &BuildId) {
        let mut files = self.files.lock();
        let Some(upload) = files.remove(build_id) else {
            return;
        };
        for path in self.paths(build_id) {
            if let Err(err) = fs::remove_file(&path) {
                warn!(path = %path.display(), %err, "failed to remove a part of a file");
            }
        }
        drop(files);
        // Closing the file frees its blocks, which takes a while.
        drop(upload);
    }

    /// Number of files, and their received bytes.
    pub fn numbers(&self) -> (usize, u64) {
        let files = self.files.lock();
        let bytes = files.values().map(|upload| upload.progress().received);
        (files.len(), bytes.sum())
    }

    /// Removes files older than [`AGE_MAX`].
    pub fn remove_old(&self, now: SystemTime) {
        let files = self.files.lock();
        let is_old = |upload: &PartialUpload| upload.age(now) >= AGE_MAX;
        let old = files.iter().filter(|(_, upload)| is_old(upload));
        let old: Vec<_> = old.map(|(build_id, _)| *build_id).collect();
        drop(files);
        for build_id in &old {
            info!(%build_id, "removed a part of a file whose rest did not come");
            self.remove(build_id);
        }
    }

    /// Removes old files, and then the least recently written ones, until `bytes` more have room. Removes none, and returns false,
    /// if that would need a file that was written to within `quiet`.
    fn make_room(&self, bytes: u64, now: SystemTime, quiet: Duration) -> bool {
        self.remove_old(now);
        let weigh = |(build_id, upload): (&BuildId, &Arc<PartialUpload>)| {
            let bytes = upload.plan.total_bytes();
            (upload.progress().touched, bytes, *build_id)
        };
        let mut waiting: Vec<_> = self.files.lock().iter().map(weigh).collect();
        waiting.sort();
        let mut all: u64 = waiting.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = waiting.len();
        let mut removed = Vec::new();
        for (touched, upload_bytes, build_id) in waiting {
            if all.saturating_add(bytes) <= self.bytes_max && count < FILES_MAX {
                break;
            }
            if now.duration_since(touched).unwrap_or_default() < quiet {
                return false;
            }
            removed.push(build_id);
            all -= upload_bytes;
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

    fn find(&self, build_id: &BuildId) -> Result<Arc<PartialUpload>, UploadError> {
        let upload = self.files.lock().get(build_id).cloned();
        upload.ok_or(UploadError::NotAsked)
    }
}

impl PartialUpload {
    fn new(plan: UploadPlan, data: File, received: u64, touched: SystemTime) -> Self {
        Self {
            plan,
            progress: Mutex::new(Progress { received, touched }),
            content: Mutex::new(Content {
                data,
                is_closed: false,
            }),
        }
    }

    fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    fn touch(&self) {
        self.progress.lock().touched = SystemTime::now();
    }

    fn age(&self, now: SystemTime) -> Duration {
        let age = now.duration_since(self.progress().touched);
        age.unwrap_or_default()
    }

    /// Reads the received bytes for their digest.
    fn resume(&self) -> io::Result<Received> {
        self.touch();
        let mut content = self.content.lock();
        content.is_closed = false;
        let bytes = self.progress().received;
        let digest = content.read_digest(&self.plan, bytes)?;
        // Reading takes long if there is much.
        self.touch();
        Ok(Received { bytes, digest })
    }

    fn write(&self, position: u64, piece: &[u8]) -> io::Result<(bool, u64)> {
        let content = self.content.lock();
        let mut received = self.progress().received;
        if content.is_closed {
            return Ok((false, received));
        }
        if position == 0 && received > 0 {
            content.data.set_len(0)?;
            received = 0;
            self.progress.lock().received = 0;
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
        received += piece.len() as u64;
        *self.progress.lock() = Progress {
            received,
            touched: SystemTime::now(),
        };
        Ok((true, received))
    }
}

impl Content {
    fn read_digest(&self, plan: &UploadPlan, received: u64) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        for place in plan.places(0, received) {
            let mut at = place.offset;
            while at < place.end() {
                let chunk = &mut buffer[..(place.end() - at).min(CHUNK_BYTES as u64) as usize];
                self.data.read_exact_at(chunk, at)?;
                hasher.update(chunk);
                at += chunk.len() as u64;
            }
        }
        Ok(hasher.finalize().into())
    }
}

/// Reads the upload of a plan's path, after a restart; `None` for other and damaged files.
fn read_upload(plan_path: &Path) -> Option<(BuildId, PartialUpload)> {
    plan_path.extension().filter(|name| *name == "plan")?;
    let build_id = plan_path.file_stem()?.to_str()?.parse().ok()?;
    if fs::metadata(plan_path).ok()?.len() > PLAN_BYTES_MAX {
        return None;
    }
    let plan = UploadPlan::decode(&fs::read(plan_path).ok()?)?;
    let mut options = OpenOptions::new();
    let data = options.read(true).write(true);
    let data = data.open(plan_path.with_extension("data")).ok()?;
    let metadata = data.metadata().ok()?;
    let received = plan.received_at(metadata.len());
    let upload = PartialUpload::new(plan, data, received, metadata.modified().ok()?);
    Some((build_id, upload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf::FileRange;

    const MEGABYTE: u64 = 1 << 20;

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_be_bytes()).unwrap()
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

    /// Check that received bytes are there after a restart with their digest, that the upload resumes, and that the complete file
    /// has each byte at its offset and zeros elsewhere.
    #[test]
    fn a_restart_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&[(1, 3), (10, 2), (100, 5)]);
        let uploads = PartialUploads::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(uploads.begin(&id(1), &plan).unwrap(), received(b""));
        assert_eq!(uploads.write(&id(1), 0, b"abcd").unwrap(), (true, 4));
        // A piece that begins elsewhere, or is too long, is not taken.
        for (position, piece) in [(3, &b"x"[..]), (5, b"x"), (u64::MAX, b"x"), (4, b"1234567")] {
            assert_eq!(uploads.write(&id(1), position, piece).unwrap(), (false, 4));
        }
        let refused = uploads.open_complete(&id(1)).unwrap_err();
        assert!(matches!(refused, UploadError::Malformed(_)), "{refused}");
        assert_eq!(uploads.begin(&id(1), &plan).unwrap(), received(b"abcd"));
        drop(uploads);
        let uploads = PartialUploads::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(uploads.numbers(), (1, 4));
        assert_eq!(uploads.begin(&id(1), &plan).unwrap(), received(b"abcd"));
        assert_eq!(uploads.write(&id(1), 4, b"efghij").unwrap(), (true, 10));
        let file = uploads.open_complete(&id(1)).unwrap();
        // It does not change while it is read.
        assert_eq!(uploads.write(&id(1), 0, b"x").unwrap(), (false, 10));
        let mut whole = vec![0; MEGABYTE as usize];
        file.read_exact_at(&mut whole, 0).unwrap();
        let mut expected = vec![0; MEGABYTE as usize];
        for (offset, bytes) in [(1, &b"abc"[..]), (10, b"de"), (100, b"fghij")] {
            expected[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        assert!(whole == expected && file.metadata().unwrap().len() == MEGABYTE);
        // It was not used, and is still complete.
        assert_eq!(
            uploads.begin(&id(1), &plan).unwrap(),
            received(b"abcdefghij")
        );
        uploads.remove(&id(1));
        let gone = uploads.open_complete(&id(1)).unwrap_err();
        assert_eq!(gone, UploadError::NotAsked);
        let gone = uploads.write(&id(1), 10, b"").unwrap_err();
        assert_eq!(gone, UploadError::NotAsked);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_plan_and_position_0_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = PartialUploads::open(folder.path(), MEGABYTE).unwrap();
        uploads.begin(&id(1), &plan(&[(0, 10)])).unwrap();
        uploads.write(&id(1), 0, b"old").unwrap();
        let other = plan(&[(0, 11)]);
        assert_eq!(uploads.begin(&id(1), &other).unwrap(), received(b""));
        uploads.write(&id(1), 0, b"older").unwrap();
        assert_eq!(uploads.write(&id(1), 0, b"new").unwrap(), (true, 3));
        assert_eq!(uploads.begin(&id(1), &other).unwrap(), received(b"new"));
        drop(uploads);
        let uploads = PartialUploads::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(uploads.begin(&id(1), &other).unwrap(), received(b"new"));
    }

    /// Sets the time since the last write to a file.
    fn age(uploads: &PartialUploads, number: u32, time: Duration) {
        let upload = uploads.find(&id(number)).unwrap();
        upload.progress.lock().touched = SystemTime::now() - time;
    }

    /// Check that the cap holds, that the least recently written file is evicted first, that one under way stays, and that old
    /// ones are removed.
    #[test]
    fn uploads_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = PartialUploads::open(folder.path(), 100).unwrap();
        let begin = |number, bytes| uploads.begin(&id(number), &plan(&[(0, bytes)]));
        let has = || [1, 2, 3].map(|number| uploads.has(&id(number)));
        assert!(begin(1, 40).is_ok() && begin(2, 40).is_ok());
        assert_eq!(begin(3, 40), Err(UploadError::Busy));
        assert_eq!(has(), [true, true, false]);
        // One that is idle stays too if it makes not enough room.
        age(&uploads, 2, QUIET_MIN);
        assert_eq!(begin(3, 80), Err(UploadError::Busy));
        assert_eq!(has(), [true, true, false]);
        age(&uploads, 1, 2 * QUIET_MIN);
        begin(3, 40).unwrap();
        assert_eq!(has(), [false, true, true]);
        assert_eq!(begin(4, 101).unwrap_err().name(), "disk_full");
        uploads.remove_old(SystemTime::now());
        assert_eq!(uploads.numbers().0, 2);
        uploads.remove_old(SystemTime::now() + AGE_MAX);
        assert_eq!(uploads.numbers(), (0, 0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for number in 0..FILES_MAX as u32 {
            begin(number, 1).unwrap();
        }
        assert_eq!(begin(FILES_MAX as u32, 1), Err(UploadError::Busy));
        age(&uploads, 7, QUIET_MIN);
        begin(FILES_MAX as u32, 1).unwrap();
        assert!(uploads.numbers().0 == FILES_MAX && !uploads.has(&id(7)));
    }

    /// Check that counting and making room do not wait for a digest of another file.
    #[test]
    fn a_digest_blocks_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Arc::new(PartialUploads::open(folder.path(), 100).unwrap());
        uploads.begin(&id(1), &plan(&[(0, 60)])).unwrap();
        uploads.write(&id(1), 0, b"abc").unwrap();
        let upload = uploads.find(&id(1)).unwrap();
        let _digest = upload.content.lock();
        let (done, is_done) = std::sync::mpsc::channel();
        let same = Arc::clone(&uploads);
        std::thread::spawn(move || {
            let refused = same.begin(&id(2), &plan(&[(0, 60)])).unwrap_err();
            same.begin(&id(2), &plan(&[(0, 40)])).unwrap();
            done.send((same.numbers(), refused))
        });
        let seen = is_done.recv_timeout(Duration::from_secs(60));
        assert_eq!(seen.unwrap(), ((2, 3), UploadError::Busy));
    }

    /// Check that damaged uploads are removed at start, whichever of both files is damaged.
    #[test]
    fn damaged_uploads_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let uploads = PartialUploads::open(folder.path(), MEGABYTE).unwrap();
        for number in 1..=3 {
            uploads.begin(&id(number), &plan(&[(0, 10)])).unwrap();
            uploads.write(&id(number), 0, b"abc").unwrap();
        }
        drop(uploads);
        fs::write(path("00000001.plan"), "no plan").unwrap();
        fs::remove_file(path("00000002.data")).unwrap();
        fs::write(path("else"), "").unwrap();
        fs::write(path("00ff.data"), "").unwrap();
        let uploads = PartialUploads::open(folder.path(), MEGABYTE).unwrap();
        assert_eq!(uploads.numbers(), (1, 3));
        assert!(uploads.has(&id(3)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
