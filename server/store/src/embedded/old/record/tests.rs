use model::text::window;
use model::{ContainerUsage, LabelSet, SeriesId};

use super::encode::{finish_record, prepare_window};
use super::labels::encode_labels;
use super::rows::encode_rows;
use super::tables::encode_tables;
use super::totals::encode_totals;
use super::*;

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | 0x10+0xf@/lib/b.so 0x1f@/lib/b.so main 0x7fff | 1
    comm=sort,node=a |  | 2
";

fn encode(window: &Window) -> Vec<u8> {
    let prepared = prepare_window(window.clone()).unwrap();
    let ids = (0..prepared.label_sets().count() as u64).map(|n| SeriesId(100 - n));
    finish_record(&prepared, &ids.collect::<Vec<_>>()).unwrap()
}

fn containers() -> Vec<ContainerAccount> {
    let account = |name: &str, kernel_ns| ContainerAccount {
        labels: LabelSet::from_sorted([("container_id", name), ("node", "a")]).unwrap(),
        usage: ContainerUsage {
            kernel_ns,
            throttled_ns: 2,
            unread_ns: 3,
            excluded_samples: 4,
        },
    };
    vec![account("x", 7), account("y", 1 << 40)]
}

/// Check that records of the version before, whose sections end without accounts, are read.
#[test]
fn records_without_accounts_are_read() {
    let window = window(TEXT);
    let prepared = prepare_window(window.clone()).unwrap();
    let ids = [SeriesId(5), SeriesId(6)];
    let totals = encode_totals(&prepared, &ids, &[]);
    let labels = encode_labels(&window.series, &[]);
    let with = decode_totals(&totals).unwrap();
    // A stolen time of 0, and no accounts; no labels of accounts.
    assert_eq!(
        (&totals[totals.len() - 2..], labels.last()),
        (&[0, 0][..], Some(&0))
    );
    assert_eq!(decode_totals(&totals[..totals.len() - 2]).unwrap(), with);
    let before = decode_labels(&labels[..labels.len() - 1]).unwrap();
    assert_eq!(
        (before.series, before.containers),
        (window.series, Vec::new())
    );
}

#[test]
fn a_window_comes_back_as_it_was() {
    let mut window = window(TEXT);
    window.containers = containers();
    window.head.account.stolen_ns = 9;
    window.head.account.outcomes.insert("complete".into(), 17);
    window.head.account.dropped.insert("queue".into(), 1);
    window.head.profile.comments.push("a comment".into());
    window.head.profile.period_type = ("cpu".into(), "nanoseconds".into());
    assert_eq!(read_window(&encode(&window)).unwrap(), window);
}

#[test]
fn totals_are_the_sums_of_rows() {
    let record = encode(&window(TEXT));
    let header = RecordHeader::read(&record).unwrap();
    let totals = decode_totals(&header.unpack_from(Section::Totals, &record).unwrap()).unwrap();
    assert_eq!(totals.samples, [15, 3]);
    assert_eq!(totals.ns, [150_000_000, 30_000_000]);
}

#[test]
fn an_empty_window_comes_back() {
    let window = window("");
    assert_eq!(read_window(&encode(&window)).unwrap(), window);
}

#[test]
fn every_truncation_and_every_changed_byte_is_noticed() {
    let mut window = window(TEXT);
    window.containers = containers();
    let record = encode(&window);
    for end in 0..record.len() {
        assert!(read_window(&record[..end]).is_err(), "cut at {end}");
    }
    for at in 0..record.len() {
        let mut changed = record.clone();
        changed[at] ^= 0x10;
        assert!(read_window(&changed).is_err(), "changed at {at}");
    }
}

/// Check that file ids are kept, and that tables of earlier versions, which end without them, are read.
#[test]
fn file_ids_are_kept() {
    let mut tables = window(TEXT).tables;
    let bytes = encode_tables(&tables);
    let column = tables.mappings.len();
    let before = decode_tables(&bytes[..bytes.len() - column]).unwrap();
    assert_eq!(before.mappings, tables.mappings);
    let file_id = tables.push_string("f11e");
    tables.mappings[0].file_id = file_id;
    let after = decode_tables(&encode_tables(&tables)).unwrap();
    assert_eq!(after.mappings, tables.mappings);
}

/// Check that the decoders themselves, without the checksums in front of them, survive any change.
#[test]
fn no_changed_column_panics() {
    let window = window(TEXT);
    let tables = encode_tables(&window.tables);
    let rows = encode_rows(&window.rows);
    let labels = encode_labels(&window.series, &containers());
    let bounds = RowBounds {
        series: 2,
        tag_sets: 3,
        stacks: window.tables.stacks.len(),
    };
    for (bytes, decode) in [
        (
            &tables,
            &(|b: &[u8]| drop(decode_tables(b))) as &dyn Fn(&[u8]),
        ),
        (&rows, &|b: &[u8]| drop(decode_rows(b, bounds))),
        (&labels, &|b: &[u8]| drop(decode_labels(b))),
    ] {
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                decode(&changed);
                decode(&changed[..at]);
            }
        }
    }
}
