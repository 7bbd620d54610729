//! The mappings of a process, and the rules of its code.

use std::collections::HashMap;
use std::fs;

use collector::unwind::{
    CodeAddress, CodeRows, Limits, Lookup, RuleSet, Table, read_code, read_table,
};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use profiler_bpf::arch::x86_64::rule::Rule;

/// The mapped code of a process.
#[derive(Default)]
pub(crate) struct Process {
    mappings: Vec<Mapping>,
    files: HashMap<String, MappedFile>,
    rules: RuleSet,
}

struct MappedFile {
    contents: Vec<u8>,
    functions: Vec<Function>,
    /// Rows of its call frame information.
    table: Table,
    /// Rows of code without, at the addresses that were looked up.
    code: CodeRows,
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
            if mapping.path.starts_with('/') && !self.files.contains_key(&mapping.path) {
                let contents = fs::read(&mapping.path).unwrap_or_default();
                let file = MappedFile::new(contents, &mut self.rules);
                self.files.insert(mapping.path.clone(), file);
            }
        }
    }

    /// Sets the bytes of the vDSO.
    pub(crate) fn set_vdso(&mut self, data: &[u8]) {
        let file = MappedFile::new(data.to_vec(), &mut self.rules);
        self.files.insert(VDSO.to_owned(), file);
    }

    /// The rule that holds at an address, which is the last byte of a call in all frames but interrupted ones.
    pub(crate) fn rule_at(&mut self, address: u64, is_call: bool) -> Lookup {
        let Some(mapping) = self.mapping_at(address) else {
            return Lookup::NoCode;
        };
        let (path, offset) = (mapping.path.clone(), mapping.offset_of(address));
        let Some(file) = self.files.get_mut(&path) else {
            return Lookup::Rule(Rule::NONE);
        };
        let number = file.table.find(offset);
        let rule = number.and_then(|number| self.rules.get(number).copied());
        if let Some(rule) = rule.filter(|rule| *rule != Rule::NONE) {
            return Lookup::Rule(rule);
        }
        if file.code.find(offset).is_none() {
            let address = if is_call {
                CodeAddress::Call(offset)
            } else {
                CodeAddress::Instruction(offset)
            };
            let read = read_code(&*file.contents, &[address]);
            file.code.merge(&read.rows);
        }
        file.code.find(offset).map_or(Lookup::Missing, Lookup::Rule)
    }

    /// Whether signal handlers return to this address.
    pub(crate) fn is_trampoline(&self, address: u64) -> bool {
        let address = address.wrapping_sub(1);
        let found = self.mapping_at(address).and_then(|mapping| {
            let table = &self.files.get(&mapping.path)?.table;
            self.rules.get(table.find(mapping.offset_of(address))?)
        });
        found == Some(&Rule::SIGNAL)
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
        let offset = mapping.offset_of(address);
        format!("{file}+{offset:#x} {function}")
    }

    fn function_at(&self, address: u64) -> Option<&Function> {
        let mapping = self.mapping_at(address)?;
        let offset = mapping.offset_of(address);
        let mut functions = self.files.get(&mapping.path)?.functions.iter();
        functions.find(|function| function.start <= offset && offset <= function.end)
    }

    fn mapping_at(&self, address: u64) -> Option<&Mapping> {
        let place = self
            .mappings
            .partition_point(|mapping| mapping.start <= address);
        let mapping = self.mappings.get(place.checked_sub(1)?)?;
        (address < mapping.end).then_some(mapping)
    }
}

impl Mapping {
    fn offset_of(&self, address: u64) -> u64 {
        address - self.start + self.offset
    }
}

impl MappedFile {
    fn new(contents: Vec<u8>, rules: &mut RuleSet) -> Self {
        let evaluated = read_table(&*contents, rules, &Limits::default());
        Self {
            functions: functions_of(&contents),
            table: evaluated.unwrap_or_default().table,
            code: CodeRows::default(),
            contents,
        }
    }
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
