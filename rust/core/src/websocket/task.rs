//! The task of a WebSocket: it moves messages between the client and the pipe, answers pings, and sees to it that both ends
//! keep to the closing handshake and to their time.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::close::{Close as Goodbye, Violation};
use super::machine::{self, Event, Kind, Machine};
use super::session::Upgrade;
use super::wire::Wire;
use crate::connection::Connection;
use crate::error::{Report, Stage};
use crate::event_loops;
use crate::farewell::LINGER_IDLE;
use crate::http::pace::Pace;
use crate::metrics::Close;
use crate::raw::{End, Plan, StreamError};
use crate::shutdown::draining;
use crate::timer::Timer;
use crate::trace::{Event as Step, StreamTrace, cut};

/// How long a client that was told goodbye may take to say it too (RFC 6455 section 7.1.1).
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How long a goodbye of the client, or what it is told for a fault, waits for a callback that is busy with what came before.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// At the server's end: how long a message may be answered.
const ANSWERED: Duration = Duration::from_secs(5);
/// And how long an answer is held back at most, until its callback asks for the next message.
const HOLD: Duration = Duration::from_millis(10);

/// Serves a WebSocket to its end, and until its callback is done. `unread` came behind the request.
pub(crate) async fn serve<W: Wire>(
    wire: &mut W,
    connection: &Arc<Connection>,
    upgrade: Upgrade,
    unread: BytesMut,
) -> Close {
    let (metrics, now) = (&connection.service.metrics, Instant::now());
    metrics.websockets.add();
    metrics.websockets_open.add();
    let mut machine = Machine::new(upgrade.options.max_message_bytes, upgrade.session.deflate.is_some());
    machine.receive(&unread);
    drop(unread);
    let trace = connection.trace.of(wire.request());
    trace.tell(|| Step::WebsocketBegun {
        subprotocol: upgrade.subprotocol.as_deref().map(cut),
        compression: upgrade.session.deflate.is_some(),
    });
    let turn = connection.service.config.stream_timeout.and_then(|timeout| now.checked_add(timeout));
    let mut task = Task {
        wire,
        connection,
        upgrade,
        machine,
        pong: None,
        sending: Bytes::new(),
        sent: 0,
        unflushed: false,
        blocked: false,
        pace: Pace::begin(now),
        over: false,
        shut: false,
        reading: true,
        pauses: false,
        heard: now,
        pinged: false,
        active: now,
        waits_since: None,
        answer_by: None,
        turn,
        why: None,
        trace,
        began: now,
        begun: false,
        leaving: None,
        told: now,
    };
    let mut phase = connection.service.lifecycle.subscribe();
    let mut timer = Timer::new(now + connection.service.config.write_timeout);
    let mut told = false;
    loop {
        let due = task.due();
        let deadline = due.map_or(now, |(at, _)| at);
        tokio::select! {
            biased;
            done = poll_fn(|cx| task.poll(cx)) => if done { return task.why.unwrap_or(Close::Server) },
            () = timer.until(deadline), if due.is_some() => task.late(),
            drain = draining(&mut phase), if !told => {
                told = true;
                connection.trace.tell(|| Step::Draining {});
                task.leave(drain.map_or(Duration::ZERO, |drain| drain.patience));
            }
        }
    }
}

struct Task<'a, W> {
    wire: &'a mut W,
    connection: &'a Arc<Connection>,
    upgrade: Upgrade,
    machine: Machine,
    /// To be answered. The last one does for those before it (RFC 6455 section 5.5.3), so a client that sends pings and reads
    /// nothing makes no heap.
    pong: Option<Bytes>,
    /// Taken from the pipe and not sent yet.
    sending: Bytes,
    /// How many bytes were sent of what came from the pipe.
    sent: u64,
    /// Sent as far as TLS goes, which may hold some of it.
    unflushed: bool,
    /// Waiting for the client to take something.
    blocked: bool,
    pace: Pace,
    /// Nothing more is waited for from the client.
    over: bool,
    /// The client was told that nothing more comes.
    shut: bool,
    /// Whether there is room for what the client sends.
    reading: bool,
    /// Others on the event loop have their turn now.
    pauses: bool,
    /// When the client was heard last.
    heard: Instant,
    /// It has been asked whether it is there.
    pinged: bool,
    /// When there was a message last.
    active: Instant,
    /// Since when its goodbye is waited for.
    waits_since: Option<Instant>,
    /// Until when the client's goodbye, or its fault, is answered at the latest.
    answer_by: Option<Instant>,
    /// Until when the callback has to begin.
    turn: Option<Instant>,
    /// Why it ends, where that is known.
    why: Option<Close>,
    trace: StreamTrace<'a>,
    /// When the callback was called for.
    began: Instant,
    /// It has begun.
    begun: bool,
    /// There while it is to end, as soon as that breaks nothing off.
    leaving: Option<Leaving>,
    /// When a message of the client came last.
    told: Instant,
}

/// The end of a socket at the end of its server. The goodbye goes right behind an answer: a client that asks and waits has it
/// before it asks again. Said at any other moment it may cross a message, which nobody answers then.
struct Leaving {
    /// Until when a client that is quiet is waited for.
    by: Instant,
    /// A message has come since, and its answer has not left.
    asked: bool,
    held: Held,
}

/// Whether an answer is held back, so that the goodbye can go with it.
enum Held {
    No,
    Until(Instant),
    /// It was for long enough.
    Over,
}

/// What a time is over for.
#[derive(Clone, Copy)]
enum Due {
    Write,
    Goodbye,
    Answer,
    Ping,
    Pong,
    Idle,
    Turn,
    Leave,
    Held,
}

impl Due {
    /// The setting that says how long, where it is one that the client has kept waiting for.
    fn setting(self) -> Option<&'static str> {
        match self {
            Due::Write => Some("write_timeout"),
            Due::Pong => Some("ping_interval"),
            Due::Idle => Some("idle_timeout"),
            Due::Turn => Some("stream_timeout"),
            Due::Goodbye | Due::Answer | Due::Ping | Due::Leave | Due::Held => None,
        }
    }
}

impl<W: Wire> Task<'_, W> {
    /// Ready when what is waited for has changed; true where nothing is left to do.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let pipe = self.upgrade.session.pipe.clone();
        let mut waits = false;
        let orders = loop {
            if pipe.has_failed() {
                self.sending = Bytes::new();
                self.blocked = false;
                return if pipe.plan(false, cx.waker()).orders.closed { Poll::Ready(true) } else { Poll::Pending };
            }
            let may_send = self.sending.is_empty() && !self.holds();
            let Plan { piece, may_read, orders } = pipe.plan(may_send, cx.waker());
            if let Some(piece) = piece {
                self.sending = piece;
            }
            if let Some(place) = orders.begun.filter(|_| !std::mem::replace(&mut self.begun, true)) {
                let waited = self.began.elapsed().as_secs_f64();
                self.trace.tell(|| Step::HandlerBegun { place, waited });
            }
            if orders.heard && self.answer_by.take().is_some() {
                self.upgrade.session.say_close();
                continue;
            }
            // What comes after the last word is read for the client's, and thrown away.
            let may_read = may_read || orders.eof;
            if may_read && !self.reading {
                // Its time begins now.
                (self.heard, waits) = (Instant::now(), true);
            }
            self.reading = may_read;
            let was_over = self.over;
            let moved = self.poll_receive(cx, orders.eof).and_then(|received| Ok(self.poll_send(cx)? || received));
            waits |= self.over != was_over;
            match moved {
                Ok(true) if std::mem::take(&mut self.pauses) => {
                    event_loops::give_way(cx);
                    break orders;
                }
                Ok(true) => {}
                Ok(false) if self.leaves() => {}
                Ok(false) => break orders,
                Err(why) => self.lost(why, Close::Aborted),
            }
        };
        let sent = self.sending.is_empty() && !self.unflushed;
        if orders.eof && sent && !self.over && self.waits_since.is_none() {
            self.waits_since = Some(Instant::now());
            waits = true;
        }
        let shutting = orders.eof && sent && self.over && !self.shut;
        if shutting && self.wire.poll_shut_down(cx).is_ready() {
            // Whatever came of it: there is no more to be told.
            self.shut = true;
        }
        let blocked = !sent || (shutting && !self.shut);
        if self.shut && orders.closed {
            return Poll::Ready(true);
        }
        if blocked != self.blocked {
            // Its time begins now.
            (self.blocked, self.pace) = (blocked, Pace::begin(Instant::now()));
            waits = true;
        }
        if waits { Poll::Ready(false) } else { Poll::Pending }
    }

    /// Whether something came.
    fn poll_receive(&mut self, cx: &mut Context<'_>, said: bool) -> Result<bool, String> {
        if self.over || !self.reading {
            return Ok(false);
        }
        match self.machine.next_event() {
            Ok(Some(event)) => self.take(event, said),
            Err(violation) => self.violated(violation),
            Ok(None) => {
                let machine = &mut self.machine;
                match self.wire.poll_receive(cx, &mut |bytes| machine.receive(bytes)) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Ok(0)) if said => self.over = true,
                    Poll::Ready(Ok(0)) => return Err("the client's side ended without a close frame".into()),
                    Poll::Ready(Ok(_)) => (self.heard, self.pinged) = (Instant::now(), false),
                    Poll::Ready(Err(error)) => return Err(error.to_string()),
                }
            }
        }
        Ok(true)
    }

    fn take(&mut self, event: Event, said: bool) {
        let session = &self.upgrade.session;
        match event {
            Event::Message(kind, data) => {
                self.active = Instant::now();
                self.told = self.active;
                if let Some(leaving) = &mut self.leaving {
                    leaving.asked = true;
                }
                if !said {
                    session.metrics.websocket_messages_received.add();
                    session.pipe.receive_message(u8::from(kind == Kind::Binary), &data);
                }
            }
            Event::Ping(data) => self.pong = Some(data).filter(|_| !said),
            Event::Pong(_) => {}
            Event::Pause => self.pauses = true,
            Event::Close(close) => {
                self.over = true;
                self.answer_by = Some(Instant::now() + ANSWER_WAIT).filter(|_| !said);
                self.end(close, Close::Client);
            }
        }
    }

    fn violated(&mut self, Violation { code, text }: Violation) {
        self.over = true;
        let close = Goodbye::new(code, text.clone());
        self.upgrade.session.ended(close, Some(format!("the client was sent code {code}: {text}")));
        // What was right is answered before: the callback hears of the end behind it.
        self.answer_by = Some(Instant::now() + ANSWER_WAIT);
        self.upgrade.session.pipe.receive_end(End::Truncated);
        self.why.get_or_insert(Close::Refused);
    }

    /// Ends it in order, by a goodbye of either side. That of the client is answered when the callback has heard it, so that
    /// what it says to the messages before it gets there (RFC 6455 section 5.5.1).
    fn end(&mut self, close: Goodbye, why: Close) {
        let session = &self.upgrade.session;
        session.ended(close, None);
        if why != Close::Client {
            session.say_close();
        }
        session.pipe.receive_end(End::Orderly);
        self.why.get_or_insert(why);
    }

    /// The server ends: so will this, when the client has its answers, or has asked nothing for so long.
    fn leave(&mut self, patience: Duration) {
        self.upgrade.session.pipe.leave();
        // An answer that is being made may be on its way already, and so may what the client sends upon it.
        self.leaving = Some(Leaving { by: Instant::now() + patience, asked: false, held: Held::No });
    }

    /// Whether the callback waits for a message, and none is on its way as far as can be seen from here.
    fn is_quiet(&self) -> bool {
        self.machine.is_between_messages() && self.upgrade.session.pipe.is_awaited()
    }

    /// Until when it may go on at most.
    fn leaves_by(&self, leaving: &Leaving) -> Instant {
        match self.is_quiet() {
            // What was asked is answered.
            true if leaving.asked => self.told,
            true => leaving.by,
            // A callback that has long been told nothing sends what it sends, and does not answer.
            false if self.machine.is_between_messages() => leaving.by.max(self.told + ANSWERED),
            false => leaving.by + ANSWERED,
        }
    }

    /// Says goodbye where the time has come. Whether it did.
    fn leaves(&mut self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let goes_on = !self.over && !self.upgrade.session.pipe.orders().eof;
        if goes_on && Instant::now() < self.leaves_by(leaving) {
            return false;
        }
        self.leaving = None;
        if goes_on {
            self.end(Goodbye::new(Goodbye::GOING_AWAY, "the server ends"), Close::Shutdown);
        }
        true
    }

    /// Whether what was written waits for the goodbye that may follow.
    fn holds(&mut self) -> bool {
        let pipe = &self.upgrade.session.pipe;
        let last = |leaving: &&mut Leaving| leaving.asked || Instant::now() >= leaving.by;
        let Some(leaving) = self.leaving.as_mut().filter(last) else { return false };
        if !pipe.has_little() {
            leaving.held = Held::No;
        } else if let Held::No = leaving.held {
            leaving.held = Held::Until(Instant::now() + HOLD);
        }
        matches!(leaving.held, Held::Until(_))
    }

    /// Whether something was sent, or may be next.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        let session = &self.upgrade.session;
        if self.pong.is_some() && session.pipe.has_room() {
            if let Some(payload) = self.pong.take() {
                // After the last word there are no pongs.
                let _ = session.control(machine::pong(&payload));
            }
            return Ok(true);
        }
        if !self.sending.is_empty() {
            let Poll::Ready(sent) = self.wire.poll_send(cx, &mut self.sending) else { return Ok(false) };
            let sent = sent.map_err(|error| error.to_string())?;
            session.pipe.sent(sent);
            let now = Instant::now();
            self.pace.moved(sent, now);
            self.unflushed = true;
            if session.has_message_after(self.sent) {
                self.active = now;
            }
            self.sent += sent as u64;
            return Ok(true);
        }
        if self.unflushed
            && let Poll::Ready(flushed) = self.wire.poll_flush(cx)
        {
            flushed.map_err(|error| error.to_string())?;
            self.unflushed = false;
            return Ok(true);
        }
        Ok(false)
    }

    /// The connection is of no use any more.
    fn lost(&mut self, text: String, why: Close) {
        let pipe = &self.upgrade.session.pipe;
        self.upgrade.session.ended(Goodbye::new(Goodbye::ABNORMAL, ""), Some(text.clone()));
        pipe.receive_end(End::Truncated);
        pipe.fail(StreamError::Lost { why: text, writing: true });
        self.why.get_or_insert(why);
    }

    /// When to look what next.
    fn due(&self) -> Option<(Instant, Due)> {
        let (config, options) = (&self.connection.service.config, &self.upgrade.options);
        let pipe = &self.upgrade.session.pipe;
        if pipe.has_failed() || (self.shut && !self.blocked) {
            return None;
        }
        let orders = pipe.orders();
        let goes_on = !orders.eof && !self.over;
        // Shutting down needs no more than a moment.
        let patience = if self.sending.is_empty() && !self.unflushed { LINGER_IDLE } else { config.write_timeout };
        let ping = options.ping_interval.filter(|_| goes_on && self.reading).map(|interval| match self.pinged {
            false => (self.heard + interval, Due::Ping),
            true => (self.heard + 2 * interval, Due::Pong),
        });
        let idle = options.idle_timeout.filter(|_| goes_on).map(|idle| (self.active + idle, Due::Idle));
        let turn = self.turn.filter(|_| orders.begun.is_none()).map(|turn| (turn, Due::Turn));
        let write = self.blocked.then(|| (self.pace.since() + patience, Due::Write));
        let goodbye = self.waits_since.filter(|_| !self.over).map(|since| (since + CLOSE_WAIT, Due::Goodbye));
        let answer = self.answer_by.filter(|_| !orders.eof).map(|by| (by, Due::Answer));
        let leave = self.leaving.as_ref().map(|leaving| (self.leaves_by(leaving), Due::Leave));
        let held = self.leaving.as_ref().and_then(|leaving| match leaving.held {
            Held::Until(until) => Some((until, Due::Held)),
            Held::No | Held::Over => None,
        });
        [write, goodbye, answer, ping, idle, turn, leave, held].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn late(&mut self) {
        // What was waited for may have come meanwhile.
        let Some((_, due)) = self.due().filter(|(at, _)| *at <= Instant::now()) else { return };
        // Shutting down is given up for less.
        let is_last = self.sending.is_empty() && !self.unflushed;
        if let Some(setting) = due.setting().filter(|_| !(matches!(due, Due::Write) && is_last)) {
            self.trace.tell(|| Step::TimedOut { setting });
        }
        let interval = self.upgrade.options.ping_interval.unwrap_or_default().as_secs_f64();
        match due {
            Due::Write if is_last => (self.shut, self.blocked) = (true, false),
            Due::Write => {
                let timeout = self.connection.service.config.write_timeout;
                let failure = StreamError::WriteTimeout(timeout);
                self.why.get_or_insert(Close::WriteTimeout);
                self.upgrade.session.pipe.fail(failure.clone());
                self.lost(failure.to_string(), Close::WriteTimeout);
            }
            Due::Goodbye => self.over = true,
            Due::Answer => {
                self.answer_by = None;
                self.upgrade.session.say_close();
            }
            Due::Ping => {
                self.pinged = true;
                // Nobody is asked after the last word.
                let _ = self.upgrade.session.control(machine::ping(b""));
            }
            Due::Pong => {
                self.lost(format!("the client answered no ping for {interval} s (ping_interval)"), Close::Idle);
            }
            Due::Leave => drop(self.leaves()),
            Due::Held => {
                if let Some(leaving) = &mut self.leaving {
                    // It leaves alone, and the goodbye with the next one.
                    (leaving.held, leaving.asked) = (Held::Over, false);
                }
            }
            Due::Idle => self.end(Goodbye::new(Goodbye::GOING_AWAY, "idle"), Close::Idle),
            Due::Turn => {
                self.turn = None;
                self.connection.service.observer.report(self.no_thread());
                self.end(Goodbye::new(Goodbye::TRY_AGAIN, "busy"), Close::Server);
                self.upgrade.session.pipe.order(|orders| orders.closed = true);
            }
        }
    }

    fn no_thread(&self) -> Report {
        let (info, config) = (&self.connection.info, &self.connection.service.config);
        Report {
            stage: Stage::Admission,
            reason: "stream_threads",
            message: format!(
                "WebSocket from {} on {} closed: none of the {} threads of its handler was free for {} s \
                 (stream_threads, stream_timeout)",
                info.peer,
                info.local,
                config.stream_threads,
                config.stream_timeout.unwrap_or_default().as_secs_f64(),
            ),
            status: None,
            connection: Some(info.clone()),
        }
    }
}

impl<W> Drop for Task<'_, W> {
    fn drop(&mut self) {
        // At the server's end, or within a panic; else it has ended already.
        let session = &self.upgrade.session;
        session.ended(Goodbye::new(Goodbye::ABNORMAL, ""), Some("the server has ended".into()));
        session.pipe.fail(StreamError::ServerEnded);
        session.metrics.websockets_open.remove();
        self.trace.tell(|| session.told());
    }
}
