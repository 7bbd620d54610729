//! Waits for answers of programs that start, are replaced, or are slow on a busy machine.

use std::time::Duration;

use anyhow::{Error, Result};
use run::wait::wait_for;

/// Deadline of all waits. They take seconds on an idle machine; only a failure takes so long.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Calls `look` until it returns a value. An error of it means "not yet": a program that starts or is
/// replaced refuses connections.
///
/// # Errors
/// After [`TIMEOUT`], one that names the condition, with the error of the last look.
pub fn wait_for_answer<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_while(what, || Ok(()), look)
}

/// The same, as long as `check` succeeds: that the programs run that are to answer.
///
/// # Errors
/// An error of `check` at once; those of [`wait_for_answer`].
pub fn wait_while<T>(
    what: &str,
    mut check: impl FnMut() -> Result<()>,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut last: Option<Error> = None;
    let waited = wait_for(what, TIMEOUT, || {
        check()?;
        let looked = look();
        Ok(looked.unwrap_or_else(|error| {
            last = Some(error);
            None
        }))
    });
    waited.map_err(|error| match last {
        Some(last) => error.context(format!("the last failed look: {last:#}")),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    #[test]
    fn a_refused_connection_does_not_end_the_wait() {
        let mut looks = 0;
        let found = wait_for_answer("the third look", || {
            looks += 1;
            ensure!(looks > 1, "connection refused");
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn the_end_of_a_program_ends_the_wait() {
        let mut looks = 0;
        let error = wait_while::<()>(
            "an answer",
            || {
                looks += 1;
                ensure!(looks < 3, "it died");
                Ok(())
            },
            || bail!("connection refused"),
        );
        let error = format!("{:#}", error.unwrap_err());
        assert_eq!(error, "the last failed look: connection refused: it died");
    }
}
