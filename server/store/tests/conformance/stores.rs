//! The stores under test.

use std::sync::Arc;

use model::{NodeReport, Question, TimeRange, Unread, Window};
use store::{
    Appended, EmbeddedStore, Kept, MemoryStore, Snapshot, Store, StoreError, StoreMetrics,
    StoreNumbers, StoreOptions, StoreState, Versions,
};
use tempfile::TempDir;

/// A kind of store, as the suite needs it.
pub(crate) trait StoreUnderTest {
    /// An empty store.
    fn create() -> Self;

    /// The store after a restart of the server.
    #[must_use]
    fn restart(self) -> Self;

    /// The store.
    fn store(&self) -> &(dyn Store + 'static);
}

/// The reference. It survives no restart, so it is not restarted.
pub(crate) struct Memory(MemoryStore);

impl StoreUnderTest for Memory {
    fn create() -> Self {
        Self(MemoryStore::default())
    }

    fn restart(self) -> Self {
        self
    }

    fn store(&self) -> &(dyn Store + 'static) {
        &self.0
    }
}

/// The embedded store. Its windows stay in blocks until it is restarted.
pub(crate) struct Embedded {
    folder: TempDir,
    store: EmbeddedStore,
}

fn open(folder: &TempDir) -> EmbeddedStore {
    EmbeddedStore::open(
        &StoreOptions::keep_all(folder.path()),
        StoreMetrics::default(),
    )
    .unwrap()
}

impl StoreUnderTest for Embedded {
    fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        Self { folder, store }
    }

    fn restart(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        let store = open(&folder);
        Self { folder, store }
    }

    fn store(&self) -> &(dyn Store + 'static) {
        &self.store
    }
}

/// The embedded store, whose windows are written as segments, and merged as far as they can be, after each few of them.
pub(crate) struct Settled {
    folder: TempDir,
    store: Settling,
}

/// A store that writes segments after some of the windows.
pub(crate) struct Settling(EmbeddedStore);

impl StoreUnderTest for Settled {
    fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Settling(open(&folder));
        Self { folder, store }
    }

    fn restart(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        let store = Settling(open(&folder));
        Self { folder, store }
    }

    fn store(&self) -> &(dyn Store + 'static) {
        &self.store
    }
}

impl Store for Settling {
    fn append(&self, window: Window) -> Result<Appended, StoreError> {
        let is_settled = window.head.key.sequence.is_multiple_of(9);
        let appended = self.0.append(window);
        if is_settled {
            self.0.settle();
        }
        appended
    }

    fn ask(
        &self,
        range: TimeRange,
        question: &Arc<Question>,
    ) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.0.ask(range, question)
    }

    fn put_report(&self, report: NodeReport) -> Result<(), StoreError> {
        self.0.put_report(report)
    }

    fn reports(&self) -> Result<Vec<NodeReport>, StoreError> {
        self.0.reports()
    }

    fn versions(&self) -> Versions {
        self.0.versions()
    }

    fn state(&self) -> StoreState {
        self.0.state()
    }

    fn numbers(&self) -> StoreNumbers {
        self.0.numbers()
    }

    fn damage(&self) -> Vec<Unread> {
        self.0.damage()
    }

    fn kept(&self) -> Kept {
        self.0.kept()
    }
}
