//! `/proc/PID/maps`, whose paths may hold anything.

use collector::procfs::parse_maps_line;

pub(crate) fn run(input: &[u8]) {
    for line in input.split(|byte| *byte == b'\n') {
        let _ = parse_maps_line(line);
    }
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    vec![MAPS.into()]
}

const MAPS: &str = "\
55d0c0a00000-55d0c0a2c000 r-xp 00002000 fe:00 1835 /usr/bin/a\\040b\\012c (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7ffe3c5f2000-7ffe3c5f4000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
