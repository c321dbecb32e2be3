//! The core as a program embeds it, without any Python: real sockets, real TLS, real threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use portico_core::http::{Request, Response};
use portico_core::locks::Mutex;
use portico_core::tls::development::Authority;
use portico_core::tls::{Context, Credentials, Form, Rules, Source};
use portico_core::{
    Address, Config, Endpoint, Error, Handler, Listener, Observer, Place, Pool, Pooled, Report, Server, Stat,
    StdThreads,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const GENEROUS: Duration = Duration::from_secs(30);

/// Sends reports to the test.
struct Told(Mutex<Sender<Report>>);

impl Observer for Told {
    fn report(&self, report: Report) {
        let _ = self.0.lock().send(report);
    }
}

struct Deaf;

impl Observer for Deaf {
    fn report(&self, _: Report) {}
}

fn server(handler: impl Handler, observer: impl Observer) -> Server {
    Server::new(Config::default(), Some(Arc::new(handler)), Arc::new(StdThreads), Arc::new(observer)).unwrap()
}

fn listen(server: &Server, tls: bool) -> (Listener, SocketAddr) {
    let place = Place::Inet { host: "127.0.0.1".into(), port: 0 };
    let listener = server.listen(&Endpoint { place, tls, reuse_port: false, backlog: None }).unwrap();
    let Address::Inet(address) = listener.address().clone() else { panic!("not an IP address") };
    (listener, address)
}

/// Closes, and waits for the end.
fn close(server: &Server) {
    let (ended, end) = channel();
    server.close(GENEROUS, None);
    server.on_closed(Box::new(move || ended.send(()).unwrap()));
    end.recv_timeout(GENEROUS).expect("the server ends");
}

fn add_host(server: &Server, authority: &Authority, host: &str, handler: Option<Arc<dyn Handler>>) {
    let issued = authority.issue(&[host.to_string()], 1).unwrap();
    let cert = Source::Bytes(issued.cert_pem.into_bytes());
    let key = Some(Source::Bytes(issued.key_pem.into_bytes()));
    let credentials = Credentials { form: Form::Pair { cert, key }, password: None };
    let rules = Rules { alpn: vec![b"http/1.1".to_vec()], ..Rules::default() };
    server.add_context(Arc::new(Context::new(Some(host), credentials.into(), rules, handler).unwrap())).unwrap();
}

fn exchange(mut stream: impl Read + Write, host: &str) -> std::io::Result<String> {
    write!(stream, "GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask(address: SocketAddr, authority: &Authority, host: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    exchange(StreamOwned::new(client, TcpStream::connect(address)?), host)
}

fn hello(request: Request) -> Response {
    Response::new(http::StatusCode::OK, format!("hello {} on {}", request.path(), request.host()))
}

#[test]
fn each_host_has_its_certificate_and_handler() {
    let (told, reports) = channel();
    let server = server(hello, Told(Mutex::new(told)));
    let authority = Authority::new("test").unwrap();
    add_host(&server, &authority, "a.test", None);
    let other = |_: Request| Response::new(http::StatusCode::IM_A_TEAPOT, "other");
    add_host(&server, &authority, "*.b.test", Some(Arc::new(other)));
    let (_listener, address) = listen(&server, true);

    assert!(ask(address, &authority, "a.test").unwrap().ends_with("hello /x on a.test"));
    assert!(ask(address, &authority, "x.b.test").unwrap().starts_with("HTTP/1.1 418 "));
    let refused = ask(address, &authority, "c.test").unwrap_err().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let report = reports.recv_timeout(GENEROUS).unwrap();
    assert_eq!(report.reason, "unknown_name");
    assert!(report.message.contains("\"c.test\""), "{}", report.message);
    close(&server);
}

#[test]
fn a_pool_answers_beside_a_handler_that_blocks() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let slow = move |request: Request| {
        if request.path() == "/slow" {
            let _ = released.lock().recv_timeout(GENEROUS);
        }
        hello(request)
    };
    let pool = Pool::new(1, 4, Arc::new(StdThreads));
    pool.start().unwrap();
    let server = server(Pooled { handler: Arc::new(slow), pool: pool.clone() }, Deaf);
    let (_listener, address) = listen(&server, false);
    let mut blocked = TcpStream::connect(address).unwrap();
    write!(blocked, "GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    assert!(exchange(TcpStream::connect(address).unwrap(), "h").unwrap().ends_with("hello /x on h"));
    release.send(()).unwrap();
    let mut answer = String::new();
    blocked.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello /slow on h"));
    close(&server);
    pool.close();
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let moody = |request: Request| if request.path() == "/x" { hello(request) } else { panic!("on purpose") };
    let server = server(moody, Deaf);
    let (_listener, address) = listen(&server, false);
    let mut unlucky = TcpStream::connect(address).unwrap();
    write!(unlucky, "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = unlucky.read_to_end(&mut answer);
    assert!(exchange(TcpStream::connect(address).unwrap(), "h").unwrap().ends_with("hello /x on h"));
    let in_flight = server.stats().into_iter().find(|counted| counted.name == "requests_in_flight").unwrap().stat;
    assert_eq!(in_flight, Stat::Number(0));
    close(&server);
}

#[test]
fn a_closed_server_says_so() {
    let server = server(hello, Deaf);
    close(&server);
    let place = Place::Inet { host: "127.0.0.1".into(), port: 0 };
    let listened = server.listen(&Endpoint { place, tls: false, reuse_port: false, backlog: None });
    assert!(matches!(listened, Err(Error::Closed(_))));
}
