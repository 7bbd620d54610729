//! Parts that depend on the processor: registers, and how a frame is found from them.
//! One folder an architecture, with the same file names.

pub mod x86_64;
