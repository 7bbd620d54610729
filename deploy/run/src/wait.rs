//! Waits for conditions instead of fixed times.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Interval of checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Calls `look` until it returns a value.
///
/// # Errors
/// An error of `look` at once; after `timeout`, an error that names the condition.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!(
                "waited {} for {what}, in vain",
                humantime::format_duration(timeout)
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value_that_is_there() {
        let mut looks = 0;
        let found = wait_for("the third look", Duration::from_secs(60), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn says_what_never_came() {
        let error =
            wait_for::<()>("a profile", Duration::from_millis(60), || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "waited 60ms for a profile, in vain");
    }

    #[test]
    fn an_error_ends_the_wait_at_once() {
        let error =
            wait_for::<()>("anything", Duration::from_secs(60), || bail!("it died")).unwrap_err();
        assert_eq!(error.to_string(), "it died");
    }
}
