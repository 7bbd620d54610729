//! The mappings of a process, and the rules of its code.

use std::collections::HashMap;
use std::fs;

use collector::unwind::{Limits, Lookup, RuleSet, Table, read_table};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use profiler_bpf::arch::x86_64::rule::Rule;

/// The mapped code of a process.
#[derive(Default)]
pub(crate) struct Process {
    mappings: Vec<Mapping>,
    tables: HashMap<String, Table>,
    functions: HashMap<String, Vec<Function>>,
    rules: RuleSet,
}

/// A function of a file, and its code by file offset.
struct Function {
    start: u64,
    end: u64,
    name: String,
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

/// The name of the vDSO in `/proc/PID/maps`.
const VDSO: &str = "[vdso]";

impl Process {
    /// Sets the mappings from the text of `/proc/PID/maps`.
    pub(crate) fn set_mappings(&mut self, text: &str) {
        self.mappings = text.lines().filter_map(read_mapping).collect();
        for mapping in &self.mappings {
            if mapping.path.starts_with('/') && !self.tables.contains_key(&mapping.path) {
                let data = fs::read(&mapping.path).unwrap_or_default();
                self.functions
                    .insert(mapping.path.clone(), functions_of(&data));
                self.tables
                    .insert(mapping.path.clone(), table_of(&data, &mut self.rules));
            }
        }
    }

    /// Sets the bytes of the vDSO.
    pub(crate) fn set_vdso(&mut self, data: &[u8]) {
        let table = table_of(data, &mut self.rules);
        self.tables.insert(VDSO.to_owned(), table);
    }

    /// The rule that holds at an address.
    pub(crate) fn rule_at(&self, address: u64) -> Lookup {
        let Some(mapping) = self.mapping_at(address) else {
            return Lookup::NoCode;
        };
        let table = self.tables.get(&mapping.path);
        let number = table.and_then(|table| table.find(address - mapping.start + mapping.offset));
        let rule = number.and_then(|number| self.rules.get(number));
        Lookup::Rule(*rule.unwrap_or(&Rule::NONE))
    }

    /// Whether signal handlers return to this address.
    pub(crate) fn is_trampoline(&self, address: u64) -> bool {
        self.rule_at(address.wrapping_sub(1)) == Lookup::Rule(Rule::SIGNAL)
    }

    /// Whether an address is in one of these functions, or returns to one.
    pub(crate) fn is_in(&self, address: u64, names: &[&str]) -> bool {
        self.function_at(address)
            .is_some_and(|function| names.contains(&function.name.as_str()))
    }

    /// Describes an address by file, offset and function.
    pub(crate) fn describe(&self, address: u64) -> String {
        let Some(mapping) = self.mapping_at(address) else {
            return format!("{address:#x}");
        };
        let file = mapping.path.rsplit('/').next().unwrap_or_default();
        let function = self
            .function_at(address)
            .map_or("", |function| function.name.as_str());
        let offset = address - mapping.start + mapping.offset;
        format!("{file}+{offset:#x} {function}")
    }

    fn function_at(&self, address: u64) -> Option<&Function> {
        let mapping = self.mapping_at(address)?;
        let offset = address - mapping.start + mapping.offset;
        let functions = self.functions.get(&mapping.path)?;
        functions
            .iter()
            .find(|function| function.start <= offset && offset <= function.end)
    }

    fn mapping_at(&self, address: u64) -> Option<&Mapping> {
        let place = self
            .mappings
            .partition_point(|mapping| mapping.start <= address);
        let mapping = self.mappings.get(place.checked_sub(1)?)?;
        (address < mapping.end).then_some(mapping)
    }
}

fn table_of(data: &[u8], rules: &mut RuleSet) -> Table {
    read_table(data, rules, &Limits::default())
        .map_or_else(|_| Table::default(), |evaluated| evaluated.table)
}

fn functions_of(data: &[u8]) -> Vec<Function> {
    let Ok(file) = object::File::parse(data) else {
        return Vec::new();
    };
    let place = |address: u64| {
        let segment = file.segments().find(|segment| {
            segment.address() <= address && address - segment.address() < segment.size()
        })?;
        Some(address - segment.address() + segment.file_range().0)
    };
    let functions = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter_map(|symbol| {
            let start = place(symbol.address()).filter(|_| symbol.size() > 0)?;
            Some(Function {
                start,
                end: start + symbol.size(),
                name: symbol.name().ok()?.to_owned(),
            })
        });
    functions.collect()
}

/// An executable mapping of a line such as `55d0c0a00000-55d0c0a2c000 r-xp 00002000 fe:00 1835   /usr/bin/true`.
fn read_mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()?.contains('x');
    let offset = fields.next()?;
    let path = fields.nth(2).unwrap_or_default();
    let number = |text| u64::from_str_radix(text, 16).ok();
    is_code.then_some(Mapping {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        path: path.to_owned(),
    })
}
