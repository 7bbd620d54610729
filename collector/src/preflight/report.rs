//! The result of the checks: one row each, as a table for people and as single lines for logs.

use std::fmt;

use crate::config::LogFormat;

/// How a check ended, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be, or not needed here.
    Ok,
    /// The collector samples, and does without something.
    Degraded,
    /// The collector samples, but is not ready: most samples lack what people select by.
    NotReady,
    /// The collector cannot sample.
    Fatal,
}

impl Verdict {
    /// Its word in the table, in logs and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::NotReady => "not_ready",
            Self::Fatal => "fatal",
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The checked object.
    pub name: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// State of the machine.
    pub found: String,
    /// Features that the collector lacks by it; empty if all is well.
    pub effect: &'static str,
    /// Remedy; empty if all is well.
    pub remedy: String,
}

impl Check {
    /// A check with a good result.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            effect: "",
            remedy: String::new(),
        }
    }
}

/// One line: what was found, its effect and the remedy.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            verdict,
            found,
            effect,
            remedy,
        } = self;
        write!(f, "{name}: {found}")?;
        if *verdict != Verdict::Ok {
            write!(f, "; {effect}; {remedy}")?;
        }
        Ok(())
    }
}

/// All checks, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The rows.
    pub checks: Vec<Check>,
}

impl Report {
    /// The worst result.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.checks.iter().map(|check| check.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// The checks with this result.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(move |check| check.verdict == verdict)
    }

    /// Why the collector cannot sample, one cause a line; `None` if it can.
    pub fn refusal(&self) -> Option<String> {
        let causes: Vec<String> = self.of(Verdict::Fatal).map(Check::to_string).collect();
        (!causes.is_empty()).then(|| causes.join("\n"))
    }

    /// Writes the table to standard error, or one event a check: for programs, and if the log's
    /// level leaves out what is well.
    pub fn log(&self, format: LogFormat) {
        if format == LogFormat::Text && tracing::enabled!(tracing::Level::INFO) {
            eprint!("{self}");
            return;
        }
        for check in &self.checks {
            let Check {
                name,
                verdict,
                found,
                effect,
                remedy,
            } = check;
            let result = verdict.as_str();
            match verdict {
                Verdict::Ok => tracing::info!(check = name, result, found, "preflight"),
                Verdict::Degraded | Verdict::NotReady => {
                    tracing::warn!(check = name, result, found, effect, remedy, "preflight");
                }
                Verdict::Fatal => {
                    tracing::error!(check = name, result, found, effect, remedy, "preflight");
                }
            }
        }
    }
}

/// The table; each line ends with a line break.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.checks.iter().map(|check| check.name.len()).max();
        let name_width = widest.unwrap_or(0).max("check".len());
        let result_width = Verdict::NotReady.as_str().len();
        let indent = name_width + result_width + 4;
        writeln!(
            f,
            "{:name_width$}  {:result_width$}  found",
            "check", "result"
        )?;
        for check in &self.checks {
            let Check {
                name,
                verdict,
                found,
                effect,
                remedy,
            } = check;
            let result = verdict.as_str();
            writeln!(f, "{name:name_width$}  {result:result_width$}  {found}")?;
            if *verdict != Verdict::Ok {
                writeln!(f, "{:indent$}effect: {effect}", "")?;
                writeln!(f, "{:indent$}remedy: {remedy}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let bad = Check {
            name: "CAP_BPF",
            verdict: Verdict::Fatal,
            found: "not granted".into(),
            effect: "no samples",
            remedy: "grant it".into(),
        };
        Report {
            checks: vec![Check::ok("kernel", "6.1.0"), bad],
        }
    }

    /// Check that the table has one row a check, with effect and remedy below a bad one.
    #[test]
    fn table() {
        let table = "\
check    result     found
kernel   ok         6.1.0
CAP_BPF  fatal      not granted
                    effect: no samples
                    remedy: grant it
";
        assert_eq!(report().to_string(), table);
    }

    /// Check that the worst result counts, and that a refusal names the fatal checks only.
    #[test]
    fn refusals() {
        let mut report = report();
        assert_eq!(report.verdict(), Verdict::Fatal);
        let refusal = "CAP_BPF: not granted; no samples; grant it";
        assert_eq!(report.refusal().as_deref(), Some(refusal));
        report.checks.pop();
        assert_eq!(report.verdict(), Verdict::Ok);
        assert_eq!(report.refusal(), None);
    }
}
