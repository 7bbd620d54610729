//! Prologues, epilogues, and what is between them.

use iced_x86::code_asm::*;

use crate::listing::{assemble, check, check_closures};

/// Check that a frame pointer is followed from its push to `leave`; from the middle on only its own
/// register is known.
#[test]
fn frame_pointer() {
    let code = assemble(|a, _| {
        a.endbr64()?;
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.sub(rsp, 0x20)?;
        a.mov(dword_ptr(rbp - 4), edi)?;
        a.leave()?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=[cfa-16] rbx=same",
            "rsp+48 rbp=[cfa-16] rbx=same",
            "rsp+48 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
    check_closures(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=[cfa-16] rbx=same",
            "rbp+16 rbp=[cfa-16] rbx=same",
            "rbp+16 rbp=[cfa-16] rbx=same",
            "rbp+16 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that pushes, pops and the room for variables are followed.
#[test]
fn pushes_and_pops() {
    let code = assemble(|a, _| {
        a.push(rbp)?;
        a.push(rbx)?;
        a.sub(rsp, 0x18)?;
        a.mov(rbx, rdi)?;
        a.mov(rbp, rsi)?;
        a.add(rsp, 0x18)?;
        a.pop(rbx)?;
        a.pop(rbp)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+24 rbp=same rbx=same",
            "rsp+48 rbp=same rbx=same",
            "rsp+48 rbp=same rbx=[cfa-24]",
            "rsp+48 rbp=[cfa-16] rbx=[cfa-24]",
            "rsp+24 rbp=[cfa-16] rbx=[cfa-24]",
            "rsp+16 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that a leaf's save in the red zone is found.
#[test]
fn red_zone() {
    let code = assemble(|a, _| {
        a.mov(qword_ptr(rsp - 8), rbp)?;
        a.mov(rbp, rdi)?;
        a.lea(rax, qword_ptr(rbp + rbp))?;
        a.mov(rbp, qword_ptr(rsp - 8))?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that the frame pointer is the base where the stack grows by an unknown number.
#[test]
fn alloca() {
    let code = assemble(|a, _| {
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.sub(rsp, rdi)?;
        a.mov(qword_ptr(rsp), rax)?;
        a.leave()?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=[cfa-16] rbx=same",
            "rbp+16 rbp=[cfa-16] rbx=same",
            "rbp+16 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check GCC's form of a realigned stack, with the frame's address in `r10` and then on the new
/// stack.
#[test]
fn realigned_stack() {
    let code = assemble(|a, _| {
        a.lea(r10, qword_ptr(rsp + 8))?;
        a.and(rsp, -32)?;
        a.push(qword_ptr(r10 - 8))?;
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.push(r10)?;
        a.sub(rsp, 0x40)?;
        a.xor(r10d, r10d)?;
        a.add(rsp, 0x40)?;
        a.pop(r10)?;
        a.pop(rbp)?;
        a.lea(rsp, qword_ptr(r10 - 8))?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "r10+0 rbp=same rbx=same",
            "r10+0 rbp=same rbx=same",
            "r10+0 rbp=same rbx=same",
            "r10+0 rbp=[rsp+0] rbx=same",
            "r10+0 rbp=[rsp+8] rbx=same",
            "r10+0 rbp=[rsp+72] rbx=same",
            "[rsp+64]+0 rbp=[rsp+72] rbx=same",
            "[rsp+0]+0 rbp=[rsp+8] rbx=same",
            "r10+0 rbp=[rsp+0] rbx=same",
            "r10+0 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check a frame whose address is kept in `rbx`, as OpenBLAS and glibc's lazy binding do.
#[test]
fn base_in_rbx() {
    let code = assemble(|a, _| {
        a.push(rbx)?;
        a.mov(rbx, rsp)?;
        a.and(rsp, -64)?;
        a.sub(rsp, 0x80)?;
        a.mov(rsp, rbx)?;
        a.pop(rbx)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rbx+16 rbp=same rbx=[cfa-16]",
            "rbx+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that a path without the frame and one with it have rows of their own.
#[test]
fn shrink_wrapped() {
    let code = assemble(|a, _| {
        let mut slow = a.create_label();
        a.test(rdi, rdi)?;
        a.jne(slow)?;
        a.xor(eax, eax)?;
        a.ret()?;
        a.set_label(&mut slow)?;
        a.push(rbp)?;
        a.mov(rbp, rdi)?;
        a.mov(rax, rbp)?;
        a.pop(rbp)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=[cfa-16] rbx=same",
            "rsp+16 rbp=[cfa-16] rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check a loop that touches each page of a large frame: `rsp` is at another place each time, and
/// `r11` is not.
#[test]
fn probed_stack() {
    let code = assemble(|a, _| {
        let mut touch = a.create_label();
        a.lea(r11, qword_ptr(rsp - 0x8000))?;
        a.set_label(&mut touch)?;
        a.sub(rsp, 0x1000)?;
        a.or(qword_ptr(rsp), 0)?;
        a.cmp(rsp, r11)?;
        a.jne(touch)?;
        a.xor(eax, eax)?;
        a.add(rsp, 0x8000)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "r11+32776 rbp=same rbx=same",
            "r11+32776 rbp=same rbx=same",
            "r11+32776 rbp=same rbx=same",
            "r11+32776 rbp=same rbx=same",
            "rsp+32776 rbp=same rbx=same",
            "rsp+32776 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that `rbp` is unknown behind code that changes it and does not give it back.
#[test]
fn registers_that_are_not_restored() {
    let code = assemble(|a, _| {
        let mut internal = a.create_label();
        a.sub(rsp, 8)?;
        a.call(internal)?;
        a.add(rsp, 8)?;
        a.ret()?;
        a.set_label(&mut internal)?;
        a.xor(eax, eax)?;
        a.mov(rbp, rdi)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=? rbx=same",
        ],
    );
}

/// Check that a register that is changed and not given back is unknown where nothing else is known
/// than the way to the return.
#[test]
fn register_that_is_not_restored_later() {
    let code = assemble(|a, _| {
        a.xor(eax, eax)?;
        a.mov(rbx, rdi)?;
        a.ret()
    });
    check_closures(
        &code,
        &[
            "rsp+8 rbp=same rbx=? weak",
            "rsp+8 rbp=same rbx=? weak",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that the stack pointer that a word of the stack has leads to the frame, as in assembler
/// with vectors.
#[test]
fn base_on_the_stack() {
    let code = assemble(|a, _| {
        a.mov(rax, rsp)?;
        a.push(rbx)?;
        a.sub(rsp, 0x100)?;
        a.and(rsp, -256)?;
        a.mov(qword_ptr(rsp + 0x88), rax)?;
        a.xor(eax, eax)?;
        a.mov(rax, qword_ptr(rsp + 0x88))?;
        a.mov(rbx, qword_ptr(rax - 8))?;
        a.lea(rsp, qword_ptr(rax))?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+272 rbp=same rbx=same",
            "rax+8 rbp=same rbx=same",
            "rax+8 rbp=same rbx=same",
            "[rsp+136]+8 rbp=same rbx=same",
            "rax+8 rbp=same rbx=same",
            "rax+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}
