//! Symbols from debuginfod servers: from Debian's, and from faulty ones.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Exposition, Registry};
use server::metrics::PREFIX;
use server::symbol::fetch::start_fetchers;
use server::symbol::fetch_queue::{FetchQueue, RETRY_TIME};
use server::symbol::{IndexStore, IndexStoreOptions, SymbolMetrics};
use tempfile::TempDir;

use crate::build::{Built, C, Workshop};
use crate::store::{name_symbol, options, read_metrics, wait_for};

/// A store that fetches.
struct Fetching {
    indexes: Arc<IndexStore>,
    registry: Registry,
    _folder: TempDir,
}

impl Fetching {
    fn start(urls: &[String], change: impl FnOnce(&mut IndexStoreOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        change(&mut options);
        let metrics = SymbolMetrics::default();
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix(PREFIX));
        let wanted = FetchQueue::new(RETRY_TIME);
        let indexes = Arc::new(IndexStore::open(options, metrics.clone(), wanted).unwrap());
        start_fetchers(&indexes, &metrics, urls).unwrap();
        Self {
            indexes,
            registry,
            _folder: folder,
        }
    }

    /// Number of fetches by result.
    fn results(&self) -> BTreeMap<String, f64> {
        let metrics = read_metrics(&Exposition::Text.encode(&self.registry).unwrap());
        let results = metrics.into_iter().filter_map(|(name, count)| {
            let name = name
                .strip_prefix("fetches_total{result=\"")?
                .strip_suffix("\"}")?;
            Some((name.to_owned(), count))
        });
        results.collect()
    }

    /// Looks up a name, which queues its file, and waits for the fetch.
    fn fetch(&self, program: &Built) -> String {
        let before: f64 = self.results().values().sum();
        assert_eq!(name_symbol(&*self.indexes, program, "work"), None);
        let earlier = self.results();
        wait_for(|| {
            let results = self.results();
            if results.values().sum::<f64>() <= before {
                return None;
            }
            results
                .into_iter()
                .find(|(name, count)| earlier.get(name) != Some(count))
                .map(|(name, _)| name)
        })
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.indexes.fetch_queue().close();
    }
}

/// Debian's server, over some folders.
struct Debuginfod {
    child: Child,
    url: String,
}

impl Debuginfod {
    fn start(folder: &std::path::Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("debuginfod")
            .args(["-F", "-d", ":memory:", "-p", &port.to_string()])
            .arg(folder)
            .env_remove("DEBUGINFOD_URLS")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        }
    }
}

impl Drop for Debuginfod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_file(url: &str) -> bool {
    ureq::get(url)
        .call()
        .is_ok_and(|response| response.status().as_u16() == 200)
}

/// Check that a stripped program gets names, files and lines from a real debuginfod server: the debug information,
/// and the load segments from the program itself; and that a missing file is asked for once.
#[test]
fn missing_symbols_are_fetched_from_a_debuginfod_server() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    workshop.split("work");
    fs::remove_file(workshop.path("work")).unwrap();
    let server = Debuginfod::start(workshop.folder.path());
    let files = ["debuginfo", "executable"]
        .map(|what| format!("{}/buildid/{}/{what}", server.url, program.build_id()));
    wait_for(|| files.iter().all(|url| has_file(url)).then_some(()));

    let fetching = Fetching::start(std::slice::from_ref(&server.url), |_| {});
    assert_eq!(fetching.fetch(&program), "stored");
    assert_eq!(
        name_symbol(&*fetching.indexes, &program, "work").unwrap(),
        ["work work.c:7"]
    );
    let listed = &fetching.indexes.list()[0];
    assert_eq!(listed.head.origin, files[0]);

    let elsewhere = Workshop::new();
    let unknown = elsewhere.compile("work", C, &["-g", "-O1"]);
    assert_eq!(fetching.fetch(&unknown), "not_found");
    for _ in 0..10 {
        assert_eq!(name_symbol(&*fetching.indexes, &unknown, "work"), None);
    }
    assert_eq!(fetching.indexes.fetch_queue().waiting(), 0);
    assert_eq!(fetching.results()["not_found"], 1.0);
    // After an upload it is not missing any more.
    let file = fs::File::open(&unknown.path).unwrap();
    fetching
        .indexes
        .add(&unknown.build_id(), file, "upload")
        .unwrap();
    assert!(name_symbol(&*fetching.indexes, &unknown, "work").is_some());
}

/// Check that the debug information is fetched also after an upload of the stripped file, and that a server without
/// it is not asked with each query.
#[test]
fn a_stripped_upload_does_not_keep_the_good_one_away() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2", "-rdynamic"]);
    let (_, stripped) = workshop.split("work");
    for (bytes, named, requests) in [
        (&program.bytes, "work work.c:7", 1),
        (&stripped.bytes, "work :0", 1),
    ] {
        let bytes = bytes.clone();
        let (url, asked) = serve(move |_, stream| send_file(stream, &bytes));
        let fetching = Fetching::start(&[url], |_| {});
        let file = fs::File::open(&stripped.path).unwrap();
        fetching
            .indexes
            .add(&program.build_id(), file, "upload")
            .unwrap();
        assert_eq!(
            name_symbol(&*fetching.indexes, &program, "work").unwrap(),
            ["work :0"]
        );
        wait_for(|| (!fetching.results().is_empty()).then_some(()));
        for _ in 0..10 {
            assert_eq!(
                name_symbol(&*fetching.indexes, &program, "work").unwrap(),
                [named]
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), requests);
    }
}

/// A server that answers each request with the same bytes, and counts requests.
fn serve(
    answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            // The client may go away in the middle: some tests do that.
            let _ = answer(&path, &mut stream);
        }
    });
    (url, requests)
}

fn send_file(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        bytes.len()
    )?;
    stream.write_all(bytes)
}

fn send_status(stream: &mut TcpStream, status: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

/// Check that servers that fail, send another file, break off or never end cost a counted result only, and that the
/// next server is asked.
#[test]
fn bad_servers_are_survived() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let other = workshop.compile("other", C, &["-g", "-O1"]);
    let bytes = program.bytes.clone();
    let (good, _) = serve(move |_, stream| send_file(stream, &bytes));
    let (failing, failed) = serve(|_, stream| send_status(stream, "500 Internal Server Error"));
    let bytes = other.bytes.clone();
    let (lying, _) = serve(move |_, stream| send_file(stream, &bytes));
    let bytes = program.bytes.clone();
    let (breaking, _) = serve(move |_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        )?;
        stream.write_all(&bytes[..bytes.len() / 2])
    });
    let (endless, _) = serve(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[0; 1 << 16])?;
        }
    });
    let nobody = "http://127.0.0.1:1".to_owned();
    for (url, result) in [
        (&failing, "unreachable"),
        (&lying, "wrong_build_id"),
        (&breaking, "unreachable"),
        (&endless, "too_large"),
        (&nobody, "unreachable"),
    ] {
        let alone = Fetching::start(std::slice::from_ref(url), |options| {
            options.file_bytes_max = 8 << 20
        });
        assert_eq!(alone.fetch(&program), result, "{url}");
        assert!(alone.indexes.list().is_empty());
        let both = [url.clone(), good.clone()];
        let both = Fetching::start(&both, |options| options.file_bytes_max = 8 << 20);
        assert_eq!(both.fetch(&program), "stored", "{url}");
        assert_eq!(
            name_symbol(&*both.indexes, &program, "work").unwrap(),
            ["work work.c:7"]
        );
    }
    assert!(failed.load(Ordering::SeqCst) >= 2);
}
