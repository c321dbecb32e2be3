//! `portico._core.Server`. `python/portico/_server.py` is what users see.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use portico_core::access_log::LogTarget;
use portico_core::config::Dispatch;
use portico_core::dispatch::Streams;
use portico_core::http::form::Limits;
use portico_core::locks::Mutex;
use portico_core::tls;
use portico_core::{
    Auto, Config, Counted, Endpoint, Error, Handler, Inline, Placing, Pool, Pooled, Runs, Spawn, Stat, Token,
};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use crate::admin::{Lines, WorkersSeen};
use crate::contexts::{self, Context};
use crate::errors::{self, ConfigError};
use crate::files::StaticFiles;
use crate::handler::{Function, Patient, Site};
use crate::listener::{Listener, duplicate, place};
use crate::loops::{Bridge, Driver, OnLoop};
use crate::reports::Reporter;
use crate::router::{self, Pattern, Router};
use crate::sessions::SessionCounts;
use crate::settings;
use crate::slot::Slot;
use crate::streams::{self, Visits};
use crate::threads::{PythonThreads, detach, try_attach};
use crate::trace::Tracer;

/// The server of the core.
#[pyclass(frozen)]
pub(crate) struct Server {
    server: Arc<portico_core::Server>,
    /// The process that it belongs to.
    process: u32,
    config: Config,
    site: Arc<Site>,
    spawn: Arc<dyn Spawn>,
    reporter: Arc<Reporter>,
    tracer: Option<Arc<Tracer>>,
    pool: Arc<Pool>,
    visits: Visits,
    /// The reports and who is told of connections, for the garbage collector.
    told: Vec<Weak<Slot>>,
    /// Every handler that was given, for the garbage collector too.
    handlers: Mutex<Vec<Given>>,
    wanted: Mutex<Wanted>,
}

/// Threads that handlers need besides those of the event loops; each is started once, with the first listener.
#[derive(Default)]
struct Wanted {
    listens: bool,
    reporter: Need,
    tracer: Need,
    pool: Need,
    streams: Need,
    watchdog: Need,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Need {
    #[default]
    No,
    Yes,
    Met,
}

impl Need {
    fn want(&mut self) {
        if *self == Need::No {
            *self = Need::Yes;
        }
    }
}

#[pymethods]
impl Server {
    /// `owner` returns the `portico.Server` or None; `start_thread(name, target)` starts threads; `trace` is called with what
    /// connections do.
    #[new]
    #[pyo3(signature = (settings, owner, reports, start_thread, trace))]
    fn new(
        settings: &Bound<'_, PyDict>,
        owner: Py<PyAny>,
        reports: Py<PyAny>,
        start_thread: Py<PyAny>,
        trace: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let config = settings::parse(settings)?;
        let reports = Slot::new(reports);
        let (mut told, handlers) = (vec![Arc::downgrade(&reports)], Mutex::default());
        let spawn: Arc<dyn Spawn> = Arc::new(PythonThreads(start_thread));
        let reporter = Arc::new(Reporter::default());
        let pool = Pool::new(config.threads.0, config.threads.1, spawn.clone());
        let visits = Visits::new(config.stream_threads, spawn.clone());
        reporter.log_to(&reports);
        let forms = Arc::new(Limits::from(&config));
        let site = Arc::new(Site { server: owner, reports, long: visits.pool.clone(), forms });
        let server = portico_core::Server::new(config.clone(), None, spawn.clone(), reporter.clone())
            .map_err(errors::to_python)?;
        let tracer = trace.map(|callable| {
            let tracer = Arc::new(Tracer { queue: Arc::default(), callable: Slot::new(callable) });
            told.push(Arc::downgrade(&tracer.callable));
            server.trace_to(tracer.queue.clone());
            tracer
        });
        server.show_pool("handlers", &pool);
        server.show_pool("streams", &visits.pool);
        server.on_closed({
            let (pool, visited, reporter) = (pool.clone(), visits.pool.clone(), reporter.clone());
            let queue = tracer.as_ref().map(|tracer| tracer.queue.clone());
            Box::new(move || {
                pool.close();
                visited.close();
                reporter.close();
                queue.iter().for_each(|queue| queue.close());
            })
        });
        let traces = if tracer.is_some() { Need::Yes } else { Need::No };
        let wanted = Mutex::new(Wanted { reporter: Need::Yes, tracer: traces, ..Wanted::default() });
        let (server, process) = (Arc::new(server), std::process::id());
        Ok(Server { server, process, config, site, spawn, reporter, tracer, pool, visits, told, handlers, wanted })
    }

    /// The value of the setting `dispatch`.
    #[getter]
    fn dispatch(&self) -> &'static str {
        match self.config.dispatch {
            Dispatch::Auto => "auto",
            Dispatch::Inline => "inline",
            Dispatch::Threads => "threads",
            Dispatch::Asyncio => "asyncio",
        }
    }

    /// Sets who answers for hosts without a handler of their own; on the event loop behind a bridge, where one is given.
    #[pyo3(signature = (handler, bridge))]
    fn set_handler(&self, handler: &Bound<'_, PyAny>, bridge: Option<&Bound<'_, Bridge>>) -> PyResult<()> {
        self.server.set_handler(Some(self.make_handler(handler, bridge)?));
        Ok(())
    }

    /// Has a handler answer a method at a path, or, for the method None, what is mounted there; in place of whoever did.
    #[pyo3(signature = (router, method, path, handler, bridge))]
    fn add_route(
        &self,
        py: Python<'_>,
        router: &Router,
        method: Option<&str>,
        path: &Pattern,
        handler: &Bound<'_, PyAny>,
        bridge: Option<&Bound<'_, Bridge>>,
    ) -> PyResult<()> {
        let handler = self.make_handler(handler, bridge)?;
        let _replaced = match method {
            Some(name) => router.core()?.route(&router::method(name)?, &path.0, handler),
            None => router.core()?.mount(&path.0, &handler),
        }
        .map_err(errors::to_python)?;
        self.start_threads_if_listening(py)
    }

    /// Has a handler answer where there is no route, in place of the server.
    #[pyo3(signature = (router, handler, bridge))]
    fn set_missing(
        &self,
        py: Python<'_>,
        router: &Router,
        handler: &Bound<'_, PyAny>,
        bridge: Option<&Bound<'_, Bridge>>,
    ) -> PyResult<()> {
        let _replaced = router.core()?.set_missing(self.make_handler(handler, bridge)?);
        self.start_threads_if_listening(py)
    }

    /// `keywords` are those of `add_context`, each of them.
    #[pyo3(signature = (host, keywords, handler, bridge))]
    fn add_context(
        &self,
        py: Python<'_>,
        host: Option<String>,
        keywords: &Bound<'_, PyDict>,
        handler: Option<&Bound<'_, PyAny>>,
        bridge: Option<&Bound<'_, Bridge>>,
    ) -> PyResult<Context> {
        let (sources, rules) = (contexts::sources(keywords)?, contexts::rules(keywords, &self.config)?);
        let handler = handler.map(|handler| self.make_handler(handler, bridge)).transpose()?;
        detach(py, || {
            let context = Arc::new(tls::Context::new(host.as_deref(), sources, rules, handler)?);
            if self.wanted.lock().listens {
                self.start_threads()?;
            }
            self.server.add_context(context.clone())?;
            Ok(Context(context))
        })
        .map_err(errors::to_python)
    }

    fn remove_context(&self, py: Python<'_>, host: Option<&str>) -> PyResult<()> {
        detach(py, || self.server.remove_context(host)).map_err(errors::to_python)
    }

    fn contexts(&self) -> Vec<Context> {
        self.server.contexts().into_iter().map(Context).collect()
    }

    /// `stream` says who takes connections that are not for HTTP: `(target, alpn, bridge)`, see [`streams::Given`].
    #[pyo3(signature = (host, port, unix, fd, tls, reuse_port, backlog, stream, proxy_protocol))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of listen, spelled out once in Python")]
    fn listen(
        &self,
        py: Python<'_>,
        host: String,
        port: u16,
        unix: Option<OsString>,
        fd: Option<RawFd>,
        tls: bool,
        reuse_port: bool,
        backlog: Option<i32>,
        stream: Option<streams::Given<'_>>,
        proxy_protocol: bool,
    ) -> PyResult<Listener> {
        let endpoint = Endpoint { place: place(host, port, unix, fd)?, tls, reuse_port, backlog };
        let streams = stream.map(|given| {
            if given.2.is_none() {
                self.wanted.lock().streams.want();
            }
            self.visits.streams(given, &self.site)
        });
        detach(py, || {
            let mut bound = self.server.bind(&endpoint)?;
            if let Some(streams) = streams {
                bound = bound.with_streams(streams);
            }
            if proxy_protocol {
                bound = bound.with_proxy_protocol();
            }
            // First: whoever adds a handler from now on starts its threads.
            self.wanted.lock().listens = true;
            // Before the first connection: where one of them cannot be started, nothing is accepted.
            self.start_threads()?;
            self.server.accept(bound).map(Listener)
        })
        .map_err(errors::to_python)
    }

    /// Serves what is for those who run the server.
    #[pyo3(signature = (host, port, unix, fd, tls, token, workers=None))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of listen_admin, spelled out once in Python")]
    fn listen_admin(
        &self,
        py: Python<'_>,
        host: String,
        port: u16,
        unix: Option<OsString>,
        fd: Option<RawFd>,
        tls: bool,
        token: Option<&str>,
        workers: Option<&WorkersSeen>,
    ) -> PyResult<Listener> {
        let endpoint = Endpoint { place: place(host, port, unix, fd)?, tls, reuse_port: false, backlog: None };
        let token = token.map(Token::new).transpose().map_err(errors::to_python)?;
        detach(py, || {
            self.start_reporter()?;
            self.server.listen_admin(&endpoint, token, workers.map(|seen| seen.0.clone())).map(Listener)
        })
        .map_err(errors::to_python)
    }

    /// A driver by which an event loop, to which `bridge` leads, does this server's I/O; `fd` is readable when that loop has
    /// something to do. None where a thread does it already.
    fn drive(&self, py: Python<'_>, bridge: &Bridge, fd: RawFd) -> PyResult<Option<Driver>> {
        let other = duplicate(fd)?;
        Driver::new(py, &self.server, bridge, other).map_err(errors::to_python)
    }

    /// Opens the file of the access log anew.
    fn reopen_logs(&self, py: Python<'_>) -> PyResult<()> {
        detach(py, || self.server.reopen_logs()).map_err(errors::to_python)
    }

    /// Whether the access log goes to a file, which somebody may rename.
    fn logs_to_file(&self) -> bool {
        matches!(self.config.access_log, Some(LogTarget::File(_)))
    }

    /// Begins to close, and returns. `idle` is there in place of the setting `drain_idle_timeout`.
    #[pyo3(signature = (grace, idle=None))]
    fn close(&self, py: Python<'_>, grace: f64, idle: Option<f64>) -> PyResult<()> {
        let seconds = |name, given| {
            Duration::try_from_secs_f64(given)
                .map_err(|_| ConfigError::new_err(format!("{name}: a number of seconds from 0 on, not {given}")))
        };
        let (grace, idle) = (seconds("grace", grace)?, idle.map(|idle| seconds("idle", idle)).transpose()?);
        detach(py, || self.server.close(grace, idle));
        Ok(())
    }

    /// Calls `callback()` once when the server has ended; at once where it has.
    fn on_closed(&self, py: Python<'_>, callback: Py<PyAny>) {
        let call = move || {
            try_attach(|py| {
                // A server may be freed, and so closed, while an exception is on its way.
                let pending = PyErr::take(py);
                if let Err(error) = callback.call0(py) {
                    error.write_unraisable(py, Some(callback.bind(py)));
                }
                if let Some(pending) = pending {
                    pending.restore(py);
                }
            });
        };
        detach(py, || self.server.on_closed(Box::new(call)));
    }

    /// Where lines of the log are noted, for the dashboard.
    fn recent(&self) -> Lines {
        Lines(self.server.recent().clone())
    }

    /// Shows what is counted of its requests' sessions.
    fn show_sessions(&self, counts: &SessionCounts) {
        self.server.show_sessions(counts.0.clone());
    }

    fn is_open(&self) -> bool {
        self.server.is_open()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(handlers) = self.handlers.try_lock() else { return Ok(()) };
        let slots = handlers.iter().map(|given| &given.slot).chain(&self.told);
        slots.filter_map(Weak::upgrade).try_for_each(|slot| slot.traverse(&visit))?;
        self.visits.traverse(&visit)
    }

    fn __clear__(&self) {
        let handlers = std::mem::take(&mut *self.handlers.lock());
        let slots = handlers.iter().map(|given| &given.slot).chain(&self.told);
        slots.filter_map(Weak::upgrade).for_each(|slot| slot.clear());
        self.visits.clear();
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        for Counted { name, stat, .. } in self.server.stats() {
            match stat {
                Stat::Number(number) => stats.set_item(name, number)?,
                Stat::Labelled(_, labels) => stats.set_item(name, labels.into_py_dict(py)?)?,
                Stat::Seconds(_, labels) => stats.set_item(name, labels.into_py_dict(py)?)?,
            }
        }
        let latencies = self.server.latencies().into_iter().map(|latency| {
            let dict = PyDict::new(py);
            dict.set_item("host", latency.host)?;
            dict.set_item("route", latency.route)?;
            dict.set_item("method", latency.method)?;
            dict.set_item("status", latency.status)?;
            dict.set_item("count", latency.count)?;
            dict.set_item("seconds", latency.seconds)?;
            dict.set_item("buckets", latency.buckets.into_py_dict(py)?)?;
            Ok(dict)
        });
        stats.set_item("latencies", latencies.collect::<PyResult<Vec<_>>>()?)?;
        Ok(stats)
    }

    /// Each handler that is in use, where it runs (`inline`, `threads`, `asyncio`), why, how often it was moved (to
    /// inline, and back), and which paths of one that is inline run on the pool.
    fn handlers(&self, py: Python<'_>) -> PyResult<Vec<(Py<PyAny>, Told)>> {
        let given: Vec<_> = {
            let handlers = self.handlers.lock();
            handlers.iter().filter_map(|given| Some((given.slot.upgrade()?, given.placing.tell()))).collect()
        };
        let told = given
            .into_iter()
            .map(|(slot, told)| Ok((slot.get(py)?.unbind(), (told.runs, told.why, told.moves, told.slow_paths))));
        told.collect()
    }
}

/// A handler that was given to the server.
struct Given {
    slot: Weak<Slot>,
    placing: Placing,
}

type Told = (&'static str, String, (u32, u32), Vec<String>);

/// What to call a handler: as `portico._reports` does, so that logs and dashboard say the same.
fn name_of(handler: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = handler.py();
    py.import(intern!(py, "portico._reports"))?.call_method1(intern!(py, "name_of"), (handler,))?.extract()
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A forked copy. The threads that were in the middle of its event loops do not exist here, and nothing of those
            // can be touched: it is left to the end of the process.
            std::mem::forget(self.server.clone());
        }
    }
}

impl Server {
    /// What WebSockets need of it, and whether it speaks them.
    pub(crate) fn for_websockets(&self) -> (Arc<portico_core::Server>, Arc<Site>, bool) {
        (self.server.clone(), self.site.clone(), self.config.websocket)
    }

    /// A handler that is called where it belongs: on an event loop behind a bridge, else as the setting `dispatch` says. A
    /// router is one already.
    fn make_handler(
        &self,
        handler: &Bound<'_, PyAny>,
        bridge: Option<&Bound<'_, Bridge>>,
    ) -> PyResult<Arc<dyn Handler>> {
        if let Ok(router) = handler.cast::<Router>() {
            return router.get().handler();
        }
        if let Ok(files) = handler.cast::<StaticFiles>() {
            return Ok(files.get().handler());
        }
        let streams = streams(handler)?;
        let callable = Slot::new(handler.clone().unbind());
        let slot = Arc::downgrade(&callable);
        let given = handler;
        let handler = Arc::new(Function { callable, site: self.site.clone(), streams });
        let (handler, placing): (Arc<dyn Handler>, _) = match bridge {
            Some(bridge) => {
                let (queue, timeout) = (bridge.get().queue.clone(), self.config.handler_timeout);
                (Arc::new(OnLoop { function: handler, queue, timeout }), Placing::Set(Runs::Asyncio))
            }
            None => self.dispatch_function(handler),
        };
        // A handler of no name at all is still one.
        let name = name_of(given).unwrap_or_else(|_| "?".into());
        self.server.roster().add(&name, placing.clone(), slot.clone());
        let mut handlers = self.handlers.lock();
        if handlers.len() == handlers.capacity() {
            // Forgets those that are gone; with room for as many again, so that a hundred thousand routes take no longer each.
            handlers.retain(|given| given.slot.strong_count() > 0);
            let room = handlers.len() + 1;
            handlers.reserve(room);
        }
        handlers.push(Given { slot, placing });
        Ok(handler)
    }

    /// What was added while serving may need threads that nothing needed before.
    fn start_threads_if_listening(&self, py: Python<'_>) -> PyResult<()> {
        if !self.wanted.lock().listens {
            return Ok(());
        }
        detach(py, || self.start_threads()).map_err(errors::to_python)
    }

    /// A `def` handler that is called as the setting `dispatch` says.
    fn dispatch_function(&self, handler: Arc<Function>) -> (Arc<dyn Handler>, Placing) {
        if handler.streams == Streams::None {
            return self.dispatch_otherwise(handler);
        }
        self.wanted.lock().streams.want();
        let (otherwise, placing) = self.dispatch_otherwise(handler.clone());
        (Arc::new(Patient { function: handler, otherwise, pool: self.visits.pool.clone() }), placing)
    }

    /// The same for one that does not wait for its client.
    fn dispatch_otherwise(&self, handler: Arc<Function>) -> (Arc<dyn Handler>, Placing) {
        let mut wanted = self.wanted.lock();
        if self.config.dispatch != Dispatch::Inline {
            wanted.pool.want();
        }
        if self.config.dispatch != Dispatch::Threads {
            wanted.watchdog.want();
        }
        match self.config.dispatch {
            Dispatch::Inline => (Arc::new(Inline { handler }), Placing::Set(Runs::Inline)),
            Dispatch::Threads => (Arc::new(Pooled { handler, pool: self.pool.clone() }), Placing::Set(Runs::Threads)),
            Dispatch::Auto | Dispatch::Asyncio => {
                let auto = Auto::new(handler, self.pool.clone());
                let judge = auto.judge();
                (Arc::new(auto), Placing::Auto(judge))
            }
        }
    }

    /// Starts the threads that are needed and not there yet.
    fn start_threads(&self) -> Result<(), Error> {
        self.start_reporter()?;
        if let Some(tracer) = self.tracer.clone() {
            let site = self.site.clone();
            self.meet(
                |wanted| &mut wanted.tracer,
                "a thread for its trace",
                || self.spawn.spawn("portico-trace".into(), Box::new(move || tracer.run(&site.reports))),
            )?;
        }
        self.meet(|wanted| &mut wanted.pool, "a pool of threads", || self.pool.start())?;
        self.meet(|wanted| &mut wanted.streams, "a thread for streams", || self.visits.pool.start())?;
        self.meet(|wanted| &mut wanted.watchdog, "a watchdog", || self.server.watch_handlers())
    }

    fn start_reporter(&self) -> Result<(), Error> {
        let (reporter, site) = (self.reporter.clone(), self.site.clone());
        let report = move || reporter.run(&site.reports);
        self.meet(
            |wanted| &mut wanted.reporter,
            "a thread for reports",
            || self.spawn.spawn("portico-reports".into(), Box::new(report)),
        )
    }

    /// Starts something once, without a lock: starting a thread runs Python. What failed may be tried again.
    fn meet(
        &self,
        need: impl Fn(&mut Wanted) -> &mut Need,
        what: &str,
        start: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Error> {
        {
            let mut wanted = self.wanted.lock();
            let need = need(&mut wanted);
            if *need != Need::Yes {
                return Ok(());
            }
            *need = Need::Met;
        }
        start().map_err(|source| {
            *need(&mut self.wanted.lock()) = Need::Yes;
            Error::Listen { address: format!("anything without {what}"), source }
        })
    }
}

/// Which bodies a handler takes as they come: every one by its attribute `stream_body`, those that are announced to be so long
/// by `stream_body_from`, which gateways have.
fn streams(handler: &Bound<'_, PyAny>) -> PyResult<Streams> {
    let py = handler.py();
    if let Some(streams) = handler.getattr_opt(intern!(py, "stream_body"))?
        && streams.is_truthy()?
    {
        return Ok(Streams::Every);
    }
    let least = handler.getattr_opt(intern!(py, "stream_body_from"))?;
    least.map_or(Ok(Streams::None), |least| Ok(Streams::Announced(least.extract()?)))
}
