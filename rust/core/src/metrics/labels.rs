//! Why connections, handshakes and admissions end as they do: the labels under which they are counted.

use crate::error::Refusal;
use crate::record::Outcome;

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

pub(super) const CLOSES: [(&str, Close); 7] = [
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

pub(super) const HANDSHAKE_FAILURES: [(&str, HandshakeFailure); 9] = [
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
    /// The PROXY protocol is asked for, and who connected is not one of `trusted_proxies`.
    UntrustedProxy,
    /// No header of the PROXY protocol, or a malformed one.
    ProxyHeader,
    /// The header was not here within `header_timeout`.
    ProxyTimeout,
    /// The connection ended before it was.
    ProxyLeft,
    /// The server was closed before it was.
    Shutdown,
}

pub(super) const TURNED: [(&str, Turned); 7] = [
    ("max_connections", Turned::MaxConnections),
    ("max_connections_per_ip", Turned::MaxConnectionsPerIp),
    ("untrusted_proxy", Turned::UntrustedProxy),
    ("proxy_header", Turned::ProxyHeader),
    ("proxy_timeout", Turned::ProxyTimeout),
    ("proxy_left", Turned::ProxyLeft),
    ("shutdown", Turned::Shutdown),
];

impl Turned {
    pub(crate) fn label(self) -> &'static str {
        TURNED[self as usize].0
    }
}

/// What a connection is about now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum State {
    /// Its handshake is under way.
    Handshake,
    /// It speaks HTTP/1, and a request is under way.
    Http1,
    /// It speaks HTTP/1 and waits for a request.
    Http1Idle,
    /// It speaks HTTP/2.
    Http2,
    /// A callback has it.
    Stream,
}

pub(super) const STATES: [(&str, State); 5] = [
    ("handshake", State::Handshake),
    ("http1", State::Http1),
    ("http1_idle", State::Http1Idle),
    ("http2", State::Http2),
    ("stream", State::Stream),
];

/// How requests end, in the order in which they are counted; the words are those of [`Outcome::label`].
pub(super) const OUTCOMES: [Outcome; 6] = [
    Outcome::Whole,
    Outcome::Aborted,
    Outcome::WriteTimeout,
    Outcome::Handler,
    Outcome::Refused(Refusal::RequestLine),
    Outcome::Shutdown,
];

/// The place of an outcome among those.
pub(super) fn place_of(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Whole => 0,
        Outcome::Aborted => 1,
        Outcome::WriteTimeout => 2,
        Outcome::Handler => 3,
        Outcome::Refused(_) => 4,
        Outcome::Shutdown => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_their_index() {
        assert!(TURNED.iter().enumerate().all(|(index, (_, why))| *why as usize == index));
        assert!(CLOSES.iter().enumerate().all(|(index, (_, close))| *close as usize == index));
        assert!(OUTCOMES.iter().enumerate().all(|(index, outcome)| place_of(*outcome) == index));
        assert!(STATES.iter().enumerate().all(|(index, (_, state))| *state as usize == index));
        assert!(HANDSHAKE_FAILURES.iter().enumerate().all(|(index, (_, why))| *why as usize == index));
    }
}
