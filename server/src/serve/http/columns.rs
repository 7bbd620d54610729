//! Answers with columns of numbers, in the form that docs/api.md describes: a line with the form's name and version, a line of JSON, and
//! the columns. A browser makes arrays of them without looking at the numbers.

use std::io::{self, Write};

use serde::Serialize;

/// The form's media type.
pub const MEDIA_TYPE: &str = "application/vnd.pilotlight.columns";

/// The first line.
const FORM: &str = "pilotlight columns 1\n";

/// Each column begins at a multiple of this, as arrays of numbers in a browser must.
const ALIGNMENT: usize = 8;

/// A column.
pub struct Column<'a> {
    /// Its place in the JSON that the column is not in.
    pub name: &'static str,
    /// Its numbers.
    pub values: Numbers<'a>,
}

/// The numbers of a column. They are written as the narrowest type that all of them fit in.
pub enum Numbers<'a> {
    /// Bytes.
    U8(&'a [u8]),
    /// Positions and depths.
    U32(&'a [u32]),
    /// Positions, some of which are marks.
    I32(&'a [i32]),
    /// Lines.
    I64(&'a [i64]),
    /// Sums.
    U64(&'a [u64]),
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    U8,
    U16,
    U32,
    I16,
    I32,
    /// Beyond 2^53 it rounds, as any reader of JSON in a browser does.
    F64,
}

#[derive(Serialize)]
struct Head<'a, T> {
    columns: Vec<ColumnEntry>,
    answer: &'a T,
}

#[derive(Serialize)]
struct ColumnEntry {
    name: &'static str,
    r#type: Type,
    count: usize,
}

/// Writes an answer, of which these columns are not in the JSON.
///
/// # Errors
/// `out` failed.
pub fn write_columns(
    out: &mut dyn Write,
    answer: &impl Serialize,
    columns: &[Column<'_>],
) -> io::Result<()> {
    let mut counted = CountedWriter { out, bytes: 0 };
    counted.write_all(FORM.as_bytes())?;
    let head = Head {
        columns: columns.iter().map(Column::entry).collect(),
        answer,
    };
    serde_json::to_writer(&mut counted, &head)?;
    let spaces = ALIGNMENT - 1 - counted.bytes % ALIGNMENT;
    writeln!(counted, "{:spaces$}", "")?;
    let mut columns = columns.iter().zip(&head.columns);
    columns.try_for_each(|(column, entry)| column.values.write(entry.r#type, out))
}

impl Column<'_> {
    fn entry(&self) -> ColumnEntry {
        ColumnEntry {
            name: self.name,
            r#type: self.values.narrowest_type(),
            count: self.values.len(),
        }
    }
}

impl Numbers<'_> {
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    /// Visits the numbers as floats, which hold all others up to 2^53 exactly.
    fn try_for_each(&self, mut visit: impl FnMut(f64) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::U8(values) => values.iter().try_for_each(|value| visit((*value).into())),
            Self::U32(values) => values.iter().try_for_each(|value| visit((*value).into())),
            Self::I32(values) => values.iter().try_for_each(|value| visit((*value).into())),
            Self::I64(values) => values.iter().try_for_each(|value| visit(*value as f64)),
            Self::U64(values) => values.iter().try_for_each(|value| visit(*value as f64)),
        }
    }

    fn narrowest_type(&self) -> Type {
        let (mut min, mut max) = (0_f64, 0_f64);
        // This visitor does not fail.
        let _visited = self.try_for_each(|value| {
            (min, max) = (min.min(value), max.max(value));
            Ok(())
        });
        Type::narrowest(min, max)
    }

    fn write(&self, r#type: Type, out: &mut dyn Write) -> io::Result<()> {
        self.try_for_each(|value| match r#type {
            Type::U8 => out.write_all(&(value as u8).to_le_bytes()),
            Type::U16 => out.write_all(&(value as u16).to_le_bytes()),
            Type::U32 => out.write_all(&(value as u32).to_le_bytes()),
            Type::I16 => out.write_all(&(value as i16).to_le_bytes()),
            Type::I32 => out.write_all(&(value as i32).to_le_bytes()),
            Type::F64 => out.write_all(&value.to_le_bytes()),
        })?;
        let bytes = self.len() * r#type.bytes();
        let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
        out.write_all(&[0; ALIGNMENT][..padding])
    }
}

impl Type {
    /// The narrowest one for numbers in a range that has 0.
    fn narrowest(min: f64, max: f64) -> Self {
        let fits = |from: f64, to: f64| from <= min && max <= to;
        if fits(0.0, u8::MAX.into()) {
            Self::U8
        } else if fits(0.0, u16::MAX.into()) {
            Self::U16
        } else if fits(0.0, u32::MAX.into()) {
            Self::U32
        } else if fits(i16::MIN.into(), i16::MAX.into()) {
            Self::I16
        } else if fits(i32::MIN.into(), i32::MAX.into()) {
            Self::I32
        } else {
            Self::F64
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::F64 => 8,
        }
    }
}

struct CountedWriter<'a> {
    out: &'a mut dyn Write,
    bytes: usize,
}

impl Write for CountedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_the_narrowest_type() {
        for (values, r#type) in [
            (&[][..], Type::U8),
            (&[0, 255], Type::U8),
            (&[256], Type::U16),
            (&[65_536], Type::U32),
            (&[-1, 32_767], Type::I16),
            (&[-1, 32_768], Type::I32),
            (&[4_294_967_295], Type::U32),
            (&[4_294_967_296], Type::F64),
            (&[-2_147_483_649], Type::F64),
        ] {
            assert_eq!(Numbers::I64(values).narrowest_type(), r#type, "{values:?}");
        }
    }

    #[test]
    fn columns_begin_at_multiples_of_eight() {
        let columns = [
            ("a", Numbers::U8(&[1, 2, 3])),
            ("b", Numbers::I32(&[-2])),
            ("c", Numbers::U64(&[1 << 40])),
        ]
        .map(|(name, values)| Column { name, values });
        for length in 0..9 {
            let mut bytes = Vec::new();
            write_columns(&mut bytes, &"x".repeat(length), &columns).unwrap();
            let text = format!(
                r#"{{"columns":[{{"name":"a","type":"u8","count":3}},{{"name":"b","type":"i16","count":1}},{{"name":"c","type":"f64","count":1}}],"answer":"{}"}}"#,
                "x".repeat(length)
            );
            let head = bytes.len() - 3 * 8;
            assert_eq!(head % 8, 0);
            let lines = String::from_utf8(bytes[..head].to_vec()).unwrap();
            assert_eq!(lines.trim_end(), format!("{FORM}{text}"));
            assert!(lines.ends_with('\n'));
            assert_eq!(bytes[head..head + 8], [1, 2, 3, 0, 0, 0, 0, 0]);
            assert_eq!(bytes[head + 8..head + 16], [0xfe, 0xff, 0, 0, 0, 0, 0, 0]);
            assert_eq!(bytes[head + 16..], (2_f64.powi(40)).to_le_bytes());
        }
    }
}
