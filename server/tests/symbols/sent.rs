//! Files that collectors are asked for: who is asked for what, and what becomes of what comes, whatever it is.

use std::time::SystemTime;

use object::{Object, ObjectSection};
use proto::v1;
use proto::v1::symbols_client::SymbolsClient;
use server::profile::Unnamed;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::build::{Built, C, Workshop};
use crate::running::Running;
use crate::store::{offset_of, read_metrics};
use crate::text::{push_request, window_at};

const LIMIT: u8 = 7;
const NO_SYMBOL: u8 = 4;
const PIECE_BYTES: usize = 1 << 10;

/// A collector that offers a program, and sends what it is asked for.
struct Collector<'a> {
    server: &'a Running,
    instance: [u8; 16],
    program: &'a Built,
    symbols: SymbolsClient<Channel>,
}

fn now_ms() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    now.as_millis() as i64
}

/// The parts of a file that names are made of, in the order of their places: as the collector chooses them.
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
    // Headers: the file's with the segments, and the sections' with their names before them.
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
            symbols: symbols.await.unwrap(),
        }
    }

    fn id(&self) -> String {
        self.program.build_id().to_string()
    }

    /// Sends a window with a frame at the program's function `work`, that has this reason instead of a name.
    async fn push(&self, reason: u8, offer: v1::SymbolOffer) -> Vec<String> {
        let offset = offset_of(self.program, "work");
        let text = format!("comm=work | 0x{offset:x}@/bin/work | 7");
        let mut window = window_at(&text, now_ms() - 20_000, 1);
        window.head.key.instance = self.instance;
        let id = window.tables.push_string(&self.id());
        window.tables.mappings[0].build_id = id;
        window.tables.locations[0].unnamed = Unnamed::new(reason, 0);
        let mut request = push_request(&window);
        request.file_layouts = vec![v1::FileLayout {
            build_id: self.id(),
            segments: Vec::new(),
            offer: offer.into(),
        }];
        self.server.push(request).await.unwrap().wanted_build_ids
    }

    fn beginning(&self) -> v1::BeginUploadRequest {
        v1::BeginUploadRequest {
            collector_instance: self.instance.to_vec(),
            build_id: self.id(),
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
            build_id: self.id(),
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
            build_id: self.id(),
        };
        Ok(self
            .symbols
            .finish_upload(request)
            .await?
            .into_inner()
            .stored)
    }

    /// What is refused, by its code and the words that say why.
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

/// Check that a collector is asked for what it has and the server lacks, and for nothing else: not for a file that has no symbol
/// there, not for what the node has used already, not by two at once, and no more when it is there; but again until it begins.
#[tokio::test(flavor = "multi_thread")]
async fn collectors_are_asked_for_what_is_lacking() {
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
    // What it has offered with the window before is not forgotten.
    let mut second = second;
    assert_eq!(second.push(LIMIT, None).await, [second.id()]);
    // Meanwhile somebody has uploaded the file.
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

/// Check that a file that comes in parts, broken off by a connection that ends and by a restart of the server, goes on where it
/// was, byte for byte, and then names the frames of the window from before.
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
    // What was sent and not acknowledged is sent again, and is there once.
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

    let index = server
        .json(&format!("/api/v1/debuginfo/{}", program.build_id()))
        .await;
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

/// Check that a program without a symbol table gives its dynamic symbols when only those parts come, from which the reader has to
/// find its way.
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

/// Check that no collector is asked for what would not be kept: not for debug information of a file of which somebody has uploaded
/// the symbol table, and not again for a file that was no better than what is there.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_in_vain() {
    use v1::SymbolOffer::DebugInfo;
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-O2"]);
    let server = Running::start().await;
    let mut collector = Collector::new(&server, &program, 1).await;
    let bytes = packed(&program, &ranges(&program));
    // It says that it has debug information, and has none: it may be asked once more, since another file may come of it.
    for is_stored in [true, false] {
        assert_eq!(collector.push(LIMIT, DebugInfo).await, [collector.id()]);
        let begun = collector.begin(collector.beginning()).await.unwrap();
        assert!(!begun.unneeded);
        collector.pieces(&bytes, 0, bytes.len()).await;
        assert_eq!(collector.finish().await.unwrap(), is_stored);
    }
    assert!(collector.push(LIMIT, DebugInfo).await.is_empty());

    assert_eq!(metric(&server, "asked_total").await, 2.0);

    let server = Running::start().await;
    let collector = Collector::new(&server, &program, 1).await;
    let path = format!("/api/v1/debuginfo/{}", program.build_id());
    crate::http::put(&server, &path, &program.bytes).await;
    assert!(collector.push(LIMIT, DebugInfo).await.is_empty());
}

/// Check that nobody sends what was not asked for, that a file of another build or none is refused and not asked for again, and
/// that a file that is too large is refused before it comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_file_is_refused() {
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
    // All of another file, under the name of the one that was asked for.
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

/// Check that a sender that does what it likes gets a refusal, and that nothing of it stays: parts that cannot be, pieces that jump,
/// that are empty, too large or too many, an end before all is there, and a file of nothing but its beginning.
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
    // More than there is to come: 1 MiB in a file of some KB.
    let received = collector.piece(part, &vec![0; 1 << 20]).await.unwrap();
    assert_eq!(received, part);
    assert_eq!(metric(&server, "sent_bytes_total").await, part as f64);
    // gRPC's own limit, before anything of ours sees it.
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
