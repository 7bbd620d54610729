//! A segment is equal to the windows that it was made from, and to no others.

use fastrand::Rng;
use model::{LabelSet, Window};
use segment::{Builder, Digest, Error, Segment, WriteOptions};

use crate::exact::{TWO, build_bytes};
use crate::random;

fn compare(
    windows: &[Window],
    digest: impl Fn(&Window) -> Option<Digest>,
    bytes: &[u8],
) -> Result<(), Error> {
    let mut builder = Builder::default();
    for window in windows {
        builder.add_message(window, digest(window)).unwrap();
    }
    builder.compare(&Segment::open(bytes).unwrap(), TWO)
}

/// Check that the order of windows makes no difference, and that a builder can compare what it wrote itself.
#[test]
fn a_segment_equals_its_windows() {
    let mut random = Rng::with_seed(33);
    for count in [0, 1, 20] {
        let mut windows = random::windows(&mut random, 3, count);
        let mut builder = Builder::default();
        for window in &windows {
            builder.add_message(window, random::digest(window)).unwrap();
        }
        let mut bytes = Vec::new();
        builder.write(&WriteOptions::SMALL, &mut bytes).unwrap();
        builder
            .compare(&Segment::open(&bytes[..]).unwrap(), TWO)
            .unwrap();
        random.shuffle(&mut windows);
        compare(&windows, random::digest, &bytes).unwrap();
    }
}

/// A change of one window, and what the error names.
type Change = (&'static str, fn(&mut Vec<Window>));

#[test]
fn any_other_window_is_told_apart() {
    let changes: [Change; 16] = [
        ("the rows of ", |windows| {
            row_of(windows, |window, row| window.rows[row].samples += 1)
        }),
        ("the rows of ", |windows| {
            row_of(windows, |window, row| window.rows[row].ns += 1)
        }),
        ("the rows of ", |windows| {
            row_of(windows, |window, row| {
                window.rows.remove(row);
            });
        }),
        ("the rows of ", |windows| {
            row_of(windows, |window, row| window.rows[row].stack.0 -= 1);
        }),
        ("the rows of ", |windows| {
            row_of(windows, |window, row| window.rows[row].tags.0 ^= 1);
        }),
        // Two windows change places.
        ("the rows of ", |windows| {
            let (a, b) = windows.split_at_mut(1);
            let b = b
                .iter_mut()
                .find(|b| b.head.node == a[0].head.node)
                .unwrap();
            std::mem::swap(&mut a[0].rows, &mut b.rows);
            std::mem::swap(&mut a[0].tables, &mut b.tables);
            std::mem::swap(&mut a[0].series, &mut b.series);
        }),
        ("the rows of ", |windows| {
            row_of(windows, |window, row| {
                let stack = window.rows[row].stack;
                let location = window.tables.stacks[stack.position()].location;
                window.tables.locations[location.position()].address += 1;
            });
        }),
        ("the list of series", |windows| {
            let labels = LabelSet::from_sorted([("comm", "new")]).unwrap();
            windows[0].series.push(labels);
        }),
        ("the rows of ", |windows| {
            // Without a row, but listed.
            let labels = windows.iter().flat_map(|window| &window.series);
            let is_missing = |labels: &&LabelSet| !windows[0].series.contains(labels);
            let missing = labels.clone().find(is_missing).cloned();
            windows[0].series.extend(missing);
        }),
        ("window ", |windows| drop(windows.pop())),
        ("window ", |windows| windows[0].head.key.sequence += 1),
        ("window ", |windows| windows[0].head.window_ms += 1),
        ("window ", |windows| {
            windows[0].head.account.dropped = [("ring".to_owned(), 1)].into()
        }),
        ("window ", |windows| {
            windows[0].head.profile.comments.push("more".to_owned())
        }),
        ("the account of ", |windows| {
            let mut windows = windows.iter_mut();
            let window = windows
                .find(|window| !window.containers.is_empty())
                .unwrap();
            window.containers[0].usage.throttled_ns += 1;
        }),
        ("the mapping of /lib/", |windows| {
            let mappings = windows
                .iter_mut()
                .flat_map(|window| &mut window.tables.mappings);
            mappings.for_each(|mapping| mapping.limit += 1);
        }),
    ];
    let mut random = Rng::with_seed(33);
    let windows = random::windows(&mut random, 2, 8);
    let bytes = build_bytes(&windows);
    // The digest is that of the message as it was.
    let digests: Vec<_> = windows.iter().map(random::digest).collect();
    for (number, (what, change)) in changes.into_iter().enumerate() {
        let mut changed = windows.clone();
        change(&mut changed);
        let mut digests = digests.iter().copied();
        let mut builder = Builder::default();
        for window in &changed {
            builder
                .add_message(window, digests.next().flatten())
                .unwrap();
        }
        let error = builder.compare(&Segment::open(&bytes[..]).unwrap(), TWO);
        let error = error.expect_err(what).to_string();
        assert!(
            error.contains(&format!("made from: {what}")),
            "change {number}: {error}"
        );
    }
    let error = compare(&windows, |_| None, &bytes).unwrap_err();
    assert!(error.to_string().contains("window "), "{error}");
}

/// Changes a row with a stack and another one before it.
fn row_of(windows: &mut [Window], change: impl FnOnce(&mut Window, usize)) {
    let mut windows = windows.iter_mut();
    let is_suitable = |row: &model::Row| row.stack.0 > 1 && row.samples > 0 && row.ns > 0;
    let (window, row) = windows
        .find_map(|window| {
            let row = window.rows.iter().position(is_suitable)?;
            Some((window, row))
        })
        .unwrap();
    change(window, row);
}

/// Check that a segment whose chunk is damaged is not compared.
#[test]
fn a_damaged_segment_is_not_equal() {
    let mut random = Rng::with_seed(33);
    let windows = random::windows(&mut random, 1, 3);
    let bytes = build_bytes(&windows);
    for at in (0..bytes.len()).step_by(13) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let Ok(segment) = Segment::open(damaged) else {
            continue;
        };
        let mut builder = Builder::default();
        for window in &windows {
            builder.add_message(window, random::digest(window)).unwrap();
        }
        let error = builder.compare(&segment, TWO).unwrap_err();
        assert!(error.to_string().starts_with("chunk "), "{error}");
    }
}
