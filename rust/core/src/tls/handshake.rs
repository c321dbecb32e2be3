//! The handshake of one connection (RFC 8446, RFC 5246) with rustls: the host name first, then that host's rules.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::server::{Acceptor, ClientHello};
use rustls::{
    CipherSuite, Error as Tls, HandshakeKind, InvalidMessage, PeerIncompatible, PeerMisbehaved, ProtocolVersion,
};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Certificate;
use super::context::Context;
use super::flight::Flight;
use super::hosts::Hosts;
use crate::connection::ConnectionInfo;
use crate::metrics::HandshakeFailure;
use crate::server::Service;
use crate::stream::Socket;

/// Why a handshake failed.
pub(crate) struct HandshakeError {
    pub(crate) failure: HandshakeFailure,
    pub(crate) message: String,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let left = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
        let failure = match tls {
            _ if left => HandshakeFailure::Left,
            Some(Tls::AlertReceived(_)) => HandshakeFailure::ClientAlert,
            Some(Tls::InvalidMessage(InvalidMessage::InvalidContentType)) => HandshakeFailure::NotTls,
            Some(Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol) => HandshakeFailure::Incompatible,
            // A server is shown no other certificates.
            Some(Tls::NoCertificatesPresented | Tls::InvalidCertificate(_)) => HandshakeFailure::ClientCertificate,
            _ => HandshakeFailure::Protocol,
        };
        let hint = tls.and_then(hint);
        let message = match (failure, tls) {
            (HandshakeFailure::Left, _) => format!("the client left: {error}"),
            (_, Some(Tls::NoCertificatesPresented)) => {
                "the client showed no certificate, which client_auth=\"required\" asks for".into()
            }
            (_, Some(Tls::InvalidCertificate(rustls::CertificateError::UnknownRevocationStatus))) => {
                format!("the client's certificate: client_crl has no list of its authority ({error})")
            }
            (HandshakeFailure::ClientCertificate, _) => format!("the client's certificate: {error}"),
            _ => hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}")),
        };
        HandshakeError { failure, message }
    }
}

/// What rustls's error means to those who run the server.
fn hint(error: &Tls) -> Option<&'static str> {
    match error {
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("what came is not TLS (a plain http:// request?)")
        }
        Tls::InvalidMessage(InvalidMessage::InvalidServerName)
        | Tls::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            Some("what it asked for is no host name (RFC 6066 section 3): too long, not ASCII, malformed, or several")
        }
        Tls::PeerIncompatible(
            PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => Some(
            "it speaks no version that this host does (TLS 1.1 or older, or outside of min_version and max_version)",
        ),
        _ => None,
    }
}

/// A fatal unrecognized_name alert in a record of its own (RFC 6066 section 3): rustls has no way to send that one.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Does the handshake within its time and notes in `info` what was agreed. `alpn` are the protocols to offer, where
/// they are not the context's.
pub(crate) async fn accept(
    service: &Service,
    socket: Socket,
    info: &mut ConnectionInfo,
    alpn: Option<&[Vec<u8>]>,
) -> Result<(TlsStream<Flight>, Arc<Context>), HandshakeError> {
    let timeout = service.config.handshake_timeout;
    tokio::time::timeout(timeout, agree(service, socket, info, alpn)).await.unwrap_or_else(|_| {
        Err(HandshakeError {
            failure: HandshakeFailure::Timeout,
            message: format!("not done within {} s (handshake_timeout)", timeout.as_secs_f64()),
        })
    })
}

async fn agree(
    service: &Service,
    socket: Socket,
    info: &mut ConnectionInfo,
    alpn: Option<&[Vec<u8>]>,
) -> Result<(TlsStream<Flight>, Arc<Context>), HandshakeError> {
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), Flight::new(socket)).await?;
    let (sni, context) = choose(&service.hosts.read(), &start.client_hello());
    info.sni = sni;
    let Some(context) = context else {
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = start.io.shutdown().await;
        return Err(HandshakeError {
            failure: HandshakeFailure::UnknownName,
            message: "no certificate for that name and no default (alert unrecognized_name)".into(),
        });
    };
    start.io.gather();
    let mut config = context.config();
    if let Some(alpn) = alpn {
        Arc::make_mut(&mut config).alpn_protocols = alpn.to_vec();
    }
    let mut stream = match start.into_stream(config).into_fallible().await {
        Ok(stream) => stream,
        Err((error, mut io)) => {
            // The alert that says why.
            io.settle(false);
            let _ = io.flush().await;
            return Err(error.into());
        }
    };
    describe(&stream, info);
    if let Some(message) = outlived(&context, info) {
        return Err(HandshakeError { failure: HandshakeFailure::ClientCertificate, message });
    }
    let (io, tls) = stream.get_mut();
    // Before 1.3 what is held is the server's own Finished, and some clients wait for it.
    io.settle(!tls.wants_read() && tls.protocol_version() == Some(ProtocolVersion::TLSv1_3));
    io.flush().await?;
    service.metrics.handshake(info);
    Ok((stream, context))
}

/// The name that a client asks for, in lower case, and the context for it and for what the client offers.
pub(super) fn choose(hosts: &Hosts, hello: &ClientHello<'_>) -> (Option<String>, Option<Arc<Context>>) {
    let sni = hello.server_name().map(str::to_ascii_lowercase);
    let host = sni.as_deref().and_then(|name| hosts.find(name)).or_else(|| hosts.default_host());
    (sni, host.and_then(|host| host.choose(hello)))
}

/// Why a session that is taken up again must not be: its client was identified when it began, and what that rested on may be
/// over since.
fn outlived(context: &Context, info: &ConnectionInfo) -> Option<String> {
    let shown = info.peer_certificate.as_ref().filter(|_| info.resumed)?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if context.ends().revocation_list.is_some_and(|end| end < now) {
        return Some("client_crl has expired since the session of the client began".into());
    }
    let certificate = Certificate::from_der(shown);
    let is_over = certificate.as_ref().is_none_or(|shown| shown.not_after < now);
    is_over.then(|| {
        let subject = certificate.map(|shown| shown.subject).unwrap_or_default();
        format!("the client's certificate (subject {subject}) has expired since its session began")
    })
}

fn describe(stream: &TlsStream<Flight>, info: &mut ConnectionInfo) {
    let (_, tls) = stream.get_ref();
    info.tls_version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
        Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
        _ => None,
    };
    info.cipher = tls.negotiated_cipher_suite().and_then(|suite| iana_name(suite.suite()));
    info.key_exchange = tls.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    info.resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    info.peer_certificate = tls.peer_certificates().and_then(<[_]>::first).map(|der| Bytes::copy_from_slice(der));
    info.alpn = tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
}

/// rustls writes TLS13_AES_128_GCM_SHA256 where IANA has TLS_AES_128_GCM_SHA256.
fn iana_name(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.as_str(),
    }
}
