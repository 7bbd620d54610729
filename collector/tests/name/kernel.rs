//! The kernel's names against a plain reading of `/proc/kallsyms`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use collector::name::{Naming, Object, UnnamedReason};

use crate::target::{Random, functions, namer, reason};

/// Addresses in the core kernel, and as many in modules and BPF programs, where there are some.
const ADDRESSES: usize = 8000;

/// Whether the kernel shows its addresses: tests that set it or rely on it go one by one.
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

/// What `/proc/kallsyms` has: the functions at each address, with their modules.
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

    /// The nearest function before, on the same side of the end of the core kernel.
    fn find(&self, address: u64) -> &[String] {
        let found = self.functions.range(..=address).next_back();
        let in_core = |it: &u64| self.text.contains(it);
        found
            .filter(|(start, _)| in_core(start) == in_core(&address))
            .map_or(&[], |(_, names)| names)
    }

    /// Addresses in functions outside of the core kernel, at most 256 bytes from their start, as few are shorter.
    fn draw_outside(&self, random: &mut Random) -> Vec<u64> {
        let outside = self.functions.keys().filter(|it| !self.text.contains(it));
        let starts: Vec<u64> = outside.copied().collect();
        let count = if starts.is_empty() { 0 } else { ADDRESSES };
        let mut draw = || starts[random.below(starts.len() as u64) as usize] + random.below(256);
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
    let mut random = Random::new(0x6b65_726e);
    let bytes = kallsyms.text.end - kallsyms.text.start;
    let mut addresses: Vec<u64> = (0..ADDRESSES)
        .map(|_| kallsyms.text.start + random.below(bytes))
        .collect();
    addresses.extend(kallsyms.draw_outside(&mut random));
    let offsets: Vec<u64> = addresses
        .iter()
        .map(|it| it.wrapping_sub(kallsyms.text.start))
        .collect();
    let namings = namer().name(&Object::Kernel, &offsets);
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
        namer.name(&Object::Kernel, &[0x1000, 0xffff_ffff_8100_1000])
    };
    assert_eq!(reason(&namings), UnnamedReason::Permission);
}
