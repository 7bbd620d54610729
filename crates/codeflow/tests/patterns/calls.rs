//! Calls: those that return, and those that do not.

use codeflow::{find_first_call, find_run_end};
use iced_x86::code_asm::*;

use crate::listing::{START, assemble, check, check_closures};

/// Check that the code in front of a call that does not return, by the name of the import, has the
/// row of the code that leads there.
#[test]
fn import_without_return() {
    let code = assemble(|a, notes| {
        let (mut abort, mut fail) = (a.create_label(), a.create_label());
        a.push(rbx)?;
        a.test(rdi, rdi)?;
        a.je(fail)?;
        a.pop(rbx)?;
        a.ret()?;
        a.set_label(&mut fail)?;
        a.call(qword_ptr(abort))?;
        // The next function.
        a.sub(rsp, 0x28)?;
        a.add(rsp, 0x28)?;
        a.ret()?;
        notes.imports(a, &mut [(&mut abort, "abort")])
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+48 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
    check_closures(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+48 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that a function that only calls `abort` is one that does not return.
#[test]
fn callee_without_return() {
    let code = assemble(|a, notes| {
        let (mut abort, mut fail, mut die) = (a.create_label(), a.create_label(), a.create_label());
        a.sub(rsp, 8)?;
        a.test(rdi, rdi)?;
        a.je(fail)?;
        a.add(rsp, 8)?;
        a.ret()?;
        a.set_label(&mut fail)?;
        a.call(die)?;
        // Looks like the end of the same function, and is that of another one.
        a.add(rsp, 0x48)?;
        a.ret()?;
        a.set_label(&mut die)?;
        a.sub(rsp, 8)?;
        a.call(qword_ptr(abort))?;
        notes.imports(a, &mut [(&mut abort, "abort")])
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+80 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
        ],
    );
}

/// Check that the code behind a call at which the stack would not be aligned is not that call's.
#[test]
fn alignment_at_calls() {
    let code = assemble(|a, _| {
        a.sub(rsp, 8)?;
        a.call(rax)?;
        // Another function, that only its address leads to.
        a.xor(eax, eax)?;
        a.ret()
    });
    check(
        &code,
        &[
            "alignment",
            "alignment",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that functions of assembler may call each other without aligning the stack.
#[test]
fn unaligned_internal_call() {
    let code = assemble(|a, _| {
        let mut internal = a.create_label();
        a.call(internal)?;
        a.ret()?;
        a.set_label(&mut internal)?;
        a.xor(eax, eax)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that the call in front of a return address is found in each of its forms.
#[test]
fn calls_in_front_of_return_addresses() {
    let code = assemble(|a, notes| {
        let (mut start, mut word) = (a.create_label(), a.create_label());
        a.set_label(&mut start)?;
        a.call(start)?;
        a.call(qword_ptr(word))?;
        a.call(rax)?;
        a.call(r12)?;
        a.call(qword_ptr(rax + 16))?;
        a.call(qword_ptr(r12 + 16))?;
        a.call(qword_ptr(rbx + rcx * 8 + 0x100))?;
        a.call(qword_ptr(r12 + rcx * 8 + 0x100))?;
        notes.imports(a, &mut [(&mut word, "puts")])
    });
    code.check_calls();
}

/// Check that `call` to the next instruction is a push.
#[test]
fn call_of_the_next_instruction() {
    let code = assemble(|a, _| {
        let mut next = a.create_label();
        a.call(next)?;
        a.set_label(&mut next)?;
        a.pop(rax)?;
        a.ret()
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that a landing pad that goes on in its function has a row, and that one that resumes
/// unwinding has none.
#[test]
fn landing_pads() {
    let code = assemble(|a, notes| {
        let (mut resume, mut out) = (a.create_label(), a.create_label());
        a.push(rbx)?;
        a.mov(rbx, rdi)?;
        a.call(rax)?;
        a.set_label(&mut out)?;
        a.pop(rbx)?;
        a.ret()?;
        // Catches.
        a.call(rdx)?;
        a.jmp(out)?;
        // Cleans up.
        a.mov(rdi, rbx)?;
        a.call(qword_ptr(resume))?;
        notes.imports(a, &mut [(&mut resume, "_Unwind_Resume")])
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "no_return",
            "no_return",
        ],
    );
}

/// Check that nothing is known behind the system calls that do not come back.
#[test]
fn system_calls_without_return() {
    let code = assemble(|a, _| {
        a.mov(eax, 15)?;
        a.syscall()?;
        a.mov(eax, 39)?;
        a.syscall()?;
        a.ret()
    });
    check(
        &code,
        &[
            "no_return",
            "no_return",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check that a function that never returns has rows from its start on where it is called.
#[test]
fn endless_function() {
    let code = assemble(|a, _| {
        let (mut serve, mut again) = (a.create_label(), a.create_label());
        a.sub(rsp, 8)?;
        a.call(serve)?;
        a.int3()?;
        a.set_label(&mut serve)?;
        a.push(rbx)?;
        a.mov(rbx, rdi)?;
        a.set_label(&mut again)?;
        a.mov(rdi, rbx)?;
        a.call(rax)?;
        a.jmp(again)
    });
    check(
        &code,
        &[
            "no_return",
            "no_return",
            "no_return",
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
        ],
    );
}

/// Check that a function that never returns has rows from its start on where its address is passed
/// on, as that of `main` is.
#[test]
fn address_of_an_endless_function() {
    let code = assemble(|a, notes| {
        let (mut main, mut start_main, mut exit) =
            (a.create_label(), a.create_label(), a.create_label());
        a.lea(rdi, qword_ptr(main))?;
        a.call(qword_ptr(start_main))?;
        a.hlt()?;
        a.set_label(&mut main)?;
        a.sub(rsp, 0x18)?;
        a.call(rax)?;
        a.xor(edi, edi)?;
        a.call(qword_ptr(exit))?;
        notes.imports(
            a,
            &mut [(&mut start_main, "__libc_start_main"), (&mut exit, "exit")],
        )
    });
    check(
        &code,
        &[
            "no_return",
            "no_return",
            "no_return",
            "rsp+8 rbp=same rbx=same weak",
            "rsp+32 rbp=same rbx=same weak",
            "rsp+32 rbp=same rbx=same weak",
            "rsp+32 rbp=same rbx=same weak",
        ],
    );
}

/// Check that the start of a function is the second opinion: where it disagrees, there is no row.
#[test]
fn second_opinion() {
    let write = |a: &mut CodeAssembler| {
        a.sub(rsp, 0x18)?;
        a.xor(eax, eax)?;
        a.add(rsp, 0x28)?;
        a.ret()
    };
    let code = assemble(|a, _| write(a));
    assert_eq!(code.closure(1), "rsp+48 rbp=same rbx=same");
    let code = assemble(|a, _| write(a)).with_function_start(0);
    assert_eq!(code.closure(1), "conflict");
}

/// Check that a call in front of a loop is taken to return: the padding between them is none between functions.
#[test]
fn call_in_front_of_a_loop() {
    let code = assemble(|a, notes| {
        let (mut import, mut again) = (a.create_label(), a.create_label());
        a.push(rbx)?;
        a.call(qword_ptr(import))?;
        a.nop()?;
        a.set_label(&mut again)?;
        a.dec(ebx)?;
        a.jne(again)?;
        a.pop(rbx)?;
        a.ret()?;
        notes.imports(a, &mut [(&mut import, "puts")])
    });
    check(
        &code,
        &[
            "rsp+8 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=same",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+16 rbp=same rbx=[cfa-16]",
            "rsp+8 rbp=same rbx=same",
        ],
    );
}

/// Check the first call of code, and where code ends: behind a jump, or in front of padding.
#[test]
fn first_call_and_end() {
    let code = assemble(|a, notes| {
        let mut import = a.create_label();
        a.push(rbx)?;
        a.call(qword_ptr(import))?;
        a.jmp(rax)?;
        a.call(qword_ptr(import))?;
        a.nop()?;
        a.ret()?;
        notes.imports(a, &mut [(&mut import, "puts")])
    });
    let call = START + 1..START + 7;
    assert_eq!(find_first_call(&code, START), Some(call.clone()));
    assert_eq!(find_first_call(&code, call.end), None);
    assert_eq!(find_run_end(&code, START), call.end + 2);
    assert_eq!(find_run_end(&code, call.end + 2), call.end + 8);
}
