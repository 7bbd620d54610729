//! Columnar segments: any bytes are refused, or answer all questions.
//!
//! Random bytes hardly ever pass a checksum, so chunks are also drawn one by one, and files whose checksums are set right.

use model::text;
use segment::fuzzing::{chunks, decode_chunk, mend_checksums};
use model::FunctionNames;
use segment::{Builder, Effort, MergeOptions, Section, Segment, Selection, Source, WindowSet, WriteOptions, merge};

use crate::of_kind;

/// Kinds of input after those of single chunks.
const WHOLE: usize = Section::ALL.len();

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    match usize::from(kind) % (WHOLE + 2) {
        WHOLE => ask_everything(input.to_vec()),
        kind if kind > WHOLE => ask_everything(mend_checksums(input).unwrap_or_default()),
        section => {
            let Some((&items, bytes)) = input.split_first() else { return };
            decode_chunk(Section::ALL[section], usize::from(items), bytes);
        }
    }
}

/// Asks a file all that it can be asked, and merges it with itself.
fn ask_everything(bytes: Vec<u8>) {
    let Ok(segment) = Segment::open(bytes) else { return };
    let series: Vec<u32> = (0..segment.series_count() as u32).collect();
    let mut number = 0;
    let odd = WindowSet::of(&vec![(); segment.window_count()], |()| {
        number += 1;
        number % 2 == 0
    });
    for windows in [WindowSet::all(segment.window_count()), odd] {
        let selection = Selection { series: &series, windows: &windows };
        let sums = segment.sum_stacks(&selection, Effort::ONE).value;
        let stacks: Vec<u32> = sums.iter().map(|sum| sum.stack).collect();
        let tables = segment.read_stacks(&stacks, &[], FunctionNames::All, Effort::ONE).value;
        for stack in tables.stacks.into_iter().flatten() {
            assert!(tables.tables.walk_stack(stack).count() < 1 << 21);
        }
        for row in segment.read_summed_rows(&selection, FunctionNames::Shown, Effort::ONE).value.rows {
            assert!(segment.series_labels(row.series).count() < 1 << 21);
        }
        if let Ok(sums) = segment.read_window_sums(&selection) {
            assert!(sums.value.iter().all(|window| window.info.covered_ms() >= 0));
        }
        drop(segment.read_whole_windows(&windows, Effort::ONE));
    }
    drop(segment.read_messages());
    drop(segment.verify(Effort::ONE));
    drop(merge(&[&segment], &MergeOptions::default(), || Ok(std::io::sink())));
}

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/b.so | 5
";

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let mut builder = Builder::default();
    for number in 1..5 {
        let window = text::window_at(TEXT, 10_000 * number, number as u64);
        builder.add_message(&window, Some([number as u8; 16])).expect("the window is small");
    }
    let mut bytes = Vec::new();
    builder.write(&WriteOptions::FAST, &mut bytes).expect("memory is written");
    let segment = Segment::open(bytes.clone()).expect("the segment is whole");
    let mut seeds = vec![of_kind(WHOLE as u8, &bytes), of_kind(WHOLE as u8 + 1, &bytes)];
    let chunks = chunks(&segment, &bytes);
    let find = |wanted| chunks.iter().find(|(section, ..)| *section == wanted).expect("the segment has all sections");
    for (section, items, bytes) in &chunks {
        let bytes = match section {
            Section::Totals | Section::Windows => {
                let second = if *section == Section::Totals { Section::Detail } else { Section::Accounts };
                let length = (bytes.len() as u16).to_le_bytes();
                [&length, &bytes[..], &find(second).2].concat()
            }
            _ => bytes.clone(),
        };
        let input = [&[*items as u8], &bytes[..]].concat();
        seeds.push(of_kind(*section as u8, &input));
    }
    seeds
}
