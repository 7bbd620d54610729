//! Times and durations as people type them. Pure: the present is an argument.

/// The year 9999, beyond which a time is a typing error.
const TIME_MS_MAX: i64 = 253_402_300_800_000;

/// Numbers with this many digits are milliseconds; as seconds they would lie in the year 5138 or later.
const MILLISECOND_DIGITS: usize = 12;

/// Forms of a time, for an error's hint.
pub const TIME_FORMS: &str = "write 2026-11-23T02:00:00Z, 1795312800 (Unix seconds), 1795312800000 (milliseconds), now or now-15m";

/// Forms of a duration, for an error's hint.
pub const DURATION_FORMS: &str = "write a number and a unit: 500ms, 30s, 5m, 1h, 2d, 1w or 1h30m";

/// Reads a time, in milliseconds since the Unix epoch. The error is a message.
///
/// # Errors
/// The text has none of the forms.
pub fn parse_time(text: &str, now_ms: i64) -> Result<i64, String> {
    let time_ms = if let Some(offset) = text.strip_prefix("now") {
        parse_relative(offset, now_ms)?
    } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text
            .parse()
            .map_err(|_| "the number is too large for a time".to_owned())?;
        if text.len() >= MILLISECOND_DIGITS {
            number
        } else {
            number * 1000
        }
    } else {
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|_| format!("{text:?} is not a time"))?;
        time.as_millisecond()
    };
    if (0..=TIME_MS_MAX).contains(&time_ms) {
        Ok(time_ms)
    } else {
        Err(format!("{text:?} lies outside the years 1970 to 9999"))
    }
}

fn parse_relative(offset: &str, now_ms: i64) -> Result<i64, String> {
    if offset.is_empty() {
        return Ok(now_ms);
    }
    if let Some(duration) = offset.strip_prefix('-') {
        return Ok(now_ms.saturating_sub(parse_duration(duration)?));
    }
    if let Some(duration) = offset.strip_prefix('+') {
        return Ok(now_ms.saturating_add(parse_duration(duration)?));
    }
    Err(format!("\"now{offset}\" is not a time"))
}

/// Reads a duration, in milliseconds. The error is a message.
///
/// # Errors
/// The text is not a row of numbers with units.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration");
    let mut rest = text;
    let mut total_ms = 0_i64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let unit_ms = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        let part_ms = number.checked_mul(unit_ms);
        total_ms = part_ms
            .and_then(|part_ms| total_ms.checked_add(part_ms))
            .ok_or_else(wrong)?;
    }
    Ok(total_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_312_800_000;

    #[test]
    fn all_forms_of_a_time_are_read() {
        for (text, expected) in [
            ("now", NOW_MS),
            ("now-15m", NOW_MS - 900_000),
            ("now-1h30m", NOW_MS - 5_400_000),
            ("now+500ms", NOW_MS + 500),
            ("now-1w", NOW_MS - 604_800_000),
            ("1795312800", NOW_MS),
            ("1795312800000", NOW_MS),
            ("0", 0),
            ("99999999999", 99_999_999_999_000),
            ("100000000000", 100_000_000_000),
            ("2026-11-22T02:00:00Z", NOW_MS),
            ("2026-11-22T03:00:00+01:00", NOW_MS),
            ("2026-11-22T02:00:00.25Z", NOW_MS + 250),
        ] {
            assert_eq!(parse_time(text, NOW_MS), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "yesterday",
            "now-",
            "now15m",
            "now-15",
            "now-15y",
            "now-m",
            "now--5m",
            "-5",
            "1.5",
            "12:00",
            "2026-13-01T00:00:00Z",
            "now-99999999999999999999w",
            "now-9223372036854775807w",
            "99999999999999999999",
            "9999999999999999",
            "now-1000000000w",
            "nowä",
            "now-5ä",
        ] {
            assert!(parse_time(text, NOW_MS).is_err(), "{text}");
        }
    }
}
