//! From a request to whoever answers it: the [`Handler`] trait is the seam between the core and a language.
//!
//! A handler is called on the thread that read the request, in the middle of its event loop's turn, and must return at once.
//! Most are wrapped: in [`Inline`], to be called between two turns; in [`Pooled`], on a thread of a pool; in [`Auto`], on
//! either, as they prove short or not.

mod auto;
mod judge;
mod pool;
mod roster;
mod turns;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use auto::{Auto, Inline};
pub(crate) use judge::Case;
pub use judge::{Judge, handler_begins};
pub use pool::{Pool, PoolLook, Pooled};
pub use roster::{Placing, Roster, Told};
pub use turns::Turns;

use crate::admin;
use crate::connection::Connection;
use crate::error::{Refusal, RequestError};
use crate::event_loops::EventLoop;
use crate::http::request::Route;
use crate::http::{Request, Response, h2};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::trace::Call;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request by sending on `reply`, now or later, from any thread. It is called on an I/O thread and
    /// must not block it.
    fn call(&self, request: Box<Request>, reply: Reply);

    /// Who is to answer a request: by default this handler itself. Asked before anything else of it.
    fn resolve(&self, request: &mut Request) -> Resolved {
        let _ = request;
        Resolved::Itself
    }

    /// Whether a call is to be given up as soon as its client leaves. Else a client that only closed its half of the
    /// connection still gets its answer.
    fn is_cancellable(&self) -> bool {
        false
    }

    /// For which bodies it is to be called as soon as the head of a request is read, with a body that comes while it runs:
    /// [`Request::incoming`]. One that is here by then is whole in [`Request::body`].
    fn streams(&self) -> Streams {
        Streams::None
    }

    /// Calls `work`, which calls handlers like this one, with whatever they all need, as a lock of their language: to take
    /// that once costs less than once for each.
    fn hold(&self, work: &mut dyn FnMut()) {
        work();
    }
}

impl<F: Fn(Request) -> Response + Send + Sync + 'static> Handler for F {
    fn call(&self, request: Box<Request>, reply: Reply) {
        reply.send(self(*request));
    }
}

/// Which bodies a handler takes as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// None: it is called when they are whole.
    None,
    /// Those that are announced to have so many bytes or more. Of others it wants to know how long they are.
    Announced(u64),
    /// Every one.
    Every,
}

/// Who answers a request.
pub enum Resolved {
    /// The handler that was asked.
    Itself,
    /// Another one, which is to be asked in turn.
    Next(Arc<dyn Handler>),
    /// Nobody: here is the answer.
    Answered(Response),
}

/// The longest that calls in a row go on under one [`Handler::hold`]; the call that runs then is not cut short.
pub const HOLD: Duration = Duration::from_millis(1);

/// Where a handler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Runs {
    /// On the thread that read the request.
    Inline,
    /// On a thread of a pool.
    Threads,
    /// On a thread of those for what takes as long as its client.
    StreamThreads,
    /// On an event loop of another kind.
    Asyncio,
}

impl Runs {
    /// Each of them, in the order in which they are counted.
    pub(crate) const ALL: [Runs; 4] = [Runs::Inline, Runs::Threads, Runs::StreamThreads, Runs::Asyncio];

    /// The word for it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Runs::Inline => "inline",
            Runs::Threads => "threads",
            Runs::StreamThreads => "stream_threads",
            Runs::Asyncio => "asyncio",
        }
    }
}

/// Something to be done on a thread of a [`Pool`].
pub trait Work: Sized + Send + 'static {
    /// The number of the connection that it is for.
    fn connection(&self) -> u64;

    /// Does it, and maybe some of what `next` gives with it, where they all need the same thing that is better taken once.
    fn run_with(self, next: &mut dyn FnMut() -> Option<Self>);
}

/// One call of a handler, to be made on some thread.
pub struct Job {
    pub(crate) handler: Arc<dyn Handler>,
    /// Who measures it.
    pub(crate) judge: Option<Arc<Judge>>,
    request: Box<Request>,
    reply: Reply,
}

impl Work for Job {
    fn connection(&self) -> u64 {
        self.request.connection_id()
    }

    fn run_with(self, next: &mut dyn FnMut() -> Option<Self>) {
        let handler = self.handler.clone();
        let mut first = Some(self);
        handler.hold(&mut || {
            let began = Instant::now();
            // What has come meanwhile, as long as nobody waits too long for what is held.
            while let Some(job) = first.take().or_else(|| (began.elapsed() < HOLD).then(&mut *next)?) {
                let case = job.case();
                job.run(Runs::Threads, case.as_ref());
            }
        });
    }
}

impl Job {
    /// Makes the call, where somebody still waits for the answer.
    pub(crate) fn run(self, runs: Runs, case: Option<&Case>) {
        let Job { handler, request, mut reply, .. } = self;
        if reply.is_abandoned() {
            return;
        }
        reply.called(runs);
        let call = || {
            // A handler that panics costs its request a 500, not the thread.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| handler.call(request, reply)));
        };
        match case {
            Some(case) => case.watch(call),
            None => call(),
        }
    }
}

/// How an answer gets to its client.
#[derive(Debug)]
pub(crate) enum Destination {
    /// By the task that waits for it.
    Waiting(oneshot::Sender<Response>),
    /// Straight to its stream.
    Stream(Box<h2::Exchange>),
}

impl Destination {
    /// Sends the answer. A client that has left meanwhile does not get it.
    pub(crate) fn send(self, response: Response) {
        match self {
            Destination::Waiting(sender) => drop(sender.send(response)),
            Destination::Stream(exchange) => exchange.send(response),
        }
    }

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Destination::Waiting(sender) => sender.poll_closed(cx),
            Destination::Stream(exchange) => exchange.poll_abandoned(cx),
        }
    }

    fn is_abandoned(&mut self) -> bool {
        match self {
            // Its `poll_closed` would keep a waker for each time that it is asked.
            Destination::Waiting(sender) => sender.is_closed(),
            Destination::Stream(exchange) => exchange.is_abandoned(),
        }
    }
}

/// Where the answer to one request goes. Dropped without one, it answers 500.
#[derive(Debug)]
pub struct Reply {
    destination: Option<Destination>,
    metrics: Arc<Metrics>,
    /// What is told of the handler; none where nobody listens.
    call: Option<Box<Call>>,
}

impl Reply {
    /// The reply to a request that [`admit`] let in.
    pub(crate) fn new(destination: Destination, metrics: Arc<Metrics>, call: Option<Box<Call>>) -> Self {
        Reply { destination: Some(destination), metrics, call }
    }

    /// Counts that the handler is called there, and tells those who want to know. Handlers of the core's own, which need no
    /// language, count nowhere.
    pub fn called(&mut self, runs: Runs) {
        self.metrics.called(runs);
        self.call.iter_mut().for_each(|call| call.begins(runs.label()));
    }

    /// Sends the answer. A client that has left meanwhile does not get it.
    pub fn send(mut self, response: Response) {
        self.finish(Some(response));
    }

    /// Answers 500: the handler failed. Whoever calls this has told why.
    pub fn fail(self) {}

    /// The same with an answer that somebody has made of the failure.
    pub fn fail_with(mut self, response: Response) {
        if !self.is_abandoned() {
            self.metrics.handler_failures.add();
        }
        self.finish(Some(response));
    }

    /// Whether nobody waits for the answer any more. It takes the place of a waker that [`Reply::poll_abandoned`] left.
    pub fn is_abandoned(&mut self) -> bool {
        self.destination.as_mut().is_none_or(Destination::is_abandoned)
    }

    /// Ready when nobody waits for the answer any more: the client has left or reset its stream, `handler_timeout` is over,
    /// or the server has ended. The last waker is woken then.
    pub fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.destination.as_mut().map_or(Poll::Ready(()), |destination| destination.poll_abandoned(cx))
    }

    fn finish(&mut self, response: Option<Response>) {
        let Some(mut destination) = self.destination.take() else { return };
        // Before the answer is on its way, so that nobody who has it still sees its request in flight.
        self.metrics.requests_in_flight.remove();
        let response = match response {
            Some(response) => response,
            None if destination.is_abandoned() => return, // The client has left: no handler failed.
            None => {
                self.metrics.handler_failures.add();
                Response::plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        if let Some(call) = self.call.take() {
            call.answered(response.status.as_u16());
        }
        if let Some((destination, response)) = EventLoop::deliver(destination, response) {
            destination.send(response);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.finish(None);
    }
}

/// What became of a request at once.
pub(crate) enum Outcome {
    /// It is answered.
    Ready(Response),
    /// A handler has it.
    Waiting(Waiting),
}

/// A request in a handler's hands.
pub(crate) struct Waiting {
    receiver: oneshot::Receiver<Response>,
    deadline: Option<Instant>,
    /// Whether to drop this when the client leaves.
    pub(crate) cancellable: bool,
}

impl Waiting {
    /// Waits for the answer, at most for `handler_timeout`. May be dropped and called again.
    pub(crate) async fn response(&mut self) -> Result<Response, RequestError> {
        let answer = async {
            let response = (&mut self.receiver).await;
            // A Reply always sends; this is for the moment at which a whole server is torn down.
            Ok(response.unwrap_or_else(|_| Response::plain(StatusCode::INTERNAL_SERVER_ERROR)))
        };
        match self.deadline {
            None => answer.await,
            Some(deadline) => tokio::time::timeout_at(deadline, answer).await.unwrap_or_else(|_| {
                Err(RequestError::new(Refusal::HandlerTimeout, "the handler took longer than handler_timeout"))
            }),
        }
    }
}

/// What becomes of a request that is let in.
pub(crate) enum Admitted {
    /// This handler is to be called.
    By(Arc<dyn Handler>),
    /// The server itself answers.
    Answered(Response),
}

/// The most routers, each behind the one before, that a request is passed on by.
const MAX_ROUTERS: usize = 32;

/// Who answers a request, found while its body was still coming.
pub(crate) struct Found {
    by: Result<Admitted, RequestError>,
    /// What routers found on the way: the request may be made anew before it is let in.
    route: Option<Box<Route>>,
    pattern: Option<Arc<str>>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Found {
    /// Looks at a head whose body is not whole.
    pub(crate) fn of(connection: &Connection, request: &mut Request, record: &mut Record) -> Self {
        let by = find(connection, request, record);
        Found { by, route: request.route.take(), pattern: request.pattern.take() }
    }

    /// Whether who answers wants the body as it comes, of which `length` was announced, where any was.
    pub(crate) fn streams_body(&self, length: Option<u64>) -> bool {
        let Ok(Admitted::By(handler)) = &self.by else { return false };
        match handler.streams() {
            Streams::None => false,
            Streams::Announced(least) => length.is_some_and(|length| length >= least),
            Streams::Every => true,
        }
    }
}

/// Lets a request in, and counts it as in flight: a [`Reply`] has to be made for it. Who answers it is what was `found`
/// already, if anything was; what is found is left in its record.
///
/// # Errors
/// No handler, the wrong host for this connection, or too many in flight.
pub(crate) fn admit(
    connection: &Connection,
    request: &mut Request,
    found: Option<Box<Found>>,
    record: &mut Record,
) -> Result<Admitted, RequestError> {
    let service = &connection.service;
    let by = match found {
        Some(found) => {
            (request.route, request.pattern) = (found.route, found.pattern);
            found.by?
        }
        None => find(connection, request, record)?,
    };
    let Admitted::By(handler) = by else { return Ok(by) };
    let metrics = &service.metrics;
    if metrics.requests_in_flight.add() > service.config.max_in_flight as u64 {
        metrics.requests_in_flight.remove();
        let message = format!("{} requests are in flight (max_in_flight)", service.config.max_in_flight);
        return Err(RequestError::new(Refusal::InFlight, message));
    }
    Ok(Admitted::By(handler))
}

fn find(connection: &Connection, request: &mut Request, record: &mut Record) -> Result<Admitted, RequestError> {
    if request.method == Method::OPTIONS && request.target.raw_path() == "*" {
        return Ok(Admitted::Answered(Response::options()));
    }
    if connection.service.config.probes
        && let Some(response) = admin::at_ordinary_listener(&connection.service, request)
    {
        return Ok(Admitted::Answered(response));
    }
    let admitted = follow(connection.handler_for(request.host(), &mut record.host)?, request);
    record.route.clone_from(&request.pattern);
    Ok(admitted)
}

/// Follows routers to who answers.
pub(crate) fn follow(mut handler: Arc<dyn Handler>, request: &mut Request) -> Admitted {
    for _ in 0..MAX_ROUTERS {
        match handler.resolve(request) {
            Resolved::Itself => return Admitted::By(handler),
            Resolved::Next(next) => handler = next,
            Resolved::Answered(response) => return Admitted::Answered(response),
        }
    }
    Admitted::Answered(Response::plain(StatusCode::LOOP_DETECTED))
}

/// Hands a request to its handler, for whoever waits for the answer.
///
/// # Errors
/// Those of [`admit`].
pub(crate) fn begin(
    connection: &Connection,
    mut request: Box<Request>,
    found: Option<Box<Found>>,
    record: &mut Record,
) -> Result<Outcome, RequestError> {
    let handler = match admit(connection, &mut request, found, record)? {
        Admitted::By(handler) => handler,
        Admitted::Answered(response) => return Ok(Outcome::Ready(response)),
    };
    let service = &connection.service;
    let (sender, mut receiver) = oneshot::channel();
    let deadline = service.config.handler_timeout.map(|timeout| Instant::now() + timeout);
    let cancellable = handler.is_cancellable();
    let call = Call::handed(&connection.trace, record.stream);
    handler.call(request, Reply::new(Destination::Waiting(sender), service.metrics.clone(), call));
    match receiver.try_recv() {
        Ok(response) => Ok(Outcome::Ready(response)),
        Err(_) => Ok(Outcome::Waiting(Waiting { receiver, deadline, cancellable })),
    }
}
