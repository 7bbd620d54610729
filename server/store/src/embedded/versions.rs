//! The versions in segments and blocks. The catalog has those of each segment, which are read from the segment where they are missing.

use model::TimeRange;
use segment::{Damage, Program, Selection, Source, WindowInfo, WindowSet};

use super::content::Content;
use crate::Versions;
use crate::unread::UnreadLog;
use crate::versions::{
    SEGMENT_VERSIONS_MAX, VersionKey, VersionTable, VersionTimes, build_of, image_of, program_of,
};

/// Reads the versions of a source: those of images from the sums of windows, and those of programs from their rows.
///
/// # Errors
/// Something that they need is damaged.
pub fn read_versions(source: &dyn Source) -> Result<VersionTable, Damage> {
    let mut table = VersionTable::default();
    let (mut images, mut keys, mut programs) = (Vec::new(), Vec::new(), Vec::new());
    for series in 0..source.series_count() as u32 {
        let labels = source.series_label_set(series);
        if let Some(key) = image_of(&labels) {
            images.push(series);
            keys.push(key);
        } else if let Some(path) = program_of(&labels) {
            programs.push(Program {
                series,
                path: path.to_owned(),
            });
        }
    }
    add_images(source, &images, &keys, &mut table)?;
    for file in source.read_program_files(&programs)? {
        let times = VersionTimes {
            first_ms: file.first_ms,
            last_ms: file.last_ms,
        };
        let path = &programs[file.program].path;
        table.add(build_of(path, &file.build_id), times);
    }
    table.limit(SEGMENT_VERSIONS_MAX);
    Ok(table)
}

/// Adds the images of some series, each with its key.
fn add_images(
    source: &dyn Source,
    series: &[u32],
    keys: &[VersionKey],
    table: &mut VersionTable,
) -> Result<(), Damage> {
    if series.is_empty() {
        return Ok(());
    }
    let windows = source.read_windows()?;
    let selection = Selection {
        series,
        windows: &WindowSet::all(windows.len()),
    };
    let read = source.read_cells(&selection, &mut |series, cells| {
        // Cells of a series are in the order of windows, which is that of time in a segment only.
        let cells = cells.iter();
        let times = cells.map(|cell| times_of(&windows[cell.window as usize]));
        let position = selection.series.binary_search(&series);
        if let (Ok(position), Some(times)) = (position, times.reduce(VersionTimes::join)) {
            table.add(keys[position].clone(), times);
        }
    });
    read.whole()
}

fn times_of(window: &WindowInfo) -> VersionTimes {
    VersionTimes {
        first_ms: window.start_ms(),
        last_ms: window.last_start_ms(),
    }
}

/// The versions of all windows.
pub fn list_versions(content: &Content) -> Versions {
    let mut table = VersionTable::default();
    let mut unread = UnreadLog::default();
    content.log_unreadable(&mut unread);
    for found in content.segments.values() {
        match found.versions() {
            Some(versions) => table.add_all(versions),
            None => {
                let missing = "its versions are not read yet";
                let reason = found.damage().unwrap_or(missing);
                found.log_unread(reason, &mut unread);
            }
        }
    }
    for file in &content.old {
        let range = TimeRange {
            from_ms: file.hour_ms(),
            to_ms: file.end_ms(),
        };
        let reason = "a file of an earlier version is not converted yet";
        unread.note_stretch(range, file.messages().len(), [0; 2], reason);
    }
    for block in &content.blocks {
        // A block is never damaged.
        let read = read_versions(&*block.read());
        table.add_all(&read.unwrap_or_default());
    }
    Versions {
        since_ms: content.oldest_ms(),
        versions: table.versions,
        left_out: table.left_out,
        unread: unread.entries(),
    }
}
