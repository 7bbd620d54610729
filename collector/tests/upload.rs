//! Files that the server asks for, sent to a real gRPC server in this process that breaks off and forgets as it likes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use collector::metrics::SharedMetrics;
use collector::name::{ElfFile, FileKey, MappedBy};
use collector::patience::Patience;
use collector::process::{BuildId, find_build_id};
use collector::send::{UploadEnd, UploadStats, Uploader, UploaderOptions, WantedFiles};
use collector::upload::{FileSource, Offer, Offers, SeenFile, SourceError, open_source};
use proto::v1::symbols_server::{Symbols, SymbolsServer};
use proto::v1::{
    BeginUploadRequest, BeginUploadResponse, FinishUploadRequest, FinishUploadResponse,
    SymbolOffer, UploadPieceRequest, UploadPieceResponse,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

const PIECE_BYTES: usize = 256 << 10;

/// What the server does with pieces.
#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    /// No answer to the piece with this number.
    HangAt(usize),
    /// Does not know of it: it was started again.
    ForgetAt(usize),
    /// The test does something to the file at that moment.
    CallAt(usize, fn(&Path)),
}

struct Server {
    act: Mutex<Act>,
    file: PathBuf,
    begun: Mutex<Option<BeginUploadRequest>>,
    received: Mutex<Vec<u8>>,
    /// Bytes of all pieces that came, taken or not.
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

/// A program with debug information of some pieces.
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
        find_build_id(|at, buffer| file.read_exact_at(buffer, at).is_ok()).unwrap()
    }

    fn elf_file(&self) -> ElfFile {
        ElfFile {
            key: FileKey::BuildId(self.build_id()),
            path: self.path.clone().into(),
            build_id: Some(self.build_id()),
            inode: None,
            // This process does not map it; it has it in its root.
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
        open_source(&self.elf_file(), self.build_id(), &Patience::default())
    }

    /// All of its parts, one after the other.
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

/// What sends a program that the server asks for.
struct Sending {
    metrics: SharedMetrics,
    _uploader: Uploader,
}

impl Sending {
    fn start(address: SocketAddr, program: &Program) -> Self {
        let (wanted, offers) = (WantedFiles::default(), Offers::default());
        offers.note(program.build_id(), program.seen());
        let metrics = SharedMetrics::default();
        let options = UploaderOptions {
            request_time: Duration::from_millis(500),
            retry_first: Duration::from_millis(5),
            retry_max: Duration::from_millis(50),
            ..UploaderOptions::new(format!("http://{address}"), [7; 16], 1 << 30)
        };
        let uploader = Uploader::start(
            options,
            wanted.clone(),
            (offers, Patience::default()),
            metrics.clone(),
        );
        let id = program.build_id().to_string();
        wanted.ask([id.as_str(), "no build id", id.as_str()].into_iter());
        Self {
            metrics,
            _uploader: uploader.unwrap(),
        }
    }

    /// Waits until the file has come to its end.
    async fn end(&self) -> (UploadEnd, UploadStats) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let stats = self.metrics.lock().uploads.clone();
            if let Some(end) = UploadEnd::ALL
                .into_iter()
                .find(|it| stats.ends[*it as usize] > 0)
                && stats.waiting == 0
            {
                return (end, stats);
            }
            assert!(Instant::now() < deadline, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Check that a file comes whole, in its order, with where its parts belong, and that it is asked for once however often it is said.
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
    let bytes: u64 = begun.ranges.iter().map(|it| it.bytes).sum();
    assert_eq!(bytes, packed.len() as u64);
    assert!(begun.segments.len() >= 2);
}

/// Check that after a server that hangs, one that dies and one that has forgotten who was asked, the file goes on where it was: only
/// the piece that had no answer comes twice.
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

/// Check that what another file has left at the server is not taken for the head of this one.
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

/// Check that a file that is cut, written to or replaced by a shorter one while it is sent ends that, and that the server is told.
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

/// Check the ends of what cannot be sent: gone, without anything to name by, and not asked for.
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
    // One without any symbol, under the same build id.
    run(Command::new("cc")
        .args(["-static", "-s", "-x", "c", "/dev/null", "-nostdlib", "-o"])
        .arg(&program.path)
        .arg(format!("-Wl,--build-id=0x{}", program.build_id())));
    assert_eq!(sending(&program).end().await.0, UploadEnd::Nothing);
    fs::write(&program.path, &whole).unwrap();
    let seen = program.seen();
    let id = program.build_id();
    fs::remove_file(&program.path).unwrap();
    assert_eq!(
        open_source(&seen.file, id, &Patience::default()).unwrap_err(),
        SourceError::Missing(collector::name::UnnamedReason::FileGone)
    );
    assert_eq!(*server.given_up.lock().unwrap(), 1);
}

/// Check that the file with the debug information is chosen where a program's link leads to it, with where the program is loaded;
/// that a better program needs none, and that one of another build is not taken.
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
    let code = |source: &FileSource| source.segments().iter().map(|it| it.bytes).sum::<u64>();
    assert!(code(&separate) > 0 && code(&separate) <= code(&own));
    assert_ne!(separate.segments(), separate.parts().segments);

    fs::copy("/bin/ls", &debug).unwrap();
    let stripped = program.open().unwrap();
    assert_eq!(stripped.parts().offer, Offer::SymbolTable);
    fs::copy("/bin/ls", &program.path).unwrap();
    let id = BuildId::new(&[1; 20]).unwrap();
    let missing = open_source(&program.elf_file(), id, &Patience::default()).unwrap_err();
    assert!(matches!(missing, SourceError::Missing(_)), "{missing:?}");
}

/// Check that a server that never answers does not hold up the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_waits_for_nobody() {
    let program = Program::make();
    let server = Server::new(&program.path, Act::HangAt(0));
    let (_task, address) = server.serve(None).await;
    let sending = Sending::start(address, &program);
    while *server.pieces.lock().unwrap() < 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let started = Instant::now();
    let metrics = sending.metrics.clone();
    tokio::task::spawn_blocking(move || drop(sending))
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_millis(900));
    assert_eq!(metrics.lock().uploads.ends[UploadEnd::Stopped as usize], 1);
}
