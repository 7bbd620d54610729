/* Assembler without call frame information, as numerical libraries have it: the stack is realigned for a buffer, and the caller's is
 * kept in a register. */
    .text
    .globl multiply
    .type multiply, @function
multiply:
    push %rbx
    push %rbp
    push %r12
    sub $128, %rsp
    mov %rsp, %rbx
    mov %rdi, %r12
    and $-256, %rsp
    sub $4096, %rsp
1:  mov %r12, (%rsp)
    mov $2000, %ecx
2:  imul $1103515245, %r12, %r12
    add $12345, %r12
    xor %rcx, %rbp
    dec %ecx
    jnz 2b
    dec %rsi
    jnz 1b
    mov %r12, %rax
    mov %rbx, %rsp
    add $128, %rsp
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size multiply, .-multiply
    .section .note.GNU-stack, "", @progbits
