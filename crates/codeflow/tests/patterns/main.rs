//! One test for each pattern of code that frames are known from: rows of each instruction, as
//! `rsp+24 rbp=[cfa-16] rbx=same`.

mod calls;
mod frames;
mod jumps;
mod listing;
