//! Pushes in a file, each behind its length, and the sums that they have: of generated windows, or of real collectors.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use pprof::protos;
use prost::Message as _;
use proto::v1::PushRequest;
use serde::{Deserialize, Serialize};

pub(crate) type Labels = BTreeMap<String, String>;

/// A push in the file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Message {
    /// Of its bytes behind the length.
    offset: u64,
    bytes: usize,
    pub(crate) node: String,
    pub(crate) start_ms: i64,
    pub(crate) sequence: u64,
    pub(crate) rows: u64,
    /// CPU time of its series, each by its number in the recording.
    pub(crate) sums: Vec<(u32, u64)>,
}

/// A file of pushes.
pub(crate) struct Recording {
    file: File,
    pub(crate) series: Vec<Labels>,
    pub(crate) messages: Vec<Message>,
}

impl Recording {
    /// Opens a file. Without an index beside it, all of it is read first.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("failed to open `{}`", path.display()))?;
        let (series, messages) = match fs::read(index_path(path)) {
            Ok(index) => postcard::from_bytes(&index)?,
            Err(_) => Self::index(&file, path)?,
        };
        Ok(Self {
            file,
            series,
            messages,
        })
    }

    fn index(file: &File, path: &Path) -> Result<(Vec<Labels>, Vec<Message>)> {
        eprintln!("reading `{}`", path.display());
        let mut series = SeriesNumbers::default();
        let mut messages = Vec::new();
        let (mut offset, end) = (0, file.metadata()?.len());
        while offset < end {
            let mut prefix = [0; 4];
            file.read_exact_at(&mut prefix, offset)?;
            let mut bytes = vec![0; u32::from_le_bytes(prefix) as usize];
            offset += prefix.len() as u64;
            // The last push is cut if its recorder was killed.
            if offset + bytes.len() as u64 > end {
                break;
            }
            file.read_exact_at(&mut bytes, offset)?;
            let summed = Summed::of(&PushRequest::decode(bytes.as_slice())?)?;
            messages.push(series.number(summed, offset, bytes.len()));
            offset += bytes.len() as u64;
        }
        ensure!(!messages.is_empty(), "`{}` has no push", path.display());
        let index = (series.labels, messages);
        fs::write(index_path(path), postcard::to_allocvec(&index)?)?;
        Ok(index)
    }

    /// Reads a push.
    pub(crate) fn read(&self, message: usize) -> Result<PushRequest> {
        let Message { offset, bytes, .. } = self.messages[message];
        let mut read = vec![0; bytes];
        self.file.read_exact_at(&mut read, offset)?;
        Ok(PushRequest::decode(Bytes::from(read))?)
    }
}

/// Writes a recording. It is complete when its index is there.
pub(crate) struct RecordingWriter {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
    series: SeriesNumbers,
    messages: Vec<Message>,
}

impl RecordingWriter {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let _none = fs::remove_file(index_path(path));
        let file =
            File::create(path).with_context(|| format!("failed to create `{}`", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            length: 0,
            series: SeriesNumbers::default(),
            messages: Vec::new(),
        })
    }

    pub(crate) fn append(&mut self, bytes: &[u8], summed: Summed) -> Result<()> {
        let prefix = u32::try_from(bytes.len())?.to_le_bytes();
        self.file.write_all(&prefix)?;
        self.file.write_all(bytes)?;
        let offset = self.length + prefix.len() as u64;
        self.length = offset + bytes.len() as u64;
        let message = self.series.number(summed, offset, bytes.len());
        self.messages.push(message);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.file.flush()?;
        let index = (self.series.labels, self.messages);
        Ok(fs::write(
            index_path(&self.path),
            postcard::to_allocvec(&index)?,
        )?)
    }
}

/// Whether a recording was written to its end.
pub(crate) fn is_complete(path: &Path) -> bool {
    path.exists() && index_path(path).exists()
}

fn index_path(path: &Path) -> PathBuf {
    path.with_extension("index")
}

/// A push, and what its profile has: counted from the profile's own samples, with nothing of the server.
pub(crate) struct Summed {
    node: String,
    start_ms: i64,
    sequence: u64,
    rows: u64,
    sums: Vec<(Labels, u64)>,
}

impl Summed {
    pub(crate) fn of(request: &PushRequest) -> Result<Self> {
        let bytes = zstd::decode_all(&*request.profile_zstd)?;
        let profile = <protos::Profile as protos::Message>::decode(bytes.as_slice())?;
        let key = profile
            .string_table
            .iter()
            .position(|text| text == "series");
        let key = key.context("a profile has no label `series`")? as i64;
        let labels = request.series.iter().map(|set| {
            let labels = set.labels.iter();
            labels
                .map(|label| (label.name.clone(), label.value.clone()))
                .collect()
        });
        let mut sums: Vec<(Labels, u64)> = labels.map(|labels| (labels, 0)).collect();
        for sample in &profile.sample {
            let series = sample.label.iter().find(|label| label.key == key);
            let series = series.context("a sample has no series")?.num as usize;
            sums[series].1 += sample.value[1] as u64;
        }
        Ok(Self {
            node: request.node.clone(),
            start_ms: request.window_start_ms,
            sequence: request.sequence,
            rows: profile.sample.len() as u64,
            sums,
        })
    }
}

/// Numbers of label sets.
#[derive(Default)]
struct SeriesNumbers {
    labels: Vec<Labels>,
    numbers: HashMap<Labels, u32>,
}

impl SeriesNumbers {
    fn number(&mut self, summed: Summed, offset: u64, bytes: usize) -> Message {
        let sums = summed.sums.into_iter().map(|(labels, ns)| {
            let next = self.labels.len() as u32;
            let number = *self.numbers.entry(labels).or_insert_with_key(|labels| {
                self.labels.push(labels.clone());
                next
            });
            (number, ns)
        });
        Message {
            offset,
            bytes,
            node: summed.node,
            start_ms: summed.start_ms,
            sequence: summed.sequence,
            rows: summed.rows,
            sums: sums.collect(),
        }
    }
}
