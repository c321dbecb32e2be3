//! `portico._core.Server`, and the contexts and listeners it gives out. `python/portico/_server.py` is what users see.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_core::tls::{self, Options, Source, Sources};
use portico_core::{Address, Auto, Config, Endpoint, Error, Handler, Inline, Place, Pool, Pooled, Spawn, Stat};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::errors::{self, ConfigError};
use crate::handler::{Function, Site};
use crate::loops::{Bridge, OnLoop};
use crate::reports::Reporter;
use crate::settings;
use crate::slot::Slot;
use crate::threads::{PythonThreads, detach, try_attach};

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
    pool: Arc<Pool>,
    /// Every Python object that handlers hold.
    slots: Arc<Mutex<Vec<Arc<Slot>>>>,
    /// What is started with the first listener, and whether it was.
    started: Mutex<Started>,
}

#[derive(Default)]
struct Started {
    reporter: bool,
    pool: bool,
    pool_wanted: bool,
    watch: bool,
    watch_wanted: bool,
}

/// Where a handler is called: `inline`, `threads`, `auto`, or on the event loop behind a bridge.
#[derive(FromPyObject)]
enum Mode<'py> {
    Loop(Bound<'py, Bridge>),
    Word(String),
}

#[pymethods]
impl Server {
    /// `owner` returns the `portico.Server` or None; `start_thread(name, target)` starts threads.
    #[new]
    #[pyo3(signature = (settings, handler, mode, owner, reports, start_thread))]
    fn new(
        settings: &Bound<'_, PyDict>,
        handler: Option<Py<PyAny>>,
        mode: Mode<'_>,
        owner: Py<PyAny>,
        reports: Py<PyAny>,
        start_thread: Py<PyAny>,
    ) -> PyResult<Self> {
        let config = settings::parse(settings)?;
        let reports = Slot::new(reports);
        let slots = Arc::new(Mutex::new(vec![reports.clone()]));
        let site = Arc::new(Site { server: owner, reports });
        let spawn: Arc<dyn Spawn> = Arc::new(PythonThreads(start_thread));
        let reporter = Arc::new(Reporter::default());
        let pool = Pool::new(config.threads.1, spawn.clone());
        let mut started = Started::default();
        let handler = handler.map(|callable| {
            let callable = Slot::new(callable);
            slots.lock().push(callable.clone());
            make_handler(&site, &pool, &mut started, callable, &mode)
        });
        let server = portico_core::Server::new(config.clone(), handler, spawn.clone(), reporter.clone());
        server.on_closed({
            let (pool, reporter, slots) = (pool.clone(), reporter.clone(), slots.clone());
            Box::new(move || {
                pool.close();
                reporter.close();
                // The handlers are gone; a handler that still runs keeps what it needs.
                slots.lock().truncate(1);
            })
        });
        let (server, process) = (Arc::new(server), std::process::id());
        Ok(Server { server, process, config, site, spawn, reporter, pool, slots, started: Mutex::new(started) })
    }

    /// The value of the setting `dispatch`.
    #[staticmethod]
    fn dispatch(settings: &Bound<'_, PyDict>) -> PyResult<&'static str> {
        use portico_core::config::Dispatch;
        Ok(match settings::parse(settings)?.dispatch {
            Dispatch::Auto => "auto",
            Dispatch::Inline => "inline",
            Dispatch::Threads => "threads",
            Dispatch::Asyncio => "asyncio",
        })
    }

    #[pyo3(signature = (host, cert, key, password, min_version, max_version, alpn, handler, mode))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of add_context, spelled out once in Python")]
    fn add_context(
        &self,
        py: Python<'_>,
        host: Option<String>,
        cert: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        password: Option<String>,
        min_version: &str,
        max_version: &str,
        alpn: Vec<String>,
        handler: Option<Py<PyAny>>,
        mode: Mode<'_>,
    ) -> PyResult<Context> {
        let sources = Sources { cert: source(cert, "cert")?, key: source(key, "key")?, password };
        let options = Options {
            min_version: version(min_version, "min_version")?,
            max_version: version(max_version, "max_version")?,
            alpn: self.alpn(alpn)?,
        };
        let handler = handler.map(|callable| self.make_handler(callable, &mode));
        detach(py, || {
            let context = Arc::new(tls::Context::new(host.as_deref(), sources, options, handler)?);
            self.server.add_context(context.clone())?;
            Ok(Context(context))
        })
        .map_err(errors::to_python)
        .and_then(|context| self.start_helpers(py).map(|()| context))
    }

    fn remove_context(&self, py: Python<'_>, host: Option<&str>) -> PyResult<()> {
        detach(py, || self.server.remove_context(host)).map_err(errors::to_python)
    }

    fn contexts(&self) -> Vec<Context> {
        self.server.contexts().into_iter().map(Context).collect()
    }

    #[pyo3(signature = (host, port, unix, fd, tls, reuse_port, backlog))]
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
    ) -> PyResult<Listener> {
        let place = match (unix, fd) {
            (Some(path), _) => Place::Unix(path.into()),
            (None, Some(fd)) => Place::Inherited(Arc::new(duplicate(fd)?)),
            (None, None) => Place::Inet { host, port },
        };
        let endpoint = Endpoint { place, tls, reuse_port, backlog };
        let listener = detach(py, || self.server.listen(&endpoint)).map_err(errors::to_python)?;
        self.start_reporter(py)?;
        self.started.lock().reporter = true;
        self.start_helpers(py)?;
        Ok(Listener(listener))
    }

    /// Begins to close, and returns.
    fn close(&self, py: Python<'_>, grace: f64) -> PyResult<()> {
        let grace = Duration::try_from_secs_f64(grace)
            .map_err(|_| ConfigError::new_err(format!("grace: a number of seconds from 0 on, not {grace}")))?;
        detach(py, || self.server.close(grace));
        Ok(())
    }

    /// Calls `callback()` once when the server has ended; at once where it has.
    fn on_closed(&self, py: Python<'_>, callback: Py<PyAny>) {
        let call = move || {
            try_attach(|py| {
                if let Err(error) = callback.call0(py) {
                    error.write_unraisable(py, Some(callback.bind(py)));
                }
            });
        };
        detach(py, || self.server.on_closed(Box::new(call)));
    }

    fn is_open(&self) -> bool {
        self.server.is_open()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.slots.try_lock().map_or(Ok(()), |slots| slots.iter().try_for_each(|slot| slot.traverse(&visit)))
    }

    fn __clear__(&self) {
        let slots = std::mem::take(&mut *self.slots.lock());
        slots.iter().for_each(|slot| slot.clear());
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        for (name, _, stat) in self.server.stats() {
            match stat {
                Stat::Number(number) => stats.set_item(name, number)?,
                Stat::Labelled(labels) => {
                    let dict = PyDict::new(py);
                    for (label, number) in labels {
                        dict.set_item(label, number)?;
                    }
                    stats.set_item(name, dict)?;
                }
            }
        }
        Ok(stats)
    }
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
    fn make_handler(&self, callable: Py<PyAny>, mode: &Mode<'_>) -> Arc<dyn Handler> {
        let callable = Slot::new(callable);
        self.slots.lock().push(callable.clone());
        make_handler(&self.site, &self.pool, &mut self.started.lock(), callable, mode)
    }

    /// A thread for the errors of connections, from the first listener on.
    fn start_reporter(&self, py: Python<'_>) -> PyResult<()> {
        if self.started.lock().reporter {
            return Ok(());
        }
        let (reporter, site) = (self.reporter.clone(), self.site.clone());
        let body = Box::new(move || reporter.run(&site.reports));
        Ok(detach(py, || self.spawn.spawn("portico-reports".into(), body))?)
    }

    /// The threads that handlers need, once there is a listener and such a handler.
    fn start_helpers(&self, py: Python<'_>) -> PyResult<()> {
        let (pool, watch) = {
            let mut started = self.started.lock();
            if !started.reporter {
                return Ok(());
            }
            let now = (started.pool_wanted && !started.pool, started.watch_wanted && !started.watch);
            started.pool |= now.0;
            started.watch |= now.1;
            now
        };
        detach(py, || {
            if pool {
                let started = self.pool.start(self.config.threads.0);
                started.map_err(|source| Error::Listen { address: "a pool of threads".into(), source })?;
            }
            if watch { self.server.watch_handlers() } else { Ok(()) }
        })
        .map_err(errors::to_python)
    }

    /// Only protocols that are spoken are offered.
    fn alpn(&self, names: Vec<String>) -> PyResult<Vec<Vec<u8>>> {
        let known = [("h2", self.config.http2), ("http/1.1", self.config.http1)];
        let mut offered = Vec::new();
        for name in names {
            match known.iter().find(|(known, _)| *known == name) {
                Some((_, true)) => offered.push(name.into_bytes()),
                Some((_, false)) => {}
                None => return Err(ConfigError::new_err(format!("alpn: h2 and http/1.1 are spoken, not {name:?}"))),
            }
        }
        Ok(offered)
    }
}

fn make_handler(
    site: &Arc<Site>,
    pool: &Arc<Pool>,
    started: &mut Started,
    callable: Arc<Slot>,
    mode: &Mode<'_>,
) -> Arc<dyn Handler> {
    let function = Function { callable, site: site.clone() };
    match mode {
        Mode::Loop(bridge) => Arc::new(OnLoop { function: Arc::new(function), queue: bridge.get().0.clone() }),
        Mode::Word(word) => {
            let handler = Arc::new(function);
            started.watch_wanted |= word != "threads";
            started.pool_wanted |= word != "inline";
            match word.as_str() {
                "inline" => Arc::new(Inline { handler }),
                "threads" => Arc::new(Pooled { handler, pool: pool.clone() }),
                _ => Arc::new(Auto::new(handler, pool.clone())),
            }
        }
    }
}

/// A descriptor of our own for what a number in the caller's hands refers to; that one stays the caller's.
fn duplicate(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(ConfigError::new_err(format!("fd: the descriptor of a listening socket, not {fd}")));
    }
    #[expect(unsafe_code, reason = "a number becomes a descriptor")]
    // SAFETY: borrowed for the call only, during which the kernel checks that the number is an open descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(|source| {
        errors::to_python(portico_core::Error::Listen { address: format!("descriptor {fd}"), source })
    })
}

/// A path (`str`, `os.PathLike`) or the bytes themselves; a `str` that is PEM is taken as such.
fn source(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Source> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Source::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_cow()?;
        if text.contains("-----BEGIN ") {
            return Ok(Source::Bytes(text.as_bytes().to_vec()));
        }
    }
    match value.extract::<std::path::PathBuf>() {
        Ok(path) => Ok(Source::File(path)),
        Err(_) => Err(ConfigError::new_err(format!(
            "{name}: a path (str or os.PathLike) or bytes, not {}",
            value.get_type().name()?
        ))),
    }
}

fn version(text: &str, name: &str) -> PyResult<tls::Version> {
    match text {
        "1.2" => Ok(tls::Version::Tls12),
        "1.3" => Ok(tls::Version::Tls13),
        _ => Err(ConfigError::new_err(format!("{name}: \"1.2\" or \"1.3\", not {text:?}"))),
    }
}

/// A context of the core.
#[pyclass(frozen, eq)]
pub(crate) struct Context(Arc<tls::Context>);

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[pymethods]
impl Context {
    #[getter]
    fn host(&self) -> Option<&str> {
        self.0.host()
    }

    /// Subject, and the end in seconds since 1970.
    fn describe(&self) -> (String, i64) {
        self.0.describe()
    }

    #[pyo3(signature = (cert, key, password))]
    fn replace(
        &self,
        py: Python<'_>,
        cert: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        password: Option<String>,
    ) -> PyResult<()> {
        let sources = Sources { cert: source(cert, "cert")?, key: source(key, "key")?, password };
        detach(py, || self.0.replace(sources)).map_err(errors::to_python)
    }

    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        detach(py, || self.0.reload()).map_err(errors::to_python)
    }
}

/// A listener of the core.
#[pyclass(frozen)]
pub(crate) struct Listener(portico_core::Listener);

#[pymethods]
impl Listener {
    /// `(host, port)`, or the path of a Unix socket.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.0.address() {
            Address::Inet(address) => (address.ip().to_string(), address.port()).into_pyobject(py)?.into_any(),
            Address::Unix(path) => path.as_deref().unwrap_or("").into_pyobject(py)?.into_any(),
        })
    }

    #[getter]
    fn tls(&self) -> bool {
        self.0.is_tls()
    }

    fn close(&self, py: Python<'_>) {
        detach(py, || self.0.close());
    }
}
