//! What a connection can do: the one list of it. The binding, the text form and the documentation are made from it.

/// Something that an event says, besides where and when.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// There is none.
    Nothing,
    /// Yes or no.
    Flag(bool),
    /// A count, a status, a code.
    Number(u64),
    /// A time.
    Seconds(f64),
    /// Words.
    Text(Box<str>),
}

/// Longer texts of a peer are cut: what is queued is bounded by number, and a target alone may have 64 KiB.
const MOST_TEXT: usize = 256;

/// A text of a peer, as much as a trace has of it.
pub(crate) fn cut(text: &str) -> Box<str> {
    if text.len() <= MOST_TEXT {
        return text.into();
    }
    let mut end = MOST_TEXT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

macro_rules! values {
    ($($type:ty => |$value:ident| $made:expr;)+) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        })+
    };
}

values! {
    bool => |value| Value::Flag(value);
    u16 => |value| Value::Number(value.into());
    u32 => |value| Value::Number(value.into());
    u64 => |value| Value::Number(value);
    f64 => |value| Value::Seconds(value);
    &'static str => |value| Value::Text(value.into());
    Box<str> => |value| Value::Text(value);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Nothing, Into::into)
    }
}

/// Declares [`Event`], the names under which its variants and their fields are told, and [`EVENTS`], which documents them.
macro_rules! events {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident $name:literal { $( $(#[doc = $field_doc:literal])+ $field:ident: $type:ty, )* }
    )+) => {
        /// One step of a connection, or of a request on it.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Event {
            $( $(#[doc = $doc])+ $variant { $( $(#[doc = $field_doc])+ $field: $type, )* }, )+
        }

        /// Every event: its name, what it means, and the same of each of its details.
        pub const EVENTS: &[(&str, &str, &[(&str, &str)])] = &[
            $( ($name, concat!($($doc),+), &[ $( (stringify!($field), concat!($($field_doc),+)), )* ]), )+
        ];

        impl Event {
            /// What it is called.
            pub fn name(&self) -> &'static str {
                match self { $( Event::$variant { .. } => $name, )+ }
            }

            /// What it says, in the order of [`EVENTS`].
            pub fn details(self) -> Vec<(&'static str, Value)> {
                match self {
                    $( Event::$variant { $($field),* } => vec![ $( (stringify!($field), Value::from($field)), )* ], )+
                }
            }
        }
    };
}

events! {
    /// A connection was accepted.
    Accepted "accepted" {
        /// the client's end
        peer: Box<str>,
        /// this end
        local: Box<str>,
        /// whether it begins with a TLS handshake
        tls: bool,
    }
    /// A connection was closed as soon as it was accepted. It has no number.
    TurnedAway "turned_away" {
        /// the client's end
        peer: Box<str>,
        /// this end
        local: Box<str>,
        /// the label under which `stats()` counts it
        why: &'static str,
    }
    /// A proxy has said, by the PROXY protocol, for whom it connects.
    Proxied "proxied" {
        /// the version of its header, 1 or 2
        version: u16,
        /// the client's address; none where the proxy connects for itself, or does not tell
        client: Option<Box<str>>,
        /// the address that the client connected to
        server: Option<Box<str>>,
    }
    /// The TLS handshake is waited for.
    HandshakeBegun "handshake_begun" {}
    /// The TLS handshake is done.
    HandshakeDone "handshake_done" {
        /// the host name that the client asked for
        sni: Option<Box<str>>,
        /// the host whose certificate it got, none for the default
        host: Option<Box<str>>,
        /// `TLSv1.2` or `TLSv1.3`
        version: Option<&'static str>,
        /// the cipher suite
        cipher: Option<&'static str>,
        /// the key exchange group
        group: Option<&'static str>,
        /// the protocol that was agreed by ALPN
        alpn: Option<Box<str>>,
        /// whether an earlier session was taken up again
        resumed: bool,
        /// whether the client has shown a certificate
        client_certificate: bool,
    }
    /// The TLS handshake failed.
    HandshakeFailed "handshake_failed" {
        /// the host name that the client asked for, where it got so far
        sni: Option<Box<str>>,
        /// the label under which `stats()` counts it
        why: &'static str,
        /// what was wrong, for people
        message: Box<str>,
    }
    /// What is spoken on the connection is known.
    Protocol "protocol" {
        /// `http/1`, `http/2` or `stream`
        name: &'static str,
    }
    /// The head of a request was read.
    Request "request" {
        /// the method
        method: Box<str>,
        /// the target, as it came
        target: Box<str>,
        /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`
        version: &'static str,
        /// the host that it is for
        host: Box<str>,
    }
    /// The request has a body.
    BodyBegun "body_begun" {
        /// how many bytes were announced, where they were
        length: Option<u64>,
    }
    /// All of the request's body was read.
    BodyEnded "body_ended" {
        /// its bytes, as they came
        bytes: u64,
    }
    /// The server itself refuses a request, or to read on in its body.
    Refused "refused" {
        /// the label under which `stats()` counts it
        why: &'static str,
        /// the status that answers it
        status: u16,
        /// what was wrong, for people
        message: Box<str>,
    }
    /// A handler begins.
    HandlerBegun "handler_begun" {
        /// where it runs: `inline`, `threads`, `stream_threads`, `asyncio`, or `core` where no Python is called
        place: &'static str,
        /// how long it waited for its turn, in seconds
        waited: f64,
    }
    /// A handler has given its answer, of which the body may still be made.
    HandlerAnswered "handler_answered" {
        /// the status
        status: u16,
        /// how long it took, in seconds, without its wait
        took: f64,
    }
    /// The head of a response was written.
    Response "response" {
        /// the status
        status: u16,
        /// the length of the body, where it is known
        length: Option<u64>,
    }
    /// The exchange is over.
    RequestEnded "request_ended" {
        /// the status, where there was a response
        status: Option<u16>,
        /// bytes of the request's body that came, as they came; none where a handler still has it when its connection is gone
        received: Option<u64>,
        /// bytes of the response's body that were sent, as they went; none like `received`
        sent: Option<u64>,
        /// `whole`, `aborted` (by the client), `write_timeout`, `handler` (its body broke off), `refused`, or `shutdown`
        outcome: &'static str,
    }
    /// A stream of HTTP/2 was reset.
    Reset "reset" {
        /// `client` or `server`
        by: &'static str,
        /// the error code (RFC 9113 section 7)
        code: &'static str,
    }
    /// An HTTP/2 connection takes no more streams.
    Goaway "goaway" {
        /// `client` or `server`
        by: &'static str,
        /// the error code (RFC 9113 section 7)
        code: &'static str,
        /// the last stream that is looked at
        last: u32,
    }
    /// The request has become a WebSocket.
    WebsocketBegun "websocket_begun" {
        /// the subprotocol
        subprotocol: Option<Box<str>>,
        /// whether messages may be compressed
        compression: bool,
    }
    /// A WebSocket has ended.
    WebsocketClosed "websocket_closed" {
        /// the close code (RFC 6455 section 7.4); 1006 where no close frame came
        code: u16,
        /// the reason that was given with it
        reason: Box<str>,
        /// what went wrong, where that is how it ended
        failure: Option<Box<str>>,
    }
    /// The client was waited for too long.
    TimedOut "timed_out" {
        /// the setting that says how long
        setting: &'static str,
    }
    /// The server ends, and the connection heeds it.
    Draining "draining" {}
    /// The connection is over. Nothing of it follows.
    Closed "closed" {
        /// the label under which `stats()` counts it: one of `connections_closed`, or of `connections_turned_away` after a bad PROXY
        /// header; `handshake` where that failed
        why: &'static str,
        /// bytes that a stream's callback was given to read; none for HTTP
        received: Option<u64>,
        /// bytes that a stream's callback has written, as far as they were sent; none for HTTP
        sent: Option<u64>,
    }
    /// Records that came faster than they were taken are missing here, of any connection.
    Dropped "dropped" {
        /// how many
        records: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_have_the_names_that_are_documented() {
        let event = Event::Response { status: 204, length: None };
        assert_eq!(event.name(), "response");
        assert_eq!(event.details(), [("status", Value::Number(204)), ("length", Value::Nothing)]);
        let (_, _, details) = EVENTS.iter().find(|(name, ..)| *name == "response").unwrap();
        assert_eq!(details.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["status", "length"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(&*cut("short"), "short");
        let text = cut(&"é".repeat(1_000));
        assert!(text.len() <= MOST_TEXT + '…'.len_utf8() && text.ends_with("é…"), "{text}");
        assert!(cut(&format!("a{}", "é".repeat(1_000))).ends_with("é…"));
    }
}
