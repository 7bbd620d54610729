//! `/proc/PID/maps`, whose paths may hold anything, and ELF notes with a build id.
#![no_main]

use collector::process::{find_build_id, parse_maps_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for line in input.split(|byte| *byte == b'\n') {
        let _ = parse_maps_line(line);
    }
    let _ = find_build_id(|offset, out| {
        let Some(from) = usize::try_from(offset).ok() else { return false };
        let Some(bytes) = from.checked_add(out.len()).and_then(|to| input.get(from..to)) else { return false };
        out.copy_from_slice(bytes);
        true
    });
});
