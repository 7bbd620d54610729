//! The samples of one window.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{
    file::{FileFormat, MappedBy},
    locate::{Located, LocatedFrame, StackOutcome},
    process::{FileKind, MappedFile},
};

/// Index of a frame in [`Window::frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameIndex(pub u32);

/// Index of a node in the tree of stacks. 0 is the root, which has no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u32);

/// The identity of a series, before its labels are made. Different keys may have the same labels: a
/// container has another id after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Name of the process's main thread.
    pub comm: Arc<str>,
    /// Path of its program; `None` for kernel threads.
    pub exe: Option<Arc<str>>,
    /// Uid of its pod, as in the paths of cgroups; `None` outside of pods.
    pub pod_uid: Option<Arc<str>>,
    /// Id of its container; `None` outside of one.
    pub container_id: Option<Arc<str>>,
    /// Its systemd unit; `None` in pods and outside of units.
    pub unit: Option<Arc<str>>,
}

/// A file with frames in the window's stacks, or memory into which one process wrote code.
#[derive(Clone, Debug)]
pub struct WindowFile {
    /// The file.
    pub file: Arc<MappedFile>,
    /// Some of the processes that map the file, the latest last; the collector can open it through
    /// them.
    pub mapped_by: Vec<MappedBy>,
    /// The process that owns the memory, for memory that may hold JIT code.
    pub made_by: Option<Maker>,
}

/// A process that wrote code into its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// Its process id.
    pub pid: u32,
    /// The time since which this id belongs to this process: see
    /// [`Process::since_ns`](crate::process::Process::since_ns).
    pub since_ns: u64,
    /// The name of its program, or its own name if it has no program.
    pub program: Arc<str>,
    /// Address in the process minus offset in the file, wrapping.
    pub bias: u64,
}

impl WindowFile {
    /// The process that wrote the code, if the memory is known not to be a file.
    pub fn maker(&self) -> Option<&Maker> {
        let is_memory = match self.file.kind {
            FileKind::Anonymous => true,
            _ => self.file.format.get() == Some(&FileFormat::Memory),
        };
        self.made_by.as_ref().filter(|_| is_memory)
    }

    /// The address of a frame in the profile: an offset in a file, or an address in a process.
    pub fn shown_address(&self, offset: u64) -> u64 {
        self.maker()
            .map_or(offset, |maker| offset.wrapping_add(maker.bias))
    }

    /// Number of processes to remember for each file.
    const PROCESSES_MAX: usize = 4;

    fn add(&mut self, mapped_by: MappedBy) {
        let known = &mut self.mapped_by;
        if known.iter().any(|known| known.pid == mapped_by.pid) {
            return;
        }
        if known.len() == Self::PROCESSES_MAX {
            known.remove(0);
        }
        known.push(mapped_by);
    }
}

/// A frame: an offset in one of the window's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowFrame {
    /// Index in [`Window::files`].
    pub file: u32,
    /// Offset in the file; for the kernel relative to `_text`.
    pub offset: u64,
}

/// The result of the second unwinder for a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// The stack was not checked, or could not be.
    #[default]
    None,
    /// The second unwinder found the same stack.
    Agreed,
    /// The second unwinder found another stack.
    Differed,
}

impl Check {
    /// The name in metrics and in the profile's label `check`; `None` for an unchecked stack.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Agreed => Some("agreed"),
            Self::Differed => Some("differed"),
        }
    }
}

/// The identity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Index in [`Window::series`], or of a label set after [`Window::group_series`].
    pub series: u32,
    /// Index in [`Window::threads`].
    pub thread: u32,
    /// The outcome of the stack walk.
    pub outcome: StackOutcome,
    /// The result of the second unwinder.
    pub check: Check,
    /// The innermost frame.
    pub leaf: NodeIndex,
}

/// The counted samples of one window.
#[derive(Default)]
pub struct Window {
    files: Vec<WindowFile>,
    /// Index of each file. For memory of a process, the process id, its start and the bias are part
    /// of the key.
    file_places: FxHashMap<(Arc<MappedFile>, u32, u64, u64), u32>,
    frames: Vec<WindowFrame>,
    /// First and last sample of each frame, parallel to `frames`.
    frame_times: Vec<(u64, u64)>,
    frame_places: FxHashMap<WindowFrame, FrameIndex>,
    nodes: Vec<(NodeIndex, FrameIndex)>,
    node_places: FxHashMap<(NodeIndex, FrameIndex), NodeIndex>,
    series: Vec<SeriesKey>,
    series_places: FxHashMap<SeriesKey, u32>,
    threads: Vec<[u8; 16]>,
    thread_places: FxHashMap<[u8; 16], u32>,
    rows: FxHashMap<Row, u64>,
    samples: u64,
}

impl Window {
    /// Maximum number of nodes in the tree of stacks of one window.
    ///
    /// A node takes about 40 bytes (entry and hash slot), so 1,048,576 nodes take 42 MB, the hard
    /// limit. 64 busy processors produce 64,000 samples in 10 s. On builds and databases a distinct
    /// stack adds 5 to 15 nodes, so the limit is reached only if all stacks differ down to the
    /// root.
    pub const NODES_MAX: usize = 1 << 20;

    /// Adds one sample. Returns `false`, and changes no count, when a limit is reached.
    pub fn add(
        &mut self,
        pid: u32,
        thread: [u8; 16],
        series: SeriesKey,
        stack: &Located<'_>,
        check: Check,
    ) -> bool {
        if self.nodes.len() + stack.frames.len() > Self::NODES_MAX {
            return false;
        }
        let mut leaf = NodeIndex(0);
        for located in &stack.frames {
            let located = &located.in_made_memory();
            let file = self.file_place(located, stack, pid, &series);
            let offset = located.offset;
            let frame = self.frame_place(WindowFrame { file, offset });
            let times = &mut self.frame_times[frame.0 as usize];
            *times = (times.0.min(stack.time_ns), times.1.max(stack.time_ns));
            leaf = self.node_place(leaf, frame);
        }
        let row = Row {
            series: place(&mut self.series, &mut self.series_places, series),
            thread: place(&mut self.threads, &mut self.thread_places, thread),
            outcome: stack.outcome,
            check,
            leaf,
        };
        *self.rows.entry(row).or_default() += 1;
        self.samples += 1;
        true
    }

    fn file_place(
        &mut self,
        located: &LocatedFrame<'_>,
        stack: &Located<'_>,
        pid: u32,
        series: &SeriesKey,
    ) -> u32 {
        let file = located.file;
        // Two processes may write different code at the same address, and so may two processes that
        // had the same id.
        let may_be_made = file.may_be_made();
        let (since_ns, bias) = (stack.since_ns, located.bias);
        let key = if may_be_made {
            (file.clone(), pid, since_ns, bias)
        } else {
            (file.clone(), 0, 0, 0)
        };
        let place = match self.file_places.get(&key) {
            Some(place) => *place,
            None => {
                let place = self.files.len() as u32;
                self.files.push(WindowFile {
                    file: file.clone(),
                    mapped_by: Vec::new(),
                    made_by: may_be_made.then(|| Maker {
                        pid,
                        since_ns,
                        program: program_name(series),
                        bias,
                    }),
                });
                self.file_places.insert(key, place);
                place
            }
        };
        let (start, end) = located.mapped_at;
        if end != 0 {
            self.files[place as usize].add(MappedBy {
                pid,
                parent: stack.parent,
                start,
                end,
            });
        }
        place
    }

    /// The files of which all sampled processes have ended.
    pub fn orphans(&self, is_living: impl Fn(u32) -> bool) -> Vec<Arc<MappedFile>> {
        let files = self.files.iter().filter(|known| {
            known.file.kind == FileKind::File && !known.mapped_by.iter().any(|by| is_living(by.pid))
        });
        files.map(|known| known.file.clone()).collect()
    }

    /// Adds a process that maps one of the files.
    pub fn add_process(&mut self, file: &Arc<MappedFile>, mapped_by: MappedBy) {
        for known in self.files.iter_mut().filter(|known| known.file == *file) {
            known.add(mapped_by);
        }
    }

    /// Number of samples of each frame, parallel to [`frames`](Self::frames). A sample counts once
    /// for each time that its stack contains the frame.
    pub fn samples_by_frame(&self) -> Vec<u64> {
        let mut by_node = vec![0; self.nodes.len() + 1];
        for (row, count) in &self.rows {
            by_node[row.leaf.0 as usize] += count;
        }
        let mut by_frame = vec![0; self.frames.len()];
        // Parents have smaller indexes than their children.
        for (place, (parent, frame)) in self.nodes.iter().enumerate().rev() {
            let samples: u64 = by_node[place + 1];
            by_node[parent.0 as usize] += samples;
            by_frame[frame.0 as usize] += samples;
        }
        by_frame
    }

    fn frame_place(&mut self, frame: WindowFrame) -> FrameIndex {
        *self.frame_places.entry(frame).or_insert_with(|| {
            self.frames.push(frame);
            self.frame_times.push((u64::MAX, 0));
            FrameIndex(self.frames.len() as u32 - 1)
        })
    }

    fn node_place(&mut self, parent: NodeIndex, frame: FrameIndex) -> NodeIndex {
        *self.node_places.entry((parent, frame)).or_insert_with(|| {
            self.nodes.push((parent, frame));
            // Node 0 is the root, and not in the vector.
            NodeIndex(self.nodes.len() as u32)
        })
    }

    /// The files, in the order in which they were first seen.
    pub fn files(&self) -> &[WindowFile] {
        &self.files
    }

    /// The distinct frames.
    pub fn frames(&self) -> &[WindowFrame] {
        &self.frames
    }

    /// Time of the first and last sample of each frame, in nanoseconds of CLOCK_MONOTONIC; parallel
    /// to [`frames`](Self::frames).
    pub fn frame_times(&self) -> &[(u64, u64)] {
        &self.frame_times
    }

    /// The series.
    pub fn series(&self) -> &[SeriesKey] {
        &self.series
    }

    /// The threads' names, padded with zeros.
    pub fn threads(&self) -> &[[u8; 16]] {
        &self.threads
    }

    /// Joins series with the same labels: `places` has the label set of each series, and `None` for
    /// those whose samples are dropped. Returns the number of dropped samples.
    ///
    /// Frames that only dropped samples have remain, without samples.
    pub fn group_series(&mut self, places: &[Option<u32>]) -> u64 {
        let mut dropped = 0;
        let rows = std::mem::take(&mut self.rows);
        for (row, count) in rows {
            match places.get(row.series as usize).copied().flatten() {
                Some(series) => *self.rows.entry(Row { series, ..row }).or_default() += count,
                None => dropped += count,
            }
        }
        self.samples -= dropped;
        dropped
    }

    /// The rows and their numbers of samples, in an order that depends only on the samples.
    pub fn sorted_rows(&self) -> Vec<(Row, u64)> {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .map(|(row, count)| (*row, *count))
            .collect();
        rows.sort_unstable();
        rows
    }

    /// The frames of a stack, innermost first.
    pub fn stack(&self, leaf: NodeIndex) -> impl Iterator<Item = FrameIndex> {
        let mut node = leaf;
        std::iter::from_fn(move || {
            let (parent, frame) = *self.nodes.get((node.0 as usize).checked_sub(1)?)?;
            node = parent;
            Some(frame)
        })
    }

    /// Samples in the window.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Distinct rows.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Samples by outcome, in the order of the outcomes.
    pub fn outcomes(&self) -> Vec<(StackOutcome, u64)> {
        let mut outcomes = std::collections::BTreeMap::new();
        for (row, count) in &self.rows {
            *outcomes.entry(row.outcome).or_insert(0) += count;
        }
        outcomes.into_iter().collect()
    }
}

/// The last component of the program's path.
fn program_name(series: &SeriesKey) -> Arc<str> {
    let path = series.exe.as_deref().unwrap_or_default();
    match path.rsplit('/').next().unwrap_or_default() {
        "" => series.comm.clone(),
        name => name.into(),
    }
}

/// The index of a value in a table; adds the value if it is new.
fn place<T: Clone + Eq + std::hash::Hash>(
    table: &mut Vec<T>,
    places: &mut FxHashMap<T, u32>,
    value: T,
) -> u32 {
    *places.entry(value).or_insert_with_key(|value| {
        table.push(value.clone());
        table.len() as u32 - 1
    })
}

#[cfg(test)]
mod tests {
    use profile::{Frame, parse_samples};

    use super::*;
    use crate::{
        locate::testing::complete,
        process::{FileIdentity, Files},
    };

    fn series(comm: &str) -> SeriesKey {
        SeriesKey {
            comm: comm.into(),
            exe: None,
            pod_uid: None,
            container_id: None,
            unit: None,
        }
    }

    /// Adds samples in the test language; a frame's offset is the first letter of its name.
    fn window(text: &str) -> Window {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mut window = Window::default();
        for sample in parse_samples(text).unwrap() {
            let offset = |frame: &Frame<'_>| u64::from(frame.functions[0].as_bytes()[0]);
            let frames = sample
                .stack
                .iter()
                .map(|frame| LocatedFrame::stand_in(&file, offset(frame)))
                .collect();
            let located = complete(frames);
            let series = series(sample.labels.value("comm"));
            for _ in 0..sample.count {
                assert!(window.add(1, [0; 16], series.clone(), &located, Check::None));
            }
        }
        window
    }

    /// Shows rows as "comm inner outer ×count".
    fn show(window: &Window) -> Vec<String> {
        window
            .sorted_rows()
            .into_iter()
            .map(|(row, count)| {
                let comm = &window.series()[row.series as usize].comm;
                let stack: String = window
                    .stack(row.leaf)
                    .map(|frame| char::from(window.frames()[frame.0 as usize].offset as u8))
                    .collect();
                format!("{comm} {stack} ×{count}")
            })
            .collect()
    }

    /// Check that equal stacks are counted together and others are not.
    #[test]
    fn counts() {
        let window = window(
            "comm=a | A B C | 2
             comm=a | A B   | 1
             comm=b | A B C | 1",
        );
        assert_eq!(show(&window), ["a BA ×1", "a CBA ×2", "b CBA ×1"]);
        assert_eq!(window.samples(), 4);
    }

    /// Check that a sample without any frame is kept.
    #[test]
    fn empty_stack() {
        assert_eq!(show(&window("comm=a | | 1")), ["a  ×1"]);
    }

    /// Check that recursion and shared prefixes make one node each.
    #[test]
    fn tree() {
        let window = window("comm=a | A A A | 1\ncomm=a | A A | 1\ncomm=a | A B | 1");
        assert_eq!(window.nodes.len(), 4);
        assert_eq!(window.frames().len(), 2);
    }

    /// Check that a file remembers its latest processes only.
    #[test]
    fn processes_of_a_file() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        file.format.set(FileFormat::Elf).unwrap();
        let mut window = Window::default();
        for pid in [1, 2, 2, 3, 4, 5] {
            let located = complete(vec![LocatedFrame {
                file: &file,
                offset: 1,
                mapped_at: (0x1000, 0x2000),
                bias: 0,
            }]);
            window.add(pid, [0; 16], series("a"), &located, Check::None);
        }
        let pids: Vec<u32> = window.files()[0]
            .mapped_by
            .iter()
            .map(|process| process.pid)
            .collect();
        assert_eq!(pids, [2, 3, 4, 5]);
    }

    /// Check that samples are counted at each frame of their stacks.
    #[test]
    fn samples_of_frames() {
        let window = window(
            "comm=a | A B C | 1
             comm=a | A B   | 1
             comm=b | A B C | 1
             comm=a | D D   | 1",
        );
        let counts = window.samples_by_frame();
        let of: String = window
            .frames()
            .iter()
            .zip(counts)
            .map(|(frame, count)| format!("{}{count} ", char::from(frame.offset as u8)))
            .collect();
        assert_eq!(of, "A3 B3 C2 D2 ");
    }

    /// Check which files are orphans, and that a file with an added process is not one.
    #[test]
    fn orphans() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mut window = Window::default();
        let located = complete(vec![LocatedFrame {
            file: &file,
            offset: 1,
            mapped_at: (0x1000, 0x2000),
            bias: 0,
        }]);
        window.add(7, [0; 16], series("a"), &located, Check::None);
        assert_eq!(window.orphans(|pid| pid == 7), []);
        assert_eq!(window.orphans(|pid| pid == 8), std::slice::from_ref(&file));
        let mapped_by = MappedBy {
            pid: 8,
            parent: 0,
            start: 0x5000,
            end: 0x6000,
        };
        window.add_process(&file, mapped_by);
        assert_eq!(window.orphans(|pid| pid == 8), []);
        assert_eq!(window.files()[0].mapped_by.last(), Some(&mapped_by));
    }

    /// Check that JIT code of different processes is kept apart, also at the same address.
    #[test]
    fn anonymous_memory_is_of_one_process() {
        let mut files = Files::new();
        let file = files.intern(FileKind::Anonymous, b"[anonymous]", FileIdentity::Path);
        let mut window = Window::default();
        for pid in [1, 2, 1] {
            let located = complete(vec![LocatedFrame {
                file: &file,
                offset: 0x1010,
                mapped_at: (0x1000, 0x2000),
                bias: 0,
            }]);
            window.add(pid, [0; 16], series("a"), &located, Check::None);
        }
        let of: Vec<Vec<u32>> = window
            .files()
            .iter()
            .map(|file| file.mapped_by.iter().map(|process| process.pid).collect())
            .collect();
        assert_eq!(of, [[1], [2]]);
        assert_eq!((window.frames().len(), window.row_count()), (2, 2));
    }

    /// Check that JIT code of two processes is kept apart if they had the same id one after the
    /// other.
    #[test]
    fn memory_of_a_reused_number_is_of_another_process() {
        let mut files = Files::new();
        let file = files.intern(FileKind::Anonymous, b"[anonymous]", FileIdentity::Path);
        let mut window = Window::default();
        for since_ns in [10, 20, 10] {
            let located = Located {
                since_ns,
                ..complete(vec![LocatedFrame::stand_in(&file, 0x1010)])
            };
            window.add(1, [0; 16], series("a"), &located, Check::None);
        }
        let makers = window.files().iter().map(|file| file.maker().unwrap());
        let since: Vec<u64> = makers.map(|maker| maker.since_ns).collect();
        assert_eq!(since, [10, 20]);
    }

    /// Check that memory with possible JIT code is kept apart by process and position: by offset
    /// until the file has been inspected, by address afterwards; and that an ELF file is the same
    /// for all processes.
    #[test]
    fn memory_files_are_of_one_process() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/memfd:a", FileIdentity::Path);
        let mut window = Window::default();
        let mut add = |pid, bias| {
            let frame = LocatedFrame {
                bias,
                ..LocatedFrame::stand_in(&file, 0x10)
            };
            let located = complete(vec![frame]);
            window.add(pid, [0; 16], series("a"), &located, Check::None);
            let file = window.files().last().unwrap();
            let offset = window.frames().last().unwrap().offset;
            (
                window.files().len(),
                offset,
                file.shown_address(offset),
                file.maker().is_some(),
            )
        };
        assert_eq!(add(1, 0x1000), (1, 0x10, 0x10, false));
        assert_eq!(add(1, 0x5000), (2, 0x10, 0x10, false));
        assert_eq!(add(2, 0x1000), (3, 0x10, 0x10, false));
        file.format.set(FileFormat::Memory).unwrap();
        assert_eq!(add(2, 0x7000), (4, 0x7010, 0x7010, true));
        assert_eq!(add(2, 0x9000), (4, 0x9010, 0x9010, true));
        let places = window.files().iter().map(|file| file.shown_address(0x10));
        assert_eq!(places.collect::<Vec<_>>(), [0x1010, 0x5010, 0x1010, 0x10]);

        let elf = files.intern(FileKind::File, b"/memfd:b", FileIdentity::Path);
        elf.format.set(FileFormat::Elf).unwrap();
        let mut window = Window::default();
        for pid in [1, 2] {
            let located = complete(vec![LocatedFrame::stand_in(&elf, 0x10)]);
            window.add(pid, [0; 16], series("a"), &located, Check::None);
        }
        assert_eq!(window.files().len(), 1);
        assert!(window.files()[0].made_by.is_none());
    }
}
