//! Uploads over HTTP: by hand, with curl and with the command.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use model::text::window_at;
use serde_json::Value;

use crate::build::{C, CPP, Workshop};
use crate::running::Running;
use crate::store::{json, read_metrics, wait_for};
use crate::test_push::push_request;

struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn error(&self) -> (&str, &str) {
        let error = &self.body["error"];
        (
            error["kind"].as_str().unwrap(),
            error["message"].as_str().unwrap(),
        )
    }
}

fn send(http: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(http).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(180)))
        .unwrap();
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n").unwrap();
    // The server may have answered and stopped reading before all of it was written.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // A chunked or plain body: all answers here are short JSON in one piece.
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let start = text.find('{').unwrap_or(text.len());
    let end = text.rfind('}').map_or(start, |end| end + 1);
    Answer {
        status,
        body: serde_json::from_str(&text[start..end]).unwrap_or(Value::Null),
    }
}

async fn ask(server: &Running, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let (http, method, path, body) = (
        server.http,
        method.to_owned(),
        path.to_owned(),
        body.to_vec(),
    );
    let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        send(http, &method, &path, &headers, &body)
    })
    .await
    .unwrap()
}

/// Uploads a valid file.
pub(crate) async fn put(server: &Running, path: &str, body: &[u8]) {
    let put = ask(server, "PUT", path, &[], body).await;
    assert_eq!(put.status, 200, "{}", put.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_put_listed_and_deleted() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2", "-rdynamic"]);
    let (debug, stripped) = workshop.split("work");
    let id = program.build_id();
    let path = format!("/api/v1/debuginfo/{id}");
    let server = Running::start().await;

    let missing = ask(&server, "GET", &path, &[], b"").await;
    assert_eq!((missing.status, missing.error().0), (404, "not_found"));
    assert_eq!(ask(&server, "HEAD", &path, &[], b"").await.status, 404);

    let put = ask(&server, "PUT", &path, &[], &stripped.bytes).await;
    assert_eq!(
        (put.status, put.body["result"].as_str()),
        (200, Some("stored"))
    );
    assert_eq!(put.body["rank"], "symbol_table");
    // Compressed in both ways, and with a build id in upper case, as some tools write it.
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&debug.bytes).unwrap();
        encoder.finish().unwrap()
    };
    let upper = format!("/api/v1/debuginfo/{}", id.to_string().to_uppercase());
    let put = ask(&server, "PUT", &upper, &["content-encoding: gzip"], &gzip).await;
    assert_eq!(
        (put.status, put.body["result"].as_str()),
        (200, Some("stored")),
        "{}",
        put.body
    );
    let zstd = zstd::encode_all(&stripped.bytes[..], 1).unwrap();
    let put = ask(&server, "PUT", &path, &["content-encoding: zstd"], &zstd).await;
    assert_eq!(
        (put.status, put.body["result"].as_str()),
        (200, Some("unchanged")),
        "{}",
        put.body
    );
    assert!(
        put.body["message"]
            .as_str()
            .unwrap()
            .contains("nothing changed")
    );
    assert_eq!(put.body["rank"], "debug_info");

    let list = server.json("/api/v1/debuginfo").await;
    assert_eq!(
        (
            list["total"].as_u64(),
            list["indexes"].as_array().unwrap().len()
        ),
        (Some(1), 1)
    );
    let index = &list["indexes"][0];
    assert_eq!(index["build_id"], id.to_string());
    assert_eq!(index["origin"], "upload");
    assert_eq!(index["has_layout"], true);
    assert_eq!(list["bytes"], index["bytes"]);
    assert_eq!(ask(&server, "GET", &path, &[], b"").await.body, *index);
    assert_eq!(ask(&server, "HEAD", &path, &[], b"").await.status, 200);

    let metrics = read_metrics(&server.get("/metrics").await.text());
    assert_eq!(metrics["uploads_total{result=\"stored\"}"], 2.0);
    assert_eq!(metrics["uploads_total{result=\"unchanged\"}"], 1.0);
    assert_eq!(metrics["indexes"], 1.0);
    assert_eq!(metrics["indexes_bytes"], index["bytes"].as_f64().unwrap());
    assert_eq!(
        metrics["limits{kind=\"file_bytes\"}"],
        f64::from(1 << 30) * 4.0
    );

    let server = server.restart().await;
    assert_eq!(
        ask(&server, "GET", &path, &[], b"").await.body["rank"],
        "debug_info"
    );
    assert_eq!(ask(&server, "DELETE", &path, &[], b"").await.status, 200);
    assert_eq!(ask(&server, "DELETE", &path, &[], b"").await.status, 404);
    assert_eq!(server.json("/api/v1/debuginfo").await["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_files_are_refused_with_a_reason() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g"]);
    let id = program.build_id();
    let server = Running::start_with(&["--symbol-file-bytes-max=1MiB"]).await;
    let path = format!("/api/v1/debuginfo/{id}");
    let large = vec![0; (1 << 20) + 1];
    let bomb = zstd::encode_all(&vec![0; 64 << 20][..], 1).unwrap();
    let zstd: &[&str] = &["content-encoding: zstd"];
    type Check<'a> = (u16, &'a str, &'a str, &'a str, &'a [&'a str], &'a [u8]);
    let checks: [Check<'_>; 8] = [
        (
            400,
            "bad_parameter",
            "2 to 40 hexadecimal",
            "/api/v1/debuginfo/xyz",
            &[],
            b"x",
        ),
        (
            400,
            "bad_parameter",
            "2 to 40 hexadecimal",
            "/api/v1/debuginfo/..%2f..%2fcatalog",
            &[],
            b"x",
        ),
        (
            409,
            "wrong_file",
            &id.to_string(),
            "/api/v1/debuginfo/0123",
            &[],
            &program.bytes,
        ),
        (422, "bad_file", "not an ELF file", &path, &[], b"nothing"),
        (422, "bad_file", "not an ELF file", &path, &[], b""),
        (413, "file_too_large", "1048576", &path, &[], &large),
        (413, "file_too_large", "1048576", &path, zstd, &bomb),
        (
            422,
            "bad_file",
            "Content-Encoding",
            &path,
            zstd,
            b"no zstd at all, but long enough",
        ),
    ];
    for (status, kind, words, path, headers, body) in checks {
        let answer = ask(&server, "PUT", path, headers, body).await;
        assert_eq!(
            (answer.status, answer.error().0),
            (status, kind),
            "{path}: {}",
            answer.body
        );
        assert!(answer.error().1.contains(words), "{}", answer.body);
    }
    let unknown = ask(&server, "PUT", &path, &["content-encoding: br"], b"x").await;
    assert_eq!(unknown.status, 400);
    assert_eq!(server.json("/api/v1/debuginfo").await["total"], 0);
    let put = ask(&server, "PUT", &path, &[], &program.bytes).await;
    assert_eq!(put.status, 200, "{}", put.body);
}

/// Check that an interrupted upload leaves nothing and releases its place, and that a third upload at once is refused
/// as busy.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_once_are_bounded_and_broken_ones_end() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g"]);
    let path = format!("/api/v1/debuginfo/{}", program.build_id());
    let server = Running::start().await;
    let http = server.http;
    let half = {
        let (path, bytes) = (path.clone(), program.bytes.clone());
        move || {
            let mut stream = TcpStream::connect(http).unwrap();
            let length = bytes.len();
            write!(
                stream,
                "PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
            )
            .unwrap();
            stream.write_all(&bytes[..1000]).unwrap();
            stream
        }
    };
    let mut open = vec![half(), half()];
    tokio::task::spawn_blocking({
        let (path, bytes) = (path.clone(), program.bytes.clone());
        move || {
            wait_for(|| {
                let third = send(http, "PUT", &path, &[], &bytes);
                // An upload during that of the whole file is refused as busy itself.
                open.push(half());
                (third.status == 503).then(|| assert_eq!(third.error().0, "busy"))
            });
            drop(open);
            // An upload that got through before the other two has stored it already.
            let taken = wait_for(|| {
                Some(send(http, "PUT", &path, &[], &bytes)).filter(|answer| answer.status == 200)
            });
            assert_eq!(taken.body["rank"], "debug_info");
        }
    })
    .await
    .unwrap();
    let incoming = server.folder.path().join("symbols/incoming");
    assert_eq!(fs::read_dir(incoming).unwrap().count(), 0);
}

/// Check the command: a file and a folder, skipped files, a line for each, and the exit code.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_uploads_missing_files() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    workshop.split("work");
    workshop.compile("without", C, &["-Wl,--build-id=none"]);
    fs::create_dir_all(workshop.path("inside/deeper")).unwrap();
    fs::rename(
        workshop.path("work.debug"),
        workshop.path("inside/deeper/work.debug"),
    )
    .unwrap();
    fs::rename(workshop.path("without"), workshop.path("inside/without")).unwrap();
    fs::write(workshop.path("inside/readme"), "no ELF file").unwrap();
    let server = Running::start().await;
    let url = format!("http://{}/", server.http);
    let folder = workshop.folder.path().to_owned();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pilotlight-server"))
            .args(["debuginfo", "upload"])
            .args(arguments)
            .current_dir(&folder)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    tokio::task::block_in_place(|| {
        let (ok, lines) = run(&["--server", &url, "inside"]);
        assert!(ok, "{lines}");
        assert_eq!(
            lines,
            format!("inside/deeper/work.debug: stored {}\n", program.build_id())
        );
        // A file with its code has the ends of functions whose symbols have no length.
        let (ok, lines) = run(&["--server", &url, "work", "inside"]);
        assert!(ok, "{lines}");
        assert!(lines.starts_with("work: stored"), "{lines}");
        assert!(
            lines.contains("work.debug: skipped: the server has debug info"),
            "{lines}"
        );
        let (ok, lines) = run(&["--server", &url, "work", "inside/without", "nowhere"]);
        assert!(!ok);
        assert!(lines.contains("work: skipped"), "{lines}");
        assert!(
            lines.contains("inside/without: failed: this file has no GNU build id"),
            "{lines}"
        );
        assert!(lines.contains("nowhere: failed: "), "{lines}");
        let (ok, lines) = run(&["--server", "http://127.0.0.1:1", "work"]);
        assert!(!ok);
        assert!(
            lines.contains("failed to ask http://127.0.0.1:1"),
            "{lines}"
        );
    });
    let list = server.json("/api/v1/debuginfo").await;
    assert_eq!(list["indexes"][0]["has_layout"], true);
}

/// Check that plain curl works, which waits for `100 Continue` with files of more than 1 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn curl_uploads_a_large_file() {
    let workshop = Workshop::new();
    let own = workshop.compile("cart", CPP, &["-g", "-O1", "-std=c++17"]);
    assert!(own.bytes.len() > 1 << 20);
    let server = Running::start().await;
    let url = format!("http://{}/api/v1/debuginfo/{}", server.http, own.build_id());
    let output = tokio::task::block_in_place(|| {
        Command::new("curl")
            .args(["-sS", "-H", "Expect: 100-continue", "-T"])
            .arg(&own.path)
            .arg(&url)
            .output()
            .unwrap()
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(json(&output.stdout)["result"], "stored");
}

/// Check that load segments arrive with profiles, and that invalid ones are ignored, but not their window.
#[tokio::test(flavor = "multi_thread")]
async fn layouts_come_with_profiles() {
    let workshop = Workshop::new();
    let program = workshop.compile("work", C, &["-g", "-O2"]);
    let (debug, _) = workshop.split("work");
    let path = format!("/api/v1/debuginfo/{}", program.build_id());
    let server = Running::start().await;
    let put = ask(&server, "PUT", &path, &[], &debug.bytes).await;
    assert_eq!(put.body["has_layout"], false, "{}", put.body);

    let now_ms = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_millis() as i64;
    let layout = program.facts.layout.clone().unwrap();
    let segments = layout.segments().iter().map(|segment| proto::v1::Segment {
        file_offset: segment.file_offset,
        address: segment.address,
        bytes: segment.bytes,
    });
    let mut request = push_request(&window_at("comm=work | main | 1", now_ms - 10_000, 1));
    request.file_layouts = vec![proto::v1::FileLayout {
        build_id: program.build_id().to_string(),
        segments: segments.collect(),
        offer: 0,
        ..Default::default()
    }];
    let mut wrong = request.clone();
    wrong.file_layouts[0].segments[1].bytes = u64::MAX;
    server.push(wrong).await.unwrap();
    assert_eq!(server.json("/api/v1/series").await["total"], 1);
    assert_eq!(
        ask(&server, "GET", &path, &[], b"").await.body["has_layout"],
        false
    );

    server.push(request).await.unwrap();
    assert_eq!(
        ask(&server, "GET", &path, &[], b"").await.body["has_layout"],
        true
    );
    let server = server.restart().await;
    assert_eq!(
        ask(&server, "GET", &path, &[], b"").await.body["has_layout"],
        true
    );
}
