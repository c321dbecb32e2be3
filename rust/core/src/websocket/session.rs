//! What a socket's task and its callback share, and the callback's end of it.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use super::Options;
use super::close::Close;
use super::deflate::Deflate;
use super::handshake::Handshake;
use super::machine::{self, Kind, MAX_CONTROL};
use crate::connection::Connection;
use crate::http::{Request, Response};
use crate::locks::Mutex;
use crate::metrics::Metrics;
use crate::raw::{self, Operation, Pipe, StreamError, Timeout, What};
use crate::server::Server;
use crate::trace::{Event, Trace, cut};

/// What is sent goes through the pipe, whole frame by whole frame; the lock sees to it that nothing follows a close frame.
pub(super) struct Session {
    pub(super) pipe: Arc<Pipe>,
    pub(super) metrics: Arc<Metrics>,
    /// How messages are compressed, where they may be.
    pub(super) deflate: Option<Deflate>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A close frame was written.
    said: bool,
    /// How it ended, for the callback: the client's code, or the one that this end has given before it.
    close: Option<Close>,
    /// What went wrong, where that is how it ended.
    failure: Option<String>,
    /// Bytes that were given to the pipe.
    written: u64,
    /// How many those were at the end of the last message.
    messages_end: u64,
}

impl State {
    fn write<const N: usize>(&mut self, pipe: &Pipe, frame: [Bytes; N]) -> Result<(), StreamError> {
        let length = frame.iter().map(|part| part.len() as u64).sum::<u64>();
        pipe.write(frame)?;
        self.written += length;
        Ok(())
    }
}

impl Session {
    /// Says goodbye, once, as it has [`Session::ended`]. Nothing is sent after it.
    pub(super) fn say_close(&self) {
        let mut state = self.state.lock();
        if let Some(close) = state.close.clone().filter(|_| !state.said) {
            state.said = true;
            // An error means that nobody hears it any more.
            let _ = self.pipe.write([machine::close(&close)]);
            self.pipe.order(|orders| orders.eof = true);
        }
    }

    /// Notes how it ended; what was first counts.
    pub(super) fn ended(&self, close: Close, failure: Option<String>) {
        let mut state = self.state.lock();
        if state.close.is_none() {
            state.close = Some(close);
            state.failure = failure;
        }
    }

    /// How it ended, for a trace.
    pub(super) fn told(&self) -> Event {
        let state = self.state.lock();
        Event::WebsocketClosed {
            code: state.close.as_ref().map_or(Close::ABNORMAL, |close| close.code),
            reason: state.close.as_ref().map(|close| cut(&close.reason)).unwrap_or_default(),
            failure: state.failure.as_deref().map(cut),
        }
    }

    /// Sends something that is no message.
    pub(super) fn control(&self, frame: Bytes) -> Result<(), StreamError> {
        let mut state = self.state.lock();
        if state.said {
            return Err(StreamError::Closed("the WebSocket is closed"));
        }
        state.write(&self.pipe, [frame])
    }

    /// Whether there is some of a message in what follows so many bytes that were sent: pings and pongs are none.
    pub(super) fn has_message_after(&self, sent: u64) -> bool {
        sent < self.state.lock().messages_end
    }

    fn send(&self, kind: Kind, payload: Bytes) -> Result<(), StreamError> {
        // On the thread of the callback, and before the lock, for which the connection's event loop waits.
        let coded = self.deflate.and_then(|deflate| deflate.shrink(&payload));
        let is_coded = coded.is_some();
        let payload = coded.unwrap_or(payload);
        let mut state = self.state.lock();
        if state.said || self.pipe.orders().heard {
            return Err(StreamError::Closed("the WebSocket is closed"));
        }
        state.write(&self.pipe, machine::message(kind, payload, is_coded))?;
        state.messages_end = state.written;
        self.metrics.websocket_messages_sent.add();
        Ok(())
    }
}

/// What a connection goes on with after a response: the task's end of a socket. Dropped instead, it fails the socket.
pub struct Upgrade {
    pub(super) session: Arc<Session>,
    pub(super) options: Options,
    /// What is spoken, for those who want to know.
    pub(super) subprotocol: Option<Box<str>>,
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrade").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        // Within a task this comes too late to change anything.
        self.session.ended(Close::new(Close::ABNORMAL, ""), Some("it never began: its response was not sent".into()));
        self.session.pipe.fail(StreamError::ServerEnded);
    }
}

/// The callback's end of a WebSocket. Dropped without [`Socket::close`], it says that the handler failed.
///
/// Messages may be read and sent at the same time, on different threads.
pub struct Socket {
    session: Arc<Session>,
    connection: Arc<raw::Connection>,
}

impl Socket {
    /// Makes a WebSocket of a request: its response, which has to be sent, and the end that the callback gets.
    ///
    /// # Errors
    /// The name of the protocol cannot stand in a header.
    pub fn open(
        server: &Server,
        request: &Request,
        handshake: &Handshake,
        subprotocol: Option<&str>,
        options: Options,
    ) -> Result<(Response, Self), StreamError> {
        let named = subprotocol.map(HeaderValue::from_str).transpose();
        let named = named.map_err(|_| StreamError::Misuse("subprotocol: it cannot stand in a header"))?;
        let service = server.service();
        let info = request.connection.clone().ok_or(StreamError::Misuse("the request came on no connection"))?;
        let pipe = Arc::new(Pipe::new(service.config.max_read_buffer_size));
        let metrics = service.metrics.clone();
        let connection =
            Arc::new(Connection { info, service: service.clone(), context: None, trace: Trace::default() });
        let deflate = handshake.deflate(&options);
        let session = Arc::new(Session { pipe: pipe.clone(), metrics, deflate, state: Mutex::default() });
        let mut response = handshake.response(named, deflate);
        response.upgrade =
            Some(Box::new(Upgrade { session: session.clone(), options, subprotocol: subprotocol.map(Into::into) }));
        Ok((response, Socket { session, connection: Arc::new(raw::Connection::new(pipe, connection)) }))
    }

    /// The connection beneath: who is connected, and what its callback has to tell.
    pub fn connection(&self) -> &Arc<raw::Connection> {
        &self.connection
    }

    /// The next message; none at the end.
    pub fn receive(&self, timeout: Timeout) -> Operation {
        Operation::new(self.connection.clone(), What::Message, timeout)
    }

    /// Sends a message. Done when little enough has not been sent, so that whoever sends much is held up.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    pub fn send(&self, kind: Kind, payload: Bytes) -> Result<Operation, StreamError> {
        self.session.send(kind, payload)?;
        Ok(self.written())
    }

    /// Asks the client for a pong.
    ///
    /// # Errors
    /// More than 125 bytes; nothing can be sent any more.
    pub fn ping(&self, payload: &[u8]) -> Result<Operation, StreamError> {
        if payload.len() > MAX_CONTROL {
            return Err(StreamError::Misuse("a ping has 125 bytes at most (RFC 6455 section 5.5)"));
        }
        self.session.control(machine::ping(payload))?;
        Ok(self.written())
    }

    fn written(&self) -> Operation {
        Operation::new(self.connection.clone(), What::Written, Timeout::Is(None))
    }

    /// Ends it: what was sent goes out, then the close frame; nothing more is read. Returns at once.
    pub fn close(&self, close: Close) {
        self.session.ended(close, None);
        self.session.say_close();
        self.connection.close();
    }

    /// How it ended: code and reason, and what went wrong where that is how. None while it goes on.
    pub fn ended(&self) -> Option<(Close, Option<String>)> {
        let state = self.session.state.lock();
        state.close.clone().map(|close| (close, state.failure.clone()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close(Close::new(Close::FAILED, ""));
    }
}
