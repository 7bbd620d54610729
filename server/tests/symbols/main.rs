//! The symbol store with real ELF files, which the tests build with gcc, objcopy and strip: through the library, and through
//! a server over HTTP.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../running/mod.rs"]
mod running;
#[path = "../../src/receive/grpc/test_push.rs"]
mod test_push;

mod build;
mod differential;
mod fetch;
mod http;
mod sent;
mod store;
