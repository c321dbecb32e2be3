//! What a server counts, and the one list of it: [`Metrics::stats`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::Version;

use crate::error::Refusal;
use crate::record::Finished;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Close {
    /// The client ended it between requests.
    Client,
    /// The server ended it: the response or the protocol said so.
    Server,
    /// The client vanished or was cut off within a request or response.
    Aborted,
    /// Idle for `keepalive_timeout`, or for `header_timeout` before its first request.
    Idle,
    /// The client took none of a response for `write_timeout`.
    WriteTimeout,
    /// A request was refused and the connection with it.
    Refused,
    /// The server was closed.
    Shutdown,
}

impl Close {
    pub(crate) fn label(self) -> &'static str {
        CLOSES[self as usize].0
    }
}

const CLOSES: [(&str, Close); 7] = [
    ("client", Close::Client),
    ("server", Close::Server),
    ("aborted", Close::Aborted),
    ("idle", Close::Idle),
    ("write_timeout", Close::WriteTimeout),
    ("refused", Close::Refused),
    ("shutdown", Close::Shutdown),
];

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum HandshakeFailure {
    /// `handshake_timeout` passed.
    Timeout,
    /// The client left.
    Left,
    /// No certificate for the name it asked for, and no default.
    UnknownName,
    /// What it sent is not TLS.
    NotTls,
    /// No version, cipher suite, key exchange or ALPN protocol was in common.
    Incompatible,
    /// It broke the rules of TLS.
    Protocol,
    /// Its certificate is missing, revoked or not trusted.
    ClientCertificate,
    /// The client refused, as one does that does not trust the certificate.
    ClientAlert,
    /// The server was closed.
    Shutdown,
}

const HANDSHAKE_FAILURES: [(&str, HandshakeFailure); 9] = [
    ("timeout", HandshakeFailure::Timeout),
    ("left", HandshakeFailure::Left),
    ("unknown_name", HandshakeFailure::UnknownName),
    ("not_tls", HandshakeFailure::NotTls),
    ("incompatible", HandshakeFailure::Incompatible),
    ("protocol", HandshakeFailure::Protocol),
    ("client_certificate", HandshakeFailure::ClientCertificate),
    ("client_alert", HandshakeFailure::ClientAlert),
    ("shutdown", HandshakeFailure::Shutdown),
];

impl HandshakeFailure {
    pub(crate) fn label(self) -> &'static str {
        HANDSHAKE_FAILURES[self as usize].0
    }
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Turned {
    /// `max_connections` were open.
    MaxConnections,
    /// `max_connections_per_ip` were open from its address.
    MaxConnectionsPerIp,
}

const TURNED: [(&str, Turned); 2] =
    [("max_connections", Turned::MaxConnections), ("max_connections_per_ip", Turned::MaxConnectionsPerIp)];

impl Turned {
    pub(crate) fn label(self) -> &'static str {
        TURNED[self as usize].0
    }
}

const VERSIONS: [(&str, Version); 3] = [("1.0", Version::HTTP_10), ("1.1", Version::HTTP_11), ("2", Version::HTTP_2)];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter, or the current number of something.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts one more, and says how many that makes.
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_open: Counter,
    turned: [Counter; TURNED.len()],
    closed: [Counter; CLOSES.len()],
    pub(crate) accept_errors: Counter,
    pub(crate) handshakes: Counter,
    handshake_failures: [Counter; HANDSHAKE_FAILURES.len()],
    requests: [Counter; VERSIONS.len()],
    pub(crate) requests_in_flight: Counter,
    pub(crate) requests_aborted: Counter,
    responses: [Counter; CLASSES.len()],
    refusals: [Counter; Refusal::ALL.len()],
    pub(crate) handler_failures: Counter,
    pub(crate) loop_takeovers: Counter,
    pub(crate) websockets: Counter,
    pub(crate) websockets_open: Counter,
    pub(crate) websocket_messages_received: Counter,
    pub(crate) websocket_messages_sent: Counter,
}

/// One entry of `stats()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stat {
    /// A number.
    Number(u64),
    /// A number for each label.
    Labelled(Vec<(&'static str, u64)>),
}

impl Metrics {
    pub(crate) fn turned(&self, why: Turned) {
        self.turned[why as usize].add();
    }

    pub(crate) fn closed(&self, why: Close) {
        self.closed[why as usize].add();
    }

    pub(crate) fn handshake_failed(&self, why: HandshakeFailure) {
        self.handshake_failures[why as usize].add();
    }

    pub(crate) fn request(&self, version: Version) {
        if let Some(at) = VERSIONS.iter().position(|(_, known)| *known == version) {
            self.requests[at].add();
        }
    }

    pub(crate) fn response(&self, status: http::StatusCode) {
        if let Some(counter) = self.responses_like(status) {
            counter.add();
        }
    }

    /// Takes back what [`Metrics::response`] counted too early.
    pub(crate) fn no_response(&self, status: http::StatusCode) {
        if let Some(counter) = self.responses_like(status) {
            counter.remove();
        }
    }

    fn responses_like(&self, status: http::StatusCode) -> Option<&Counter> {
        self.responses.get(usize::from(status.as_u16() / 100).wrapping_sub(1))
    }

    pub(crate) fn refused(&self, why: Refusal) {
        self.refusals[why as usize].add();
    }

    /// A request has ended.
    #[expect(clippy::unused_self, reason = "histograms are to come")]
    pub(crate) fn finished(&self, _finished: &Finished<'_>) {}

    /// Every counter with its name and what it counts, in the order of the documentation.
    pub(crate) fn stats(&self) -> Vec<(&'static str, &'static str, Stat)> {
        let number = |counter: &Counter| Stat::Number(counter.get());
        let labelled = |labels: &mut dyn Iterator<Item = &'static str>, counters: &[Counter]| {
            Stat::Labelled(labels.zip(counters).map(|(label, counter)| (label, counter.get())).collect())
        };
        vec![
            ("connections_accepted", "connections let in since the start", number(&self.connections_accepted)),
            ("connections_open", "connections open now", number(&self.connections_open)),
            (
                "connections_turned_away",
                "connections closed as soon as they were accepted, by the limit that was reached",
                labelled(&mut TURNED.iter().map(|(label, _)| *label), &self.turned),
            ),
            (
                "connections_closed",
                "connections ended after their handshake, by why",
                labelled(&mut CLOSES.iter().map(|(label, _)| *label), &self.closed),
            ),
            (
                "accept_errors",
                "times the machine could not accept, as without free descriptors",
                number(&self.accept_errors),
            ),
            ("handshakes", "TLS handshakes completed", number(&self.handshakes)),
            (
                "handshakes_failed",
                "TLS handshakes that failed, by why",
                labelled(&mut HANDSHAKE_FAILURES.iter().map(|(label, _)| *label), &self.handshake_failures),
            ),
            (
                "requests",
                "requests read, by HTTP version",
                labelled(&mut VERSIONS.iter().map(|(label, _)| *label), &self.requests),
            ),
            (
                "requests_aborted",
                "requests that their client broke off before they were whole",
                number(&self.requests_aborted),
            ),
            ("requests_in_flight", "requests being answered now", number(&self.requests_in_flight)),
            ("responses", "responses begun, by class of status", labelled(&mut CLASSES.into_iter(), &self.responses)),
            (
                "requests_refused",
                "requests answered by the server itself with an error, by why",
                labelled(&mut Refusal::ALL.iter().map(|refusal| refusal.label()), &self.refusals),
            ),
            (
                "handler_failures",
                "handlers that raised or returned what is no response, bodies that broke off, and callbacks of streams that raised",
                number(&self.handler_failures),
            ),
            (
                "loop_takeovers",
                "times a handler held an event loop too long, and a spare thread took the loop over",
                number(&self.loop_takeovers),
            ),
            ("websockets", "WebSockets begun", number(&self.websockets)),
            ("websockets_open", "WebSockets open now", number(&self.websockets_open)),
            (
                "websocket_messages_received",
                "messages that WebSockets' clients have sent",
                number(&self.websocket_messages_received),
            ),
            (
                "websocket_messages_sent",
                "messages that were given to WebSockets to send",
                number(&self.websocket_messages_sent),
            ),
        ]
    }
}

/// Every key of [`crate::Server::stats`] with what it counts.
pub fn statistics() -> Vec<(&'static str, &'static str)> {
    Metrics::default().stats().into_iter().map(|(name, doc, _)| (name, doc)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_their_index() {
        assert!(TURNED.iter().enumerate().all(|(index, (_, why))| *why as usize == index));
        assert!(CLOSES.iter().enumerate().all(|(index, (_, close))| *close as usize == index));
        assert!(HANDSHAKE_FAILURES.iter().enumerate().all(|(index, (_, why))| *why as usize == index));
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.request(Version::HTTP_2);
        metrics.response(http::StatusCode::NOT_FOUND);
        metrics.refused(Refusal::Host);
        let shown = |name: &str, label: &str| {
            let stats = metrics.stats();
            let (_, _, stat) = stats.iter().find(|(known, ..)| *known == name).unwrap().clone();
            let Stat::Labelled(labels) = stat else { panic!("{name}") };
            labels.iter().find(|(known, _)| *known == label).unwrap().1
        };
        assert_eq!(shown("requests", "2"), 1);
        assert_eq!(shown("responses", "4xx"), 1);
        assert_eq!(shown("requests_refused", "host"), 1);
    }
}
