//! The strings of a profile, and the fields that are in no table.

use std::hash::BuildHasher;

use ::pprof::protos::{self, Message};
use model::tables::StringId;
use model::{ProfileHead, SAMPLE_TYPES, Tables};

use super::super::entries::{ProfileCounts, ProfilePlace};
use super::super::profile_bytes::ProfileBytes;
use super::super::refusal::Refusal;
use super::super::wire::put_number;
use super::fields::{DEFAULT_SAMPLE_TYPE, SAMPLE, STRING, each_field};
use super::scan::Value;
use super::{Reader, refuse};

/// A string: the collector cuts names and paths at 4,096 bytes.
const STRING_BYTES_MAX: u64 = 64 << 10;

/// Fields that are in no table: types, comments, times.
const HEAD_BYTES_MAX: usize = 64 << 10;

impl Reader {
    pub(super) fn read_strings(
        &mut self,
        profile: &ProfileBytes<'_>,
        counts: &ProfileCounts,
    ) -> Result<(), Refusal> {
        let strings = counts.get(ProfilePlace::Strings) as usize;
        self.hashes.reserve_exact(strings);
        if self.tables.is_some() {
            self.strings.reserve_exact(strings);
        }
        let mut head = Vec::new();
        each_field(profile, bytes_max, |field, value| match field {
            STRING => self.read_string(value.bytes()?),
            _ => add_to_head(&mut head, field, value),
        })?;
        let decoded = protos::Profile::decode(&*head);
        self.head = decoded.map_err(|err| refuse(format!("not a pprof: {err}")))?;
        if self.hashes.first() != Some(&self.hasher.hash_one("")) {
            return Err(refuse("string_table[0] must be the empty string".into()));
        }
        Ok(())
    }

    fn read_string(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| refuse(format!("string {} is not UTF-8", self.hashes.len())))?;
        self.hashes.push(self.hasher.hash_one(text));
        if let Some(tables) = &mut self.tables {
            self.strings.push(push_string(tables, text));
        }
        Ok(())
    }

    pub(super) fn find_string(
        &self,
        index: i64,
        whose: impl Fn() -> String,
    ) -> Result<usize, Refusal> {
        let found = usize::try_from(index).ok();
        let found = found.filter(|at| *at < self.hashes.len());
        found.ok_or_else(|| {
            refuse(format!(
                "{}: string {index} of a table of {}",
                whose(),
                self.hashes.len()
            ))
        })
    }

    pub(super) fn string(
        &self,
        index: i64,
        whose: impl Fn() -> String,
    ) -> Result<StringId, Refusal> {
        let found = self.find_string(index, whose)?;
        Ok(self.strings.get(found).copied().unwrap_or_default())
    }

    pub(super) fn text(&self, index: i64, whose: &str) -> Result<&str, Refusal> {
        let id = self.string(index, || whose.to_owned())?;
        let tables = self.tables.as_ref();
        Ok(tables.map_or("", |tables| tables.string(id)))
    }

    /// Checks the fields that are in no table.
    pub(super) fn check_head(&self) -> Result<(), Refusal> {
        let mut are_right = self.head.sample_type.len() == SAMPLE_TYPES.len();
        for (at, value_type) in self.head.sample_type.iter().enumerate() {
            let (ty, unit) = SAMPLE_TYPES.get(at).copied().unwrap_or_default();
            for (index, text) in [(value_type.ty, ty), (value_type.unit, unit)] {
                let found = self.find_string(index, || "sample_type".into())?;
                are_right &= self.hashes[found] == self.hasher.hash_one(text);
            }
        }
        if !are_right {
            return Err(refuse(format!("sample_type is not {SAMPLE_TYPES:?}")));
        }
        self.read_head().map(drop)
    }

    pub(super) fn read_head(&self) -> Result<ProfileHead, Refusal> {
        let head = &self.head;
        let period_type = match &head.period_type {
            Some(of) => (
                self.text(of.ty, "period_type")?.into(),
                self.text(of.unit, "period_type")?.into(),
            ),
            None => Default::default(),
        };
        let mut comments = Vec::new();
        for comment in &head.comment {
            comments.push(self.text(*comment, "comment")?.to_owned());
        }
        Ok(ProfileHead {
            time_ns: head.time_nanos,
            duration_ns: head.duration_nanos,
            period_type,
            period: head.period,
            comments,
            drop_frames: self.text(head.drop_frames, "drop_frames")?.into(),
            keep_frames: self.text(head.keep_frames, "keep_frames")?.into(),
            default_sample_type: self
                .text(head.default_sample_type, "default_sample_type")?
                .into(),
        })
    }
}

/// The limits of strings and of the fields that are in no table.
fn bytes_max(field: u32) -> Option<u64> {
    match field {
        STRING => Some(STRING_BYTES_MAX),
        SAMPLE..STRING => None,
        ..=DEFAULT_SAMPLE_TYPE => Some(HEAD_BYTES_MAX as u64),
        _ => None,
    }
}

/// Adds a field to the message of those that are in no table.
fn add_to_head(head: &mut Vec<u8>, field: u32, value: Value<'_>) -> Result<(), Refusal> {
    if let Value::Bytes(bytes) = value {
        put_number(head, u64::from(field) << 3 | 2);
        put_number(head, bytes.len() as u64);
        head.extend_from_slice(bytes);
    } else {
        put_number(head, u64::from(field) << 3);
        put_number(head, value.number()?);
    }
    if head.len() > HEAD_BYTES_MAX {
        return Err(refuse(format!(
            "more than {HEAD_BYTES_MAX} bytes beside its tables"
        )));
    }
    Ok(())
}

/// Adds a string, of which only the empty one has to be found again: the tables have it.
pub(super) fn push_string(tables: &mut Tables, text: &str) -> StringId {
    if text.is_empty() {
        StringId(0)
    } else {
        tables.push_string(text)
    }
}
