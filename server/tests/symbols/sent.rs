//! Files that collectors are asked for: the choice of files and collectors, and the outcome of uploads, also of
//! hostile ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use model::Unnamed;
use model::text::window_at;
use object::{Object, ObjectSection};
use proto::v1;
use proto::v1::symbols_client::SymbolsClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::build::{Built, C, Workshop};
use crate::running::Running;
use crate::store::{offset_of, read_metrics};
use crate::test_push::push_request;

const LIMIT: u8 = 7;
const NO_SYMBOL: u8 = 4;
const PIECE_BYTES: usize = 1 << 10;

/// A collector that offers a program, and sends what it is asked for.
struct Collector<'a> {
    server: &'a Running,
    instance: [u8; 16],
    program: &'a Built,
    file_id: String,
    symbols: SymbolsClient<Channel>,
    /// Number of the last message.
    sequence: AtomicU64,
}

fn now_ms() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    now.as_millis() as i64
}

/// The ranges of a file that names are made of, sorted, as the collector chooses them.
fn ranges(file: &Built) -> Vec<v1::FileRange> {
    let parsed = object::File::parse(&*file.bytes).unwrap();
    let is_wanted = |name: &str| {
        let rest = name.strip_prefix(".debug_");
        let unwanted = ["loclists", "aranges"];
        rest.is_some_and(|rest| !unwanted.contains(&rest))
            || [".symtab", ".strtab", ".dynsym", ".dynstr", ".dynamic"].contains(&name)
            || name.starts_with(".note.gnu.build")
            || name.ends_with(".hash")
    };
    let sections = parsed.sections().filter(|section| {
        let name = section.name().unwrap_or_default().to_owned();
        is_wanted(&name)
    });
    let mut ranges: Vec<(u64, u64)> = sections
        .filter_map(|section| section.file_range())
        .collect();
    let word = |at: usize| u64::from_le_bytes(file.bytes[at..at + 8].try_into().unwrap());
    // Headers: the file's with the segments, and the sections', with their names before them.
    let headers = word(40);
    let names = parsed.section_by_name(".shstrtab").unwrap();
    ranges.push((0, 64 + 56 * u64::from(file.bytes[56])));
    ranges.push(names.file_range().unwrap());
    ranges.push((headers, file.bytes.len() as u64 - headers));
    ranges.retain(|range| range.1 > 0);
    ranges.sort_unstable();
    let range = |(offset, bytes)| v1::FileRange { offset, bytes };
    ranges.into_iter().map(range).collect()
}

fn packed(file: &Built, ranges: &[v1::FileRange]) -> Vec<u8> {
    let part = |range: &v1::FileRange| {
        file.bytes[range.offset as usize..(range.offset + range.bytes) as usize].to_vec()
    };
    ranges.iter().flat_map(part).collect()
}

impl<'a> Collector<'a> {
    async fn new(server: &'a Running, program: &'a Built, number: u8) -> Self {
        let symbols = SymbolsClient::connect(format!("http://{}", server.grpc));
        Self {
            server,
            instance: [number; 16],
            program,
            file_id: "f11e".repeat(10),
            symbols: symbols.await.unwrap(),
            sequence: AtomicU64::new(0),
        }
    }

    /// The file id from a collector: here all give the same.
    fn id(&self) -> String {
        self.file_id.clone()
    }

    fn build_id(&self) -> String {
        self.program.build_id().to_string()
    }

    /// Sends a window with a frame at the program's function `work`, that has this reason instead of a name.
    async fn push(&self, reason: u8, offer: v1::SymbolOffer) -> Vec<String> {
        self.push_samples((reason, offset_of(self.program, "work")), 7, offer)
            .await
    }

    /// A window with `samples` samples at an unnamed offset, for lack of time.
    async fn push_at(&self, offset: u64, samples: u64, offer: v1::SymbolOffer) -> Vec<String> {
        self.push_samples((LIMIT, offset), samples, offer).await
    }

    async fn push_samples(
        &self,
        (reason, offset): (u8, u64),
        samples: u64,
        offer: v1::SymbolOffer,
    ) -> Vec<String> {
        let text = format!("comm=work | 0x{offset:x}@/bin/work | {samples}");
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let mut window = window_at(&text, now_ms() - 20_000, sequence);
        window.head.key.instance = self.instance;
        let id = window.tables.push_string(&self.build_id());
        window.tables.mappings[0].build_id = id;
        window.tables.locations[0].unnamed = Unnamed::new(reason, 0);
        let mut request = push_request(&window);
        request.file_layouts = vec![v1::FileLayout {
            build_id: self.build_id(),
            segments: Vec::new(),
            offer: offer.into(),
            file_id: self.id(),
            mapping_id: 1,
        }];
        self.server.push(request).await.unwrap().wanted_file_ids
    }

    fn beginning(&self) -> v1::BeginUploadRequest {
        v1::BeginUploadRequest {
            collector_instance: self.instance.to_vec(),
            build_id: self.build_id(),
            file_id: self.id(),
            offer: v1::SymbolOffer::DebugInfo.into(),
            file_bytes: self.program.bytes.len() as u64,
            ranges: ranges(self.program),
            segments: Vec::new(),
        }
    }

    async fn begin(
        &mut self,
        request: v1::BeginUploadRequest,
    ) -> Result<v1::BeginUploadResponse, Status> {
        let begun = self.symbols.begin_upload(request).await?;
        Ok(begun.into_inner())
    }

    async fn piece(&mut self, position: u64, data: &[u8]) -> Result<u64, Status> {
        let request = v1::UploadPieceRequest {
            collector_instance: self.instance.to_vec(),
            build_id: self.build_id(),
            file_id: self.id(),
            position,
            data: data.to_vec().into(),
        };
        let taken = self.symbols.upload_piece(request).await?;
        Ok(taken.into_inner().received_bytes)
    }

    /// Sends from a position to another one.
    async fn pieces(&mut self, bytes: &[u8], from: usize, to: usize) {
        for (number, piece) in bytes[from..to].chunks(PIECE_BYTES).enumerate() {
            let position = (from + number * PIECE_BYTES) as u64;
            let received = self.piece(position, piece).await.unwrap();
            assert_eq!(received, position + piece.len() as u64);
        }
    }

    async fn finish(&mut self) -> Result<bool, Status> {
        let request = v1::FinishUploadRequest {
            collector_instance: self.instance.to_vec(),
            build_id: self.build_id(),
            file_id: self.id(),
        };
        Ok(self
            .symbols
            .finish_upload(request)
            .await?
            .into_inner()
            .stored)
    }

    /// Sends the whole program.
    async fn send(&mut self) {
        let bytes = packed(self.program, &ranges(self.program));
        assert!(!self.begin(self.beginning()).await.unwrap().unneeded);
        self.pieces(&bytes, 0, bytes.len()).await;
        assert!(self.finish().await.unwrap());
    }

    /// Checks a refusal: its code, and words of its message.
    fn check_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &str) {
        let refused = result.expect_err(words);
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
}

async fn metric(server: &Running, name: &str) -> f64 {
    let metrics = read_metrics(&server.get("/metrics").await.text());
    metrics.get(name).copied().unwrap_or(0.0)
}

/// Check that a collector is asked only for a file that it has and the server lacks: not for one without a symbol at
/// the address, not for one that the node used, not while another collector is asked, and not after it was received;
/// but again until it begins.
#[tokio::test(flavor = "multi_thread")]
async fn collectors_are_asked_for_missing_files() {
    use v1::SymbolOffer::{DebugInfo, None, SymbolTable, Unknown};
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let server = Running::start().await;
    let mut first = Collector::new(&server, &program, 1).await;
    let second = Collector::new(&server, &program, 2).await;
    for (reason, offer) in [(LIMIT, None), (NO_SYMBOL, DebugInfo), (3, Unknown)] {
        assert!(first.push(reason, offer).await.is_empty());
    }
    assert_eq!(first.push(LIMIT, Unknown).await, [first.id()]);
    assert_eq!(first.push(LIMIT, DebugInfo).await, [first.id()]);
    assert!(second.push(LIMIT, SymbolTable).await.is_empty());
    // The first has looked, and has nothing: it is not asked again, and the second is.
    let nothing = v1::BeginUploadRequest {
        offer: None.into(),
        ranges: Vec::new(),
        ..first.beginning()
    };
    assert!(first.begin(nothing).await.unwrap().unneeded);
    assert!(first.push(LIMIT, DebugInfo).await.is_empty());
    // Its offer with the window before still counts.
    let mut second = second;
    assert_eq!(second.push(LIMIT, None).await, [second.id()]);
    // The file was uploaded meanwhile.
    let path = format!("/api/v1/debuginfo/{}", program.build_id());
    crate::http::put(&server, &path, &program.bytes).await;
    assert!(second.begin(second.beginning()).await.unwrap().unneeded);
    assert!(second.push(LIMIT, DebugInfo).await.is_empty());
    assert_eq!(metric(&server, "asked_total").await, 2.0);
    assert_eq!(metric(&server, "asked_waiting").await, 0.0);
    assert_eq!(
        metric(&server, "sent_total{result=\"unneeded\"}").await,
        1.0
    );
    assert_eq!(
        metric(&server, "sent_total{result=\"given_up\"}").await,
        1.0
    );
}

/// Check that an upload resumes at its last byte after a broken connection and a restart of the server, and then
/// names the frames of the earlier window.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_it_was() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let bytes = packed(&program, &ranges(&program));
    let server = Running::start().await;
    let mut collector = Collector::new(&server, &program, 1).await;
    assert_eq!(
        collector.push(LIMIT, v1::SymbolOffer::Unknown).await,
        [collector.id()]
    );
    let begun = collector.begin(collector.beginning()).await.unwrap();
    assert_eq!((begun.unneeded, begun.received_bytes), (false, 0));
    collector.pieces(&bytes, 0, 2 * PIECE_BYTES).await;
    // Bytes that were sent and not acknowledged are sent again, and are written once.
    assert_eq!(
        collector.piece(PIECE_BYTES as u64, b"again").await.unwrap(),
        2 * PIECE_BYTES as u64
    );
    // Another connection of the same collector.
    let mut collector = Collector::new(&server, &program, 1).await;
    let begun = collector.begin(collector.beginning()).await.unwrap();
    assert_eq!(begun.received_bytes, 2 * PIECE_BYTES as u64);
    let digest = blake3::hash(&bytes[..2 * PIECE_BYTES]);
    assert_eq!(begun.received_digest, digest.as_bytes());
    collector
        .pieces(&bytes, 2 * PIECE_BYTES, 3 * PIECE_BYTES)
        .await;

    let server = server.restart().await;
    assert_eq!(metric(&server, "partials").await, 1.0);
    let mut collector = Collector::new(&server, &program, 1).await;
    let half = 3 * PIECE_BYTES as u64;
    assert_eq!(metric(&server, "partials_bytes").await, half as f64);
    Collector::check_refused(
        collector.piece(half, b"x").await,
        Code::FailedPrecondition,
        "not asked",
    );
    let begun = collector.begin(collector.beginning()).await.unwrap();
    let digest = blake3::hash(&bytes[..half as usize]);
    assert_eq!(begun.received_bytes, half);
    assert_eq!(begun.received_digest, digest.as_bytes());
    collector.pieces(&bytes, half as usize, bytes.len()).await;
    assert!(collector.finish().await.unwrap());

    let path = format!("/api/v1/debuginfo/{}", program.build_id());
    assert_eq!(server.get(&path).await.status, 404);
    let list = server.json("/api/v1/debuginfo").await;
    let index = &list["indexes"][0];
    assert_eq!(index["build_id"], collector.build_id());
    assert_eq!(
        (&index["rank"], &index["origin"], &index["has_layout"]),
        (&"debug_info".into(), &"collector".into(), &true.into())
    );
    let top = server.json("/api/v1/top").await;
    let function = &top["functions"][0];
    assert_eq!(
        (&function["name"], &function["self_samples"]),
        (&"work".into(), &7.into()),
        "{top}"
    );
    assert!(function["file"].as_str().unwrap().ends_with("work.c"));
    let resumed = metric(&server, "resumed_bytes_total").await;
    assert_eq!(resumed, half as f64);
    assert_eq!(metric(&server, "sent_total{result=\"stored\"}").await, 1.0);
    assert_eq!(
        metric(&server, "sent_bytes_total").await,
        bytes.len() as f64 - half as f64
    );
    assert_eq!(metric(&server, "partials").await, 0.0);
    let left = std::fs::read_dir(server.folder.path().join("symbols/partial")).unwrap();
    assert_eq!(left.count(), 0);
}

/// Check that the ranges of a program without a symbol table suffice for its dynamic symbols.
#[tokio::test(flavor = "multi_thread")]
async fn dynamic_symbols_come_through() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-O2", "-rdynamic"]);
    let (_, stripped) = workshop.split("work");
    let server = Running::start().await;
    let mut collector = Collector::new(&server, &program, 1).await;
    collector.push(LIMIT, v1::SymbolOffer::SymbolTable).await;
    let ranges = ranges(&stripped);
    let bytes = packed(&stripped, &ranges);
    assert!(bytes.len() < stripped.bytes.len() / 2);
    let beginning = v1::BeginUploadRequest {
        offer: v1::SymbolOffer::SymbolTable.into(),
        file_bytes: stripped.bytes.len() as u64,
        ranges,
        ..collector.beginning()
    };
    assert!(!collector.begin(beginning).await.unwrap().unneeded);
    collector.pieces(&bytes, 0, bytes.len()).await;
    assert!(collector.finish().await.unwrap());
    let top = server.json("/api/v1/top").await;
    assert_eq!(top["functions"][0]["name"], "work", "{top}");
}

/// Check that a collector's file names only frames with its file id, also after a restart: not those of the library
/// whose build id it claims, in any order of requests, nor those of a collector without file ids, which is asked for
/// nothing. An uploaded file of that build id names all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_build_id_names_no_other_file() {
    use v1::SymbolOffer::DebugInfo;
    let workshop = Workshop::new();
    let honest = workshop.compile("work", C, &["-g", "-O2"]);
    let claim = format!("-Wl,--build-id=0x{}", honest.build_id());
    let source = C.replace("work", "evil");
    let hostile = workshop.compile("hostile", &source, &["-g", "-O2", &claim]);
    assert_eq!(hostile.build_id(), honest.build_id());
    let offset = offset_of(&honest, "work");
    assert_eq!(offset_of(&hostile, "evil"), offset);
    let server = Running::start().await;
    let mut old = Collector::new(&server, &honest, 1).await;
    old.file_id.clear();
    assert!(old.push_at(offset, 1, DebugInfo).await.is_empty());
    let mut pod = Collector::new(&server, &hostile, 2).await;
    pod.file_id = "e11e".repeat(10);
    assert_eq!(pod.push_at(offset, 2, DebugInfo).await, [pod.id()]);
    pod.send().await;
    let mut library = Collector::new(&server, &honest, 3).await;
    assert_eq!(library.push_at(offset, 4, DebugInfo).await, [library.id()]);
    let counts = |top: serde_json::Value| {
        let functions = top["functions"].as_array().unwrap().iter();
        let count = |function: &serde_json::Value| {
            (
                function["name"].as_str().unwrap().to_owned(),
                function["self_samples"].as_u64().unwrap(),
            )
        };
        functions
            .map(count)
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let found = counts(server.json("/api/v1/top").await);
    assert_eq!(found.get("evil"), Some(&2), "{found:?}");
    assert_eq!(found.values().sum::<u64>(), 7);
    library.send().await;
    let server = server.restart().await;
    let found = counts(server.json("/api/v1/top").await);
    assert_eq!((found.get("evil"), found.get("work")), (Some(&2), Some(&4)));
    let path = format!("/api/v1/debuginfo/{}", honest.build_id());
    crate::http::put(&server, &path, &honest.bytes).await;
    assert_eq!(
        counts(server.json("/api/v1/top").await),
        [("work".to_owned(), 7)].into()
    );
}

/// Check that no collector is asked for a file that would not be kept: not for debug information of a file whose
/// symbol table was uploaded, and not again for a file that was no better than the present index.
#[tokio::test(flavor = "multi_thread")]
async fn no_collector_is_asked_in_vain() {
    use v1::SymbolOffer::DebugInfo;
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-O2"]);
    let server = Running::start().await;
    let mut collector = Collector::new(&server, &program, 1).await;
    let bytes = packed(&program, &ranges(&program));
    // It offers debug information, and has none: it may be asked once more, since it may have another file by then.
    for is_stored in [true, false] {
        assert_eq!(collector.push(LIMIT, DebugInfo).await, [collector.id()]);
        let begun = collector.begin(collector.beginning()).await.unwrap();
        assert!(!begun.unneeded);
        collector.pieces(&bytes, 0, bytes.len()).await;
        assert_eq!(collector.finish().await.unwrap(), is_stored);
    }
    assert!(collector.push(LIMIT, DebugInfo).await.is_empty());

    assert_eq!(metric(&server, "asked_total").await, 2.0);
    assert_eq!(metric(&server, "partials").await, 0.0);

    let server = Running::start().await;
    let collector = Collector::new(&server, &program, 1).await;
    let path = format!("/api/v1/debuginfo/{}", program.build_id());
    crate::http::put(&server, &path, &program.bytes).await;
    assert!(collector.push(LIMIT, DebugInfo).await.is_empty());
}

/// Check that a file that was not asked for is refused, that one of another build is refused and not asked for again,
/// and that one that is too large is refused before it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_files_are_refused() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let other = workshop.compile("other", C, &["-g", "-O1"]);
    let server = Running::start_with(&["--symbol-file-bytes-max=1MiB"]).await;
    let mut collector = Collector::new(&server, &program, 1).await;
    let begun = collector.begin(collector.beginning()).await;
    Collector::check_refused(begun, Code::FailedPrecondition, "not asked");
    Collector::check_refused(
        collector.piece(0, b"x").await,
        Code::FailedPrecondition,
        "not asked",
    );
    Collector::check_refused(
        collector.finish().await,
        Code::FailedPrecondition,
        "not asked",
    );

    let offer = v1::SymbolOffer::DebugInfo;
    assert_eq!(collector.push(LIMIT, offer).await, [collector.id()]);
    let mut stranger = Collector::new(&server, &program, 2).await;
    let begun = stranger.begin(stranger.beginning()).await;
    Collector::check_refused(begun, Code::FailedPrecondition, "not asked");
    // All of another file, under the build id of the requested one.
    let wrong = v1::BeginUploadRequest {
        file_bytes: other.bytes.len() as u64,
        ranges: ranges(&other),
        ..collector.beginning()
    };
    collector.begin(wrong).await.unwrap();
    let bytes = packed(&other, &ranges(&other));
    collector.pieces(&bytes, 0, bytes.len()).await;
    let words = format!("{}, and not", other.build_id());
    Collector::check_refused(collector.finish().await, Code::InvalidArgument, &words);
    assert!(collector.push(LIMIT, offer).await.is_empty());
    let refused = metric(&server, "sent_total{result=\"wrong_build_id\"}").await;
    assert_eq!(refused, 1.0);

    assert_eq!(stranger.push(LIMIT, offer).await, [stranger.id()]);
    let large = v1::BeginUploadRequest {
        file_bytes: (1 << 20) + 1,
        ..stranger.beginning()
    };
    let begun = stranger.begin(large).await;
    Collector::check_refused(begun, Code::ResourceExhausted, "--symbol-file-bytes-max");
    assert_eq!(metric(&server, "partials").await, 0.0);
    assert_eq!(server.json("/api/v1/debuginfo").await["total"], 0);
}

/// Check that a hostile sender is refused, and that nothing of it stays: invalid ranges, pieces at other positions,
/// empty, too large or too many pieces, an early end, and a file of headers only.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_senders_get_nowhere() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let server = Running::start().await;
    let mut collector = Collector::new(&server, &program, 1).await;
    let offer = v1::SymbolOffer::DebugInfo;
    assert_eq!(collector.push(LIMIT, offer).await, [collector.id()]);
    let range = |offset, bytes| v1::FileRange { offset, bytes };
    for (ranges, words) in [
        (vec![], "1 to 1024"),
        (vec![range(0, 10), range(5, 10)], "on each other"),
        (vec![range(1 << 40, 1)], "end"),
        (vec![range(u64::MAX, u64::MAX)], "2^64"),
        ((0..1025).map(|n| range(2 * n, 1)).collect(), "1 to 1024"),
    ] {
        let beginning = v1::BeginUploadRequest {
            ranges,
            ..collector.beginning()
        };
        Collector::check_refused(
            collector.begin(beginning).await,
            Code::InvalidArgument,
            words,
        );
    }
    for change in [
        |r: &mut v1::BeginUploadRequest| r.build_id = "../..".into(),
        |r: &mut v1::BeginUploadRequest| r.collector_instance.truncate(3),
        |r: &mut v1::BeginUploadRequest| r.offer = v1::SymbolOffer::Unknown.into(),
        |r: &mut v1::BeginUploadRequest| {
            r.segments = vec![v1::Segment::default(); 65];
        },
    ] {
        let mut beginning = collector.beginning();
        change(&mut beginning);
        Collector::check_refused(collector.begin(beginning).await, Code::InvalidArgument, "");
    }

    let bytes = packed(&program, &ranges(&program));
    collector.begin(collector.beginning()).await.unwrap();
    let part = PIECE_BYTES as u64;
    collector.pieces(&bytes, 0, PIECE_BYTES).await;
    for position in [1, part - 1, part + 1, 1 << 40, u64::MAX] {
        let received = collector.piece(position, b"jump").await.unwrap();
        assert_eq!(received, part, "{position}");
    }
    // More than the ranges have: 1 MiB in a file of some KB.
    let received = collector.piece(part, &vec![0; 1 << 20]).await.unwrap();
    assert_eq!(received, part);
    assert_eq!(metric(&server, "sent_bytes_total").await, part as f64);
    // gRPC's own limit, before the service sees the message.
    assert!(collector.piece(part, &vec![0; 5 << 20]).await.is_err());
    Collector::check_refused(
        collector.finish().await,
        Code::InvalidArgument,
        "has not come",
    );
    assert_eq!(metric(&server, "partials").await, 0.0);
    assert!(collector.push(LIMIT, offer).await.is_empty());

    for (number, piece) in [(2, vec![]), (3, vec![0; (1 << 20) + 1])] {
        let mut collector = Collector::new(&server, &program, number).await;
        assert_eq!(collector.push(LIMIT, offer).await, [collector.id()]);
        collector.begin(collector.beginning()).await.unwrap();
        Collector::check_refused(
            collector.piece(0, &piece).await,
            Code::InvalidArgument,
            "1 byte to 1 MiB",
        );
        assert_eq!(metric(&server, "partials").await, 0.0);
    }
    // The headers, and zeros after them.
    let mut collector = Collector::new(&server, &program, 4).await;
    assert_eq!(collector.push(LIMIT, offer).await, [collector.id()]);
    let beginning = v1::BeginUploadRequest {
        ranges: vec![range(0, 64)],
        ..collector.beginning()
    };
    collector.begin(beginning).await.unwrap();
    collector.pieces(&bytes, 0, 64).await;
    Collector::check_refused(collector.finish().await, Code::InvalidArgument, "");
    assert_eq!(server.json("/api/v1/debuginfo").await["total"], 0);
}
