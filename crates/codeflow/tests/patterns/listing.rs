//! Small functions, assembled, and their rows as text.

use std::collections::HashMap;

use codeflow::{Code, Confidence, Rows, analyze, analyze_region, find_call};
use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use iced_x86::{BlockEncoderOptions, Decoder, DecoderOptions, IcedError};

/// Where the code begins. There is nothing in front of it.
pub(crate) const START: u64 = 0x1_0000;

/// Assembled code.
pub(crate) struct Assembled {
    bytes: Vec<u8>,
    /// Addresses of the instructions.
    addresses: Vec<u64>,
    imports: HashMap<u64, &'static str>,
    function_start: Option<u64>,
}

/// Notes of an assembly function beside its instructions.
#[derive(Default)]
pub(crate) struct Notes {
    imports: Vec<(CodeLabel, &'static str)>,
    /// Data begins here.
    data: Option<CodeLabel>,
}

impl Notes {
    /// Ends the code: words follow that the dynamic linker fills with addresses of functions.
    pub(crate) fn imports(
        &mut self,
        assembler: &mut CodeAssembler,
        imports: &mut [(&mut CodeLabel, &'static str)],
    ) -> Result<(), IcedError> {
        let mut data = assembler.create_label();
        assembler.set_label(&mut data)?;
        assembler.dq(&[0])?;
        self.data = Some(data);
        for (label, name) in imports {
            assembler.set_label(label)?;
            assembler.dq(&[0])?;
            self.imports.push((**label, name));
        }
        Ok(())
    }

    /// Ends the code: data follow.
    pub(crate) fn data(&mut self, assembler: &mut CodeAssembler) -> Result<(), IcedError> {
        self.imports(assembler, &mut [])
    }
}

/// Assembles code.
pub(crate) fn assemble(
    write: impl FnOnce(&mut CodeAssembler, &mut Notes) -> Result<(), IcedError>,
) -> Assembled {
    let mut assembler = CodeAssembler::new(64).expect("64 is a bitness");
    let mut notes = Notes::default();
    write(&mut assembler, &mut notes).expect("valid instructions");
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let result = assembler
        .assemble_options(START, options)
        .expect("near labels");
    let bytes = result.inner.code_buffer.clone();
    let address = |label: &CodeLabel| result.label_ip(label).expect("a set label");
    let end = notes
        .data
        .as_ref()
        .map_or(START + bytes.len() as u64, address);
    let code = &bytes[..(end - START) as usize];
    let decoder = Decoder::with_ip(64, code, START, DecoderOptions::NONE);
    Assembled {
        addresses: decoder
            .into_iter()
            .map(|instruction| instruction.ip())
            .collect(),
        imports: notes
            .imports
            .iter()
            .map(|(label, name)| (address(label), *name))
            .collect(),
        bytes,
        function_start: None,
    }
}

impl Assembled {
    /// Tells that a function begins with the instruction of a number.
    pub(crate) fn with_function_start(mut self, instruction: usize) -> Self {
        self.function_start = Some(self.addresses[instruction]);
        self
    }

    /// The rows of the whole code, one line an instruction.
    fn region(&self) -> Vec<String> {
        let end = START + self.bytes.len() as u64;
        let rows = analyze_region(self, START..end);
        self.addresses
            .iter()
            .map(|address| describe(&rows, *address))
            .collect()
    }

    /// Checks that each instruction is found from its end, as a call is from a return address.
    pub(crate) fn check_calls(&self) {
        for pair in self.addresses.windows(2) {
            assert_eq!(find_call(self, pair[1]), Some(pair[0]));
        }
    }

    /// The row of one instruction by an analysis of its own.
    pub(crate) fn closure(&self, instruction: usize) -> String {
        let address = self.addresses[instruction];
        describe(&analyze(self, address), address)
    }
}

fn describe(rows: &Rows, address: u64) -> String {
    match rows.get(address) {
        Some(Ok(row)) => match row.confidence {
            Confidence::Certain => row.to_string(),
            Confidence::Tail => format!("{row} tail"),
            Confidence::Weak => format!("{row} weak"),
        },
        Some(Err(reason)) => reason.name().to_owned(),
        None => "nothing".to_owned(),
    }
}

impl Code for Assembled {
    fn bytes(&self, address: u64) -> &[u8] {
        let offset = address.checked_sub(START);
        offset
            .and_then(|offset| self.bytes.get(offset as usize..))
            .unwrap_or_default()
    }

    fn import(&self, slot: u64) -> Option<&str> {
        self.imports.get(&slot).copied()
    }

    fn function_start(&self, address: u64) -> Option<u64> {
        self.function_start.filter(|start| *start <= address)
    }
}

/// Checks the row of each instruction by an analysis of the whole code.
pub(crate) fn check(code: &Assembled, expected: &[&str]) {
    let found = code.region();
    assert_eq!(found, expected, "found {found:#?}");
}

/// Checks the row of each instruction by an analysis of its own.
pub(crate) fn check_closures(code: &Assembled, expected: &[&str]) {
    let numbers = 0..code.addresses.len();
    let found: Vec<String> = numbers.map(|number| code.closure(number)).collect();
    assert_eq!(found, expected, "found {found:#?}");
}
