//! The test language: samples as lines of text.
//!
//! ```text
//! comm=sort,node=a | main qsort@/lib/libc.so compare | 3 | thread=worker outcome=truncated
//! labels           | stack, outermost frame first    | samples | tags, may be left out
//! ```
//!
//! Frames are separated by spaces:
//!
//! | frame | meaning |
//! | --- | --- |
//! | `work` | a function of the file `/bin/app` |
//! | `work@/lib/b.so` | a function of another file |
//! | `work@[kernel]` | a function of the kernel |
//! | `caller>inlined` | one location, with a call that was inlined into `caller` |
//! | `0x1f@/lib/b.so` | an offset without a name |
//! | `0x10+0xf@/lib/b.so` | an offset without a name, 15 bytes into the function that begins at 0x10 |
//! | `0x1f` | an address in no file |

use crate::LabelSet;

/// File of a named frame that names no file.
const DEFAULT_FILE: &str = "/bin/app";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Labels of the series.
    pub labels: LabelSet,
    /// Frames, outermost first.
    pub stack: Vec<Frame<'a>>,
    /// Number of equal samples.
    pub count: u64,
    /// Keys and values of the tags, in the line's order.
    pub tags: Vec<(&'a str, &'a str)>,
}

/// One location of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Path of the file; `None` for an address in no file.
    pub file: Option<&'a str>,
    /// Offset in the file. That of a named frame is made of its name: different names have different offsets.
    pub address: u64,
    /// Functions, innermost first; none for an offset without a name.
    pub functions: Vec<&'a str>,
    /// Bytes from the start of the function to the address, if a frame without a name says so.
    pub function_distance: Option<u32>,
}

/// A line that does not have the language's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct TextError {
    /// Number of the line, from 1 on.
    pub line: usize,
    /// The part that is wrong.
    pub message: String,
}

/// Reads the samples of a text; blank lines have none.
///
/// # Errors
/// The first line that does not have the language's form.
pub fn parse_samples(text: &str) -> Result<Vec<Sample<'_>>, TextError> {
    (1..)
        .zip(text.lines())
        .filter(|(_, content)| !content.trim().is_empty())
        .map(|(line, content)| parse_line(content).map_err(|message| TextError { line, message }))
        .collect()
}

fn parse_line(line: &str) -> Result<Sample<'_>, String> {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let (labels, stack, count, tags) = match columns[..] {
        [labels, stack, count] => (labels, stack, count, ""),
        [labels, stack, count, tags] => (labels, stack, count, tags),
        _ => return Err(format!("{} columns instead of 3 or 4", columns.len())),
    };
    let labels: Vec<_> = labels
        .split(',')
        .map(parse_pair)
        .collect::<Result<_, _>>()?;
    Ok(Sample {
        labels: LabelSet::from_sorted(labels).map_err(|err| err.to_string())?,
        stack: stack
            .split_whitespace()
            .map(parse_frame)
            .collect::<Result<_, _>>()?,
        count: count
            .parse()
            .map_err(|_| format!("{count:?} is no number of samples"))?,
        tags: tags
            .split_whitespace()
            .map(parse_pair)
            .collect::<Result<_, _>>()?,
    })
}

fn parse_pair(pair: &str) -> Result<(&str, &str), String> {
    pair.trim()
        .split_once('=')
        .ok_or_else(|| format!("{pair:?} does not have the form name=value"))
}

fn parse_frame(frame: &str) -> Result<Frame<'_>, String> {
    let (name, file) = match frame.split_once('@') {
        Some((name, file)) => (name, Some(file)),
        None => (frame, None),
    };
    if !name.starts_with("0x") {
        return Ok(Frame {
            file: file.or(Some(DEFAULT_FILE)),
            address: make_address(name),
            functions: name.rsplit('>').collect(),
            function_distance: None,
        });
    }
    let (start, distance) = match name.split_once('+') {
        Some((start, distance)) => (start, Some(distance)),
        None => (name, None),
    };
    let function_distance = distance.map(parse_hexadecimal).transpose()?;
    let distance = function_distance.unwrap_or(0);
    let out_of_range = || format!("{frame:?} is out of range");
    Ok(Frame {
        file,
        address: parse_hexadecimal(start)?
            .checked_add(distance)
            .ok_or_else(out_of_range)?,
        functions: Vec::new(),
        function_distance: function_distance
            .map(u32::try_from)
            .transpose()
            .map_err(|_| out_of_range())?,
    })
}

/// An offset below 2^24 for a name.
fn make_address(name: &str) -> u64 {
    name.bytes()
        .fold(7, |sum, byte| (sum * 31 + u64::from(byte)) & 0xff_ffff)
}

fn parse_hexadecimal(text: &str) -> Result<u64, String> {
    text.strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("{text:?} is no hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame<'_> {
        parse_frame(text).unwrap()
    }

    #[test]
    fn a_line_has_labels_a_stack_samples_and_tags() {
        let text = "\n  comm=a,node=n | main work | 3 | thread=x outcome=cut \n\ncomm=b | | 1\n";
        let samples = parse_samples(text).unwrap();
        assert_eq!(samples.len(), 2);
        let first = &samples[0];
        assert_eq!(first.labels.to_string(), r#"{comm="a", node="n"}"#);
        assert_eq!(first.stack, [frame("main"), frame("work")]);
        assert_eq!(first.count, 3);
        assert_eq!(first.tags, [("thread", "x"), ("outcome", "cut")]);
        assert!(samples[1].stack.is_empty() && samples[1].tags.is_empty());
    }

    /// Check each form of a frame.
    #[test]
    fn frames_have_a_file_and_names_or_an_address() {
        let named = frame("outer>inner@/lib/b.so");
        assert_eq!(named.file, Some("/lib/b.so"));
        assert_eq!(named.functions, ["inner", "outer"]);
        assert_eq!(frame("work").file, Some("/bin/app"));
        assert_ne!(frame("work").address, frame("main").address);
        let bare = frame("0x10+0xf@[kernel]");
        assert_eq!(bare.file, Some("[kernel]"));
        assert_eq!((bare.address, bare.function_distance), (0x1f, Some(0xf)));
        let nowhere = frame("0x1f");
        assert_eq!((nowhere.file, nowhere.address), (None, 0x1f));
        assert!(nowhere.functions.is_empty() && nowhere.function_distance.is_none());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (line, words) in [
            ("comm=a | main", "2 columns"),
            ("comm=a | main | 1 | x=y | z", "5 columns"),
            ("comm | main | 1", "name=value"),
            ("b=x,a=x | main | 1", "sorted"),
            ("comm=a | main | many", "\"many\""),
            ("comm=a | main | 1 | thread", "name=value"),
            ("comm=a | 0xg | 1", "hexadecimal"),
            ("comm=a | 0x1+2 | 1", "hexadecimal"),
            ("comm=a | 0xffffffffffffffff+0x1 | 1", "out of range"),
            ("comm=a | 0x0+0x100000000 | 1", "out of range"),
        ] {
            let text = format!("comm=a | main | 1\n{line}");
            let err = parse_samples(&text).unwrap_err();
            assert_eq!(err.line, 2);
            assert!(err.to_string().contains(words), "{line}: {err}");
        }
    }
}
