//! The terminal: two lines printed once, and a summary that is redrawn in place. Without a
//! terminal, prints a plain line every 10 s.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use run::summary::{Snapshot, Top, fit, state_lines, top_line, top_lines};

/// Interval of lines without a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// Columns of a terminal that does not report its width.
const COLUMNS_DEFAULT: u16 = 80;

pub(crate) struct Screen {
    server: SocketAddr,
    announced: bool,
    /// Number of lines of the last drawing.
    drawn: usize,
    next_plain: Instant,
}

impl Screen {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            announced: false,
            drawn: 0,
            next_plain: Instant::now(),
        }
    }

    /// Shows the state of `now` and the cost since `before`. Prints the addresses first, as soon as
    /// there is a profile.
    pub(crate) fn show(&mut self, before: &Snapshot, now: &Snapshot, top: &Top) -> Result<()> {
        let mut out = String::new();
        let terminal = io::stdout().is_terminal();
        if terminal && self.drawn > 0 {
            // Moves to the first line of the last drawing, and clears from there.
            out.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
        }
        let has_profile = top.total_ns > 0;
        if has_profile && !self.announced {
            self.announced = true;
            let server = self.server;
            out.push_str(&format!("page   http://{server}/\n"));
            out.push_str(&format!(
                "pprof  go tool pprof -top 'http://{server}/api/v1/pprof?query={{}}&from=now-15m'\n"
            ));
        }
        if terminal {
            let columns = usize::from(columns());
            let mut lines = state_lines(before, now);
            if has_profile {
                lines.extend(top_lines(top));
            } else {
                lines.push(
                    "        waiting for the first window to be stored, up to 10 s".to_owned(),
                );
            }
            self.drawn = lines.len();
            for line in lines {
                out.push_str(&fit(&line, columns));
                out.push('\n');
            }
        } else if has_profile && Instant::now() >= self.next_plain {
            self.next_plain = Instant::now() + PLAIN_EVERY;
            let mut parts = state_lines(before, now);
            parts.push(format!("top: {}", top_line(top)));
            out.push_str(&fit(&parts.join("  "), usize::MAX));
            out.push('\n');
        }
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush())
            .context("failed to write the summary")
    }
}

/// Columns of the terminal; some terminals report 0.
fn columns() -> u16 {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    match size.map_or(0, |size| size.ws_col) {
        0 => COLUMNS_DEFAULT,
        columns => columns,
    }
}
