//! Connections in the hands of a callback, without any Python: what of the pipe and its task cannot be seen from outside
//! as well as from here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use portico_core::config::Value;
use portico_core::http::Response;
use portico_core::raw::{Connection, Done, Operation, StreamError, Timeout};
use portico_core::{Address, Config, Endpoint, Observer, Place, Report, Server, StdThreads, Streams};

const GENEROUS: Duration = Duration::from_secs(30);

struct Deaf;

impl Observer for Deaf {
    fn report(&self, _: Report) {}
}

/// A server that hands its connections to the test.
fn server(settings: &[(&str, Value)]) -> (Server, SocketAddr, Receiver<Arc<Connection>>) {
    let config = Config::parse(settings.iter().map(|(name, value)| (name.to_string(), value.clone()))).unwrap();
    let server = Server::new(config, None, Arc::new(StdThreads), Arc::new(Deaf)).unwrap();
    let (sender, receiver) = channel();
    let sender = portico_core::locks::Mutex::new(sender);
    let handler = move |connection: Connection| drop(sender.lock().send(Arc::new(connection)));
    let place = Place::Inet { host: "127.0.0.1".into(), port: 0 };
    let bound = server.bind(&Endpoint { place, tls: false, reuse_port: false, backlog: None }).unwrap();
    let listener = server.accept(bound.with_streams(Streams { handler: Arc::new(handler), alpn: Vec::new() })).unwrap();
    let Address::Inet(address) = listener.address().clone() else { panic!("not an IP address") };
    (server, address, receiver)
}

fn connect(address: SocketAddr, connections: &Receiver<Arc<Connection>>) -> (TcpStream, Arc<Connection>) {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(GENEROUS)).unwrap();
    let connection = connections.recv_timeout(GENEROUS).unwrap();
    assert!(connection.begin("threads"));
    (client, connection)
}

fn read(operation: Operation) -> Bytes {
    match operation.wait().unwrap() {
        Done::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_go_both_ways_until_each_side_ends() {
    let (_server, address, connections) = server(&[]);
    let (mut client, connection) = connect(address, &connections);
    client.write_all(b"hello").unwrap();
    assert_eq!(read(connection.read_exactly(5, Timeout::Default)), "hello");
    connection.write(Bytes::from_static(b"bye")).unwrap().wait().unwrap();
    connection.write_eof();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"bye");
    client.write_all(b"more").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(connection.read_to_end(Timeout::Default)), "more");
    assert!(matches!(connection.write(Bytes::from_static(b"x")), Err(StreamError::Closed(_))));
}

#[test]
fn dropping_it_sends_what_was_written() {
    let (_server, address, connections) = server(&[]);
    let (mut client, connection) = connect(address, &connections);
    let much = Bytes::from(vec![7; 3 << 20]);
    // Not waited for: it is the connection's task that does it.
    drop(connection.write(much.clone()).unwrap());
    drop(connection);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == much);
}

#[test]
fn what_is_read_ahead_is_bounded() {
    let (_server, address, connections) = server(&[("max_read_buffer_size", Value::Integer(4096))]);
    let (client, connection) = connect(address, &connections);
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut quiet) = (0, Instant::now());
    while quiet.elapsed() < Duration::from_millis(500) {
        match (&client).write(&[0; 65536]) {
            Ok(n) => (sent, quiet) = (sent + n, Instant::now()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
        assert!(sent < 64 << 20, "nobody holds it up");
    }
    // One read of the socket may go beyond it.
    let ahead = read(connection.read(usize::MAX, Timeout::Default)).len();
    assert!((4096..4096 + 64 * 1024).contains(&ahead), "{ahead}");
}

#[test]
fn a_time_out_and_a_dropped_operation_lose_nothing() {
    let (_server, address, connections) = server(&[]);
    let (mut client, connection) = connect(address, &connections);
    client.write_all(b"ab").unwrap();
    let brief = Timeout::Is(Some(Duration::from_millis(20)));
    assert!(matches!(connection.read_exactly(4, brief).wait(), Err(StreamError::TimedOut { by_setting: false, .. })));
    let mut dropped = connection.read_exactly(4, Timeout::Is(None));
    assert!(matches!(dropped.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    drop(dropped);
    client.write_all(b"cd").unwrap();
    assert_eq!(read(connection.read_exactly(4, Timeout::Default)), "abcd");
}

#[test]
fn requests_and_bytes_share_what_has_come() {
    let (_server, address, connections) = server(&[]);
    let (mut client, connection) = connect(address, &connections);
    client.write_all(b"line\nGET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nrest").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let line = connection.read_until(Bytes::from_static(b"\n"), 100, Timeout::Default);
    assert_eq!(read(line), "line\n");
    for path in ["/a", "/b"] {
        let Ok(Done::Request(Some(request))) = connection.read_request(Timeout::Default).wait() else { panic!() };
        assert_eq!(request.path(), path);
        assert!(matches!(connection.read_request(Timeout::Default).wait(), Err(StreamError::Misuse(_))));
        connection.respond(&Response::new(StatusCode::OK, "hi")).unwrap().wait().unwrap();
    }
    assert_eq!(read(connection.read_to_end(Timeout::Default)), "rest");
}

#[test]
fn a_server_that_ends_leaves_nobody_waiting() {
    let (server, address, connections) = server(&[]);
    let (_client, connection) = connect(address, &connections);
    let waiting = {
        let connection = connection.clone();
        thread::spawn(move || connection.read(1, Timeout::Is(None)).wait())
    };
    server.close(Duration::ZERO, None);
    assert!(matches!(waiting.join().unwrap(), Err(StreamError::ServerEnded)));
    assert!(connection.write(Bytes::from_static(b"x")).is_err());
}
