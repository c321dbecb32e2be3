//! A client for `make bench` that opens a new TLS connection for each request, with or without resumption.
//!
//!     reconnect PORT SECONDS CLIENTS resumed|full
//!
//! Prints a line of JSON: requests answered with 200, how many of their handshakes were resumed, errors, seconds. What
//! the first error was goes to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its result is what it prints")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// How long one connection may take. No server needs a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Counts {
    requests: u64,
    resumed: u64,
    errors: u64,
    first_error: Option<String>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, seconds, clients, kind] = arguments.as_slice() else {
        return Err("usage: reconnect PORT SECONDS CLIENTS resumed|full".into());
    };
    let (port, clients) = (port.parse()?, clients.parse::<usize>()?);
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds.parse()?);
    let resume = kind == "resumed";
    let total = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let running: Vec<_> = (0..clients).map(|_| tokio::spawn(client(port, end, resume))).collect();
        let mut total = Counts::default();
        for client in running {
            let counts = client.await??;
            total.requests += counts.requests;
            total.resumed += counts.resumed;
            total.errors += counts.errors;
            total.first_error = total.first_error.or(counts.first_error);
        }
        Ok::<_, Failure>(total)
    })?;
    let Counts { requests, resumed, errors, first_error } = total;
    if let Some(error) = first_error {
        eprintln!("the first error: {error}");
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(r#"{{"requests": {requests}, "resumed": {resumed}, "errors": {errors}, "seconds": {seconds:.4}}}"#);
    Ok(())
}

/// One connection after the other until the end. Each client keeps its own tickets: a common store would run dry.
async fn client(port: u16, end: Instant, resume: bool) -> Result<Counts, Failure> {
    let connector = TlsConnector::from(Arc::new(tls(resume)?));
    let mut counts = Counts::default();
    while Instant::now() < end {
        match tokio::time::timeout(PATIENCE, request(port, &connector)).await {
            Ok(Ok(kind)) => {
                counts.requests += 1;
                counts.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
            }
            failed => {
                counts.errors += 1;
                counts.first_error.get_or_insert_with(|| match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "time-out".into(),
                });
                // A server that is gone refuses at once; this is not to become a busy loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    Ok(counts)
}

/// Offers first what browsers do. X25519 is what every contender speaks; with ML-KEM some would do more work than others.
fn tls(resume: bool) -> Result<ClientConfig, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

async fn request(port: u16, connector: &TlsConnector) -> Result<Option<HandshakeKind>, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    stream.write_all(REQUEST).await?;
    let mut response = Vec::with_capacity(1024);
    while !is_whole(&response) {
        if stream.read_buf(&mut response).await? == 0 {
            return Err("closed within the response".into());
        }
    }
    if !response.starts_with(b"HTTP/1.1 200") {
        return Err("not 200".into());
    }
    let kind = stream.get_ref().1.handshake_kind();
    stream.shutdown().await?;
    Ok(kind)
}

/// Every contender answers `hello` and a newline here.
fn is_whole(response: &[u8]) -> bool {
    response.ends_with(b"\r\n\r\nhello\n")
}

/// Takes any certificate: the client's own work is not measured, so it does as little as it may.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls13_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
