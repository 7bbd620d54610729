//! Label values.

use std::borrow::Cow;
use std::fmt::Write;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label value. Any text is allowed: encoding escapes backslash, quotation mark and line feed in
/// both formats.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Cow<'static, str>);

impl From<&'static str> for Label {
    fn from(value: &'static str) -> Self {
        Self(Cow::Borrowed(value))
    }
}

impl From<String> for Label {
    fn from(value: String) -> Self {
        Self(Cow::Owned(value))
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            let (plain, escaped) = match part.char_indices().next_back() {
                Some((end, '\\')) => (&part[..end], "\\\\"),
                Some((end, '"')) => (&part[..end], "\\\""),
                Some((end, '\n')) => (&part[..end], "\\n"),
                _ => (part, ""),
            };
            encoder.write_str(plain)?;
            encoder.write_str(escaped)?;
        }
        Ok(())
    }
}
