//! Hexadecimal digits in names of cgroups and pods.

/// Lengths of the groups of digits in a UUID.
pub(crate) const UUID: [usize; 5] = [8, 4, 4, 4, 12];

/// Whether the text is this many hexadecimal digits. All runtimes and kubelet write them in lower case.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the text is groups of so many hexadecimal digits.
pub(crate) fn is_grouped_hex(text: &str, separator: char, lengths: &[usize]) -> bool {
    let groups = text.split(separator);
    groups.clone().count() == lengths.len()
        && groups
            .zip(lengths)
            .all(|(group, length)| is_hex(group, *length))
}
