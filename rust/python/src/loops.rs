//! Handlers on an event loop of asyncio: requests wait in a queue until the loop's thread takes all that came meanwhile, each
//! as a task whose first step runs at once.
//!
//! A loop made by `portico.new_event_loop` turns the server's I/O on its own thread ([`Driver`]): a handler that does not
//! suspend then costs no change of threads and no turn of the loop. Any other loop is woken through a socket, once for all
//! that wait.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use portico_core::dispatch::{HOLD, Streams, Turns};
use portico_core::locks::Mutex;
use portico_core::{Driven, Handler, LoopWaker, Reply};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::asgi::SharedReply;
use crate::handler::Function;
use crate::request::{Called, Request};
use crate::sessions;
use crate::streams::Visit;
use crate::threads::detach;

/// A handler that is called on an event loop.
pub(crate) struct OnLoop {
    pub(crate) function: Arc<Function>,
    pub(crate) queue: Arc<Queue>,
    /// The setting `handler_timeout`.
    pub(crate) timeout: Option<Duration>,
}

impl Handler for OnLoop {
    fn call(&self, request: portico_core::http::Request, reply: Reply) {
        // No attaching here: the loop's thread does that, once for all that came meanwhile.
        // The core's own began before it, and so is over before it but for this.
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout.saturating_sub(Duration::from_millis(5)));
        self.queue.push(Job { function: self.function.clone(), request, reply, deadline });
    }

    fn is_cancellable(&self) -> bool {
        true
    }

    fn streams(&self) -> Streams {
        self.function.streams
    }
}

struct Job {
    function: Arc<Function>,
    request: portico_core::http::Request,
    reply: Reply,
    deadline: Option<Instant>,
}

/// What waits for an event loop. The loop is woken by the first and takes all.
#[derive(Default)]
pub(crate) struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    jobs: Turns<Job>,
    /// Connections that wait for their callbacks.
    visits: VecDeque<Visit>,
    /// What is to be told that it may go on.
    woken: Vec<Arc<Sleeper>>,
    /// Tasks whose client has left.
    left: Vec<Arc<Left>>,
    wake: Wakes,
}

/// How the loop is woken.
#[derive(Default)]
enum Wakes {
    /// There is none yet.
    #[default]
    Nothing,
    /// By a byte in the first; the loop reads the second.
    Socket(UnixStream, UnixStream),
    /// It is waiting in [`Driver::drive`].
    Driver(LoopWaker),
    /// There is none any more.
    Closed,
}

impl State {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.left.is_empty() && self.visits.is_empty() && self.woken.is_empty()
    }

    fn wake(&mut self) {
        match &mut self.wake {
            // An error would mean that the pipe is full of wakes already.
            Wakes::Socket(wake, _) => drop(wake.write(&[0])),
            Wakes::Driver(waker) => waker.wake(),
            Wakes::Nothing | Wakes::Closed => {}
        }
    }
}

impl Queue {
    /// Adds something, and wakes the loop where it is the first.
    fn add(&self, add: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        if matches!(state.wake, Wakes::Closed) {
            return; // Dropping a job answers it with 500.
        }
        let first = state.is_empty();
        add(&mut state);
        if first {
            state.wake();
        }
    }

    fn push(&self, job: Job) {
        self.add(|state| state.jobs.push(job.request.connection_id(), job));
    }

    /// Leaves a connection to its callback.
    pub(crate) fn visit(&self, visit: Visit) {
        self.add(|state| state.visits.push_back(visit));
    }

    fn take_visit(&self) -> Option<Visit> {
        self.0.lock().visits.pop_front()
    }

    fn take_woken(&self) -> Vec<Arc<Sleeper>> {
        std::mem::take(&mut self.0.lock().woken)
    }

    fn take_left(&self) -> Vec<Arc<Left>> {
        std::mem::take(&mut self.0.lock().left)
    }

    fn take_job(&self) -> Option<Job> {
        self.0.lock().jobs.pop()
    }

    /// To be called when enough was taken: the loop is woken again exactly while something waits. Under the lock of `add`,
    /// so that no wake falls between looking and clearing.
    fn taken(&self) {
        let mut state = self.0.lock();
        if !state.is_empty() {
            return;
        }
        match &mut state.wake {
            Wakes::Socket(_, woken) => drop(woken.read(&mut [0; 64])),
            Wakes::Driver(waker) => waker.clear(),
            Wakes::Nothing | Wakes::Closed => {}
        }
    }

    fn wake_by(&self, wake: Wakes) {
        let mut state = self.0.lock();
        state.wake = wake;
        if !state.is_empty() {
            state.wake();
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.0.lock().wake, Wakes::Closed)
    }
}

/// What is to be told on an event loop as soon as something can go on.
pub(crate) struct Sleeper {
    queue: Weak<Queue>,
    tell: Tell,
}

enum Tell {
    /// A future of asyncio is done.
    Future(Py<PyAny>),
    /// Something is called.
    Callback(Py<PyAny>),
}

impl Sleeper {
    /// A waker for the loop behind `queue`, on which `future` is.
    pub(crate) fn waker(queue: &Weak<Queue>, future: Py<PyAny>) -> Waker {
        Waker::from(Arc::new(Sleeper { queue: queue.clone(), tell: Tell::Future(future) }))
    }

    /// A waker that has `callback()` called on that loop.
    pub(crate) fn caller(queue: &Weak<Queue>, callback: Py<PyAny>) -> Waker {
        Waker::from(Arc::new(Sleeper { queue: queue.clone(), tell: Tell::Callback(callback) }))
    }

    fn wake_up(&self, py: Python<'_>) -> PyResult<()> {
        let future = match &self.tell {
            Tell::Future(future) => future.bind(py),
            Tell::Callback(callback) => return callback.call0(py).map(drop),
        };
        // It may be cancelled, or woken by a time-out.
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.add(|state| state.woken.push(self));
        }
    }
}

/// Tells the loop that nobody waits for a task's answer any more.
struct Left {
    queue: Weak<Queue>,
    task: u64,
    /// None for a task that has nothing else to do.
    reply: Option<Weak<SharedReply>>,
    /// When `handler_timeout` is over: what has taken that long is cancelled, whoever else could be told.
    deadline: Option<Instant>,
}

impl Left {
    /// One that was answered may go on.
    fn is_answered(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.upgrade().is_none_or(|reply| reply.lock().is_none()))
    }

    /// Whether there is an ASGI app to tell; it decides what to do.
    fn is_told(&self, py: Python<'_>) -> PyResult<bool> {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match self.reply.as_ref().and_then(Weak::upgrade) {
            Some(reply) if !late => reply.tell_left(py),
            _ => Ok(false),
        }
    }
}

impl Wake for Left {
    fn wake(self: Arc<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.add(|state| state.left.push(self));
        }
    }
}

/// Brings requests to an event loop, which calls `run` when told to: by its selector, or, where `fileno` was asked for,
/// when that is readable.
#[pyclass(frozen)]
pub(crate) struct Bridge {
    pub(crate) queue: Arc<Queue>,
    loop_: Mutex<Option<Arc<EventLoop>>>,
    next: AtomicU64,
    /// Tasks that have not ended, by number: the loop itself keeps weak references only.
    #[pyo3(get)]
    tasks: Py<PyDict>,
}

/// What is needed of an event loop.
struct EventLoop {
    create_task: Py<PyAny>,
    /// Calls that asyncio is about to make, where a task's first step may be taken out of it.
    ready: Option<Py<PyAny>>,
    /// The coroutine function `(handler, request) -> response` of `portico._loops`.
    call: Py<PyAny>,
}

#[pymethods]
impl Bridge {
    #[new]
    fn new(py: Python<'_>) -> Self {
        let (queue, tasks) = (Arc::default(), PyDict::new(py).unbind());
        Bridge { queue, loop_: Mutex::default(), next: AtomicU64::new(0), tasks }
    }

    /// Tasks are made by `create_task(call(handler, request))`; `ready` is the loop's queue of calls, where it has one.
    #[pyo3(signature = (create_task, call, ready))]
    fn attach(&self, create_task: Py<PyAny>, call: Py<PyAny>, ready: Option<Py<PyAny>>) {
        *self.loop_.lock() = Some(Arc::new(EventLoop { create_task, ready, call }));
    }

    /// A descriptor that is readable while there is something to run.
    fn fileno(&self) -> PyResult<i32> {
        if let Wakes::Socket(_, woken) = &self.queue.0.lock().wake {
            return Ok(woken.as_raw_fd());
        }
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let fd = woken.as_raw_fd();
        self.queue.wake_by(Wakes::Socket(wake, woken));
        Ok(fd)
    }

    /// Begins everything that waits. What a handler raises is its request's end; what is not the handler's, as
    /// KeyboardInterrupt, is raised here.
    fn run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, bridge) = (slf.py(), slf.get());
        let began = Instant::now();
        let run = || {
            for left in bridge.queue.take_left().iter().filter(|left| !left.is_answered()) {
                let told = left.is_told(py).and_then(|told| match bridge.tasks.bind(py).get_item(left.task)? {
                    Some(task) if !told => cancel(&task),
                    _ => Ok(()),
                });
                only_interrupts(py, told)?;
            }
            for sleeper in bridge.queue.take_woken() {
                only_interrupts(py, sleeper.wake_up(py))?;
            }
            while began.elapsed() < HOLD
                && let Some(visit) = bridge.queue.take_visit()
            {
                only_interrupts(py, receive(slf, visit))?;
            }
            // The rest comes after a round of I/O.
            while began.elapsed() < HOLD
                && let Some(job) = bridge.queue.take_job()
            {
                only_interrupts(py, begin(slf, job))?;
            }
            Ok(())
        };
        let result = run();
        bridge.queue.taken();
        result
    }

    /// Gives descriptors back. Requests that wait, and those to come, are answered with 500.
    fn close(&self) {
        let ended = std::mem::replace(&mut *self.queue.0.lock(), State { wake: Wakes::Closed, ..State::default() });
        // The loop leads back here, by what it calls.
        let loop_ = self.loop_.lock().take();
        drop((ended, loop_));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.tasks)?;
        let Some(loop_) = self.loop_.try_lock() else { return Ok(()) };
        loop_.as_ref().map_or(Ok(()), |loop_| {
            visit.call(&loop_.create_task)?;
            visit.call(&loop_.ready)?;
            visit.call(&loop_.call)
        })
    }

    fn __clear__(&self) {
        self.close();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Here, and not where the last reference to the queue may be: within h2, say, as a waker, with h2's lock held that
        // the replies of what waits need too.
        self.close();
    }
}

impl Bridge {
    /// Makes a task on the loop and keeps it, under that number; none where there is no loop any more.
    pub(crate) fn make_task<'py>(&self, coroutine: &Bound<'py, PyAny>) -> PyResult<Option<(u64, Bound<'py, PyAny>)>> {
        let py = coroutine.py();
        let Some(loop_) = self.loop_.lock().clone() else { return Ok(None) };
        let task = loop_.create_task.bind(py).call1((coroutine,))?;
        Ok(Some((self.keep(&task)?, task)))
    }

    /// Keeps a task until [`Bridge::forget_task`]; its number.
    fn keep(&self, task: &Bound<'_, PyAny>) -> PyResult<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.tasks.bind(task.py()).set_item(number, task)?;
        Ok(number)
    }

    /// A task is done.
    pub(crate) fn forget_task(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        self.tasks.bind(py).del_item(number)
    }

    /// A waker that has the task of that number cancelled.
    pub(crate) fn leaving(&self, number: u64) -> Waker {
        Waker::from(Arc::new(Left { queue: Arc::downgrade(&self.queue), task: number, reply: None, deadline: None }))
    }
}

/// Makes the task of one request, and its first step.
fn begin(bridge: &Bound<'_, Bridge>, job: Job) -> PyResult<()> {
    let py = bridge.py();
    let Job { function, request, mut reply, deadline } = job;
    if reply.is_abandoned() {
        return Ok(());
    }
    let Some(loop_) = bridge.get().loop_.lock().clone() else { return Ok(()) };
    let (handler, reply) = (function.callable.get(py), SharedReply::new(reply));
    let called = Called {
        handler: handler.as_ref().map_or(0, |handler| handler.as_ptr() as usize),
        reply: reply.clone(),
        queue: Arc::downgrade(&bridge.get().queue),
    };
    let request = function.site.wrap(py, request, Some(called))?;
    let ready = loop_.ready.as_ref().map(|ready| ready.bind(py));
    let before = ready.map_or(Ok(0), |ready| ready.len())?;
    let made = handler
        .and_then(|handler| loop_.call.bind(py).call1((handler, &request)))
        .and_then(|coroutine| loop_.create_task.bind(py).call1((coroutine,)));
    let task = match made {
        Ok(task) => task,
        Err(error) => {
            // Ctrl-C is the program's, not the handler's.
            if error.is_instance_of::<PyKeyboardInterrupt>(py) {
                return Err(error);
            }
            let reply = reply.lock().take();
            reply.into_iter().for_each(|reply| function.site.fail(reply, &request, &error));
            return Ok(());
        }
    };
    let number = bridge.get().keep(&task)?;
    let raised = match ready {
        Some(ready) if ready.len()? == before + 1 => first_step(ready, &task).err(),
        _ => None,
    };
    let answer =
        Answer { bridge: bridge.clone().unbind(), number, function, request: request.unbind(), reply, deadline };
    if task.call_method0(intern!(py, "done"))?.is_truthy()? {
        answer.finish(&task)?;
    } else {
        answer.wait_for(&task)?;
    }
    raised.map_or(Ok(()), Err)
}

/// Makes the task of one connection's callback.
fn receive(bridge: &Bound<'_, Bridge>, visit: Visit) -> PyResult<()> {
    let py = bridge.py();
    if bridge.get().loop_.lock().is_none() {
        return Ok(());
    }
    let Some(coroutine) = visit.call(py, Some(Arc::downgrade(&bridge.get().queue)))? else { return Ok(()) };
    let Some((number, task)) = bridge.get().make_task(&coroutine)? else { return Ok(()) };
    let forget = Forget { tasks: bridge.get().tasks.clone_ref(py), number };
    task.call_method1(intern!(py, "add_done_callback"), (forget,)).map(drop)
}

/// What the task of a connection calls when it is done.
#[pyclass(frozen)]
struct Forget {
    tasks: Py<PyDict>,
    number: u64,
}

#[pymethods]
impl Forget {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        self.tasks.bind(task.py()).del_item(self.number)
    }
}

/// Takes the task's first step out of the calls that asyncio is about to make, and makes it.
fn first_step(ready: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = ready.py();
    let handle = ready.call_method0(intern!(py, "pop"))?;
    let step = handle.getattr(intern!(py, "_callback"))?;
    if step.getattr(intern!(py, "__self__")).is_ok_and(|of| of.is(task)) {
        // Not by the handle's `_run`, which is Python: Ctrl-C on its first line would lose the step, and a task that never
        // takes it never ends, not even when it is cancelled.
        handle.getattr(intern!(py, "_context"))?.call_method1(intern!(py, "run"), (step,)).map(drop)
    } else {
        // A task factory's doing. It comes to its turn.
        ready.call_method1(intern!(py, "append"), (handle,)).map(drop)
    }
}

/// Ctrl-C is the program's. What else goes wrong here, in an odd task or a task factory, is not to end its loop: the
/// request gets a 500.
fn only_interrupts(py: Python<'_>, result: PyResult<()>) -> PyResult<()> {
    match result {
        Err(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        result => result,
    }
}

fn cancel(task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = task.py();
    task.call_method1(intern!(py, "cancel"), (intern!(py, "nobody waits for this response any more"),)).map(drop)
}

/// One request on an event loop, and where its answer goes.
struct Answer {
    bridge: Py<Bridge>,
    /// That of its task.
    number: u64,
    function: Arc<Function>,
    request: Py<Request>,
    /// Shared with the request, for a handler that answers before it is done.
    reply: Arc<SharedReply>,
    deadline: Option<Instant>,
}

impl Answer {
    /// Answers with what became of the task.
    fn finish(self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        self.bridge.get().forget_task(py, self.number)?;
        let site = &self.function.site;
        let (request, mut reply) = (self.request.bind(py), self.reply.lock().take());
        let result = task.call_method0(intern!(py, "result"));
        if result.as_ref().is_err_and(|error| error.is_instance_of::<PyKeyboardInterrupt>(py)) {
            sessions::discard(request);
            return Ok(()); // asyncio gives it to the program
        }
        let result = result.and_then(|value| match value.cast::<Raised>() {
            Ok(raised) => Err(PyErr::from_value(raised.get().0.bind(py).clone())),
            Err(_) => Ok(value),
        });
        let nobody_waits = reply.as_mut().is_none_or(Reply::is_abandoned) || self.bridge.get().queue.is_closed();
        match (result, reply) {
            (Ok(value), Some(_)) if nobody_waits && value.is_none() => sessions::discard(request),
            (Ok(value), Some(reply)) => site.answer(reply, request, Ok(value), Some(self.bridge.bind(py))),
            (Ok(_), None) => sessions::discard(request),
            (Err(error), _) if error.is_instance_of::<CancelledError>(py) && nobody_waits => {
                sessions::discard(request);
            }
            (Err(error), Some(reply)) => site.fail(reply, request, &error),
            // It went wrong after the answer: its client is served, its author is to know.
            (Err(error), None) => {
                sessions::discard(request);
                site.report(request, &error);
            }
        }
        Ok(())
    }

    /// Answers when the task is done, and cancels it when nobody waits for that any more.
    fn wait_for(self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        let bridge = self.bridge.get();
        let (queue, reply) = (Arc::downgrade(&bridge.queue), Some(Arc::downgrade(&self.reply)));
        let waker = Waker::from(Arc::new(Left { queue, task: self.number, reply, deadline: self.deadline }));
        let mut cx = Context::from_waker(&waker);
        let left = self.reply.lock().as_mut().map_or(Poll::Pending, |reply| reply.poll_abandoned(&mut cx));
        task.call_method1(intern!(py, "add_done_callback"), (Done(Mutex::new(Some(self))),))?;
        match left {
            Poll::Ready(()) => cancel(task),
            Poll::Pending => Ok(()),
        }
    }
}

/// What a task calls when it is done.
#[pyclass(frozen)]
struct Done(Mutex<Option<Answer>>);

#[pymethods]
impl Done {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let answer = self.0.lock().take();
        answer.map_or(Ok(()), |answer| answer.finish(task))
    }
}

/// What a handler returns in place of an exception that asyncio would end its loop for.
#[pyclass(frozen)]
pub(crate) struct Raised(Py<PyAny>);

#[pymethods]
impl Raised {
    #[new]
    fn new(exception: Py<PyAny>) -> Self {
        Raised(exception)
    }
}

/// Turns the I/O of a server on the thread of an event loop.
#[pyclass(frozen)]
pub(crate) struct Driver(
    /// Locked also while handlers run, but nobody else asks for it: a loop has one driver, and one thread.
    Mutex<portico_core::Driver>,
);

impl Driver {
    /// A driver for a server whose first event loop no thread turns yet.
    pub(crate) fn new(
        py: Python<'_>,
        server: &portico_core::Server,
        bridge: &Bridge,
        other: OwnedFd,
    ) -> Result<Option<Self>, portico_core::Error> {
        let driver = detach(py, || server.driver(other))?;
        if let Some(driver) = &driver {
            bridge.queue.wake_by(Wakes::Driver(driver.waker()));
        }
        Ok(driver.map(|driver| Driver(Mutex::new(driver))))
    }
}

#[pymethods]
impl Driver {
    /// Does I/O for `timeout` seconds, or until there is something else to do. Returns whether `Bridge.run` has something,
    /// whether the loop's own descriptors are ready, and whether the server has ended. `drained` says that none was ready
    /// the last time.
    #[pyo3(signature = (timeout, drained))]
    fn drive(&self, py: Python<'_>, timeout: Option<f64>, drained: bool) -> (bool, bool, bool) {
        // What is too long for a Duration is for ever.
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let Driven { called, readable, ended } = detach(py, || self.0.lock().drive(timeout, drained));
        (called, readable, ended)
    }
}
