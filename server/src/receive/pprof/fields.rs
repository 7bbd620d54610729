//! The fields of a profile's message, one at a time.

use super::super::profile_bytes::{ProfileBytes, Unpacked, fails_to_decompress};
use super::super::refusal::{Refusal, RefusalReason};
use super::super::wire::{self, Wire, WireError};
use super::scan::{Malformed, Scan, Value};

/// pprof's numbers of the top-level fields that are tables.
pub(super) const SAMPLE: u32 = 2;
pub(super) const MAPPING: u32 = 3;
pub(super) const LOCATION: u32 = 4;
pub(super) const FUNCTION: u32 = 5;
pub(super) const STRING: u32 = 6;
/// The last field of the head that is read.
pub(super) const DEFAULT_SAMPLE_TYPE: u32 = 14;

/// An entry of another table: a sample of 4,608 locations with numbers of ten bytes has 46 KB.
const ENTRY_BYTES_MAX: u64 = 256 << 10;

/// The refusal of a profile of `stated` bytes.
pub(super) fn explain(stated: u64, err: WireError) -> Refusal {
    match err {
        WireError::Malformed(what) => Malformed(what).into(),
        WireError::Source(err) => fails_to_decompress(stated, &err),
    }
}

/// Shows the top-level fields that have a limit on their bytes; those without one are skipped.
pub(super) fn each_field(
    profile: &ProfileBytes<'_>,
    bytes_max: impl Fn(u32) -> Option<u64>,
    mut each: impl FnMut(u32, Value<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let bytes = match profile {
        ProfileBytes::Plain(bytes) => bytes,
        ProfileBytes::Compressed(frame) => {
            let explain = |err| explain(profile.length(), err);
            return each_unpacked_field(frame.walk()?, explain, bytes_max, each);
        }
    };
    let mut scan = Scan::new(bytes);
    while let Some((field, value)) = scan.next_field()? {
        let Some(max) = bytes_max(field) else {
            continue;
        };
        if let Value::Bytes(bytes) = value {
            check_length(bytes.len() as u64, max)?;
        }
        each(field, value)?;
    }
    Ok(())
}

/// The same for a profile that is not in memory as a whole: each field is read into a buffer.
fn each_unpacked_field(
    mut wire: Wire<Unpacked<'_>>,
    explain: impl Fn(WireError) -> Refusal + Copy,
    bytes_max: impl Fn(u32) -> Option<u64>,
    mut each: impl FnMut(u32, Value<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut buffer = Vec::new();
    while let Some((field, value)) = wire.next_field().map_err(explain)? {
        let value = match (value, bytes_max(field)) {
            (wire::Value::Bytes(bytes), None) => {
                wire.skip(bytes).map_err(explain)?;
                continue;
            }
            (_, None) => continue,
            (wire::Value::Bytes(bytes), Some(max)) => {
                check_length(bytes, max)?;
                wire.read(bytes, &mut buffer).map_err(explain)?;
                Value::Bytes(&buffer)
            }
            (wire::Value::Number(number), Some(_)) => Value::Number(number),
            (wire::Value::Fixed, Some(_)) => Value::Fixed,
        };
        each(field, value)?;
    }
    Ok(())
}

/// Shows the entries of some of the tables.
pub(super) fn each_entry(
    profile: &ProfileBytes<'_>,
    fields: &[u32],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let bytes_max = |field| fields.contains(&field).then_some(ENTRY_BYTES_MAX);
    each_field(profile, bytes_max, |field, value| {
        each(field, value.bytes()?)
    })
}

fn check_length(bytes: u64, bytes_max: u64) -> Result<(), Refusal> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::Entries,
        format!("profile: an entry of {bytes} bytes, and at most {bytes_max} are taken"),
    ))
}
