//! Naming through the real child, on real files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential;
mod go;
mod held;
mod hostile;
mod identity;
mod jit;
mod kernel;
mod labels;
mod limits;
mod linked;
mod paths;
mod sent;
mod separate;
mod target;
mod variants;

use std::fs;

use collector::file::UnnamedReason;
use collector::name::{Naming, Object, Readings};
use target::{functions, locate, namer, object, unmapped_file};

#[inline(never)]
fn a_function_with_a_name(x: u64) -> u64 {
    std::hint::black_box(x) + 1
}

fn own_address() -> u64 {
    a_function_with_a_name as *const () as u64
}

/// Check that a function of this program has its name, file and line, and that
/// the second time the cache answers.
#[test]
fn own_function_is_named() {
    let mut namer = namer();
    let (file, offset) = locate(own_address());
    let object = object(file);
    let namings = namer.name(&object, &[offset]);
    let Naming::Named(frames) = &namings[0] else {
        panic!("{namings:?}");
    };
    let frame = frames.last().unwrap();
    assert_eq!(&*frame.function, "name::a_function_with_a_name");
    assert_ne!(frame.system_name, frame.function);
    assert!(frame.file.ends_with("tests/name/main.rs"), "{}", frame.file);
    assert!(frame.line > 0 && !frame.inlined);
    assert_eq!(namer.name(&object, &[offset]), namings);
    let stats = namer.stats();
    assert_eq!((stats.requests, stats.cache_hits), (1, 1));
    assert_eq!((stats.addresses, stats.named), (2, 2));
    assert!(!stats.unconfined, "the tests run as root");
    assert!(stats.child.unwrap().resident_bytes > 0);
}

/// Check the kernel and the vDSO.
#[test]
fn kernel_and_vdso_are_named() {
    let _shown = kernel::SHOWN.lock().unwrap();
    let mut namer = namer();
    let kallsyms = fs::read_to_string("/proc/kallsyms").unwrap();
    let address = |name: &str| {
        let mut lines = kallsyms.lines().map(|line| line.split_ascii_whitespace());
        let address = lines.find_map(|mut line| {
            let address = line.next()?;
            (line.nth(1)? == name).then_some(address)
        });
        u64::from_str_radix(address.unwrap(), 16).unwrap()
    };
    let read = address("ksys_read").wrapping_sub(address("_text"));
    let namings = namer.name(&Object::Kernel(Readings::ALL), &[read + 4]);
    if address("_text") == 0 {
        assert_eq!(namings, [Naming::Unnamed(UnnamedReason::Permission)]);
    } else {
        assert_eq!(functions(&namings[0]), ["ksys_read"]);
    }
    // The image is small; some of its offsets lie in its functions.
    let offsets: Vec<u64> = (0..0x2000).step_by(16).collect();
    let namings = namer.name(&Object::Vdso, &offsets);
    let names: Vec<String> = namings.iter().flat_map(functions).collect();
    assert!(
        names.iter().any(|name| name.ends_with("clock_gettime")),
        "{names:?}"
    );
}

/// Check a file without a process, by its inode.
#[test]
fn unmapped_file_is_named_by_its_inode() {
    let (own, offset) = locate(own_address());
    let file = unmapped_file(own.path.as_ref());
    let namings = namer().name(&object(file), &[offset]);
    assert_eq!(functions(&namings[0]), ["name::a_function_with_a_name"]);
}
