//! The perf events that run the program, on every online processor.

use std::{collections::BTreeMap, fmt, fs, io, os::fd::RawFd};

use anyhow::{Context as _, Result};
use perf_event::{
    Builder, Counter,
    events::{Hardware, Software},
};

use super::Schedule;

/// The event behind the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The kernel's high-resolution timer; works everywhere.
    CpuClock,
    /// The processor's cycle counter: also sees code that runs with interrupts off.
    Cycles,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CpuClock => "cpu-clock",
            Self::Cycles => "cycles",
        })
    }
}

/// The open events. They are closed when this is dropped.
pub struct Timers {
    event: Event,
    schedule: Schedule,
    include_idle: bool,
    cycles_per_ns: f64,
    program: RawFd,
    /// A processor's events, by its number.
    open: BTreeMap<u32, Vec<Counter>>,
    is_started: bool,
}

impl Timers {
    /// No events yet; `program` is the descriptor that they will run.
    ///
    /// # Errors
    /// The processor's rate is not known, and `event` needs it.
    pub fn new(
        event: Event,
        schedule: Schedule,
        include_idle: bool,
        program: RawFd,
    ) -> Result<Self> {
        let cycles_per_ns = match event {
            Event::CpuClock => 1.0,
            Event::Cycles => read_cycles_per_ns()?,
        };
        Ok(Self {
            event,
            schedule,
            include_idle,
            cycles_per_ns,
            program,
            open: BTreeMap::new(),
            is_started: false,
        })
    }

    /// Opens events on processors that came online, and closes those of processors that went offline.
    /// Returns how many came and went. They run the program from [`start`](Self::start) on.
    ///
    /// # Errors
    /// An event cannot be opened. Those that are open stay so.
    pub fn follow(&mut self, online: &[u32]) -> Result<(usize, usize)> {
        let before = self.open.len();
        self.open.retain(|cpu, _| online.contains(cpu));
        let gone = before - self.open.len();
        let mut came = 0;
        for &cpu in online {
            if self.open.contains_key(&cpu) {
                continue;
            }
            let timers = self.open_on(cpu).with_context(|| {
                format!("failed to open a {} event on processor {cpu}", self.event)
            })?;
            self.open.insert(cpu, timers);
            came += 1;
        }
        Ok((came, gone))
    }

    /// Starts all events.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn start(&mut self) -> io::Result<()> {
        self.is_started = true;
        self.open
            .values_mut()
            .flatten()
            .try_for_each(Counter::enable)
    }

    /// Stops all events: none runs the program afterwards.
    pub fn stop(&mut self) {
        self.open.clear();
    }

    fn open_on(&self, cpu: u32) -> io::Result<Vec<Counter>> {
        let open = |period_ns: u64| {
            let mut builder = match self.event {
                Event::CpuClock => Builder::new(Software::CPU_CLOCK),
                Event::Cycles => Builder::new(Hardware::CPU_CYCLES),
            };
            let mut counter = builder
                .any_pid()
                .one_cpu(cpu as usize)
                .include_kernel()
                .exclude_idle(!self.include_idle)
                .sample_period((period_ns as f64 * self.cycles_per_ns) as u64)
                .build()?;
            counter.set_bpf(self.program)?;
            if self.is_started {
                counter.enable()?;
            }
            Ok(counter)
        };
        self.schedule.periods_ns().into_iter().map(open).collect()
    }
}

/// The processor's nominal rate, cycles per nanosecond.
fn read_cycles_per_ns() -> Result<f64> {
    const PATH: &str = "/proc/cpuinfo";
    let info = fs::read_to_string(PATH).with_context(|| format!("failed to read `{PATH}`"))?;
    let mhz: f64 = info
        .lines()
        .find_map(|line| {
            line.strip_prefix("cpu MHz")?
                .split_once(':')?
                .1
                .trim()
                .parse()
                .ok()
        })
        .with_context(|| format!("failed to find `cpu MHz` in `{PATH}`: use --event cpu-clock"))?;
    Ok(mhz / 1000.0)
}
