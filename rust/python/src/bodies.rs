//! Bodies that are made in Python while they are sent: by an iterable, on a thread of its own for as long as it lasts, or by
//! an async iterable, in a task of its event loop.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use portico_core::Pool;
use portico_core::dispatch::Work;
use portico_core::http::body::{BodySender as Sender, Gone};
use portico_core::http::{Response, Trailers};
use portico_core::locks::Mutex;
use pyo3::exceptions::PyBrokenPipeError;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyIterator;

use crate::handler::{Call, Site};
use crate::loops::{Bridge, Queue, Sleeper};
use crate::request::Request;
use crate::response::{to_body, wrong};
use crate::streams::Visit;
use crate::threads::{detach, try_attach_for_long};

/// What has a thread for as long as a connection, a response or a body lasts.
pub(crate) enum Long {
    Visit(Visit),
    Pump(Pump),
    Call(Box<Call>),
}

impl Work for Long {
    fn connection(&self) -> u64 {
        match self {
            Long::Visit(visit) => visit.connection(),
            Long::Pump(pump) => pump.connection,
            Long::Call(call) => call.connection(),
        }
    }

    fn run_with(self, _next: &mut dyn FnMut() -> Option<Self>) {
        match self {
            Long::Visit(visit) => visit.run(),
            Long::Pump(pump) => pump.run(),
            Long::Call(call) => call.run(),
        }
    }
}

/// A body that is still to be made, and where it goes.
pub(crate) struct Making<'py> {
    pub(crate) iterable: Bound<'py, PyAny>,
    pub(crate) sender: Sender,
    pub(crate) length: Length,
    pub(crate) is_async: bool,
}

impl Making<'_> {
    /// Nobody is going to make it.
    pub(crate) fn abandon(self) {
        if !self.is_async
            && let Err(error) = close(&self.iterable)
        {
            error.write_unraisable(self.iterable.py(), Some(&self.iterable));
        }
    }
}

/// How much of a body is missing, where its length was given.
#[derive(Clone, Copy, Default)]
pub(crate) struct Length(Option<u64>);

impl Length {
    pub(crate) fn of(response: &Response) -> Self {
        Length(response.body.length())
    }

    fn take(&mut self, piece: &Bytes) -> PyResult<()> {
        if let Some(left) = &mut self.0 {
            match left.checked_sub(piece.len() as u64) {
                Some(less) => *left = less,
                None => return wrong("header content-length: the body is longer than it says".to_string()),
            }
        }
        Ok(())
    }

    fn end(self) -> PyResult<()> {
        match self.0 {
            None | Some(0) => Ok(()),
            Some(left) => wrong(format!("header content-length: the body is {left} bytes shorter than it says")),
        }
    }
}

/// An iterable on its way to a thread.
pub(crate) struct Pump {
    iterable: Py<PyAny>,
    sender: Sender,
    length: Length,
    site: Arc<Site>,
    request: Py<Request>,
    connection: u64,
}

impl Pump {
    /// Leaves a body to a thread.
    pub(crate) fn start(making: Making<'_>, site: &Arc<Site>, request: &Bound<'_, Request>, pool: &Arc<Pool<Long>>) {
        let pump = Pump {
            iterable: making.iterable.unbind(),
            sender: making.sender,
            length: making.length,
            site: site.clone(),
            connection: request.get().core().connection_id(),
            request: request.clone().unbind(),
        };
        // A thread that cannot be started is told by what is made of it: nothing, which breaks the body off.
        if let Err(error) = pool.start() {
            site.report(request, &error.into());
            return;
        }
        pool.submit(Long::Pump(pump));
    }

    fn run(self) {
        try_attach_for_long(|py| {
            let (iterable, request) = (self.iterable.bind(py), self.request.bind(py));
            let made = iterable.try_iter().and_then(|iterator| {
                let made = feed(&iterator, &self.sender, self.length);
                // A generator that nobody wants more of ends here, and not whenever it is collected.
                let closed =
                    close(&iterator).and_then(|()| if iterator.is(iterable) { Ok(()) } else { close(iterable) });
                made.and_then(|whole| closed.map(|()| whole))
            });
            match made {
                Ok(true) => self.sender.finish(),
                Ok(false) => {}
                Err(error) => drop(self.site.report(request, &error)),
            }
        });
    }
}

/// Closes what can be closed.
pub(crate) fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    match iterable.getattr_opt(intern!(iterable.py(), "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}

/// Hands on what an iterator gives, as fast as the client takes it; whether to the end.
fn feed(iterator: &Bound<'_, PyIterator>, sender: &Sender, mut length: Length) -> PyResult<bool> {
    let py = iterator.py();
    if sender.is_gone() {
        return Ok(false);
    }
    for piece in iterator {
        let piece = to_body(&piece?)?;
        length.take(&piece)?;
        let sent = sender.send(piece);
        if sent.is_err() || detach(py, || sender.wait_for_room(None)).is_err() {
            return Ok(false);
        }
    }
    length.end().map(|()| true)
}

/// Where a task of an event loop sends the body that it makes.
#[pyclass(frozen)]
pub(crate) struct BodySender {
    sender: Mutex<Option<Sender>>,
    length: Mutex<Length>,
    queue: Weak<Queue>,
    /// It leads nowhere: the response has no body, whatever is made for it.
    nowhere: bool,
}

impl BodySender {
    pub(crate) fn new(sender: Sender, length: Length, queue: Weak<Queue>) -> Self {
        BodySender { sender: Mutex::new(Some(sender)), length: Mutex::new(length), queue, nowhere: false }
    }

    /// For the body of a response that has none, as one to HEAD.
    pub(crate) fn nowhere() -> Self {
        BodySender { sender: Mutex::default(), length: Mutex::default(), queue: Weak::new(), nowhere: true }
    }

    pub(crate) fn gone() -> PyErr {
        PyBrokenPipeError::new_err("the client has left, or the server has ended: nobody reads this body any more")
    }
}

#[pymethods]
impl BodySender {
    /// Sends a piece, and says whether there is room for more.
    ///
    /// Raises `BrokenPipeError` where nobody wants it any more, `ResponseError` for what is no piece of a body.
    fn send(&self, piece: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.send_bytes(to_body(piece)?)
    }

    /// Whether there is room; if not, `future` is done when to ask again.
    fn has_room(&self, future: Py<PyAny>) -> PyResult<bool> {
        let waker = Sleeper::waker(&self.queue, future);
        let sender = self.sender.lock();
        let Some(sender) = &*sender else { return Err(Self::gone()) };
        match sender.poll_room(&mut Context::from_waker(&waker)) {
            Poll::Ready(room) => room.map(|()| true).map_err(|Gone| Self::gone()),
            Poll::Pending => Ok(false),
        }
    }

    /// The body is whole.
    ///
    /// Raises `ResponseError` where it is shorter than was said.
    pub(crate) fn finish(&self) -> PyResult<()> {
        let sender = self.sender.lock().take();
        self.length.lock().end()?;
        sender.into_iter().for_each(Sender::finish);
        Ok(())
    }

    /// It never will be.
    pub(crate) fn abandon(&self) {
        let sender = self.sender.lock().take();
        drop(sender);
    }
}

impl BodySender {
    pub(crate) fn send_bytes(&self, piece: Bytes) -> PyResult<bool> {
        let sender = self.sender.lock();
        let Some(sender) = &*sender else {
            return if self.nowhere { Ok(true) } else { Err(Self::gone()) };
        };
        self.length.lock().take(&piece)?;
        sender.send(piece).map_err(|Gone| Self::gone())?;
        Ok(sender.has_room())
    }

    /// Whether nothing is missing; else it is broken off.
    pub(crate) fn check_whole(&self) -> PyResult<()> {
        self.length.lock().end().inspect_err(|_| self.abandon())
    }

    /// The body is whole, and these follow.
    pub(crate) fn finish_with(&self, trailers: Trailers) -> PyResult<()> {
        match self.sender.lock().take() {
            Some(sender) if !sender.is_gone() => {
                sender.finish_with(trailers);
                Ok(())
            }
            None if self.nowhere => Ok(()),
            _ => Err(Self::gone()),
        }
    }

    /// Has `callback()` called on the loop when nobody wants any more of it.
    pub(crate) fn when_gone(&self, callback: Py<PyAny>) {
        let waker = Sleeper::caller(&self.queue, callback);
        let gone = match &*self.sender.lock() {
            Some(sender) => sender.poll_gone(&mut Context::from_waker(&waker)).is_ready(),
            None => false,
        };
        if gone {
            waker.wake();
        }
    }
}

/// Makes the task of a body, which is cancelled when nobody wants any more of it.
pub(crate) fn start_task(
    bridge: &Bound<'_, Bridge>,
    making: Making<'_>,
    site: &Arc<Site>,
    request: &Bound<'_, Request>,
) -> PyResult<()> {
    static PUMP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = bridge.py();
    let sender = BodySender::new(making.sender, making.length, Arc::downgrade(&bridge.get().queue));
    let sender = Bound::new(py, sender)?;
    let coroutine = PUMP.import(py, "portico._bodies", "pump")?.call1((making.iterable, &sender))?;
    let Some((number, task)) = bridge.get().make_task(&coroutine)? else {
        coroutine.call_method0(intern!(py, "close"))?;
        return Ok(());
    };
    let made = Made { bridge: bridge.clone().unbind(), number, site: site.clone(), request: request.clone().unbind() };
    task.call_method1(intern!(py, "add_done_callback"), (made,))?;
    let waker = bridge.get().leaving(number);
    let gone =
        sender.get().sender.lock().as_ref().is_some_and(|it| it.poll_gone(&mut Context::from_waker(&waker)).is_ready());
    if gone {
        task.call_method0(intern!(py, "cancel"))?;
    }
    Ok(())
}

/// What the task of a body calls when it is done.
#[pyclass(frozen)]
struct Made {
    bridge: Py<Bridge>,
    number: u64,
    site: Arc<Site>,
    request: Py<Request>,
}

#[pymethods]
impl Made {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        self.bridge.get().forget_task(py, self.number)?;
        match task.call_method0(intern!(py, "result")) {
            Err(error) if !error.is_instance_of::<CancelledError>(py) => {
                self.site.report(self.request.bind(py), &error);
            }
            _ => {}
        }
        Ok(())
    }
}
