//! Generates the message types and the gRPC stubs from `pilotlight/v1/*.proto`.
//!
//! protox compiles the definitions in Rust, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["pilotlight/v1/ingest.proto"], ["."])?;
    tonic_prost_build::configure()
        // Profiles are megabytes: `Bytes` shares the receive buffer instead of copying it.
        .bytes(".pilotlight.v1.PushRequest.profile_zstd")
        .bytes(".pilotlight.v1.UploadPieceRequest.data")
        .compile_fds(files)?;
    Ok(())
}
