//! Jumps out of the function, by tables, and to nowhere.

use iced_x86::code_asm::*;

use crate::listing::{assemble, check, check_closures};

/// Check that a tail call needs no recognition: the return is that of the other function.
#[test]
fn tail_call() {
    let code = assemble(|a, _| {
        let mut other = a.create_label();
        a.push(rbx)?;
        a.mov(rbx, rdi)?;
        a.pop(rbx)?;
        a.jmp(other)?;
        a.int3()?;
        a.set_label(&mut other)?;
        a.xor(eax, eax)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
            "no_return",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that jumps through words that the dynamic linker writes, and to methods, end a function.
#[test]
fn indirect_tail_calls() {
    let code = assemble(|a, notes| {
        let mut puts = a.create_label();
        a.sub(rsp, 8)?;
        a.add(rsp, 8)?;
        a.jmp(qword_ptr(puts))?;
        a.sub(rsp, 8)?;
        a.mov(rax, qword_ptr(rdi))?;
        a.add(rsp, 8)?;
        a.jmp(qword_ptr(rax + 16))?;
        a.sub(rsp, 8)?;
        a.mov(rax, rdi)?;
        a.add(rsp, 8)?;
        a.jmp(rax)?;
        notes.imports(a, &mut [(&mut puts, "puts")])
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same tail",
            "rsp+16 rbp=same rbx=same tail",
            "rsp+16 rbp=same rbx=same tail",
            "rsp+8 rbp=same rbx=same tail",
            "rsp+8 rbp=same rbx=same tail",
            "rsp+16 rbp=same rbx=same tail",
            "rsp+16 rbp=same rbx=same tail",
            "rsp+8 rbp=same rbx=same tail",
        ],
    );
}

/// Check that a jump behind a new stack pointer is no tail call: dynamic linkers begin programs so.
#[test]
fn jump_to_another_stack() {
    let code = assemble(|a, _| {
        a.push(rbx)?;
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(rsp, rdi)?;
        a.jmp(rax)
    });
    check(&code, &["no_return", "no_return", "no_return", "no_return"]);
}

/// Check that a function's part far away has the rows of its frame.
#[test]
fn cold_part() {
    let code = assemble(|a, _| {
        let (mut cold, mut back) = (a.create_label(), a.create_label());
        a.push(rbx)?;
        a.test(rdi, rdi)?;
        a.je(cold)?;
        a.set_label(&mut back)?;
        a.pop(rbx)?;
        a.ret()?;
        a.nop()?;
        a.set_label(&mut cold)?;
        a.call(rax)?;
        a.jmp(back)
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
        ],
    );
}

/// Check that a jump table of distances is followed to all of its entries, also to those that do
/// not return.
#[test]
fn jump_table() {
    let code = assemble(|a, notes| {
        let mut table = a.create_label();
        let (mut one, mut two, mut default) =
            (a.create_label(), a.create_label(), a.create_label());
        a.sub(rsp, 0x18)?;
        a.cmp(edi, 1)?;
        a.ja(default)?;
        a.lea(rdx, qword_ptr(table))?;
        a.movsxd(rax, dword_ptr(rdx + rdi * 4))?;
        a.add(rax, rdx)?;
        a.notrack().jmp(rax)?;
        a.set_label(&mut one)?;
        a.ud2()?;
        a.set_label(&mut two)?;
        a.xor(eax, eax)?;
        a.set_label(&mut default)?;
        a.add(rsp, 0x18)?;
        a.ret()?;
        notes.data(a)?;
        a.set_label(&mut table)?;
        // `ud2` takes 2 bytes, `xor` 2, `add` 4, `ret` 1, and the word that ends the code 8.
        a.dd(&[-17_i32 as u32, -15_i32 as u32])
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that an interpreter's jump to its next operation has the row of the code that leads there,
/// if any.
#[test]
fn computed_goto() {
    let code = assemble(|a, _| {
        let mut end = a.create_label();
        a.push(rbx)?;
        a.test(rdi, rdi)?;
        a.je(end)?;
        a.movzx(eax, byte_ptr(rdi))?;
        a.jmp(qword_ptr(rbx + rax * 8))?;
        a.set_label(&mut end)?;
        a.pop(rbx)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16] weak",
            "rsp+16 rbp=same rbx=[cfa-16] weak",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
        ],
    );
    check_closures(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16] weak",
            "rsp+16 rbp=same rbx=[cfa-16] weak",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check the entries of a procedure linkage table: the first pushes a word more.
#[test]
fn linkage_table() {
    let code = assemble(|a, notes| {
        let mut first = a.create_label();
        let (mut map, mut resolver, mut puts) =
            (a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut first)?;
        a.push(qword_ptr(map))?;
        a.jmp(qword_ptr(resolver))?;
        a.nop()?;
        a.jmp(qword_ptr(puts))?;
        a.push(0)?;
        a.jmp(first)?;
        notes.imports(
            a,
            &mut [(&mut map, ""), (&mut resolver, ""), (&mut puts, "puts")],
        )
    });
    check(
        &code,
        &[
            "rsp+16 rbp=same rbx=same",
            "rsp+24 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
        ],
    );
}

/// Check that two ways on that contradict each other give no row.
#[test]
fn conflict() {
    let code = assemble(|a, _| {
        let mut other = a.create_label();
        a.test(rdi, rdi)?;
        a.je(other)?;
        a.add(rsp, 8)?;
        a.ret()?;
        a.set_label(&mut other)?;
        a.add(rsp, 0x18)?;
        a.ret()
    });
    check(
        &code,
        &[
            "conflict",
            "conflict",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+32 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that code that stops at once, and bytes that are no instructions, have no rows.
#[test]
fn stops() {
    let code = assemble(|a, _| {
        a.ud2()?;
        a.hlt()?;
        a.int3()?;
        a.db(&[0x06])
    });
    check(&code, &["no_return", "no_return", "no_return", "no_return"]);
}
