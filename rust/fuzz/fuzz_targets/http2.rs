//! HTTP/2 frames, on a connection of a real server. The first byte of the input says how the rest is cut. The server must
//! neither panic nor forget the connection's end, and its next client is answered.

#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portico_core::http::{Request, Response};
use portico_core::{Config, Endpoint, Handler, Listener, Observer, Place, Reply, Report, Server, StdThreads};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct Echo;

impl Handler for Echo {
    fn call(&self, request: Box<Request>, reply: Reply) {
        let body = if request.body.is_empty() { vec![b'x'; 1000].into() } else { request.body };
        reply.send(Response::new(http::StatusCode::OK, body));
    }
}

struct Deaf;

impl Observer for Deaf {
    fn report(&self, _: Report) {}
}

struct Running {
    path: PathBuf,
    server: Server,
    _listener: Listener,
}

static RUNNING: LazyLock<Running> = LazyLock::new(|| {
    // A panic on a thread of the server's is a finding too; it would else end that connection alone.
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        std::process::abort();
    }));
    let path = std::env::temp_dir().join(format!("portico-fuzz-{}.sock", std::process::id()));
    let mut config = Config::default();
    config.io_threads = 1;
    let server = Server::new(config, Some(Arc::new(Echo)), Arc::new(StdThreads), Arc::new(Deaf)).expect("no log is to be opened");
    let endpoint = Endpoint { place: Place::Unix(path.clone()), tls: false, reuse_port: false, backlog: None };
    let listener = server.listen(&endpoint).expect("listens");
    Running { path, server, _listener: listener }
});

fn connect() -> UnixStream {
    let stream = UnixStream::connect(&RUNNING.path).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, frames)) = data.split_first() else { return };
    let mut stream = connect();
    let size = usize::from(*cut).max(1) * 16;
    let mut wire = PREFACE.to_vec();
    // Settings first, as otherwise nothing else is looked at.
    wire.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    wire.extend_from_slice(frames);
    // The server may end it before all is sent.
    let _ = wire.chunks(size).try_for_each(|piece| stream.write_all(piece));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answers = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answers) {
        assert!(
            !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "the connection does not end"
        );
    }
    drop(stream);
    let mut next = connect();
    next.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("is sent");
    let mut answer = Vec::new();
    next.read_to_end(&mut answer).expect("is answered");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(RUNNING.server.is_open());
});
