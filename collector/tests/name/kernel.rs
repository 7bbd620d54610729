//! The kernel's names against a plain reading of `/proc/kallsyms`.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use collector::file::UnnamedReason;
use collector::name::{Naming, Object, Readings};
use collector::process::{KernelCode, KernelOwner, SideBand, SideBandEvent};
use collector::sample::read_online_cpus;
use fastrand::Rng;

use crate::target::{functions, namer, reason};

/// Addresses in the core kernel, and as many in modules and BPF programs, where there are some.
const ADDRESSES: usize = 8000;

/// Serializes the tests that change the visibility of the kernel's symbols or rely on it.
pub(crate) static SHOWN: Mutex<()> = Mutex::new(());

/// Hides the kernel's addresses from everybody for a moment, where that is allowed.
struct Hidden(String);

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";

impl Hidden {
    fn new() -> Option<Self> {
        let before = fs::read_to_string(KPTR_RESTRICT).ok()?;
        fs::write(KPTR_RESTRICT, "2").ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        fs::write(KPTR_RESTRICT, &self.0).unwrap();
    }
}

/// The functions in `/proc/kallsyms` at each address, with their modules.
struct Kallsyms {
    functions: BTreeMap<u64, Vec<String>>,
    text: std::ops::Range<u64>,
}

impl Kallsyms {
    /// `None` where the addresses are hidden.
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/kallsyms").unwrap();
        let mut functions = BTreeMap::<u64, Vec<String>>::new();
        let (mut start, mut end) = (0, 0);
        for line in text.lines() {
            let (address, rest) = line.split_once(' ').unwrap();
            let (kind, name) = rest.split_once(' ').unwrap();
            let address = u64::from_str_radix(address, 16).unwrap();
            match name {
                "_text" => start = address,
                "_etext" => end = address,
                _ => {}
            }
            if matches!(kind, "t" | "T" | "w" | "W") && name != "_etext" {
                let name = name.replace('\t', " ");
                functions.entry(address).or_default().push(name);
            }
        }
        (start != 0).then_some(Self {
            functions,
            text: start..end,
        })
    }

    /// The nearest function before, on the same side of the end of the core kernel. Behind two symbols of the core there is 1 MB of
    /// padding each (`__entry_text_end`, `srso_alias_return_thunk`), which is not theirs.
    fn find(&self, address: u64) -> &[String] {
        let found = self.functions.range(..=address).next_back();
        let in_core = |at: &u64| self.text.contains(at);
        found
            .filter(|(start, _)| {
                in_core(start) == in_core(&address) && address - **start < 64 << 10
            })
            .map_or(&[], |(_, names)| names)
    }

    /// Addresses in functions outside of the core kernel, at most 256 bytes from their start, as few are shorter.
    fn draw_outside(&self, random: &mut Rng) -> Vec<u64> {
        let outside = self
            .functions
            .keys()
            .filter(|start| !self.text.contains(start));
        let starts: Vec<u64> = outside.copied().collect();
        let count = if starts.is_empty() { 0 } else { ADDRESSES };
        let mut draw = || starts[random.usize(..starts.len())] + random.u64(..256);
        (0..count).map(|_| draw()).collect()
    }
}

/// Check the names of random addresses of the core kernel, of modules and of BPF programs. All must be equal where the
/// kernel has one name; where it has several for one address, ours must be one of them.
#[test]
fn kernel_is_named_as_in_kallsyms() {
    let _shown = SHOWN.lock().unwrap();
    let Some(kallsyms) = Kallsyms::read() else {
        return eprintln!("skipped: the kernel hides its addresses (kernel.kptr_restrict)");
    };
    let mut random = Rng::with_seed(0x6b65_726e);
    let bytes = kallsyms.text.end - kallsyms.text.start;
    let mut addresses: Vec<u64> = (0..ADDRESSES)
        .map(|_| kallsyms.text.start + random.u64(..bytes))
        .collect();
    addresses.extend(kallsyms.draw_outside(&mut random));
    let offsets: Vec<u64> = addresses
        .iter()
        .map(|address| address.wrapping_sub(kallsyms.text.start))
        .collect();
    let namings = namer().name(&Object::Kernel(Readings::ALL), &offsets);
    let (mut same, mut outside, mut unnamed) = (0, 0, 0);
    for (address, naming) in addresses.iter().zip(&namings) {
        let names = kallsyms.find(*address);
        let is_same = match naming {
            Naming::Unnamed(_) | Naming::InFunction(_) => names.is_empty(),
            Naming::Named(_) => names.contains(&functions(naming)[0]),
        };
        same += usize::from(is_same);
        outside += usize::from(!kallsyms.text.contains(address));
        unnamed += usize::from(names.is_empty());
        if !is_same {
            eprintln!("{address:#x}: {:?} and {names:?}", functions(naming));
        }
    }
    eprintln!(
        "{same} of {} the same, {outside} of them outside the core kernel, {unnamed} without a name",
        addresses.len()
    );
    assert!(same * 1000 >= addresses.len() * 995, "{same} are the same");
}

/// Check that the kernel's frames say that its addresses may not be seen, where `kernel.kptr_restrict` hides them.
#[test]
fn a_kernel_that_hides_its_addresses_is_a_matter_of_permission() {
    let _alone = SHOWN.lock().unwrap();
    let mut namer = namer();
    let namings = {
        let Some(_hidden) = Hidden::new() else {
            return eprintln!("not checked: {KPTR_RESTRICT} cannot be set");
        };
        namer.name(
            &Object::Kernel(Readings::ALL),
            &[0x1000, 0xffff_ffff_8100_1000],
        )
    };
    assert_eq!(reason(&namings), UnnamedReason::Permission);
}

/// Check that BPF programs, each loaded where the last one lay, have each its own name at the time at which it ran.
#[test]
fn bpf_programs_in_turn_have_their_own_names() {
    let _shown = SHOWN.lock().unwrap();
    let mut side_band = SideBand::new();
    if let Err(err) = side_band.follow(&read_online_cpus().unwrap()) {
        return eprintln!("not checked: {err:#}");
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("kernel_burner");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../testdata/workloads/kernel_burner.c"
    );
    let compiled = Command::new("cc")
        .args(["-O2", source, "-o"])
        .arg(&program)
        .status();
    assert!(compiled.unwrap().success());
    let mut command = Command::new(&program);
    let command = command.args(["turns", "0.06"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut events = Vec::new();
    let status = loop {
        // The activity of other programs must not fill the buffers.
        assert_eq!(side_band.drain(&mut events), 0);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    side_band.drain(&mut events);
    if !status.success() {
        return eprintln!("not checked: BPF programs cannot be loaded");
    }

    events.sort_by_key(|event| event.time_ns);
    let code = KernelCode::new(0);
    for event in events {
        let time_ns = event.time_ns;
        match event.event {
            SideBandEvent::KernelLoad { addresses, name } => code.load(addresses, &name, time_ns),
            SideBandEvent::KernelUnload { addresses, name } => {
                code.unload(addresses, &name, time_ns);
            }
            SideBandEvent::Lost { .. } => code.lose(time_ns),
            _ => {}
        }
    }
    let text = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    let turns: Vec<(&str, u64, u64)> = text.lines().map(parse_turn).collect();
    assert_eq!(turns.len(), 6);
    let mut shared = 0;
    for (turn, &(name, address, time_ns)) in turns.iter().enumerate() {
        // In the loop, which all have 20 bytes from their start.
        let inside = address + 20;
        let owner = |time_ns| match code.find(inside, time_ns) {
            KernelOwner::Loaded(file) => file.path.to_string(),
            owner => format!("{owner:?}"),
        };
        let named = owner(time_ns);
        assert!(
            named.starts_with("bpf_prog_") && named.ends_with(&format!("_{name} [bpf]")),
            "{name}: {named}"
        );
        if let Some(&(_, _, other_ns)) = turns[..turn]
            .iter()
            .find(|other| inside.abs_diff(other.1 + 20) < 20)
        {
            shared += 1;
            assert_ne!(owner(other_ns), named);
        }
    }
    // Other programs of the machine may have come in between.
    assert!(shared >= 1, "no program lay where another did: {text}");
}

fn parse_turn(line: &str) -> (&str, u64, u64) {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let address = u64::from_str_radix(words.next().unwrap(), 16).unwrap();
    (name, address, words.next().unwrap().parse().unwrap())
}
