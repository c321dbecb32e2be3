//! The limit that `make bench` holds portico against: hyper and rustls with the settings that portico uses, answering in
//! Rust. What a request costs here is what HTTP and TLS cost; the rest is Python's, or portico's.
//!
//!     limit PORT CERTIFICATE KEY
//!
//! One thread, on 127.0.0.1. HTTP/2 or HTTP/1.1 by ALPN, the latter without.

use std::convert::Infallible;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Failure = Box<dyn Error + Send + Sync>;

const HELLO: Bytes = Bytes::from_static(b"hello\n");
/// What portico sends from Python's memory.
static LARGE: LazyLock<Bytes> = LazyLock::new(|| (0..=255).cycle().take(1 << 20).collect());

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, certificate, key] = arguments.as_slice() else {
        return Err("usage: limit PORT CERTIFICATE KEY".into());
    };
    let acceptor = TlsAcceptor::from(Arc::new(tls(certificate, key)?));
    let port = port.parse()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that leaves is no concern of a benchmark's: the client counts what it misses.
                let _ = serve(stream, acceptor).await;
            });
        }
    })
}

/// As portico's own, in `tls/context.rs`.
fn tls(certificate: &str, key: &str) -> Result<ServerConfig, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    // Three records at once, as in `stream.rs`.
    let stream = acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(3 * 16 * 1024))).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        // The windows and buffers of portico's, in `http/h2/mod.rs`.
        http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1 << 20)
            .max_send_buf_size(256 * 1024)
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .await?;
    } else {
        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await?;
    }
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/large" => LARGE.clone(),
        "/upload" => match request.into_body().collect().await {
            Ok(body) => format!("{}\n", body.to_bytes().len()).into(),
            Err(_) => Bytes::new(),
        },
        _ => HELLO,
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
