//! The maps that the walk searches: see [`profiler_bpf::tables`].
//!
//! In: a list of writes in an order that keeps the program safe. Out: kernel memory. It decides
//! nothing; [`Tables`] does.

use std::{collections::BTreeMap, iter, mem, os::fd::AsFd as _, thread};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData},
};
use profiler_bpf::tables::{
    BLOCKS_MAX, MAPPINGS_MAX, PAGE_WORDS, PAGES_MAX, PROCESSES_MAX, RULES_MAX,
};

use super::maps::take_map;
use crate::unwind::{PAGE_BYTES, Tables, Write};

type Page = Array<MapData, [u64; PAGE_WORDS]>;

/// New pages that are put into their places at once: the kernel waits at each for the programs that
/// run, 10 to 30 ms, and those who wait together wait once. The largest files have a hundred pages.
const PLACERS: usize = 16;

/// The maps, written by one thread.
pub struct KernelTables {
    processes: HashMap<MapData, u32, [u64; 4]>,
    mappings: Array<MapData, [u64; 4]>,
    blocks: Array<MapData, u64>,
    rows: ArrayOfMaps<MapData, Page>,
    /// The same map again, for the other threads of [`PLACERS`].
    other_rows: Vec<ArrayOfMaps<MapData, Page>>,
    rules: Array<MapData, [u64; 2]>,
    pages: BTreeMap<u16, Page>,
    /// Pages that are to be put into their places, together.
    new_pages: Vec<(u16, Page)>,
    /// An empty page in the place of each closed one: aya cannot empty a place.
    no_page: Option<Page>,
    words: Box<[u64; PAGE_WORDS]>,
}

impl KernelTables {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let rows = take_map(ebpf, "ROWS")?;
        Ok(Self {
            processes: HashMap::try_from(take_map(ebpf, "PROCESSES")?)?,
            mappings: Array::try_from(take_map(ebpf, "MAPPINGS")?)?,
            blocks: Array::try_from(take_map(ebpf, "BLOCKS")?)?,
            other_rows: open_again(&rows, PLACERS - 1)?,
            rows: ArrayOfMaps::try_from(rows)?,
            rules: Array::try_from(take_map(ebpf, "RULES")?)?,
            pages: BTreeMap::new(),
            new_pages: Vec::new(),
            no_page: None,
            words: zeroed_words(),
        })
    }

    /// Does all writes in their order.
    ///
    /// # Errors
    /// The kernel refused a write: those behind it are not done, and the kernel's state differs from
    /// `tables`. Then [`clear`](Self::clear) helps.
    pub fn apply(&mut self, writes: Vec<Write>, tables: &Tables) -> Result<()> {
        self.new_pages.clear();
        for write in writes {
            if !matches!(write, Write::Page(_)) {
                // It may point to them.
                self.place_pages()?;
            }
            self.apply_one(write, tables)?;
        }
        self.place_pages()
    }

    /// Removes all processes: nothing points to anything any more.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn clear(&mut self) -> Result<()> {
        let pids: Vec<u32> = self.processes.keys().filter_map(Result::ok).collect();
        pids.into_iter()
            .try_for_each(|pid| self.remove_process(pid))
    }

    fn apply_one(&mut self, write: Write, tables: &Tables) -> Result<()> {
        match write {
            Write::Rule { number, rule } => self
                .rules
                .set(number.into(), rule.to_words(), 0)
                .context("failed to write a rule"),
            Write::ClosePage(number) => self.close_page(number),
            Write::Page(number) => self.write_page(number, tables),
            Write::Blocks { place, words } => (place..).zip(words).try_for_each(|(place, word)| {
                let set = self.blocks.set(place, word, 0);
                set.context("failed to write a block")
            }),
            Write::Mappings { place, words } => {
                (place..).zip(words).try_for_each(|(place, words)| {
                    let set = self.mappings.set(place, words, 0);
                    set.context("failed to write a mapping")
                })
            }
            Write::Process { pid, words } => self
                .processes
                .insert(pid, words, 0)
                .context("failed to write a process"),
            Write::RemoveProcess { pid } => self.remove_process(pid),
        }
    }

    fn remove_process(&mut self, pid: u32) -> Result<()> {
        match self.processes.remove(&pid) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            // Gone already.
            Err(aya::maps::MapError::SyscallError(err))
                if err.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(err) => Err(err).context("failed to remove a process"),
        }
    }

    /// Writes a page that is in its place, or makes one that is to be put there.
    fn write_page(&mut self, number: u16, tables: &Tables) -> Result<()> {
        if !tables.copy_page(number, &mut self.words) {
            return Ok(());
        }
        let words: &[u64; PAGE_WORDS] = &self.words;
        if let Some(page) = self.pages.get_mut(&number) {
            return page.set(0, words, 0).context("failed to write a page");
        }
        let mut page = Page::create(1, 0).context("failed to make a page")?;
        page.set(0, words, 0).context("failed to write a page")?;
        self.new_pages.push((number, page));
        Ok(())
    }

    /// Puts the pages that were made into their places.
    fn place_pages(&mut self) -> Result<()> {
        if self.new_pages.is_empty() {
            return Ok(());
        }
        let new_pages = mem::take(&mut self.new_pages);
        let share = new_pages.len().div_ceil(PLACERS);
        let handles = iter::once(&mut self.rows).chain(&mut self.other_rows);
        let mut shares = handles.zip(new_pages.chunks(share));
        let place = |(rows, pages): (&mut ArrayOfMaps<MapData, Page>, &[(u16, Page)])| {
            pages.iter().try_for_each(|(number, page)| {
                let set = rows.set((*number).into(), page, 0);
                set.context("failed to put a page into its place")
            })
        };
        thread::scope(|scope| {
            let first = shares.next();
            let others: Vec<_> = shares
                .map(|share| {
                    thread::Builder::new()
                        .name("place".into())
                        .spawn_scoped(scope, move || place(share))
                        .context("failed to start a thread that puts pages into their places")
                })
                .collect();
            let first = first.map_or(Ok(()), place);
            let others = others.into_iter().map(|thread| match thread?.join() {
                Ok(placed) => placed,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            iter::once(first).chain(others).collect::<Result<()>>()
        })?;
        self.pages.extend(new_pages);
        Ok(())
    }

    fn close_page(&mut self, number: u16) -> Result<()> {
        if !self.pages.contains_key(&number) {
            return Ok(());
        }
        let no_page = match self.no_page.take() {
            Some(page) => page,
            None => Page::create(1, 0).context("failed to make a page")?,
        };
        let set = self.rows.set(number.into(), &no_page, 0);
        self.no_page = Some(no_page);
        set.context("failed to close a page")?;
        self.pages.remove(&number);
        Ok(())
    }

    /// Bytes of kernel memory: the maps that were made when the program was loaded, and the pages.
    ///
    /// An element of the hash map takes 48 bytes beside its key and value, and its bucket 16.
    pub fn bytes(&self) -> u64 {
        let fixed = u64::from(PROCESSES_MAX) * (48 + 8 + 32 + 16)
            + u64::from(MAPPINGS_MAX) * 32
            + u64::from(BLOCKS_MAX) * 8
            + u64::from(PAGES_MAX) * 8
            + u64::from(RULES_MAX) * 16;
        fixed + (self.pages.len() + usize::from(self.no_page.is_some())) as u64 * PAGE_BYTES
    }
}

/// The same map `count` times more.
fn open_again(map: &Map, count: usize) -> Result<Vec<ArrayOfMaps<MapData, Page>>> {
    let Map::ArrayOfMaps(map) = map else {
        bail!("the map ROWS is not an array of maps");
    };
    let open = |_| {
        let fd = map.fd().as_fd().try_clone_to_owned()?;
        let map = MapData::from_fd(fd)?;
        Ok(ArrayOfMaps::try_from(Map::ArrayOfMaps(map))?)
    };
    (0..count).map(open).collect()
}

/// 64 KiB, too large for a thread's stack.
fn zeroed_words() -> Box<[u64; PAGE_WORDS]> {
    // SANITY: the vector has exactly as many words.
    vec![0; PAGE_WORDS]
        .into_boxed_slice()
        .try_into()
        .unwrap_or_else(|_| unreachable!())
}
