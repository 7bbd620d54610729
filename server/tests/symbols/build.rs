//! Programs to name: built once in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use elf::BuildId;
use symbolize::index::{ElfFacts, read_elf};
use tempfile::TempDir;

/// Templates, inlined calls, lambdas and static functions, in one file without anything random.
pub(crate) const CPP: &str = include_str!("../../../testdata/names/shop.cc");

pub(crate) const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int data[1000] = {1};
static inline __attribute__((always_inline)) int square(int x) { return x * x + data[x & 511]; }
static inline __attribute__((always_inline)) int twice(int x) { return square(x) + square(x + 1); }
__attribute__((noinline)) int work(int n) {
  int sum = 0;
  for (int i = 0; i < n; i++) {
    if (i % 3 == 0)
      sum += twice(i);
    else
      sum ^= square(i);
  }
  return sum;
}
int main(int argc, char **argv) {
  printf("%d\n", work(argc > 1 ? atoi(argv[1]) : 1000));
  return 0;
}
"#;

/// A folder with programs.
pub(crate) struct Workshop {
    pub(crate) folder: TempDir,
}

/// A file and its facts.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) facts: ElfFacts,
}

impl Built {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let facts = read_elf(&bytes).unwrap();
        Self {
            path: path.to_owned(),
            bytes,
            facts,
        }
    }

    pub(crate) fn build_id(&self) -> BuildId {
        self.facts.build_id.unwrap()
    }
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compiles a program.
    pub(crate) fn compile(&self, name: &str, source: &str, options: &[&str]) -> Built {
        let (compiler, extension) = if source.contains("namespace") {
            ("g++", "cc")
        } else {
            ("gcc", "c")
        };
        let file = format!("{name}.{extension}");
        std::fs::write(self.path(&file), source).unwrap();
        self.run(compiler, &[options, &["-o", name, &file]].concat());
        Built::read(&self.path(name))
    }

    /// Splits a program into its debug information and the rest: `NAME.debug` and `NAME.stripped`.
    pub(crate) fn split(&self, name: &str) -> (Built, Built) {
        let (debug, stripped) = (format!("{name}.debug"), format!("{name}.stripped"));
        self.run("objcopy", &["--only-keep-debug", name, &debug]);
        self.run("strip", &["-o", &stripped, name]);
        (
            Built::read(&self.path(&debug)),
            Built::read(&self.path(&stripped)),
        )
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .status()
            .unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    }
}
