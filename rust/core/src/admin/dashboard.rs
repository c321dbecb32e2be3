//! The dashboard: one page with everything in it, and the events that keep it up to date. While nobody looks it costs nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest;
use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::snapshot::Snapshots;
use crate::http::Response;
use crate::http::body::{Body, Broken, Pieces, Source};
use crate::server::Service;

/// How often those who look are told.
const EVERY: Duration = Duration::from_secs(1);
/// How many may look at once.
const MOST: usize = 32;

const INDEX: &str = include_str!("dashboard/index.html");
const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = concat!(
    include_str!("dashboard/model.js"),
    include_str!("dashboard/charts.js"),
    include_str!("dashboard/tables.js"),
    include_str!("dashboard/main.js")
);

/// The page, and what a browser may do for it: run this script, use this style, ask this server, and nothing else.
static PAGE: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let page = INDEX.replacen("<style></style>", &format!("<style>{STYLE}</style>"), 1).replacen(
        "<script></script>",
        &format!("<script>{SCRIPT}</script>"),
        1,
    );
    let hash = |text: &str| Base64::encode_string(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE),
    );
    (page.into(), policy)
});

/// The dashboard of one server.
pub(super) struct Dashboard {
    snapshots: Arc<Snapshots>,
    looking: Arc<AtomicUsize>,
}

impl Dashboard {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Dashboard { snapshots: Arc::new(Snapshots::new(service)), looking: Arc::default() }
    }

    /// The answer at a path, where there is anything.
    pub(super) fn answer(&self, path: &str) -> Option<Response> {
        Some(match path {
            "/" => page(),
            "/events" => self.events(),
            "/snapshot.json" => {
                Response::new(StatusCode::OK, self.snapshots.whole()).with(header::CONTENT_TYPE, "application/json")
            }
            _ => return None,
        })
    }

    fn events(&self) -> Response {
        let Some(look) = Look::new(&self.looking) else {
            return Response::plain(StatusCode::SERVICE_UNAVAILABLE).with(header::RETRY_AFTER, "10");
        };
        let mut interval = interval(EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = Events { snapshots: self.snapshots.clone(), interval, line: 0, begun: false, _look: look };
        Response::new(StatusCode::OK, Body::Pieces(Pieces::new(None, events)))
            .with(header::CONTENT_TYPE, "text/event-stream")
            // For proxies that would wait for more of it.
            .with(HeaderName::from_static("x-accel-buffering"), "no")
    }
}

fn page() -> Response {
    let (page, policy) = &*PAGE;
    let mut response = Response::new(StatusCode::OK, page.clone())
        .with(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .with(header::REFERRER_POLICY, "no-referrer");
    response.headers.extend(HeaderValue::try_from(policy).map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
    response
}

/// One of those who look.
struct Look(Arc<AtomicUsize>);

impl Look {
    fn new(looking: &Arc<AtomicUsize>) -> Option<Self> {
        let one = Look(looking.clone());
        (looking.fetch_add(1, Ordering::AcqRel) < MOST).then_some(one)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An event stream (WHATWG HTML section 9.2) for one of them: a snapshot every second, and what was logged meanwhile.
struct Events {
    snapshots: Arc<Snapshots>,
    interval: Interval,
    /// The last line of the log that was sent.
    line: u64,
    begun: bool,
    _look: Look,
}

impl Source for Events {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        ready!(self.interval.poll_tick(cx));
        let mut piece = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            piece.extend_from_slice(b"retry: 1000\n\n");
        }
        // JSON has no line ends here: each event is one line.
        piece.extend_from_slice(b"event: snapshot\ndata: ");
        piece.extend_from_slice(&self.snapshots.take());
        piece.extend_from_slice(b"\n\n");
        if let Some((lines, last)) = self.snapshots.log_since(self.line) {
            self.line = last;
            piece.extend_from_slice(format!("event: log\ndata: {lines}\n\n").as_bytes());
        }
        Poll::Ready(Some(Ok(piece.into())))
    }

    fn stops_at_half_close(&self) -> bool {
        true
    }
}
