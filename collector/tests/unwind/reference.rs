//! Parses the output of `llvm-dwarfdump`, and formats our rules in the same way.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use profiler_bpf::arch::x86_64::rule::{RETURN_ON_STACK, Rule, kind, rbp, rbx};

/// Registers by their DWARF numbers.
const REGISTERS: [&str; 16] = [
    "RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "RBP", "RSP", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

/// A row of the reference.
#[derive(Debug)]
pub(crate) struct ReferenceRow {
    pub(crate) address: u64,
    /// In the format of [`describe`].
    pub(crate) text: String,
}

/// All rows of all functions of a file.
pub(crate) fn read_reference(path: &Path) -> Vec<ReferenceRow> {
    let mut child = Command::new("llvm-dwarfdump-22")
        .args(["--eh-frame", "--debug-frame"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("llvm-dwarfdump-22 is installed by deploy/setup");
    let mut rows = Vec::new();
    let mut end = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // `  0x26006: CFA=RSP+24: RBX=[CFA-16], RIP=[CFA-8]`
        let line = line.unwrap();
        // `00000018 00000024 0000001c FDE cie=00000000 pc=00026000...00026360`
        if let Some((_, range)) = line.split_once(" pc=") {
            end = u64::from_str_radix(range.split_once("...").unwrap().1, 16).unwrap();
        }
        let Some((address, rest)) = line
            .strip_prefix("  0x")
            .and_then(|row| row.split_once(": CFA="))
        else {
            continue;
        };
        let address = u64::from_str_radix(address, 16).unwrap();
        if address >= end {
            // The linker's entry for a linkage table of one stub ends with a row of zero bytes.
            continue;
        }
        let (cfa, registers) = rest.split_once(": ").unwrap_or((rest, ""));
        rows.push(ReferenceRow {
            address,
            text: text_of(cfa, registers),
        });
    }
    child.wait().unwrap();
    rows
}

fn text_of(cfa: &str, registers: &str) -> String {
    let find = |name: &str| {
        let (_, rest) = registers.split_once(name)?;
        // An expression is in brackets and contains commas.
        let end = if rest.starts_with('[') {
            rest.find(']')? + 1
        } else {
            rest.find(',').unwrap_or(rest.len())
        };
        Some(&rest[..end])
    };
    match find("RIP=") {
        Some("undefined") => return "end".to_owned(),
        Some("[DW_OP_breg7 RSP+168]") => return format!("signal {cfa}"),
        _ => {}
    }
    let saved = |name| find(name).filter(|rule| *rule != "same" && *rule != "undefined");
    // We evaluate `rbx` if it is at a fixed position in the frame.
    let is_followed = |rule: &str| {
        rule.starts_with("[CFA") || (rule.starts_with("[DW_OP_breg6") && !rule.contains(','))
    };
    let rbx = saved("RBX=").map(|rule| if is_followed(rule) { rule } else { "unknown" });
    format!(
        "CFA={cfa} RBP={} RBX={} RIP={}",
        saved("RBP=").unwrap_or("same"),
        rbx.unwrap_or("same"),
        find("RIP=").unwrap_or("?")
    )
}

/// Formats a rule like [`ReferenceRow::text`].
pub(crate) fn describe(rule: &Rule) -> String {
    let register = REGISTERS[usize::from(rule.register)];
    // Without an offset the register stands alone, except in expressions.
    let plus = |offset: i32| -> String {
        if offset == 0 {
            String::new()
        } else {
            format!("{offset:+}")
        }
    };
    let cfa = match rule.kind {
        kind::NONE => return "none".to_owned(),
        kind::END => return "end".to_owned(),
        kind::SIGNAL => return "signal DW_OP_breg7 RSP+160, DW_OP_deref".to_owned(),
        kind::UNSUPPORTED => return "unsupported".to_owned(),
        kind::REGISTER => format!("{register}{}", plus(rule.cfa_offset)),
        kind::DEREFERENCE => {
            let number = rule.register;
            let add = match rule.cfa_add {
                0 => String::new(),
                add => format!(", DW_OP_plus_uconst {add:#x}"),
            };
            format!(
                "DW_OP_breg{number} {register}{:+}, DW_OP_deref{add}",
                rule.cfa_offset
            )
        }
        kind::LINKAGE => format!(
            "DW_OP_breg7 RSP{:+}, DW_OP_breg16 RIP+0, DW_OP_lit15, DW_OP_and, DW_OP_lit{}, DW_OP_ge, DW_OP_lit3, \
             DW_OP_shl, DW_OP_plus",
            rule.cfa_offset, rule.cfa_add
        ),
        kind => return format!("kind {kind}"),
    };
    let rbp = match rule.rbp {
        rbp::SAME => "same".to_owned(),
        rbp::AT_CFA => format!("[CFA{}]", plus(rule.rbp_offset.into())),
        rbp::AT_RBP => format!("[DW_OP_breg6 RBP{:+}]", rule.rbp_offset),
        rbp => format!("rbp {rbp}"),
    };
    let rbx = match rule.rbx {
        rbx::SAME => "same".to_owned(),
        rbx::AT_CFA => format!("[CFA{}]", plus(rule.rbx_offset.into())),
        rbx::AT_RBP => format!("[DW_OP_breg6 RBP{:+}]", rule.rbx_offset),
        rbx::UNKNOWN => "unknown".to_owned(),
        rbx => format!("rbx {rbx}"),
    };
    let rip = match rule.return_register {
        RETURN_ON_STACK => "[CFA-8]",
        register => REGISTERS[usize::from(register)],
    };
    format!("CFA={cfa} RBP={rbp} RBX={rbx} RIP={rip}")
}
