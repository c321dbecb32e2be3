//! The event loop's side: takes what waits, and makes a task of each.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use portico_core::dispatch::HOLD;
use portico_core::locks::Mutex;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::answer::Answer;
use super::queue::{Job, Left, Queue, State, Wakes};
use crate::asgi::SharedReply;
use crate::request::Called;
use crate::streams::Visit;

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
    reply.called(portico_core::dispatch::Runs::Asyncio);
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

pub(super) fn cancel(task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = task.py();
    task.call_method1(intern!(py, "cancel"), (intern!(py, "nobody waits for this response any more"),)).map(drop)
}
