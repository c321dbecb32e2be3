//! The one list of what is counted: names, words and values, in the order of the documentation.

use super::labels::{CLOSES, HANDSHAKE_FAILURES, TURNED};
use super::{CLASSES, Counter, Metrics, VERSIONS};
use crate::error::Refusal;

/// One thing that is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The key in `stats()`. In `/metrics` it has `portico_` before it, and `_total` behind it where it only grows.
    pub name: &'static str,
    /// What it counts.
    pub doc: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// The value.
    pub stat: Stat,
}

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// The value of one entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Stat {
    /// A number.
    Number(u64),
    /// A number for each value of a label, which has that name in `/metrics`.
    Labelled(&'static str, Vec<(&'static str, u64)>),
}

fn total(name: &'static str, doc: &'static str, counter: &Counter) -> Counted {
    Counted { name, doc, kind: Kind::Counter, stat: Stat::Number(counter.get()) }
}

fn now(name: &'static str, doc: &'static str, counter: &Counter) -> Counted {
    Counted { kind: Kind::Gauge, ..total(name, doc, counter) }
}

fn by(
    label: &'static str,
    name: &'static str,
    doc: &'static str,
    values: impl Iterator<Item = &'static str>,
    counters: &[Counter],
) -> Counted {
    let numbers = values.zip(counters).map(|(value, counter)| (value, counter.get())).collect();
    Counted { name, doc, kind: Kind::Counter, stat: Stat::Labelled(label, numbers) }
}

impl Metrics {
    /// Everything that is counted.
    pub(crate) fn list(&self) -> Vec<Counted> {
        vec![
            total("connections_accepted", "connections let in since the start", &self.connections_accepted),
            now("connections_open", "connections open now", &self.connections_open),
            by(
                "reason",
                "connections_turned_away",
                "connections closed before they were served: the limit that was reached, or what was wrong about the PROXY protocol",
                TURNED.iter().map(|(label, _)| *label),
                &self.turned,
            ),
            by(
                "reason",
                "connections_closed",
                "connections ended after their handshake, by why",
                CLOSES.iter().map(|(label, _)| *label),
                &self.closed,
            ),
            total(
                "accept_errors",
                "times the machine could not accept, as without free descriptors",
                &self.accept_errors,
            ),
            total("handshakes", "TLS handshakes completed", &self.handshakes),
            by(
                "reason",
                "handshakes_failed",
                "TLS handshakes that failed, by why",
                HANDSHAKE_FAILURES.iter().map(|(label, _)| *label),
                &self.handshake_failures,
            ),
            by(
                "version",
                "requests",
                "requests read, by HTTP version",
                VERSIONS.iter().map(|(label, _)| *label),
                &self.requests,
            ),
            total(
                "requests_aborted",
                "requests that their client broke off before they were whole",
                &self.requests_aborted,
            ),
            now("requests_in_flight", "requests being answered now", &self.requests_in_flight),
            by("class", "responses", "responses begun, by class of status", CLASSES.into_iter(), &self.responses),
            by(
                "reason",
                "requests_refused",
                "requests answered by the server itself with an error, by why",
                Refusal::ALL.iter().map(|refusal| refusal.label()),
                &self.refusals,
            ),
            total(
                "handler_failures",
                "handlers that raised or returned what is no response, bodies that broke off, and callbacks of streams that raised",
                &self.handler_failures,
            ),
            total(
                "loop_takeovers",
                "times a handler held an event loop too long, and a spare thread took the loop over",
                &self.loop_takeovers,
            ),
            total("websockets", "WebSockets begun", &self.websockets),
            now("websockets_open", "WebSockets open now", &self.websockets_open),
            total(
                "websocket_messages_received",
                "messages that WebSockets' clients have sent",
                &self.websocket_messages_received,
            ),
            total(
                "websocket_messages_sent",
                "messages that were given to WebSockets to send",
                &self.websocket_messages_sent,
            ),
        ]
    }
}

/// Every key of [`crate::Server::stats`] with what it counts.
pub fn statistics() -> Vec<(&'static str, &'static str)> {
    Metrics::default().list().into_iter().map(|counted| (counted.name, counted.doc)).collect()
}
