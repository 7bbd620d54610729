//! Uploads to a real gRPC server in this process, which fails and forgets on command.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use collector::blocking_pool::BlockingPool;
use collector::file::{ElfFile, FileKey, Inode, MappedBy};
use collector::metrics::Stats;
use collector::send::{PendingUploads, UploadEnd, UploadStats, Uploader, UploaderOptions};
use collector::upload::{FileSource, Offer, Offers, SeenFile, SourceError, open_source};
use elf::{BuildId, find_build_id};
use proto::v1::symbols_server::{Symbols, SymbolsServer};
use proto::v1::{
    BeginUploadRequest, BeginUploadResponse, FinishUploadRequest, FinishUploadResponse,
    SymbolOffer, UploadPieceRequest, UploadPieceResponse,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

/// Time after which a test that waits for a condition fails; no machine needs as long.
const DEADLINE: Duration = Duration::from_secs(60);

const PIECE_BYTES: usize = 256 << 10;
/// The file id under which the program is offered.
const FILE_ID: &str = "f11e";

/// The server's treatment of pieces.
#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    /// Does not answer the piece with this number.
    HangAt(usize),
    /// Does not know the upload, like a restarted server.
    ForgetAt(usize),
    /// Calls a function of the test that changes the file.
    CallAt(usize, fn(&Path)),
}

struct Server {
    act: Mutex<Act>,
    file: PathBuf,
    begun: Mutex<Option<BeginUploadRequest>>,
    received: Mutex<Vec<u8>>,
    /// Bytes of all received pieces, accepted or not.
    came: Mutex<usize>,
    pieces: Mutex<usize>,
    given_up: Mutex<usize>,
    refuses: bool,
}

#[tonic::async_trait]
impl Symbols for Server {
    async fn begin_upload(
        &self,
        request: Request<BeginUploadRequest>,
    ) -> Result<Response<BeginUploadResponse>, Status> {
        let request = request.into_inner();
        if self.refuses {
            return Err(Status::failed_precondition("not asked"));
        }
        if request.offer == i32::from(SymbolOffer::None) {
            *self.given_up.lock().unwrap() += 1;
            self.received.lock().unwrap().clear();
            return Ok(Response::new(BeginUploadResponse {
                unneeded: true,
                ..Default::default()
            }));
        }
        *self.begun.lock().unwrap() = Some(request);
        let received = self.received.lock().unwrap();
        Ok(Response::new(BeginUploadResponse {
            unneeded: false,
            received_bytes: received.len() as u64,
            received_digest: blake3::hash(&received).as_bytes().to_vec(),
        }))
    }

    async fn upload_piece(
        &self,
        request: Request<UploadPieceRequest>,
    ) -> Result<Response<UploadPieceResponse>, Status> {
        let request = request.into_inner();
        let number = {
            let mut pieces = self.pieces.lock().unwrap();
            *pieces += 1;
            *pieces - 1
        };
        *self.came.lock().unwrap() += request.data.len();
        let act = *self.act.lock().unwrap();
        match act {
            Act::HangAt(at) if at == number => std::future::pending().await,
            Act::ForgetAt(at) if at == number => {
                return Err(Status::failed_precondition("not asked"));
            }
            Act::CallAt(at, call) if at == number => call(&self.file),
            _ => {}
        }
        let mut received = self.received.lock().unwrap();
        if request.position == 0 {
            received.clear();
        }
        if request.position == received.len() as u64 {
            received.extend(&request.data[..]);
        }
        let received_bytes = received.len() as u64;
        Ok(Response::new(UploadPieceResponse { received_bytes }))
    }

    async fn finish_upload(
        &self,
        _: Request<FinishUploadRequest>,
    ) -> Result<Response<FinishUploadResponse>, Status> {
        Ok(Response::new(FinishUploadResponse { stored: true }))
    }
}

impl Server {
    fn new(file: &Path, act: Act) -> Arc<Self> {
        Arc::new(Self {
            act: Mutex::new(act),
            file: file.to_owned(),
            begun: Mutex::default(),
            received: Mutex::default(),
            came: Mutex::default(),
            pieces: Mutex::default(),
            given_up: Mutex::default(),
            refuses: false,
        })
    }

    async fn serve(self: &Arc<Self>, address: Option<SocketAddr>) -> (JoinHandle<()>, SocketAddr) {
        let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = SymbolsServer::from_arc(Arc::clone(self));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (task, address)
    }
}

/// A program whose debug information takes several pieces.
struct Program {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Program {
    fn make() -> Self {
        static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, COMPILED.get_or_init(compile)).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    fn build_id(&self) -> BuildId {
        let file = File::open(&self.path).unwrap();
        find_build_id(&file).unwrap()
    }

    fn inode(&self) -> Inode {
        let found = fs::metadata(&self.path).unwrap();
        Inode {
            device: found.dev(),
            number: found.ino(),
        }
    }

    fn elf_file(&self) -> ElfFile {
        ElfFile {
            key: FileKey::Place(0),
            path: self.path.clone().into(),
            build_id: Some(self.build_id()),
            inode: Some(self.inode()),
            // This process does not map the file, but has it in its root.
            candidates: vec![MappedBy {
                pid: std::process::id(),
                parent: 0,
                start: 0,
                end: 0,
            }],
            held: None,
        }
    }

    fn seen(&self) -> SeenFile {
        SeenFile {
            file: Arc::new(self.elf_file()),
            thinks: Offer::Unknown,
            least: Offer::SymbolTable,
        }
    }

    fn open(&self) -> Result<FileSource, SourceError> {
        open_source(&self.elf_file(), &BlockingPool::default())
    }

    /// All ranges, concatenated.
    fn packed(&self) -> Vec<u8> {
        let source = self.open().unwrap();
        let bytes = source.parts().total_bytes() as usize;
        let packed = source.read(0, bytes).unwrap();
        assert_eq!(packed.len(), bytes);
        packed
    }
}

fn compile() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("program.c");
    let mut text = String::from("int main(void) { return 0; }\n");
    for number in 0..8000 {
        text += &format!("int part_{number}(int a) {{ int sum = a * {number}; return sum; }}\n");
    }
    fs::write(&source, text).unwrap();
    let path = directory.path().join("program");
    run(Command::new("cc")
        .args(["-g", "-Wl,--build-id=sha1", "-o"])
        .args([&path, &source]));
    fs::read(path).unwrap()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// A collector's uploader, with a program that the server requests.
struct Sending {
    stats: Stats<UploadStats>,
    _uploader: Uploader,
}

impl Sending {
    fn start(address: SocketAddr, program: &Program) -> Self {
        let (wanted, offers) = (PendingUploads::default(), Offers::new("node"));
        offers.note(FILE_ID, program.seen());
        let options = UploaderOptions {
            // A piece takes milliseconds, and on a busy machine perhaps a second.
            request_time: Duration::from_secs(5),
            retry_first: Duration::from_millis(5),
            retry_max: Duration::from_millis(50),
            ..UploaderOptions::new(format!("http://{address}"), [7; 16], 1 << 30)
        };
        let uploader = Uploader::start(options, wanted.clone(), (offers, BlockingPool::default()));
        let uploader = uploader.unwrap();
        wanted.ask([FILE_ID, FILE_ID].into_iter());
        Self {
            stats: uploader.watch(),
            _uploader: uploader,
        }
    }

    /// Waits until the upload has ended.
    async fn end(&self) -> (UploadEnd, UploadStats) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stats = self.stats.lock().clone();
            if let Some(end) = UploadEnd::ALL
                .into_iter()
                .find(|end| stats.ends[*end as usize] > 0)
                && stats.waiting == 0
            {
                return (end, stats);
            }
            assert!(Instant::now() < deadline, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Check that a file arrives completely and in order, with the positions of its ranges, and that
/// repeated requests upload it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_whole() {
    let program = Program::make();
    let server = Server::new(&program.path, Act::Take);
    let (_task, address) = server.serve(None).await;
    let (end, stats) = Sending::start(address, &program).end().await;
    assert_eq!((end, stats.asked), (UploadEnd::Stored, 1));
    let packed = program.packed();
    assert!(packed.len() > 3 * PIECE_BYTES, "{}", packed.len());
    assert!(*server.received.lock().unwrap() == packed);
    assert_eq!(stats.sent_bytes, packed.len() as u64);
    let begun = server.begun.lock().unwrap().take().unwrap();
    assert_eq!(begun.file_bytes, fs::metadata(&program.path).unwrap().len());
    let bytes: u64 = begun.ranges.iter().map(|range| range.bytes).sum();
    assert_eq!(bytes, packed.len() as u64);
    assert!(begun.segments.len() >= 2);
}

/// Check that an upload continues after a server hangs, restarts, or forgets its request: only the
/// unanswered piece is sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_on_after_a_break() {
    let program = Program::make();
    let packed = program.packed();
    for act in [Act::HangAt(2), Act::ForgetAt(2)] {
        let server = Server::new(&program.path, act);
        let (_task, address) = server.serve(None).await;
        let (end, stats) = Sending::start(address, &program).end().await;
        assert_eq!(end, UploadEnd::Stored);
        assert!(*server.received.lock().unwrap() == packed);
        assert_eq!(stats.resumed_bytes, 2 * PIECE_BYTES as u64);
        assert_eq!(*server.came.lock().unwrap(), packed.len() + PIECE_BYTES);
    }
    let server = Server::new(&program.path, Act::HangAt(1));
    let (task, address) = server.serve(None).await;
    let sending = Sending::start(address, &program);
    while *server.pieces.lock().unwrap() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    task.abort();
    let _ = task.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_task, _) = server.serve(Some(address)).await;
    let (end, stats) = sending.end().await;
    assert_eq!(end, UploadEnd::Stored);
    assert!(*server.received.lock().unwrap() == packed);
    assert_eq!(stats.resumed_bytes, PIECE_BYTES as u64);
    assert!(stats.retries >= 1);
}

/// Check that data of another file on the server is not taken for the start of this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_another_file_is_not_gone_on_with() {
    let program = Program::make();
    let packed = program.packed();
    for left in [vec![1; 1000], vec![1; packed.len()], vec![1; 1 << 24]] {
        let server = Server::new(&program.path, Act::Take);
        *server.received.lock().unwrap() = left;
        let (_task, address) = server.serve(None).await;
        let (end, stats) = Sending::start(address, &program).end().await;
        assert_eq!((end, stats.resumed_bytes), (UploadEnd::Stored, 0));
        assert!(*server.received.lock().unwrap() == packed);
    }
}

/// Check that truncating, changing or replacing a file during its upload ends the upload, and that
/// the server is notified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_is_given_up() {
    fn cut(path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(PIECE_BYTES as u64).unwrap();
    }
    fn write(path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(b"changed", 4096).unwrap();
    }
    for change in [cut as fn(&Path), write] {
        let program = Program::make();
        let server = Server::new(&program.path, Act::CallAt(1, change));
        let (_task, address) = server.serve(None).await;
        let (end, _) = Sending::start(address, &program).end().await;
        assert_eq!(end, UploadEnd::Changed);
        assert_eq!(*server.given_up.lock().unwrap(), 1);
        assert!(server.received.lock().unwrap().is_empty());
    }
}

/// Check the results for files that cannot be uploaded: deleted, without symbols, and not
/// requested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_has_its_reason() {
    let program = Program::make();
    let refusing = Arc::new(Server {
        refuses: true,
        ..Arc::into_inner(Server::new(&program.path, Act::Take)).unwrap()
    });
    let (_task, address) = refusing.serve(None).await;
    let (end, _) = Sending::start(address, &program).end().await;
    assert_eq!(end, UploadEnd::NotAsked);

    let server = Server::new(&program.path, Act::Take);
    let (_task, address) = server.serve(None).await;
    let whole = fs::read(&program.path).unwrap();
    let sending = |program: &Program| Sending::start(address, program);
    // A file without any symbol, with the same build id.
    run(Command::new("cc")
        .args(["-static", "-s", "-x", "c", "/dev/null", "-nostdlib", "-o"])
        .arg(&program.path)
        .arg(format!("-Wl,--build-id=0x{}", program.build_id())));
    assert_eq!(sending(&program).end().await.0, UploadEnd::Nothing);
    fs::write(&program.path, &whole).unwrap();
    let seen = program.seen();
    fs::remove_file(&program.path).unwrap();
    assert_eq!(
        open_source(&seen.file, &BlockingPool::default()).unwrap_err(),
        SourceError::Missing(collector::file::UnnamedReason::FileGone)
    );
    assert_eq!(*server.given_up.lock().unwrap(), 1);
}

/// Check that the debug file behind a program's debug link is uploaded, with the program's load
/// segments; that a program with debug information of its own needs none; and that a debug file of
/// another build is not used.
#[test]
fn the_debug_file_is_chosen() {
    let program = Program::make();
    let own = program.open().unwrap();
    assert_eq!(own.parts().offer, Offer::DebugInfo);
    let debug = program.path.with_extension("debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .args([&program.path, &debug]));
    run(Command::new("strip").arg(&program.path));
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run(Command::new("objcopy").arg(link).arg(&program.path));
    let separate = program.open().unwrap();
    assert_eq!(separate.parts().offer, Offer::DebugInfo);
    let debug_bytes = fs::metadata(&debug).unwrap().len();
    assert_eq!(separate.parts().file_bytes, debug_bytes);
    let code = |source: &FileSource| {
        source
            .segments()
            .iter()
            .map(|segment| segment.bytes)
            .sum::<u64>()
    };
    assert!(code(&separate) > 0 && code(&separate) <= code(&own));
    assert_ne!(separate.segments(), separate.parts().layout.segments());

    fs::copy("/bin/ls", &debug).unwrap();
    let stripped = program.open().unwrap();
    assert_eq!(stripped.parts().offer, Offer::SymbolTable);
    let file = ElfFile {
        build_id: BuildId::new(&[1; 20]),
        ..program.elf_file()
    };
    let missing = open_source(&file, &BlockingPool::default()).unwrap_err();
    assert!(matches!(missing, SourceError::Missing(_)), "{missing:?}");
}

/// Check that a server that never answers does not delay the shutdown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_waits_for_nobody() {
    let program = Program::make();
    let server = Server::new(&program.path, Act::HangAt(0));
    let (_task, address) = server.serve(None).await;
    let sending = Sending::start(address, &program);
    while *server.pieces.lock().unwrap() < 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let stats = sending.stats.clone();
    tokio::task::spawn_blocking(move || drop(sending))
        .await
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    while stats.lock().ends == [0; UploadEnd::ALL.len()] {
        assert!(Instant::now() < deadline, "the upload did not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(stats.lock().ends[UploadEnd::Stopped as usize], 1);
}
