//! The symbol store with real ELF files, which the tests build with gcc, objcopy and strip: through the library, and through
//! a server over HTTP.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../running/mod.rs"]
mod running;
#[path = "../../src/profile/text.rs"]
mod text;

mod build;
mod differential;
mod fetch;
mod http;
mod sent;
mod store;
