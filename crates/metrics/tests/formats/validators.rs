//! Reference implementations of both formats: `promtool`, and the OpenMetrics parser of Prometheus'
//! Python client. The tests of both programs include this file.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// The parser refuses violations of the specification, such as clashing names.
const PARSE: &str = "import sys, prometheus_client.openmetrics.parser as parser\n\
    families = list(parser.text_string_to_metric_families(sys.stdin.buffer.read().decode()))\n\
    sys.exit(0 if families else 'no families')";

/// The validators on this machine.
pub(crate) struct Validators {
    python: &'static str,
}

impl Validators {
    /// Finds both validators, or returns the name of a missing one.
    pub(crate) fn find() -> Result<Self, &'static str> {
        let is_there = |mut command: Command| {
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let mut promtool = Command::new("promtool");
        promtool.arg("--version");
        if !is_there(promtool) {
            return Err("promtool");
        }
        // The package may be installed for the system's Python only, which need not be the first in
        // the path.
        let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
            let mut command = Command::new(python);
            command.args(["-c", "import prometheus_client.openmetrics.parser"]);
            is_there(command)
        });
        let python = python.ok_or("python3-prometheus-client")?;
        Ok(Self { python })
    }

    /// Checks text 0.0.4, including Prometheus' conventions for names, units and labels.
    pub(crate) fn check_text(&self, text: &str) -> Result<(), String> {
        ask(Command::new("promtool").args(["check", "metrics"]), text)
    }

    pub(crate) fn check_openmetrics(&self, text: &str) -> Result<(), String> {
        ask(Command::new(self.python).args(["-c", PARSE]), text)
    }
}

fn ask(command: &mut Command, text: &str) -> Result<(), String> {
    let failed = |err: io::Error| err.to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A validator may exit at the first error without reading the rest.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.success() && said.trim().is_empty() {
        Ok(())
    } else {
        Err(format!("{}: {said}\n{text}", output.status))
    }
}
