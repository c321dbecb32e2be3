//! One client, from accepted socket to its end: handshake, choice of protocol, service.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, HeaderValue};

use crate::dispatch::Handler;
use crate::error::{Refusal, Report, RequestError, Stage};
use crate::http::target::split_port;
use crate::http::{Response, h1, h2};
use crate::listener::Spoken;
use crate::metrics::{Close, HandshakeFailure, Metrics, State, Within};
use crate::proxy::{Forwarding, Proxied};
use crate::raw;
use crate::server::Service;
use crate::shutdown::out_of_patience;
use crate::stream::{Prefixed, Socket, Stream};
use crate::tls::{self, Context, Hosts};
use crate::trace::{Event, Opened, Trace, cut};

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IP address and port.
    Inet(SocketAddr),
    /// A Unix socket; its path where it has one.
    Unix(Option<String>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.as_deref().unwrap_or("")),
        }
    }
}

/// Who is connected, and how.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// A number that no other connection of this server has.
    pub id: u64,
    /// The client's end.
    pub peer: Address,
    /// This end.
    pub local: Address,
    /// Whether it is TLS.
    pub secure: bool,
    /// The host name that the client asked for in the handshake (RFC 6066), in lower case.
    pub sni: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub tls_version: Option<&'static str>,
    /// The cipher suite by its IANA name.
    pub cipher: Option<&'static str>,
    /// The key exchange group by its IANA name.
    pub key_exchange: Option<&'static str>,
    /// The protocol chosen by ALPN (RFC 7301).
    pub alpn: Option<String>,
    /// Whether an earlier session was taken up again.
    pub resumed: bool,
    /// The certificate by which the client identified itself, DER; see [`crate::tls::Certificate`].
    pub peer_certificate: Option<Bytes>,
    /// What a proxy said by the PROXY protocol; `peer` and `local` are what it told then.
    pub proxy: Option<Arc<Proxied>>,
    /// What the peer says of clients in headers is believed, and how it says it.
    pub(crate) forwarding: Option<Arc<Forwarding>>,
}

impl ConnectionInfo {
    /// What is known before a handshake.
    pub(crate) fn new(id: u64, peer: Address, local: Address, secure: bool) -> Self {
        ConnectionInfo {
            id,
            peer,
            local,
            secure,
            sni: None,
            tls_version: None,
            cipher: None,
            key_exchange: None,
            alpn: None,
            resumed: false,
            peer_certificate: None,
            proxy: None,
            forwarding: None,
        }
    }

    /// Whether the client speaks TLS: to this end, or to a proxy that says so by the PROXY protocol.
    pub fn is_secure(&self) -> bool {
        self.secure || self.proxy.as_ref().is_some_and(|proxy| proxy.header.more.tls.is_some())
    }

    /// Believes what the peer says of its clients, where it is one of those that are trusted. An address that a proxy told is
    /// one like any other; where it told none there is nobody to believe.
    fn believe(&mut self, forwarding: Option<&Arc<Forwarding>>) {
        let is_known = match &self.proxy {
            None => true,
            Some(proxy) => proxy.header.addresses.is_some() && matches!(self.peer, Address::Inet(_)),
        };
        self.forwarding = forwarding.filter(|it| is_known && it.proxies.has(&self.peer)).cloned();
    }
}

/// A connection being served.
pub(crate) struct Connection {
    pub(crate) info: Arc<ConnectionInfo>,
    pub(crate) service: Arc<Service>,
    /// The certificate and handler that the handshake chose; none without TLS.
    pub(crate) context: Option<Arc<Context>>,
    pub(crate) trace: Trace,
}

impl Connection {
    /// Who answers requests to that host on this connection. Without TLS the name of the host's context is left in `meant`;
    /// with it that is the connection's own.
    ///
    /// # Errors
    /// Those of [`Connection::check_host`]; nobody.
    pub(crate) fn handler_for(
        &self,
        host: &str,
        meant: &mut Option<Arc<str>>,
    ) -> Result<Arc<dyn Handler>, RequestError> {
        if let Some(only) = &self.service.only {
            return Ok(only.clone());
        }
        let name = host_name(host);
        let hosts = self.service.hosts.read();
        self.check_name(name, &hosts)?;
        let own = match &self.context {
            Some(context) => context.handler().or_else(|| hosts.handler(context.host())),
            None => {
                let host = hosts.find(name).or_else(|| hosts.default_host());
                *meant = host.and_then(tls::Host::shared_name);
                host.and_then(tls::Host::handler)
            }
        };
        own.or_else(|| hosts.fallback())
            .ok_or_else(|| RequestError::new(Refusal::NoHandler, format!("no handler for host {name}")))
    }

    /// A TLS connection was made for one host and its rules. A request on it that names another one of this server's
    /// hosts gets 421 (RFC 9110 section 15.5.20), upon which browsers open a connection for that one. So does one whose host
    /// treats clients otherwise by now.
    ///
    /// # Errors
    /// [`Refusal::Misdirected`].
    pub(crate) fn check_host(&self, host: &str) -> Result<(), RequestError> {
        if self.service.only.is_some() {
            return Ok(());
        }
        self.check_name(host_name(host), &self.service.hosts.read())
    }

    fn check_name(&self, name: &str, hosts: &Hosts) -> Result<(), RequestError> {
        let Some(context) = &self.context else { return Ok(()) };
        // What is no name of any host is the default host's, where there is one. HTTP/1.0 may name none.
        let default = || hosts.default_host().filter(|_| !name.is_empty());
        let Some(meant) = hosts.find(name).or_else(default) else { return Ok(()) };
        let is_ours = meant.name() == context.host() || self.was_asked_for(name);
        if is_ours && meant.client_auth() == context.rules().client_auth {
            return Ok(());
        }
        let message = format!("host {name} on a connection that was made for another host, or by other rules");
        Err(RequestError::new(Refusal::Misdirected, message))
    }

    /// Whether the handshake was for that name: it stays this connection's, whatever hosts are added or removed since.
    fn was_asked_for(&self, name: &str) -> bool {
        self.info.sni.as_deref().is_some_and(|sni| sni.eq_ignore_ascii_case(name))
    }

    /// Counts and reports a request that the server itself answers; `id` is what it is called.
    pub(crate) fn refused(&self, error: &RequestError, id: Option<&HeaderValue>) {
        self.service.metrics.refused(error.refusal);
        let host = self.info.sni.as_deref().map_or(String::new(), |name| format!(" for host {name:?}"));
        let id = id.and_then(|id| id.to_str().ok()).map_or(String::new(), |id| format!(", request id {id}"));
        self.service.observer.report(Report {
            stage: Stage::Request,
            reason: error.refusal.label(),
            message: format!("{error}; from {}{host} on {}{id}", self.info.peer, self.info.local),
            status: Some(error.refusal.status()),
            connection: Some(self.info.clone()),
        });
    }

    /// The same, with the answer.
    pub(crate) fn refuse(&self, error: &RequestError, id: Option<&HeaderValue>) -> Response {
        self.refused(error, id);
        let mut response = Response::refusal(error);
        if error.refusal == Refusal::ContentCoding {
            // What would have been taken (RFC 9110 section 15.5.16).
            let names: Vec<_> = self.service.config.decompression.iter().map(|coding| coding.name()).collect();
            let value = HeaderValue::try_from(names.join(", "));
            response.headers.extend(value.ok().map(|value| (ACCEPT_ENCODING, value)));
        }
        response
    }
}

/// The name in a `Host`, without a port.
fn host_name(host: &str) -> &str {
    let (name, _) = split_port(host.as_bytes());
    std::str::from_utf8(name).unwrap_or_default()
}

/// Serves one client to its end.
pub(crate) async fn run(
    service: Arc<Service>,
    socket: Socket,
    mut info: ConnectionInfo,
    spoken: Spoken,
    mut opened: Opened,
) {
    let Spoken { tls: secure, streams, .. } = spoken;
    info.believe(service.forwarding.as_ref());
    let mut within = service.metrics.within(State::Handshake);
    let (stream, context) = if secure {
        opened.trace.tell(|| Event::HandshakeBegun {});
        // Boxed, so that its many states take no room once it is over.
        let handshake = Box::pin(async {
            let (mut phase, begun) = (service.lifecycle.subscribe(), Instant::now());
            tokio::select! {
                biased;
                done = tls::accept(&service, socket, &mut info, streams.as_ref().map(|streams| &streams.alpn[..])) => Some(done),
                () = out_of_patience(&mut phase, begun) => None,
            }
        });
        let Some(done) = handshake.await else {
            let failure = HandshakeFailure::Shutdown;
            opened.trace.tell(|| not_done(&info, failure, "the server ends"));
            return service.metrics.handshake_failed(failure);
        };
        match done {
            Ok((stream, context)) => {
                opened.trace.tell(|| done_as(&info, &context));
                (Stream::tls(stream), Some(context))
            }
            Err(error) => {
                opened.trace.tell(|| not_done(&info, error.failure, &error.message));
                opened.why = "handshake";
                return handshake_failed(&service, info, &error);
            }
        }
    } else {
        (Stream::Plain(socket), None)
    };
    within.now(if streams.is_some() { State::Stream } else { State::Http1 });
    let trace = opened.trace.clone();
    let mut ended = Ended { metrics: service.metrics.clone(), why: Close::Shutdown, opened };
    let by_alpn = info.alpn.as_deref() == Some("h2");
    let connection = Arc::new(Connection { info: Arc::new(info), service, context, trace });
    ended.why = match streams {
        // Boxed, so that connections for HTTP need no room for it.
        Some(streams) => Box::pin(raw::serve(stream, connection, streams)).await,
        None => serve(stream, connection, by_alpn, within).await,
    };
}

/// Counts the end of a connection, however it comes about: without a reason of its own it was dropped at the server's end.
struct Ended {
    metrics: Arc<Metrics>,
    why: Close,
    opened: Opened,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.metrics.closed(self.why);
        self.opened.why = self.why.label();
    }
}

async fn serve(mut stream: Stream, connection: Arc<Connection>, by_alpn: bool, mut within: Within) -> Close {
    let config = &connection.service.config;
    if by_alpn {
        within.now(State::Http2);
        return Box::pin(h2::serve(Prefixed { read: BytesMut::new(), stream }, connection)).await;
    }
    let mut read = BytesMut::new();
    let opened = Instant::now();
    // Over TLS ALPN has told; without it HTTP/2 is told by its preface, and over TLS only where there is nothing else.
    if config.http2 && (connection.context.is_none() || !config.http1) {
        let sniffed = {
            let mut phase = connection.service.lifecycle.subscribe();
            let sniffing = Box::pin(tokio::time::timeout(config.header_timeout, sniff(&mut stream, &mut read)));
            tokio::select! {
                biased;
                sniffed = sniffing => sniffed,
                () = out_of_patience(&mut phase, opened) => {
                    connection.trace.tell(|| Event::Draining {});
                    return Close::Shutdown;
                }
            }
        };
        match sniffed {
            Ok(Ok(true)) => {
                within.now(State::Http2);
                return Box::pin(h2::serve(Prefixed { read, stream }, connection)).await;
            }
            Ok(Err(_)) => return Close::Aborted,
            // HTTP/1, or too slow: there what came so far decides between a 408 and nothing.
            Ok(Ok(false)) | Err(_) => {}
        }
    }
    if !config.http1 {
        // Not a byte of HTTP/2, and nothing else is spoken.
        return if read.is_empty() { Close::Client } else { Close::Refused };
    }
    h1::serve::serve(stream, connection, within, read, opened).await
}

/// How an HTTP/2 client begins (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the preface is there or cannot be there any more.
async fn sniff(stream: &mut Stream, read: &mut BytesMut) -> std::io::Result<bool> {
    loop {
        let known = read.len().min(PREFACE.len());
        if read[..known] != PREFACE[..known] {
            return Ok(false);
        }
        if known == PREFACE.len() {
            return Ok(true);
        }
        if stream.read_some(|bytes| read.extend_from_slice(bytes)).await? == 0 {
            return Ok(false);
        }
    }
}

fn done_as(info: &ConnectionInfo, context: &Context) -> Event {
    Event::HandshakeDone {
        sni: info.sni.as_deref().map(cut),
        host: context.host().map(cut),
        version: info.tls_version,
        cipher: info.cipher,
        group: info.key_exchange,
        alpn: info.alpn.as_deref().map(cut),
        resumed: info.resumed,
        client_certificate: info.peer_certificate.is_some(),
    }
}

fn not_done(info: &ConnectionInfo, failure: HandshakeFailure, message: &str) -> Event {
    Event::HandshakeFailed { sni: info.sni.as_deref().map(cut), why: failure.label(), message: cut(message) }
}

fn handshake_failed(service: &Service, info: ConnectionInfo, error: &tls::HandshakeError) {
    service.metrics.handshake_failed(error.failure);
    let host = match &info.sni {
        Some(name) => format!(" for host {name:?}"),
        None if error.failure == HandshakeFailure::UnknownName => " for no host name".to_string(),
        None => String::new(),
    };
    service.observer.report(Report {
        stage: Stage::Handshake,
        reason: error.failure.label(),
        message: format!("TLS handshake with {}{host} on {} failed: {}", info.peer, info.local, error.message),
        status: None,
        connection: Some(Arc::new(info)),
    });
}
