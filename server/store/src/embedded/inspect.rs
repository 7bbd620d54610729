//! Looks at a directory from outside: what is damaged, and what takes how many bytes. Nothing is locked or changed, so that a server may
//! run on the directory; files that it removes meanwhile are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use model::TimeRange;
use segment::{Section, Segment, Selection, Source as _, WindowSet, replay};

use super::directory::{FOLDER, LOGS, OLD, SEGMENTS};
use super::disk::RealDisk;
use super::old::OldFile;
use super::shared::effort;
use super::span::{Level, SegmentName};

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Files that were read to the last byte.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Windows in them.
    pub windows: u64,
    /// Each piece of damage: the file, and what is wrong.
    pub damage: Vec<(PathBuf, String)>,
}

/// Sizes of the segments of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelSizes {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Received windows.
    pub windows: u64,
    /// Rows.
    pub rows: u64,
    /// Samples.
    pub samples: u64,
}

/// Bytes by kind of data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// By level.
    pub levels: BTreeMap<Level, LevelSizes>,
    /// Bytes of all segments by section.
    pub sections: BTreeMap<&'static str, u64>,
    /// Bytes of logs.
    pub logs: u64,
    /// Bytes of files of earlier versions that are not converted yet.
    pub old: u64,
    /// Bytes of rows by the values of a label, as their pairs of series and stack tell.
    pub rows_by_value: BTreeMap<String, u64>,
    /// Values of each label.
    pub label_values: BTreeMap<String, u64>,
    /// Label sets.
    pub series: u64,
}

/// Files in a folder of the profiles; none if there is no such folder.
fn list(root: &Path, folder: &str) -> Result<Vec<PathBuf>> {
    let path = root.join(FOLDER).join(folder);
    let entries = match fs::read_dir(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("failed to read `{}`", path.display()))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file was removed since it was listed.
fn is_gone(path: &Path) -> bool {
    matches!(fs::metadata(path), Err(err) if err.kind() == io::ErrorKind::NotFound)
}

fn segments(root: &Path) -> Result<Vec<(PathBuf, SegmentName)>> {
    let named = |path: PathBuf| {
        let name = SegmentName::parse(path.file_name()?.to_str()?)?;
        Some((path, name))
    };
    Ok(list(root, SEGMENTS)?
        .into_iter()
        .filter_map(named)
        .collect())
}

fn old_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for hour in list(root, OLD)? {
        if let Some(name) = hour.file_name().and_then(|name| name.to_str()) {
            files.extend(list(root, &format!("{OLD}/{name}"))?);
        }
    }
    files.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    Ok(files)
}

fn open(path: &Path) -> Result<Segment<File>> {
    Ok(Segment::open(File::open(path)?)?)
}

/// Reads every file to the last byte.
///
/// # Errors
/// The directory has no profiles, or a folder cannot be read.
pub fn check(root: &Path) -> Result<Checked> {
    ensure_store(root)?;
    let mut checked = Checked::default();
    for (path, _) in segments(root)? {
        let found = open(&path).map(|segment| {
            checked.windows += segment.summary().messages;
            let damage = segment.verify(effort()).into_iter();
            damage.map(|damage| damage.to_string()).collect()
        });
        checked.note(&path, found);
    }
    for path in list(root, LOGS)? {
        match path.extension().and_then(|end| end.to_str()) {
            Some("log") => {
                let found = fs::read(&path).map_err(Into::into).and_then(|bytes| {
                    let read = replay(&bytes)?;
                    checked.windows += read.builder.window_count() as u64;
                    Ok(read
                        .damage
                        .iter()
                        .map(|damage| damage.to_string())
                        .collect())
                });
                checked.note(&path, found);
            }
            Some("damaged") => checked.note(&path, Ok(vec!["kept since it is damaged".into()])),
            _ => {}
        }
    }
    let all = TimeRange {
        from_ms: i64::MIN,
        to_ms: i64::MAX,
    };
    for path in old_files(root)? {
        let found = OldFile::open(&RealDisk, root, &path).map(|file| {
            let mut damage = vec!["a damaged stretch".to_owned(); file.damaged() as usize];
            for window in file.windows(all) {
                match window {
                    Ok(_) => checked.windows += 1,
                    Err((key, err)) => damage.push(format!("window {key}: {err:#}")),
                }
            }
            damage
        });
        checked.note(&path, found);
    }
    Ok(checked)
}

impl Checked {
    fn note(&mut self, path: &Path, found: Result<Vec<String>>) {
        let damage = match found {
            Ok(damage) => damage,
            Err(_) if is_gone(path) => return,
            Err(err) => vec![format!("{err:#}")],
        };
        self.files += 1;
        self.bytes += fs::metadata(path).map_or(0, |file| file.len());
        let damage = damage.into_iter().map(|what| (path.to_owned(), what));
        self.damage.extend(damage);
    }
}

/// Adds up what takes how many bytes, and the rows by the values of a label.
///
/// # Errors
/// The directory has no profiles, or a folder cannot be read. Damaged segments are left out.
pub fn stats(root: &Path, label: &str) -> Result<StoreStats> {
    ensure_store(root)?;
    let mut stats = StoreStats::default();
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut series = BTreeSet::new();
    for (path, name) in segments(root)? {
        let Ok(segment) = open(&path) else { continue };
        let summary = *segment.summary();
        let level = stats.levels.entry(name.span.level).or_default();
        level.files += 1;
        level.bytes += segment.file_bytes();
        level.windows += summary.messages;
        level.rows += summary.rows;
        level.samples += summary.samples;
        for section in Section::ALL {
            *stats.sections.entry(section.name()).or_default() += segment.section(section).1;
        }
        let all: Vec<u32> = (0..segment.series_count() as u32).collect();
        let mut groups = Vec::new();
        for number in &all {
            let labels = segment.series_label_set(*number);
            for (name, value) in labels.iter() {
                let known = values.entry(name.to_owned()).or_default();
                known.insert(value.to_owned());
            }
            groups.push(labels.value(label).to_owned());
            series.insert(labels);
        }
        let selection = Selection {
            series: &all,
            windows: &WindowSet::all(segment.window_count()),
        };
        let mut pairs: BTreeMap<&str, u64> = BTreeMap::new();
        for pair in &segment.sum_pairs(&selection, effort()).value {
            *pairs.entry(&groups[pair.series as usize]).or_default() += 1;
        }
        let row_bytes = segment.section(Section::Detail).1 + segment.section(Section::Totals).1;
        for (value, count) in pairs {
            let bytes =
                u128::from(row_bytes) * u128::from(count) / u128::from(summary.pairs.max(1));
            *stats.rows_by_value.entry(value.to_owned()).or_default() += bytes as u64;
        }
    }
    let bytes = |paths: Vec<PathBuf>| -> u64 {
        let lengths = paths
            .iter()
            .map(|path| fs::metadata(path).map_or(0, |file| file.len()));
        lengths.sum()
    };
    stats.logs = bytes(list(root, LOGS)?);
    stats.old = bytes(old_files(root)?);
    stats.series = series.len() as u64;
    let counts = values.into_iter();
    stats.label_values = counts
        .map(|(name, values)| (name, values.len() as u64))
        .collect();
    Ok(stats)
}

fn ensure_store(root: &Path) -> Result<()> {
    let path = root.join(FOLDER);
    anyhow::ensure!(
        path.is_dir(),
        "`{}` is no data directory of this version: it has no folder `{FOLDER}`",
        root.display()
    );
    Ok(())
}
