//! Files that share their rows.

use super::*;

/// A file on this device that claims this build id.
fn claiming(files: &mut Files, device: u64, inode: u64, build_id: u64) -> Arc<MappedFile> {
    let identity = FileIdentity::Inode {
        device,
        inode,
        generation: 0,
        claimed_build_id: BuildId::new(&build_id.to_le_bytes()),
    };
    files.intern(FileKind::File, b"/lib/libc.so.6", identity)
}

/// Check that a file which claims the build id of another, and is sampled first, has its own rows, and the other has its own.
#[test]
fn a_claimed_build_id_shares_nothing() {
    let mut files = Files::new();
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    let hostile = claiming(&mut files, 1, 10, 7);
    let honest = claiming(&mut files, 1, 11, 7);
    for (file, number) in [(&hostile, 1), (&honest, 2)] {
        let pid = number as u32;
        let mapped = mappings(&[(0x10_0000, 0x20_0000, 0, file)]);
        tables.set_process(pid, 1, &mapped, 1);
        flush(&mut tables, &mut kernel, 1);
        assert_eq!(answer(&kernel, pid, 0x10_0500), Answer::Copy);
        load(&mut tables, file, rows_of(number, 0, 0x1_0000), 1);
        flush(&mut tables, &mut kernel, 1);
        let rule = rule_of(number, 0x500);
        assert_eq!(answer(&kernel, pid, 0x10_0500), Answer::Rule(rule));
        assert_eq!(tables.find_rule(&mapped, 0x10_0500), Found::Rule(rule));
    }
    assert_eq!(tables.stats().files, 2);
}

/// Check that the file of 200 containers, each with a device number of its own, is evaluated once and has its rows once; that
/// all processes lose them together; and that a file whose rows went meanwhile is asked for again.
#[test]
fn equal_rows_are_kept_once() {
    let mut files = Files::new();
    let mut tables = Tables::new(1 << 20);
    let mut kernel = Kernel::new();
    let all: Vec<Arc<MappedFile>> = (0..200)
        .map(|device| claiming(&mut files, device, 10, 7))
        .collect();
    let digest = digest_of([1, 0, 0x1_0000]);
    let known = tables.known_digests();
    let mut evaluated = 0;
    let mut of_one = None;
    for (file, pid) in all.iter().zip(1..) {
        tables.set_process(pid, 1, &mappings(&[(0, 0x1_0000, 0, file)]), 1);
        let evaluation = if known.contains(digest) {
            Evaluation::Known(digest)
        } else {
            evaluated += 1;
            rows_of(1, 0, 0x1_0000)
        };
        load(&mut tables, file, evaluation, 1);
        flush(&mut tables, &mut kernel, 1);
        let rule = rule_of(1, 0x500);
        assert_eq!(answer(&kernel, pid, 0x500), Answer::Rule(rule));
        let stats = tables.stats();
        let amounts = (stats.files, stats.rows, stats.blocks, stats.rules);
        assert_eq!(*of_one.get_or_insert(amounts), amounts);
    }
    assert_eq!((evaluated, tables.stats().files_known), (1, 200));

    let key = TableKey::of(&all[0]).unwrap();
    tables.load(&key, Evaluation::Unreadable, 2);
    flush(&mut tables, &mut kernel, 2);
    assert_eq!(answer(&kernel, 1, 0x500), Answer::Rule(Rule::NONE));
    assert_eq!(answer(&kernel, 2, 0x500), Answer::Rule(rule_of(1, 0x500)));
    tables.reset(3);
    assert!(!known.contains(digest));
    load(&mut tables, &all[5], Evaluation::Known(digest), 3);
    assert!(tables.wants(&all[5], 3));
}
