//! HTTP/2 (RFC 9113) by the h2 crate, with this server's limits and time-outs around it.
//!
//! One task drives a connection and begins the requests that it reads. A request without a body has no task of its own, nor
//! has an answer that the client's windows have room for: its handler's [`crate::Reply`] ends in the stream itself.

mod activity;
mod credit;
mod exchange;
mod frames;
mod read;
mod respond;
mod tunnel;
mod upload;
mod watched;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use exchange::Exchange;

use self::activity::{Activity, Verdict};
use self::exchange::Sending;
use self::watched::{Seen, Watched};
use crate::config::Config;
use crate::connection::Connection;
use crate::metrics::Close;
use crate::shutdown::{draining, out_of_patience};
use crate::stream::Prefixed;
use crate::trace::Event;

/// Streams that one client may have open at once (RFC 9113 section 5.1.2 recommends no fewer than 100).
const MAX_STREAMS: u32 = 128;
/// How much of one request's body may be under way.
const STREAM_WINDOW: u32 = 256 * 1024;
/// RFC 9113 section 6.9.1; h2 panics beyond.
const LARGEST_WINDOW: u32 = u32::MAX >> 1;
/// How much of one response h2 takes before the client does.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a client opened and reset before they were looked at: Rapid Reset, CVE-2023-44487.
const MAX_PENDING_RESETS: usize = 20;
/// Resets, also refused streams, that a client provoked by sending nonsense: MadeYouReset, CVE-2025-8671.
const MAX_PROVOKED_RESETS: usize = 100;

/// Requests of one connection that handlers may have. Those that were reset do not count as open streams, but their handlers
/// go on: without a bound one client could fill `max_in_flight`.
const MAX_UNANSWERED: usize = 2 * MAX_STREAMS as usize;
/// Headers that the requests of one connection may hold, decoded, or the headers of one request where more is allowed. With
/// HPACK a few bytes become many, and without a bound 128 streams of them would be 8 MiB.
const MAX_HEADERS_HELD: usize = 2 * 1024 * 1024;
/// Requests that one connection begins before others get a turn, and for how long it begins them, where each is much work.
const ACCEPT_TURN: usize = 32;
const ACCEPT_TIME: Duration = Duration::from_millis(1);

/// What the streams of one connection share.
struct Shared {
    connection: Arc<Connection>,
    activity: Activity,
    /// Responses that need a task, on their way to the loop on which the connection lives. At most one for each stream.
    sending: mpsc::UnboundedSender<Sending>,
}

impl Shared {
    fn take_up(&self, sending: Sending) {
        // An error means that the connection is gone.
        let _ = self.sending.send(sending);
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(stream: Prefixed, connection: Arc<Connection>) -> Close {
    let config = connection.service.config.clone();
    let mut phase = connection.service.lifecycle.subscribe();
    let began = Instant::now();
    let (stream, seen) = Watched::new(stream, began.into_std(), &connection.trace);
    connection.trace.tell(|| Event::Protocol { name: "http/2" });
    let opening = tokio::time::timeout(config.header_timeout, builder(&config).handshake(stream));
    let mut wire = tokio::select! {
        biased;
        opened = Box::pin(opening) => match opened {
            Ok(Ok(wire)) => wire,
            Ok(Err(_)) => return Close::Aborted,
            Err(_) => {
                connection.trace.tell(|| Event::TimedOut { setting: "header_timeout" });
                return Close::Idle;
            }
        },
        () = out_of_patience(&mut phase, began.into_std()) => {
            connection.trace.tell(|| Event::Draining {});
            return Close::Shutdown;
        }
    };
    let (sending, mut to_send) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared { connection, activity: Activity::new(began, seen.clone()), sending });
    let (activity, trace) = (&shared.activity, &shared.connection.trace);
    let mut told = None;
    loop {
        tokio::select! {
            biased;
            end = poll_fn(|cx| accept(&mut wire, &shared, &seen, cx)) => match end {
                Some(end) => return told.unwrap_or(end),
                None => give_way().await,
            },
            Some(sending) = to_send.recv() => drop(tokio::spawn(sending.run())),
            _ = draining(&mut phase), if told.is_none() => {
                told = Some(Close::Shutdown);
                trace.tell(|| Event::Draining {});
                activity.told();
                wire.graceful_shutdown();
            }
            () = tokio::time::sleep_until(activity.next_look(&config, told.is_some())) => {
                match activity.verdict(&config, told.is_some()) {
                    Verdict::Fine => {}
                    Verdict::Stalled => {
                        trace.tell(|| Event::TimedOut { setting: "write_timeout" });
                        return Close::WriteTimeout;
                    }
                    Verdict::Slow if told == Some(Close::Idle) => return Close::Idle,
                    Verdict::Slow => {
                        trace.tell(|| Event::TimedOut { setting: "header_timeout" });
                        told = Some(Close::Idle);
                        activity.told();
                        wire.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    }
                    Verdict::Idle => {
                        // The first time it is told with GOAWAY. The second time it did not go.
                        if let Some(close) = told {
                            return close;
                        }
                        trace.tell(|| Event::TimedOut { setting: activity.idle_setting() });
                        told = Some(Close::Idle);
                        activity.told();
                        wire.graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// To the end of the line, behind what other connections have received meanwhile.
///
/// Twice: answers that were given within the turn have woken this task already, which ends the first at once, and tokio asks
/// the kernel for what others have received when nothing is left to do, or every 61 tasks, which were 30 ms of cookie crumbs.
async fn give_way() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

/// Reads and writes, and begins every request that comes, until the connection ends; none when others are to have a turn.
fn accept(
    wire: &mut server::Connection<Watched, Bytes>,
    shared: &Arc<Shared>,
    seen: &Seen,
    cx: &mut Context<'_>,
) -> Poll<Option<Close>> {
    let began = std::time::Instant::now();
    // Close enough for each request: what came before it was begun in less than `ACCEPT_TIME`.
    let mut now = began;
    for _ in 0..ACCEPT_TURN {
        let polled = wire.poll_accept(cx);
        if seen.is_flooded() {
            // Nothing more is read. What is done is said, and then it ends.
            wire.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            while let Some(Ok(_)) = ready!(wire.poll_accept(cx)) {}
            return Poll::Ready(Some(Close::Aborted));
        }
        if polled.is_pending() && seen.next_turn() {
            // There is more to read, and others have waited.
            break;
        }
        match ready!(polled) {
            Some(Ok((request, respond))) => {
                Exchange::begin(shared, request, respond, now);
                if shared.activity.streams() > MAX_UNANSWERED {
                    wire.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                now = std::time::Instant::now();
                if now - began >= ACCEPT_TIME {
                    break;
                }
            }
            Some(Err(_)) => return Poll::Ready(Some(Close::Aborted)),
            None => return Poll::Ready(Some(Close::Client)),
        }
    }
    Poll::Ready(None)
}

fn builder(config: &Config) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_PROVOKED_RESETS))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(
            u32::try_from(config.max_read_buffer_size).unwrap_or(LARGEST_WINDOW).min(LARGEST_WINDOW),
        )
        .max_send_buffer_size(SEND_BUFFER);
    if config.websocket {
        builder.enable_connect_protocol();
    }
    builder
}
