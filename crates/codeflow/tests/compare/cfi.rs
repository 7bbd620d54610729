//! Rows of `.eh_frame`.

use codeflow::{Cfa, Confidence, Register, Row, Saved};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, Operation, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection as _,
};
use object::{Object as _, ObjectSection as _};

use super::ElfFile;

/// A function with call frame information.
pub(crate) struct CfiFunction {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// It has landing pads, or destructors.
    pub(crate) has_exceptions: bool,
    rows: Vec<(u64, u64, Option<CfiRow>)>,
}

#[derive(Clone, Copy)]
enum CfiRow {
    Fixed(Row),
    /// An entry of a procedure linkage table pushes a word halfway, with its eleventh byte.
    Linkage,
}

impl CfiFunction {
    /// Whether it begins where callers enter it: parts of functions that are called rarely are
    /// functions of their own in the table.
    pub(crate) fn is_whole(&self) -> bool {
        let row = self.row(self.start);
        row.is_some_and(|row| row.cfa == Cfa::Register(Register::RSP, 8))
    }

    /// The row at an address.
    pub(crate) fn row(&self, address: u64) -> Option<Row> {
        let (.., row) = self
            .rows
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&address))?;
        match (*row)? {
            CfiRow::Fixed(row) => Some(row),
            CfiRow::Linkage => Some(Row {
                cfa: Cfa::Register(Register::RSP, if address & 15 >= 11 { 16 } else { 8 }),
                rbp: Saved::Same,
                rbx: Saved::Same,
                confidence: Confidence::Certain,
            }),
        }
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// All functions of a file in the order of addresses.
pub(crate) fn read_functions(file: &ElfFile) -> Vec<CfiFunction> {
    let Ok(object) = object::File::parse(&*file.contents) else {
        return Vec::new();
    };
    let section = |name: &str| object.section_by_name(name);
    let Some((frame, data)) =
        section(".eh_frame").and_then(|frame| Some((frame.address(), frame.data().ok()?)))
    else {
        return Vec::new();
    };
    let address = |name: &str| section(name).map_or(0, |section| section.address());
    let bases = BaseAddresses::default()
        .set_eh_frame(frame)
        .set_text(address(".text"))
        .set_got(address(".got"));
    let eh_frame = EhFrame::new(data, LittleEndian);
    let mut context = UnwindContext::new();
    let mut functions = Vec::new();
    let mut entries = eh_frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else {
            continue;
        };
        if fde.is_signal_trampoline() || fde.len() == 0 {
            continue;
        }
        let mut function = CfiFunction {
            start: fde.initial_address(),
            end: fde.initial_address().saturating_add(fde.len()),
            has_exceptions: fde.lsda().is_some(),
            rows: Vec::new(),
        };
        let Ok(mut table) = fde.rows(&eh_frame, &bases, &mut context) else {
            continue;
        };
        while let Ok(Some(row)) = table.next_row() {
            let converted = convert(row, &eh_frame);
            function
                .rows
                .push((row.start_address(), row.end_address(), converted));
        }
        functions.push(function);
    }
    functions.sort_by_key(|function| function.start);
    functions.dedup_by_key(|function| function.start);
    functions
}

fn convert(row: &gimli::UnwindTableRow<usize>, frame: &EhFrame<Slice<'_>>) -> Option<CfiRow> {
    if row.register(gimli::X86_64::RA) == Some(RegisterRule::Undefined) {
        return None;
    }
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => Cfa::Register(
            Register::new(register.0.try_into().ok()?)?,
            i32::try_from(*offset).ok()?,
        ),
        CfaRule::Expression(expression) => match read_expression(expression, frame)? {
            Expression::Word(cfa) => cfa,
            Expression::Linkage => return Some(CfiRow::Linkage),
        },
    };
    Some(CfiRow::Fixed(Row {
        cfa,
        rbp: saved(row, gimli::X86_64::RBP, frame),
        rbx: saved(row, gimli::X86_64::RBX, frame),
        confidence: Confidence::Certain,
    }))
}

fn saved(
    row: &gimli::UnwindTableRow<usize>,
    register: gimli::Register,
    frame: &EhFrame<Slice<'_>>,
) -> Saved {
    match row.register(register) {
        None | Some(RegisterRule::SameValue) => Saved::Same,
        Some(RegisterRule::Offset(offset)) => Saved::AtCfa(offset as i32),
        Some(RegisterRule::Expression(expression)) => {
            let mut operations = match expression.get(frame) {
                Ok(expression) => expression.operations(gimli::Encoding {
                    address_size: 8,
                    format: gimli::Format::Dwarf32,
                    version: 4,
                }),
                Err(_) => return Saved::Unknown,
            };
            match (operations.next(), operations.next()) {
                (
                    Ok(Some(Operation::RegisterOffset {
                        register, offset, ..
                    })),
                    Ok(None),
                ) => {
                    let register = u8::try_from(register.0).ok().and_then(Register::new);
                    register.map_or(Saved::Unknown, |register| {
                        Saved::At(register, offset as i32)
                    })
                }
                _ => Saved::Unknown,
            }
        }
        _ => Saved::Unknown,
    }
}

enum Expression {
    Word(Cfa),
    Linkage,
}

fn read_expression(
    expression: &UnwindExpression<usize>,
    frame: &EhFrame<Slice<'_>>,
) -> Option<Expression> {
    let expression = expression.get(frame).ok()?;
    let mut operations = expression.operations(gimli::Encoding {
        address_size: 8,
        format: gimli::Format::Dwarf32,
        version: 4,
    });
    let Operation::RegisterOffset {
        register, offset, ..
    } = operations.next().ok()??
    else {
        return None;
    };
    let register = Register::new(register.0.try_into().ok()?)?;
    match operations.next().ok()?? {
        Operation::Deref { size: 8, .. } => {}
        Operation::RegisterOffset {
            register: gimli::X86_64::RA,
            ..
        } if offset == 8 => {
            return Some(Expression::Linkage);
        }
        _ => return None,
    }
    let add = match operations.next().ok()? {
        None => 0,
        Some(Operation::PlusConstant { value }) => i32::try_from(value).ok()?,
        Some(_) => return None,
    };
    Some(Expression::Word(Cfa::Word {
        register,
        offset: i32::try_from(offset).ok()?,
        add,
    }))
}
