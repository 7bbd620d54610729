//! Damaged files: errors and missing parts, never wrong sums.

use std::collections::BTreeMap;

use fastrand::Rng;
use model::FunctionNames;
use segment::{
    Damage, Digest, Effort, Pair, Section, Segment, Selection, Source, StackSum, WindowSet,
};

use crate::exact::build_bytes;
use crate::random;
use crate::reference::describe_stack;

/// What could be read of a file, and what is damaged.
#[derive(Default, PartialEq)]
struct Answers {
    pairs: BTreeMap<(u32, u32, u32), (u64, u64)>,
    pairs_inside: BTreeMap<(u32, u32, u32), (u64, u64)>,
    cells: BTreeMap<(u32, u32), (u64, u64)>,
    stacks: BTreeMap<u32, String>,
    sums: Vec<StackSum>,
    accounts: BTreeMap<u32, String>,
    usage: BTreeMap<(u32, u32), u64>,
    digests: BTreeMap<u32, Digest>,
    damage: Vec<Damage>,
}

fn ask_everything(segment: &Segment<Vec<u8>>) -> Answers {
    let mut answers = Answers::default();
    let series: Vec<u32> = (0..segment.series_count() as u32).collect();
    let (all, inside) = (
        WindowSet::all(segment.window_count()),
        WindowSet::of(&vec![(); segment.window_count()], {
            let mut number = 0;
            move |()| {
                number += 1;
                number % 2 == 0
            }
        }),
    );
    let all = Selection {
        series: &series,
        windows: &all,
    };
    let inside = Selection {
        series: &series,
        windows: &inside,
    };
    let pairs = |selection: &Selection<'_>, damage: &mut Vec<Damage>| {
        let read = segment.fold_pairs(
            selection,
            Effort::ONE,
            Vec::new,
            |pairs: &mut Vec<Pair>, pair| pairs.push(*pair),
        );
        damage.extend(read.damage);
        let pairs = read.value.concat().into_iter();
        pairs
            .map(|pair| {
                (
                    (pair.series, pair.stack, pair.tags),
                    (pair.samples, pair.ns),
                )
            })
            .collect()
    };
    answers.pairs = pairs(&all, &mut answers.damage);
    answers.pairs_inside = pairs(&inside, &mut answers.damage);
    answers.sums = segment.sum_stacks(&all, Effort::ONE).value;
    let read = segment.read_cells(&all, |series, cells| {
        answers.cells.extend(
            cells
                .iter()
                .map(|cell| ((series, cell.window), (cell.samples, cell.ns))),
        );
    });
    answers.damage.extend(read.damage);

    let stacks: Vec<u32> = (0..segment.stack_count() as u32).collect();
    let tag_sets: Vec<u32> = (0..segment.section(Section::TagSets).0 as u32).collect();
    let read = segment.read_stacks(&stacks, &tag_sets, FunctionNames::All, Effort::ONE);
    for (stack, id) in stacks.iter().zip(&read.value.stacks) {
        if let Some(id) = id {
            answers
                .stacks
                .insert(*stack, describe_stack(&read.value.tables, *id));
        }
    }
    answers.damage.extend(read.damage);
    match segment.read_windows() {
        Ok(windows) => {
            let read = segment.read_accounts(&windows);
            answers.damage.extend(read.damage);
            for (number, account) in read.value.iter().enumerate() {
                if let Some(account) = account {
                    answers
                        .accounts
                        .insert(number as u32, format!("{account:?}"));
                }
            }
        }
        Err(damage) => answers.damage.push(damage),
    }
    // Its error is that of the windows, which are asked for above.
    if let Ok(read) = segment.read_messages() {
        answers.damage.extend(read.damage);
        let messages = read.value.iter();
        let digests = messages.filter_map(|message| Some((message.window, message.digest?)));
        answers.digests = digests.collect();
    }
    let read = segment.read_usage(|container, cells| {
        answers.usage.extend(
            cells
                .iter()
                .map(|cell| ((container, cell.window), cell.usage.kernel_ns)),
        );
    });
    answers.damage.extend(read.damage);
    answers.damage.extend(segment.read_containers().err());
    answers
}

/// Checks that nothing is there that the whole file does not have.
fn assert_part<K: Ord, V: PartialEq>(part: &BTreeMap<K, V>, whole: &BTreeMap<K, V>) {
    assert!(
        part.iter()
            .all(|(key, value)| whole.get(key) == Some(value))
    );
}

fn small_file() -> Vec<u8> {
    let mut random = Rng::with_seed(21);
    build_bytes(&random::windows(&mut random, 1, 2))
}

#[test]
fn a_flipped_bit_is_found_and_harms_only_its_chunk() {
    let bytes = small_file();
    let whole = ask_everything(&Segment::open(bytes.clone()).unwrap());
    assert!(whole.damage.is_empty());
    assert!(!whole.digests.is_empty());
    let mut opened = 0;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let Ok(segment) = Segment::open(damaged) else {
            continue;
        };
        opened += 1;
        let found = ask_everything(&segment);
        assert!(!found.damage.is_empty(), "byte {at}");
        assert_part(&found.pairs, &whole.pairs);
        assert_part(&found.pairs_inside, &whole.pairs_inside);
        assert_part(&found.cells, &whole.cells);
        assert_part(&found.stacks, &whole.stacks);
        assert_part(&found.accounts, &whole.accounts);
        assert_part(&found.usage, &whole.usage);
        assert_part(&found.digests, &whole.digests);
        // One chunk is damaged, and what does not need it is there.
        let Damage { section, chunk, .. } = found.damage[0].clone();
        assert!(
            found
                .damage
                .iter()
                .all(|other| (other.section, other.chunk) == (section, chunk))
        );
        if at % 5 == 0 {
            let verified = segment.verify(Effort::ONE);
            let verified: Vec<_> = verified
                .iter()
                .map(|damage| (damage.section, damage.chunk))
                .collect();
            assert_eq!(verified, [(section, chunk)]);
        }
        let parts = [
            found.pairs == whole.pairs && found.sums == whole.sums,
            found.cells == whole.cells,
            found.stacks == whole.stacks,
            found.accounts == whole.accounts,
            found.usage == whole.usage,
            found.digests == whole.digests,
        ];
        // Accounts and digests are those of windows.
        let needed = if section == Section::Windows { 2 } else { 1 };
        let other = parts.iter().filter(|is_same| !**is_same).count();
        assert!(other <= needed, "{section}");
    }
    assert!(opened > bytes.len() / 2);
}

#[test]
fn a_cut_file_is_no_segment() {
    let bytes = small_file();
    for end in 0..bytes.len() {
        assert!(Segment::open(&bytes[..end]).is_err(), "{end}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(Segment::open(longer).is_err());
    let twice = [&bytes[..], &bytes[..]].concat();
    assert!(Segment::open(twice).is_err());
}

#[test]
fn another_version_is_named() {
    let mut bytes = small_file();
    let at = bytes.len() - 16;
    bytes[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
    let error = Segment::open(bytes).err().unwrap();
    assert!(error.to_string().contains("version 7"), "{error}");
}
