//! `pilotlight-collector ready`: asks a running collector's `/readyz`.
//!
//! In: the address of its metrics. Out: its answer. A probe of Kubernetes that runs a command shows
//! the command's output in the pod's events; one that asks a URL shows the status alone.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Time for one question with its answer. The last question begins when the wait is nearly over: `ready --wait=15s` answers within
/// 20 s, and the kubelet, which shows no reason of a command that takes longer than `timeoutSeconds`, waits for 30 s.
const ASK_TIME: Duration = Duration::from_secs(5);

/// Time between two questions while a collector is not ready. A question takes a millisecond.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// Bytes of an answer that are read: one has some twenty lines.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Asks the collector that listens on `address` until it is ready, for at most `wait` and the time of one question. Returns whether it is,
/// and its last text.
///
/// # Errors
/// No collector answers there in the end.
pub fn wait_ready(address: SocketAddr, wait: Duration) -> Result<(bool, String)> {
    let begun = Instant::now();
    loop {
        let answer = ask_readiness(address);
        let is_ready = answer.as_ref().is_ok_and(|(is_ready, _)| *is_ready);
        if is_ready || begun.elapsed() + ASK_INTERVAL > wait {
            return answer;
        }
        thread::sleep(ASK_INTERVAL);
    }
}

/// Asks the collector that listens on `address`. Returns whether it is ready, and its text.
///
/// # Errors
/// No collector answers there within 5 s.
pub fn ask_readiness(address: SocketAddr) -> Result<(bool, String)> {
    let address = reachable(address);
    let answer = exchange(address, Instant::now() + ASK_TIME)
        .with_context(|| format!("failed to ask the collector on {address}; does it run?"))?;
    split_answer(&answer).with_context(|| format!("no collector answers on {address}"))
}

fn exchange(address: SocketAddr, deadline: Instant) -> io::Result<String> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero is none.
        (!left.is_zero())
            .then_some(left)
            .ok_or(io::ErrorKind::TimedOut)
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    loop {
        // Anew for each part: a listener that sends byte by byte must not prolong the question.
        stream.get_ref().set_read_timeout(Some(left()?))?;
        let mut part = [0; 4096];
        match stream.read(&mut part)? {
            0 => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            count => answer.extend_from_slice(&part[..count]),
        }
    }
}

/// The address of a listener on all addresses is no address to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    if address.ip().is_unspecified() {
        SocketAddr::new(loopback, address.port())
    } else {
        address
    }
}

/// Whether an HTTP answer has the status 200, and its body; `None` for one of something else.
fn split_answer(answer: &str) -> Option<(bool, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    let is_ready = status == "200";
    (is_ready || status == "503").then(|| (is_ready, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Check that a collector is asked until it is ready, also before it listens, and that the wait ends with the last answer.
    #[test]
    fn waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = |listener: TcpListener, answers: Vec<&'static str>| {
            thread::spawn(move || {
                for answer in answers {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.read_exact(&mut [0; 24]).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            })
        };
        let not_ready = "HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready\n";
        let ready = "HTTP/1.0 200 OK\r\n\r\nready\n";
        let wait = Duration::from_secs(60);

        drop(listener);
        let later = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            let listener = TcpListener::bind(address).unwrap();
            serve(listener, vec![not_ready, not_ready, ready])
                .join()
                .unwrap();
        });
        let (is_ready, text) = wait_ready(address, wait).unwrap();
        assert_eq!((is_ready, &*text), (true, "ready\n"));
        later.join().unwrap();

        assert!(wait_ready(address, Duration::ZERO).is_err());
        let server = serve(TcpListener::bind(address).unwrap(), vec![not_ready]);
        let (is_ready, text) = wait_ready(address, Duration::ZERO).unwrap();
        assert_eq!((is_ready, &*text), (false, "not ready\n"));
        server.join().unwrap();
    }

    /// Check that a listener that sends byte by byte does not prolong the question.
    #[test]
    fn a_question_has_a_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let slow = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until the other side has closed the connection.
            while stream.write_all(b"H").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let deadline = Instant::now() + Duration::from_millis(300);
        assert!(exchange(address, deadline).is_err());
        slow.join().unwrap();
    }

    /// Check both answers, and what is none.
    #[test]
    fn answers() {
        let ready = split_answer("HTTP/1.0 200 OK\r\na: b\r\n\r\nready\n");
        assert_eq!(ready, Some((true, "ready\n".to_owned())));
        let not_ready = split_answer("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready\nx: y\n");
        assert_eq!(not_ready, Some((false, "not ready\nx: y\n".to_owned())));
        for other in ["", "HTTP/1.1 404 Not Found\r\n\r\n", "SSH-2.0-x\r\n\r\n"] {
            assert_eq!(split_answer(other), None, "{other}");
        }
    }

    /// Check that a listener on all addresses is asked on the loopback address.
    #[test]
    fn addresses() {
        for (listen, asked) in [
            ("0.0.0.0:7072", "127.0.0.1:7072"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.1:7072", "192.0.2.1:7072"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
