//! The fields of a profile's message, decoded one at a time.

use ::pprof::protos::Message;

use super::super::profile_bytes::{ProfileBytes, Source};
use super::super::refusal::{Refusal, RefusalReason};
use super::super::wire::{Value, Wire, WireError};
use super::refuse;

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

pub(super) fn explain(profile: &ProfileBytes<'_>, err: WireError) -> Refusal {
    match err {
        WireError::Malformed(what) => refuse(format!("not a pprof: {what}")),
        WireError::Source(err) => profile.explain(&err),
    }
}

pub(super) fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, Refusal> {
    T::decode(bytes).map_err(|err| refuse(format!("not a pprof: {err}")))
}

/// Goes through the top-level fields.
pub(super) fn each_field<'p>(
    profile: &'p ProfileBytes<'_>,
    mut each: impl FnMut(&mut Wire<Source<'p>>, u32, Value) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut wire = profile.walk()?;
    while let Some((field, value)) = wire.next_field().map_err(|err| explain(profile, err))? {
        each(&mut wire, field, value)?;
    }
    Ok(())
}

/// Goes through the entries of some of the tables.
pub(super) fn each_entry(
    profile: &ProfileBytes<'_>,
    fields: &[u32],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut entry = Vec::new();
    each_field(profile, |wire, field, value| {
        let Value::Bytes(bytes) = value else {
            return Ok(());
        };
        if !fields.contains(&field) {
            return skip(profile, wire, bytes);
        }
        read_entry(profile, wire, bytes, ENTRY_BYTES_MAX, &mut entry)?;
        each(field, &entry)
    })
}

pub(super) fn skip(
    profile: &ProfileBytes<'_>,
    wire: &mut Wire<Source<'_>>,
    bytes: u64,
) -> Result<(), Refusal> {
    wire.skip(bytes).map_err(|err| explain(profile, err))
}

/// Reads an entry in place of what is in `out`.
pub(super) fn read_entry(
    profile: &ProfileBytes<'_>,
    wire: &mut Wire<Source<'_>>,
    bytes: u64,
    bytes_max: u64,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if bytes > bytes_max {
        return Err(Refusal::new(
            RefusalReason::Entries,
            format!("profile: an entry of {bytes} bytes, and at most {bytes_max} are taken"),
        ));
    }
    wire.read(bytes, out).map_err(|err| explain(profile, err))
}
