//! The samples of one window.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{
    locate::{Located, LocatedFrame, StackOutcome},
    name::MappedBy,
    process::{FileKind, MappedFile},
};

/// Place of a frame in [`Window::frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameIndex(pub u32);

/// Place of a node in the tree of stacks. 0 is the root, which has no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u32);

/// What tells series apart, before it becomes labels. Each field is one label, so
/// that different keys never become the same labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Name of the process's main thread.
    pub comm: Arc<str>,
    /// Path of its program; `None` for kernel threads.
    pub exe: Option<Arc<str>>,
    /// Id of its container; `None` outside of one.
    pub container_id: Option<Arc<str>>,
}

/// A file that the window's stacks go through, or the memory of one process that it wrote code into.
#[derive(Clone, Debug)]
pub struct WindowFile {
    /// The file.
    pub file: Arc<MappedFile>,
    /// Some of the processes that map it, the latest last: through them it can be opened.
    pub mapped_by: Vec<MappedBy>,
    /// Whose memory it is, for code that a process made: the name of its program, or without one its own.
    pub made_by: Option<Arc<str>>,
}

impl WindowFile {
    /// Processes remembered of a file.
    const PROCESSES_MAX: usize = 4;

    fn add(&mut self, mapped_by: MappedBy) {
        let known = &mut self.mapped_by;
        if known.iter().any(|it| it.pid == mapped_by.pid) {
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
    /// Place in [`Window::files`].
    pub file: u32,
    /// Offset in the file; for the kernel relative to `_text`.
    pub offset: u64,
}

/// Whether a second unwinder found the same stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Nobody looked, or could.
    #[default]
    None,
    /// It did.
    Agreed,
    /// It did not.
    Differed,
}

impl Check {
    /// Its name in metrics and in the profile's label `check`; `None` when there is nothing to say.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Agreed => Some("agreed"),
            Self::Differed => Some("differed"),
        }
    }
}

/// What tells rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Place in [`Window::series`].
    pub series: u32,
    /// Place in [`Window::threads`].
    pub thread: u32,
    /// How the stack ended.
    pub outcome: StackOutcome,
    /// Whether a second unwinder found the same.
    pub check: Check,
    /// Its innermost frame.
    pub leaf: NodeIndex,
}

/// All samples of one window, counted.
#[derive(Default)]
pub struct Window {
    files: Vec<WindowFile>,
    /// By file, and for what is a process's own its number.
    file_places: FxHashMap<(Arc<MappedFile>, u32), u32>,
    frames: Vec<WindowFrame>,
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
    /// Nodes of the tree of stacks in one window.
    ///
    /// A node takes about 40 bytes here (entry and hash slot): 1,048,576 are 42 MB,
    /// the hard cap. 64 busy processors make 64,000 samples in 10 s; measured
    /// on builds and databases, a distinct stack adds 5 to 15 nodes, so that the cap
    /// is reached only by stacks that are all different down to the root.
    pub const NODES_MAX: usize = 1 << 20;

    /// Adds one sample. Gives `false`, and changes no count, when a limit is reached.
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
            let file = self.file_place(located, pid, stack.parent, &series);
            let offset = located.offset;
            let frame = self.frame_place(WindowFrame { file, offset });
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
        pid: u32,
        parent: u32,
        series: &SeriesKey,
    ) -> u32 {
        let file = located.file;
        // Code that two processes made at the same address is not the same.
        let made_by = (file.kind == FileKind::Anonymous).then_some(series);
        let key = (file.clone(), made_by.map_or(0, |_| pid));
        let place = match self.file_places.get(&key) {
            Some(place) => *place,
            None => {
                let place = self.files.len() as u32;
                self.files.push(WindowFile {
                    file: file.clone(),
                    mapped_by: Vec::new(),
                    made_by: made_by.map(program_name),
                });
                self.file_places.insert(key, place);
                place
            }
        };
        let (start, end) = located.mapped_at;
        if end != 0 {
            self.files[place as usize].add(MappedBy {
                pid,
                parent,
                start,
                end,
            });
        }
        place
    }

    /// The files of which no process lives any more that was sampled with them.
    pub fn orphans(&self, is_living: impl Fn(u32) -> bool) -> Vec<Arc<MappedFile>> {
        let files = self.files.iter().filter(|it| {
            it.file.kind == FileKind::File && !it.mapped_by.iter().any(|by| is_living(by.pid))
        });
        files.map(|it| it.file.clone()).collect()
    }

    /// Adds a process that maps one of the files.
    pub fn add_process(&mut self, file: &Arc<MappedFile>, mapped_by: MappedBy) {
        if let Some(place) = self.file_places.get(&(file.clone(), 0)) {
            self.files[*place as usize].add(mapped_by);
        }
    }

    /// Samples by frame, parallel to [`frames`](Self::frames): of those that have it in their stacks, each as often as it
    /// is there.
    pub fn samples_by_frame(&self) -> Vec<u64> {
        let mut by_node = vec![0; self.nodes.len() + 1];
        for (row, count) in &self.rows {
            by_node[row.leaf.0 as usize] += count;
        }
        let mut by_frame = vec![0; self.frames.len()];
        // Parents have smaller numbers than their children.
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
            FrameIndex(self.frames.len() as u32 - 1)
        })
    }

    fn node_place(&mut self, parent: NodeIndex, frame: FrameIndex) -> NodeIndex {
        *self.node_places.entry((parent, frame)).or_insert_with(|| {
            self.nodes.push((parent, frame));
            // Node 0 is the root and not in the vector.
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

    /// The series.
    pub fn series(&self) -> &[SeriesKey] {
        &self.series
    }

    /// The threads' names, padded with zeros.
    pub fn threads(&self) -> &[[u8; 16]] {
        &self.threads
    }

    /// The rows and their numbers of samples, in an order that depends on nothing
    /// but the samples.
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

/// The last part of the program's path.
fn program_name(series: &SeriesKey) -> Arc<str> {
    let path = series.exe.as_deref().unwrap_or_default();
    match path.rsplit('/').next().unwrap_or_default() {
        "" => series.comm.clone(),
        name => name.into(),
    }
}

/// The place of a value in a table, where it is added if it is new.
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
    use profiler_bpf::outcome::Outcome;

    use super::*;
    use crate::process::{FileIdentity, Files};

    fn series(comm: &str) -> SeriesKey {
        SeriesKey {
            comm: comm.into(),
            exe: None,
            container_id: None,
        }
    }

    fn complete(frames: Vec<LocatedFrame<'_>>) -> Located<'_> {
        Located {
            frames,
            outcome: StackOutcome::Walked(Outcome::Complete),
            parent: 0,
        }
    }

    /// Adds stacks written as words "outer inner", one sample each.
    fn window(stacks: &[(&str, &str)]) -> Window {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mut window = Window::default();
        for (comm, stack) in stacks {
            let frames = stack
                .split_whitespace()
                .map(|word| LocatedFrame::stand_in(&file, u64::from(word.as_bytes()[0])))
                .collect();
            let located = complete(frames);
            assert!(window.add(1, [0; 16], series(comm), &located, Check::None));
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
                    .map(|it| char::from(window.frames()[it.0 as usize].offset as u8))
                    .collect();
                format!("{comm} {stack} ×{count}")
            })
            .collect()
    }

    /// Check that equal stacks are counted together and others are not.
    #[test]
    fn counts() {
        let window = window(&[("a", "A B C"), ("a", "A B"), ("a", "A B C"), ("b", "A B C")]);
        assert_eq!(show(&window), ["a BA ×1", "a CBA ×2", "b CBA ×1"]);
        assert_eq!(window.samples(), 4);
    }

    /// Check that a sample without any frame is kept.
    #[test]
    fn empty_stack() {
        assert_eq!(show(&window(&[("a", "")])), ["a  ×1"]);
    }

    /// Check that recursion and shared prefixes make one node each.
    #[test]
    fn tree() {
        let window = window(&[("a", "A A A"), ("a", "A A"), ("a", "A B")]);
        assert_eq!(window.nodes.len(), 4);
        assert_eq!(window.frames().len(), 2);
    }

    /// Check that a file remembers its latest processes only.
    #[test]
    fn processes_of_a_file() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mut window = Window::default();
        for pid in [1, 2, 2, 3, 4, 5] {
            let located = complete(vec![LocatedFrame {
                file: &file,
                offset: 1,
                mapped_at: (0x1000, 0x2000),
            }]);
            window.add(pid, [0; 16], series("a"), &located, Check::None);
        }
        let pids: Vec<u32> = window.files()[0]
            .mapped_by
            .iter()
            .map(|it| it.pid)
            .collect();
        assert_eq!(pids, [2, 3, 4, 5]);
    }

    /// Check that samples are counted at each frame of their stacks.
    #[test]
    fn samples_of_frames() {
        let window = window(&[("a", "A B C"), ("a", "A B"), ("b", "A B C"), ("a", "D D")]);
        let counts = window.samples_by_frame();
        let of: String = window
            .frames()
            .iter()
            .zip(counts)
            .map(|(frame, count)| format!("{}{count} ", char::from(frame.offset as u8)))
            .collect();
        assert_eq!(of, "A3 B3 C2 D2 ");
    }

    /// Check which files are orphans, and that one is not when it was given a process.
    #[test]
    fn orphans() {
        let mut files = Files::new();
        let file = files.intern(FileKind::File, b"/bin/a", FileIdentity::Path);
        let mut window = Window::default();
        let located = complete(vec![LocatedFrame {
            file: &file,
            offset: 1,
            mapped_at: (0x1000, 0x2000),
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

    /// Check that code made at run time is told apart by process, also at the same address.
    #[test]
    fn anonymous_memory_is_of_one_process() {
        let mut files = Files::new();
        let file = files.intern(FileKind::Anonymous, b"[anonymous]", FileIdentity::Path);
        let mut window = Window::default();
        for pid in [1, 2, 1] {
            let located = Located {
                frames: vec![LocatedFrame {
                    file: &file,
                    offset: 0x1010,
                    mapped_at: (0x1000, 0x2000),
                }],
                outcome: StackOutcome::Walked(Outcome::Complete),
                parent: 0,
            };
            window.add(pid, [0; 16], series("a"), &located, Check::None);
        }
        let of: Vec<Vec<u32>> = window
            .files()
            .iter()
            .map(|file| file.mapped_by.iter().map(|it| it.pid).collect())
            .collect();
        assert_eq!(of, [[1], [2]]);
        assert_eq!((window.frames().len(), window.row_count()), (2, 2));
    }
}
