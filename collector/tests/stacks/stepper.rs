//! Runs the stepper, and reads its records.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use collector::unwind::AllRegisters;

/// A program that is or was stepped through.
pub(crate) struct Stepper {
    child: Option<Child>,
    records: BufReader<Box<dyn Read>>,
}

/// A record of the stepper.
pub(crate) enum Record {
    /// `/proc/PID/maps`, after a change.
    Mappings(String),
    /// The vDSO's bytes.
    Vdso(Vec<u8>),
    /// A stop.
    Stop(Stop),
    /// The end: number of steps, and of different instructions.
    End { steps: u64, instructions: u64 },
}

/// The state of a stopped program.
pub(crate) struct Stop {
    pub(crate) registers: AllRegisters,
    /// Whether the stop was drawn at random, not because the instruction was reached for the first
    /// time.
    pub(crate) is_drawn: bool,
    /// The true stack, innermost first.
    pub(crate) frames: Vec<u64>,
    /// Memory of each stack in use: address and bytes.
    pub(crate) memory: Vec<(u64, Vec<u8>)>,
}

impl Stop {
    /// The word at an address, if it was recorded.
    pub(crate) fn read(&self, address: u64) -> Option<u64> {
        self.memory.iter().find_map(|(start, bytes)| {
            let into = usize::try_from(address.checked_sub(*start)?).ok()?;
            let word = bytes.get(into..into.checked_add(8)?)?;
            word.try_into().ok().map(u64::from_le_bytes)
        })
    }
}

/// Checks that a process may step another one here. The error is the reason if not.
pub(crate) fn try_out(folder: &Path) -> Result<(), String> {
    let status = command(folder, &[PathBuf::from("/bin/true")], 100, 1, 0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("processes may not be traced here".to_owned()),
        Err(err) => Err(format!("the stepper does not start: {err}")),
    }
}

fn command(
    folder: &Path,
    program: &[PathBuf],
    steps_max: u64,
    one_in: u64,
    signal_every: u64,
) -> Command {
    let mut command = Command::new(folder.join("stepper"));
    command
        .args([steps_max, one_in, signal_every].map(|number| number.to_string()))
        .args(program)
        // The same stacks in each run.
        .env_clear()
        .env("LANG", "C");
    command
}

impl Stepper {
    /// Starts a program. One in `one_in` steps is a stop.
    pub(crate) fn start(
        folder: &Path,
        program: &[PathBuf],
        steps_max: u64,
        one_in: u64,
        signal_every: u64,
    ) -> Result<Self, String> {
        let mut child = command(folder, program, steps_max, one_in, signal_every)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|err| format!("the stepper does not start: {err}"))?;
        let stdout = child.stdout.take().ok_or("the stepper has no output")?;
        Ok(Self {
            child: Some(child),
            records: BufReader::with_capacity(1 << 20, Box::new(stdout)),
        })
    }

    /// Makes gdb stop a program at random instructions, and takes the frames from gdb.
    pub(crate) fn run_gdb(
        out: &Path,
        program: &[PathBuf],
        start: &str,
        stops: u64,
    ) -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/unwind/gdb_stops.py");
        let output = Command::new("gdb")
            .args(["-nx", "-batch", "-ex"])
            .arg(format!(
                "py stops, start, out = {stops}, '{start}', '{}'",
                out.display()
            ))
            .arg("-x")
            .arg(script)
            .arg("--args")
            .args(program)
            .stdin(Stdio::null())
            .output()
            .map_err(|err| format!("gdb does not start: {err}"))?;
        let records = File::open(out).map_err(|err| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("gdb wrote nothing ({err}): {said}")
        })?;
        Ok(Self {
            child: None,
            records: BufReader::new(Box::new(records)),
        })
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Record, String> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [letter, length @ ..] = head;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.fill(&mut bytes)?;
        let mut words = bytes.as_slice();
        let record = match letter {
            b'M' => String::from_utf8(bytes).ok().map(Record::Mappings),
            b'V' => Some(Record::Vdso(bytes)),
            b'S' => read_stop(&mut words).map(Record::Stop),
            b'E' => read_end(&mut words),
            _ => None,
        };
        record.ok_or(format!("a record {letter} that means nothing"))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.records
            .read_exact(bytes)
            .map_err(|err| format!("the stepper has ended: {err}"))
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        // The program ends with the stepper.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn take_word(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

fn read_stop(bytes: &mut &[u8]) -> Option<Stop> {
    let mut registers = [0; 17];
    for register in &mut registers {
        *register = take_word(bytes)?;
    }
    let is_drawn = take_word(bytes)? == 1;
    let count = take_word(bytes)?;
    let frames = (0..count)
        .map(|_| take_word(bytes))
        .collect::<Option<_>>()?;
    let mut memory = Vec::new();
    while !bytes.is_empty() {
        let address = take_word(bytes)?;
        let length = usize::try_from(take_word(bytes)?).ok()?;
        let (part, rest) = bytes.split_at_checked(length)?;
        memory.push((address, part.to_vec()));
        *bytes = rest;
    }
    Some(Stop {
        registers,
        is_drawn,
        frames,
        memory,
    })
}

fn read_end(bytes: &mut &[u8]) -> Option<Record> {
    Some(Record::End {
        steps: take_word(bytes)?,
        instructions: take_word(bytes)?,
    })
}
