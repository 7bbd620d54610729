//! `/proc/PID/maps`, whose paths may hold anything.
#![no_main]

mod seeds;

use collector::procfs::parse_maps_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds([MAPS.into()]), |input: &[u8]| {
    for line in input.split(|byte| *byte == b'\n') {
        let _ = parse_maps_line(line);
    }
});

const MAPS: &str = "\
55d0c0a00000-55d0c0a2c000 r-xp 00002000 fe:00 1835 /usr/bin/a\\040b\\012c (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7ffe3c5f2000-7ffe3c5f4000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
