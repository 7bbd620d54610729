//! Call frame information to rules.
//!
//! Formats: Linux Standard Base 5.0, chapter 10.6 (`.eh_frame`); DWARF 5, section 6.4
//! (`.debug_frame`). Both are read by gimli; this module translates its rows for the unwinder.

use elf::{ReadAt, Segment};
use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian,
    Operation, Register, RegisterRule, Section, UnwindContext, UnwindExpression, UnwindOffset,
    UnwindSection, UnwindTableRow,
};
use profiler_bpf::arch::x86_64::rule::{
    RBP, RBX, RETURN_ADDRESS, RETURN_ON_STACK, RSP, Rule, kind, rbp, rbx,
};
use thiserror::Error;

use super::limits::Limits;
use super::parts::{Parts, PartsError};
use super::rules::RuleSet;
use super::stored::Digest;
use super::table::{Table, TableBuilder, TooManyRows};

/// Offset of the interrupted code's `rsp` from the stack pointer of a signal trampoline.
/// Source: see [`kind::SIGNAL`].
const SIGNAL_RSP: i64 = 160;

/// A hole between two functions that is smaller than this is padding, in which no code runs: the
/// rule of the function before it may as well hold there.
const PADDING_MAX: u64 = 16;

/// An entry of a procedure linkage table is 16 bytes: a jump, in the first 11 of them; a push that
/// ends with the eleventh byte; a jump to the first entry. Smaller ones are a jump only.
const LINKAGE_RULE: Rule = Rule {
    kind: kind::LINKAGE,
    cfa_add: 11,
    ..Rule::at_register(RSP, 8)
};

/// Why a file has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CfiError {
    /// Not an ELF file, or its headers are damaged.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf,
    /// Not for x86-64.
    #[error("not for x86-64")]
    OtherMachine,
    /// A limit of [`Limits`] is exceeded.
    #[error("more call frame information than the limits allow")]
    TooLarge,
}

impl From<PartsError> for CfiError {
    fn from(err: PartsError) -> Self {
        match err {
            PartsError::NotElf => Self::NotElf,
            PartsError::OtherMachine => Self::OtherMachine,
            PartsError::TooLarge => Self::TooLarge,
        }
    }
}

impl From<TooManyRows> for CfiError {
    fn from(_: TooManyRows) -> Self {
        Self::TooLarge
    }
}

/// A file's rows, and how much of its information they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// The rows.
    pub table: Table,
    /// Functions with call frame information.
    pub functions: u64,
    /// Those of them whose information is damaged: from there on their rule is
    /// [`Rule::UNSUPPORTED`].
    pub damaged: u64,
    /// Rows whose rule is none that we have.
    pub unsupported_rows: u64,
    /// Whether the list of functions itself is damaged: functions behind the damage are not known.
    pub is_cut: bool,
}

/// A function: where its code lies in the file, and where its entry lies in the section.
#[derive(Clone, Copy, Debug)]
struct Function {
    start: u64,
    end: u64,
    /// Offset of its entry in the section, which [`Limits::section_bytes_max`] keeps below 4 GiB.
    entry: u32,
    in_debug_frame: bool,
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The call frame information of an ELF file, not evaluated yet.
#[derive(Debug)]
pub struct CallFrameInformation {
    parts: Parts,
}

impl CallFrameInformation {
    /// Reads the headers of a file, and the sections that count.
    ///
    /// # Errors
    /// The file is none, or is more than `limits` allow.
    pub fn read(file: &(impl ReadAt + ?Sized), limits: &Limits) -> Result<Self, CfiError> {
        let parts = Parts::read(file, limits)?;
        Ok(Self { parts })
    }

    /// A key for the rows: equal information gives equal rows.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.parts)
    }

    /// Evaluates it. New rules are added to `rules`.
    ///
    /// `.eh_frame` counts first; functions that only `.debug_frame` has are added. Where functions
    /// overlap, the one that begins later holds from its start on.
    ///
    /// # Errors
    /// There is more than `limits` allow. Damaged information is no error: it is counted, and its
    /// code has the rule [`Rule::UNSUPPORTED`].
    pub fn evaluate(&self, rules: &mut RuleSet, limits: &Limits) -> Result<Evaluated, CfiError> {
        evaluate_parts(&self.parts, rules, limits)
    }
}

/// Reads the call frame information of an ELF file, and evaluates it.
///
/// # Errors
/// As [`CallFrameInformation`] has them.
pub fn read_table(
    file: &(impl ReadAt + ?Sized),
    rules: &mut RuleSet,
    limits: &Limits,
) -> Result<Evaluated, CfiError> {
    CallFrameInformation::read(file, limits)?.evaluate(rules, limits)
}

fn evaluate_parts(
    parts: &Parts,
    rules: &mut RuleSet,
    limits: &Limits,
) -> Result<Evaluated, CfiError> {
    let bases = base_addresses(parts);
    let eh_frame = parts.eh_frame.as_ref().map(|section| {
        let mut frame = EhFrame::new(&section.bytes, LittleEndian);
        frame.set_address_size(8);
        frame
    });
    let debug_frame = parts.debug_frame.as_ref().map(|section| {
        let mut frame = DebugFrame::new(&section.bytes, LittleEndian);
        frame.set_address_size(8);
        frame
    });
    let mut evaluation = Evaluation {
        rules,
        limits,
        bases: &bases,
        code: &parts.code,
        linkages: &parts.linkages,
        context: UnwindContext::new(),
        work_bytes: 0,
        result: Evaluated::default(),
    };
    let mut functions = Vec::new();
    if let Some(section) = &eh_frame {
        evaluation.list_functions(section, false, &mut functions)?;
    }
    if let Some(section) = &debug_frame {
        evaluation.list_functions(section, true, &mut functions)?;
    }
    sort_functions(&mut functions);
    let mut builder = TableBuilder::new(limits.rows_max);
    let mut end_before = 0;
    for (place, function) in functions.iter().enumerate() {
        if function.start.saturating_sub(end_before) >= PADDING_MAX {
            evaluation.add_hole(end_before, function.start, &mut builder)?;
        }
        let next = functions
            .get(place + 1)
            .map_or(u64::MAX, |function| function.start);
        let function = Function {
            end: function.end.min(next),
            ..*function
        };
        match (&eh_frame, &debug_frame) {
            (Some(section), _) if !function.in_debug_frame => {
                evaluation.evaluate(section, function, &mut builder)?;
            }
            (_, Some(section)) => evaluation.evaluate(section, function, &mut builder)?,
            _ => {}
        }
        end_before = function.end;
    }
    // Addresses behind the last function have no rules.
    evaluation.add_hole(end_before, u64::MAX, &mut builder)?;
    let end = parts.code.iter().map(Segment::file_end).max();
    let mut result = evaluation.result;
    result.table = builder.finish(end.unwrap_or(0))?;
    if let Some(go) = &parts.go {
        result.table = go.put_over(&result.table, rules, limits)?;
    }
    Ok(result)
}

/// The addresses that pointers in the sections are relative to.
fn base_addresses(parts: &Parts) -> BaseAddresses {
    let mut bases = BaseAddresses::default();
    if let Some(address) = parts.text {
        bases = bases.set_text(address);
    }
    if let Some(address) = parts.got {
        bases = bases.set_got(address);
    }
    if let Some(section) = &parts.eh_frame {
        bases = bases.set_eh_frame(section.address);
    }
    bases
}

/// Sorts functions by start, and keeps one at each: of two the one of `.eh_frame`, and of two there the first.
fn sort_functions(functions: &mut Vec<Function>) {
    functions.sort_unstable_by_key(|function| {
        let Function {
            start,
            in_debug_frame,
            entry,
            ..
        } = *function;
        (start, in_debug_frame, entry)
    });
    functions.dedup_by_key(|function| function.start);
}

/// The state of the evaluation of one file.
struct Evaluation<'a> {
    rules: &'a mut RuleSet,
    limits: &'a Limits,
    bases: &'a BaseAddresses,
    code: &'a [Segment],
    linkages: &'a [Segment],
    context: UnwindContext<usize>,
    work_bytes: u64,
    result: Evaluated,
}

impl Evaluation<'_> {
    /// Lists the functions of a section whose code is in the file.
    fn list_functions<'a, S>(
        &mut self,
        section: &S,
        in_debug_frame: bool,
        functions: &mut Vec<Function>,
    ) -> Result<(), CfiError>
    where
        S: UnwindSection<Slice<'a>> + Section<Slice<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        let bytes = section.reader().slice();
        let mut entries = section.entries(self.bases);
        loop {
            let partial = match entries.next() {
                Ok(Some(gimli::CieOrFde::Fde(partial))) => partial,
                Ok(Some(gimli::CieOrFde::Cie(_))) => continue,
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.result.is_cut = true;
                    return Ok(());
                }
            };
            // Of what they share too, which each entry has read again, also when it leads nowhere.
            self.add_work(entry_bytes(bytes, partial.offset()))?;
            self.add_work(entry_bytes(bytes, UnwindOffset::into(partial.cie_offset())))?;
            let Ok(entry) = partial.parse(S::cie_from_offset) else {
                self.result.damaged += 1;
                continue;
            };
            let address = entry.initial_address();
            let Some((start, end)) = self.place_in_file(address, entry.len()) else {
                // Of code that the linker dropped, or nonsense.
                continue;
            };
            if functions.len() >= self.limits.functions_max {
                return Err(CfiError::TooLarge);
            }
            functions.push(Function {
                start,
                end,
                entry: entry.offset() as u32,
                in_debug_frame,
            });
        }
    }

    fn add_work(&mut self, bytes: usize) -> Result<(), CfiError> {
        self.work_bytes = self.work_bytes.saturating_add(bytes as u64);
        if self.work_bytes <= self.limits.work_bytes_max {
            Ok(())
        } else {
            Err(CfiError::TooLarge)
        }
    }

    /// Adds code without call frame information: none has a rule but that in a procedure linkage
    /// table. Some linkers describe these, some do not, and those of static programs (whose functions
    /// depend on the processor) are never described.
    fn add_hole(
        &mut self,
        start: u64,
        end: u64,
        builder: &mut TableBuilder,
    ) -> Result<(), CfiError> {
        builder.push(start, RuleSet::NONE)?;
        for linkage in self.linkages {
            let from = linkage.file_offset.max(start);
            let to = linkage.file_end().min(end);
            if from < to {
                builder.push(from, self.rules.intern(LINKAGE_RULE))?;
                builder.push(to, RuleSet::NONE)?;
            }
        }
        Ok(())
    }

    /// The part of the file that holds the code at `address`.
    fn place_in_file(&self, address: u64, bytes: u64) -> Option<(u64, u64)> {
        let (range, start) = self
            .code
            .iter()
            .find_map(|range| Some((range, range.offset_of(address)?)))?;
        let end = start.saturating_add(bytes).min(range.file_end());
        (start < end).then_some((start, end))
    }

    /// Adds the rules of a function.
    fn evaluate<'a, S>(
        &mut self,
        section: &S,
        function: Function,
        builder: &mut TableBuilder,
    ) -> Result<(), CfiError>
    where
        S: UnwindSection<Slice<'a>>,
        S::Offset: UnwindOffset<usize>,
    {
        self.result.functions += 1;
        let entry = section.fde_from_offset(
            self.bases,
            (function.entry as usize).into(),
            S::cie_from_offset,
        );
        let Ok(entry) = entry else {
            self.result.damaged += 1;
            return Ok(builder.push(function.start, RuleSet::UNSUPPORTED)?);
        };
        self.add_work(entry.entry_len() + entry.cie().entry_len())?;
        let mut context = std::mem::replace(&mut self.context, UnwindContext::new());
        let result = self.add_rows(section, &entry, function, &mut context, builder);
        self.context = context;
        result
    }

    fn add_rows<'a, S>(
        &mut self,
        section: &S,
        entry: &FrameDescriptionEntry<Slice<'a>>,
        function: Function,
        context: &mut UnwindContext<usize>,
        builder: &mut TableBuilder,
    ) -> Result<(), CfiError>
    where
        S: UnwindSection<Slice<'a>>,
    {
        let is_signal = entry.is_signal_trampoline();
        let offset_of = |address: u64| {
            let into = address.saturating_sub(entry.initial_address());
            function.start.saturating_add(into).min(function.end)
        };
        let Ok(mut rows) = entry.rows(section, self.bases, context) else {
            self.result.damaged += 1;
            return Ok(builder.push(function.start, RuleSet::UNSUPPORTED)?);
        };
        let mut done = function.start;
        loop {
            match rows.next_row() {
                Ok(Some(row)) => {
                    let expressions = Expressions { section, entry };
                    let rule = expressions.rule_of(row, is_signal);
                    self.result.unsupported_rows += u64::from(rule == Rule::UNSUPPORTED);
                    builder.push(offset_of(row.start_address()), self.rules.intern(rule))?;
                    done = offset_of(row.end_address());
                }
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.result.damaged += 1;
                    return Ok(builder.push(done, RuleSet::UNSUPPORTED)?);
                }
            }
        }
    }
}

/// The bytes of the entry at a place in a section, by its length and at most up to the section's end.
fn entry_bytes(section: &[u8], at: usize) -> usize {
    let entry = section.get(at..).unwrap_or_default();
    let length = match entry.split_first_chunk() {
        Some((&[0xff, 0xff, 0xff, 0xff], longer)) => longer
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        Some((length, _)) => u32::from_le_bytes(*length).into(),
        None => 0,
    };
    usize::try_from(length).map_or(entry.len(), |length| length.min(entry.len()))
}

/// Reads the expressions of an entry.
struct Expressions<'a, 'b, S> {
    section: &'b S,
    entry: &'b FrameDescriptionEntry<Slice<'a>>,
}

impl<'a, S: UnwindSection<Slice<'a>>> Expressions<'a, '_, S> {
    /// The rule of a row.
    fn rule_of(&self, row: &UnwindTableRow<usize>, is_signal: bool) -> Rule {
        if is_signal {
            return self.signal_rule(row).unwrap_or(Rule::UNSUPPORTED);
        }
        let return_register = match row.register(Register(RETURN_ADDRESS.into())) {
            Some(RegisterRule::Offset(-8)) => RETURN_ON_STACK,
            Some(RegisterRule::Undefined) => return Rule::END,
            Some(RegisterRule::Register(Register(number))) if number < 16 => number as u8,
            _ => return Rule::UNSUPPORTED,
        };
        let rule = self.cfa_rule(row).and_then(|rule| {
            let (rbp, rbp_offset) = self.rbp_rule(row)?;
            let (rbx, rbx_offset) = self.rbx_rule(row).unwrap_or((rbx::UNKNOWN, 0));
            Some(Rule {
                return_register,
                rbp,
                rbx,
                rbp_offset,
                rbx_offset,
                ..rule
            })
        });
        rule.unwrap_or(Rule::UNSUPPORTED)
    }

    fn cfa_rule(&self, row: &UnwindTableRow<usize>) -> Option<Rule> {
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                let register = u8::try_from(register.0)
                    .ok()
                    .filter(|number| *number < 16)?;
                Some(Rule::at_register(register, i32::try_from(*offset).ok()?))
            }
            CfaRule::Expression(expression) => self.cfa_by_expression(expression),
        }
    }

    fn cfa_by_expression(&self, expression: &UnwindExpression<usize>) -> Option<Rule> {
        let (operations, count) = self.operations(expression)?;
        let (register, offset, add) = match operations[..count] {
            // The old stack pointer was saved on the new stack.
            [
                Operation::RegisterOffset {
                    register, offset, ..
                },
                Operation::Deref { size: 8, .. },
            ] => (register, offset, 0),
            [
                Operation::RegisterOffset {
                    register, offset, ..
                },
                Operation::Deref { size: 8, .. },
                Operation::PlusConstant { value },
            ] => (register, offset, value),
            // Linkers write this for a procedure linkage table: rsp + 8 + ((rip & 15) >= N) * 8.
            [
                Operation::RegisterOffset {
                    register: Register(7),
                    offset,
                    ..
                },
                Operation::RegisterOffset {
                    register: Register(16),
                    offset: 0,
                    ..
                },
                Operation::UnsignedConstant { value: 15 },
                Operation::And,
                Operation::UnsignedConstant { value: from },
                Operation::Ge,
                Operation::UnsignedConstant { value: 3 },
                Operation::Shl,
                Operation::Plus,
            ] => {
                return Some(Rule {
                    kind: kind::LINKAGE,
                    cfa_add: i16::try_from(from).ok()?,
                    ..Rule::at_register(RSP, i32::try_from(offset).ok()?)
                });
            }
            _ => return None,
        };
        let register = u8::try_from(register.0)
            .ok()
            .filter(|number| *number < 16)?;
        Some(Rule {
            kind: kind::DEREFERENCE,
            cfa_add: i16::try_from(add).ok()?,
            ..Rule::at_register(register, i32::try_from(offset).ok()?)
        })
    }

    fn rbp_rule(&self, row: &UnwindTableRow<usize>) -> Option<(u8, i16)> {
        Some(match self.saved_register(row, RBP)? {
            SavedRegister::Same => (rbp::SAME, 0),
            SavedRegister::AtCfa(offset) => (rbp::AT_CFA, offset),
            SavedRegister::AtRbp(offset) => (rbp::AT_RBP, offset),
        })
    }

    fn rbx_rule(&self, row: &UnwindTableRow<usize>) -> Option<(u8, i16)> {
        Some(match self.saved_register(row, RBX)? {
            SavedRegister::Same => (rbx::SAME, 0),
            SavedRegister::AtCfa(offset) => (rbx::AT_CFA, offset),
            SavedRegister::AtRbp(offset) => (rbx::AT_RBP, offset),
        })
    }

    /// The location of the caller's value of a register, if the kernel's rows can express it.
    fn saved_register(&self, row: &UnwindTableRow<usize>, register: u8) -> Option<SavedRegister> {
        match row.register(Register(register.into())) {
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => {
                Some(SavedRegister::Same)
            }
            Some(RegisterRule::Offset(offset)) => {
                Some(SavedRegister::AtCfa(i16::try_from(offset).ok()?))
            }
            Some(RegisterRule::Expression(expression)) => {
                let (operations, count) = self.operations(&expression)?;
                match operations[..count] {
                    [
                        Operation::RegisterOffset {
                            register: Register(6),
                            offset,
                            ..
                        },
                    ] => Some(SavedRegister::AtRbp(i16::try_from(offset).ok()?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The rule of a signal trampoline, if its stack pointer is where the kernel puts it.
    fn signal_rule(&self, row: &UnwindTableRow<usize>) -> Option<Rule> {
        let CfaRule::Expression(expression) = row.cfa() else {
            return None;
        };
        let (operations, count) = self.operations(expression)?;
        matches!(
            operations[..count],
            [
                Operation::RegisterOffset {
                    register: Register(7),
                    offset: SIGNAL_RSP,
                    ..
                },
                Operation::Deref { size: 8, .. },
            ]
        )
        .then_some(Rule::SIGNAL)
    }

    /// The operations of an expression, and how many they are; `None` when there are more than
    /// any shape has.
    fn operations(
        &self,
        expression: &UnwindExpression<usize>,
    ) -> Option<([Operation<Slice<'a>>; OPERATIONS_MAX], usize)> {
        let expression = expression.get(self.section).ok()?;
        let mut iterator = expression.operations(self.entry.cie().encoding());
        let mut operations = [Operation::Nop; OPERATIONS_MAX];
        let mut count = 0;
        while let Some(operation) = iterator.next().ok()? {
            *operations.get_mut(count)? = operation;
            count += 1;
        }
        Some((operations, count))
    }
}

/// The location of the caller's value of a register.
enum SavedRegister {
    Same,
    AtCfa(i16),
    AtRbp(i16),
}

/// Operations of the longest expression that has a rule.
const OPERATIONS_MAX: usize = 9;
