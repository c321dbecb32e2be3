//! A server: its hosts, its listeners, the threads that do its I/O, its beginning and its end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderName, HeaderValue};
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::dispatch::{Handler, Pool, Roster, Work};
use crate::error::{Error, Observer};
use crate::event_loops::{Driver, EventLoops, Pulse};
use crate::http::coding::Encoders;
use crate::listener::{self, Bound, Endpoint, Listener};
use crate::locks::{Mutex, RwLock};
use crate::metrics::{Counted, Latency, Metrics, SessionCounts};
use crate::proxy::Forwarding;
use crate::recent::{Recent, Remembering};
use crate::record::Finished;
use crate::request_id;
use crate::shutdown::{Lifecycle, Phase};
use crate::tls::{self, Context, Hosts, host_name};
use crate::trace;

/// Starts threads: an embedding language may want them to be its own.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `body` on a new thread of that name, without waiting for it.
    ///
    /// # Errors
    /// The machine has no thread to give.
    fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// Plain threads.
pub struct StdThreads;

impl Spawn for StdThreads {
    fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        std::thread::Builder::new().name(name).spawn(body).map(drop)
    }
}

/// What every connection of a server shares.
pub(crate) struct Service {
    pub(crate) config: Arc<Config>,
    /// Those of the server that this one is beside, where it has none of its own.
    pub(crate) hosts: Arc<RwLock<Hosts>>,
    /// Who answers for every host, where that has nothing to do with hosts.
    pub(crate) only: Option<Arc<dyn Handler>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Where connections tell what they do; nowhere, where nobody asks.
    pub(crate) trace: OnceLock<Arc<trace::Queue>>,
    /// Connections by network, where `max_connections_per_ip` is set.
    pub(crate) seats: Mutex<HashMap<IpAddr, usize>>,
    pub(crate) encoders: Encoders,
    /// The last lines of its log.
    pub(crate) recent: Arc<Recent>,
    /// Who answers, and where.
    pub(crate) roster: Arc<Roster>,
    /// Where it listens, in words.
    pub(crate) places: Mutex<Vec<String>>,
    /// When it was made.
    pub(crate) made: (Instant, SystemTime),
    /// Listeners that accept.
    pub(crate) listening: AtomicUsize,
    /// Whether there was ever one.
    pub(crate) has_listened: AtomicBool,
    pub(crate) pulse: Pulse,
    /// Where headers of proxies are believed.
    pub(crate) forwarding: Option<Arc<Forwarding>>,
    access_log: Option<AccessLog>,
    connections: AtomicU64,
    /// Connections and accepting listeners.
    alive: AtomicUsize,
    /// Told when `alive` falls to 0.
    empty: Notify,
}

impl Service {
    pub(crate) fn next_connection_id(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A listener has ended.
    pub(crate) fn no_longer_at(&self, place: &str) {
        let mut places = self.places.lock();
        if let Some(at) = places.iter().position(|other| other == place) {
            places.remove(at);
        }
    }

    /// Whether anybody wants to know what was asked for, and by whom: [`crate::record::Details`].
    pub(crate) fn wants_details(&self) -> bool {
        self.access_log.is_some()
    }

    /// What to call a request, where the setting `request_id_header` says that it has an id; `given` finds a header.
    pub(crate) fn request_id<'a>(&self, given: impl FnOnce(&HeaderName) -> Option<&'a [u8]>) -> Option<HeaderValue> {
        let name = self.config.request_id_header.as_ref()?;
        request_id::of(given(name))
    }

    /// A request has ended, whatever way.
    pub(crate) fn finished(&self, finished: &Finished<'_>) {
        self.metrics.finished(finished);
        if let Some(log) = &self.access_log {
            log.add(finished, &self.metrics);
        }
    }

    /// Counts one more thing that a graceful end waits for.
    pub(crate) fn join(self: &Arc<Self>) -> Alive {
        self.alive.fetch_add(1, Ordering::AcqRel);
        Alive(self.clone())
    }
}

/// Something that a graceful end waits for, until dropped.
pub(crate) struct Alive(Arc<Service>);

impl Alive {
    pub(crate) fn service(&self) -> &Service {
        &self.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.0.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_one();
        }
    }
}

/// A server. Any number may live in one process.
pub struct Server {
    service: Arc<Service>,
    spawn: Arc<dyn Spawn>,
    loops: Arc<Mutex<Option<EventLoops>>>,
    /// There while certificates' files are watched.
    watch: Arc<Mutex<Option<mpsc::Sender<Infallible>>>>,
}

impl Server {
    /// A server that does not listen yet. `handler` answers for hosts that have none of their own; see also
    /// [`Server::set_handler`].
    ///
    /// # Errors
    /// [`Error::Config`]: the access log cannot be opened.
    pub fn new(
        config: Config,
        handler: Option<Arc<dyn Handler>>,
        spawn: Arc<dyn Spawn>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let recent: Arc<Recent> = Arc::default();
        let observer = Arc::new(Remembering { recent: recent.clone(), observer });
        Server::of(config, Arc::new(RwLock::new(Hosts::new(handler))), None, spawn, (recent, observer))
    }

    /// A server that has the same certificates and tells the same observer, but nothing else in common; `handler` answers for
    /// all hosts.
    pub(crate) fn beside(
        &self,
        config: Config,
        handler: Arc<dyn Handler>,
        spawn: impl FnOnce(Arc<dyn Spawn>) -> Arc<dyn Spawn>,
    ) -> Result<Self, Error> {
        let Service { hosts, recent, observer, .. } = &*self.service;
        let told = (recent.clone(), observer.clone());
        Server::of(config, hosts.clone(), Some(handler), spawn(self.spawn.clone()), told)
    }

    fn of(
        config: Config,
        hosts: Arc<RwLock<Hosts>>,
        only: Option<Arc<dyn Handler>>,
        spawn: Arc<dyn Spawn>,
        (recent, observer): (Arc<Recent>, Arc<dyn Observer>),
    ) -> Result<Self, Error> {
        let access_log = AccessLog::open(&config)?;
        let forwarding = config.forwarded.map(|style| Forwarding { style, proxies: config.trusted_proxies.clone() });
        let service = Arc::new(Service {
            forwarding: forwarding.map(Arc::new),
            hosts,
            only,
            metrics: Arc::new(Metrics::new(&config)),
            observer,
            lifecycle: Lifecycle::new(),
            trace: OnceLock::new(),
            seats: Mutex::default(),
            encoders: Encoders::default(),
            recent,
            roster: Arc::default(),
            places: Mutex::default(),
            made: (Instant::now(), SystemTime::now()),
            listening: AtomicUsize::new(0),
            has_listened: AtomicBool::new(false),
            pulse: Pulse::new(),
            access_log,
            connections: AtomicU64::new(0),
            alive: AtomicUsize::new(0),
            empty: Notify::new(),
            config: Arc::new(config),
        });
        let loops: Arc<Mutex<Option<EventLoops>>> = Arc::default();
        let ended = loops.clone();
        // Handles of event loops keep their descriptors open.
        service.lifecycle.on_end(Box::new(move || drop(ended.lock().take())));
        Ok(Server { service, spawn, loops, watch: Arc::default() })
    }

    /// Sets who answers for hosts that have no handler of their own.
    pub fn set_handler(&self, handler: Option<Arc<dyn Handler>>) {
        self.service.hosts.write().set_fallback(handler);
    }

    /// Has every connection tell what it does. To be called before the first [`Server::listen`], once.
    pub fn trace_to(&self, queue: Arc<trace::Queue>) {
        let _ = self.service.trace.set(queue);
    }

    /// Adds a context beside those of the same host. Works while serving.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Config`] where the host's other contexts treat clients otherwise; [`Error::Listen`]: the
    /// machine has no thread to give for watching files.
    pub fn add_context(&self, context: Arc<Context>) -> Result<(), Error> {
        self.check_open("add a context to")?;
        if context.rules().watch {
            self.watch_certificates()?;
        }
        self.service.hosts.write().add(context)
    }

    /// Starts the thread that looks at certificates' files, once.
    fn watch_certificates(&self) -> Result<(), Error> {
        let ended = {
            let mut watch = self.watch.lock();
            if watch.is_some() {
                return Ok(());
            }
            let (alive, ended) = mpsc::channel();
            *watch = Some(alive);
            ended
        };
        // The thread ends when this end of the channel is dropped.
        let (watch, service) = (self.watch.clone(), self.service.clone());
        self.service.lifecycle.on_end(Box::new(move || drop(watch.lock().take())));
        let look = move || {
            tls::watch(|| service.hosts.read().contexts(), |report| service.observer.report(report), &ended);
        };
        self.spawn.spawn("portico-certificates".into(), Box::new(look)).map_err(|source| {
            self.watch.lock().take();
            Error::Listen { address: "anything without a thread for certificates".into(), source }
        })
    }

    /// Removes every context of a host; its connections go on.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Config`] where there is no such context.
    pub fn remove_context(&self, host: Option<&str>) -> Result<(), Error> {
        self.check_open("remove a context from")?;
        let name = host.map(host_name).transpose()?;
        match self.service.hosts.write().remove(name.as_deref()) {
            0 => Err(Error::Config(match name {
                Some(name) => format!("host {name:?}: no such context"),
                None => "there is no default context".into(),
            })),
            _ => Ok(()),
        }
    }

    /// Every context, by host name, the default last.
    pub fn contexts(&self) -> Vec<Arc<Context>> {
        self.service.hosts.read().contexts()
    }

    /// Begins to accept connections, and returns: [`Server::bind`] and [`Server::accept`] in one.
    ///
    /// # Errors
    /// Those of the two.
    pub fn listen(&self, endpoint: &Endpoint) -> Result<Listener, Error> {
        self.accept(self.bind(endpoint)?)
    }

    /// Takes an address, so that what else a program needs can be started before the first connection is accepted.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Config`] for TLS without any certificate; [`Error::Listen`] for what the machine
    /// refuses.
    pub fn bind(&self, endpoint: &Endpoint) -> Result<Bound, Error> {
        self.check_open("listen on")?;
        if endpoint.tls && self.service.hosts.read().is_empty() {
            return Err(Error::Config(
                "TLS needs a certificate: call add_context first, or listen with tls=False".into(),
            ));
        }
        Bound::new(endpoint, &self.service.config)
    }

    /// Begins to accept connections on it.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Config`] for the PROXY protocol without `trusted_proxies`; [`Error::Listen`]: the machine
    /// has no threads to give.
    pub fn accept(&self, bound: Bound) -> Result<Listener, Error> {
        if bound.has_proxy_protocol() && self.service.config.trusted_proxies.is_empty() {
            return Err(Error::Config(
                "proxy_protocol needs to know whom to believe: give the server the addresses of the proxies that connect to it, \
                 as in trusted_proxies=(\"10.0.0.5\", \"192.168.0.0/16\", \"unix\")"
                    .into(),
            ));
        }
        Ok(listener::start(self.service.clone(), &self.event_loops()?, bound))
    }

    /// Has the first event loop driven by somebody else's, where no thread turns it yet; none where one does.
    ///
    /// `other` is readable when that loop has something to do.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Listen`]: the machine has no threads to give.
    pub fn driver(&self, other: OwnedFd) -> Result<Option<Driver>, Error> {
        let mut driver = None;
        let loops = self.make_event_loops(|made| {
            driver = Some(made.driver(other)?);
            Ok(())
        })?;
        if driver.is_some() {
            loops.watch().map_err(no_loop)?;
        }
        Ok(driver)
    }

    /// The loops, started by the first who asks.
    fn event_loops(&self) -> Result<EventLoops, Error> {
        self.make_event_loops(|_| Ok(()))
    }

    /// The same; `prepare` is called before they are started.
    fn make_event_loops(&self, prepare: impl FnOnce(&EventLoops) -> io::Result<()>) -> Result<EventLoops, Error> {
        let made = {
            let mut loops = self.loops.lock();
            self.check_open("listen on")?;
            if let Some(running) = &*loops {
                return Ok(running.clone());
            }
            let Service { config, lifecycle, metrics, .. } = &*self.service;
            let service = self.service.clone();
            let finish = Box::new(move || finish(&service));
            let made = EventLoops::new(config.io_threads, lifecycle, metrics, &self.spawn, finish).map_err(no_loop)?;
            prepare(&made).map_err(no_loop)?;
            self.service.pulse.watch(&made);
            loops.insert(made).clone()
        };
        if let Some(log) = &self.service.access_log {
            let Service { observer, metrics, .. } = &*self.service;
            log.start(&self.spawn, observer, metrics)?;
        }
        made.start().map_err(no_loop)?;
        made.first().spawn(supervise(self.service.clone()));
        if self.service.only.is_none() {
            made.first().spawn(remind(self.service.clone()));
        }
        Ok(made)
    }

    /// Runs something on the first event loop, until that ends.
    pub(crate) fn on_first_loop(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        self.event_loops()?.first().spawn(task);
        Ok(())
    }

    /// Has handlers that hold an event loop too long noticed, at the cost of two threads: for a server whose handlers are
    /// [`crate::Inline`] or [`crate::Auto`].
    ///
    /// # Errors
    /// The server is closed, or the machine has no threads to give.
    pub fn watch_handlers(&self) -> io::Result<()> {
        self.event_loops().map_err(io::Error::other)?.watch()
    }

    /// Opens the file of the access log anew, as after it was renamed: what follows is written to the new one.
    ///
    /// # Errors
    /// [`Error::Config`]: it cannot be opened, and the old one stays; [`Error::Closed`].
    pub fn reopen_logs(&self) -> Result<(), Error> {
        self.check_open("reopen the logs of")?;
        self.service.access_log.as_ref().map_or(Ok(()), AccessLog::reopen)
    }

    /// Stops accepting, lets requests in flight finish for `grace`, then drops the rest. Clients that have asked nothing
    /// are waited for as long as `patience`, or the setting `drain_idle_timeout`. Returns at once; see [`Server::on_closed`].
    pub fn close(&self, grace: Duration, patience: Option<Duration>) {
        let loops = self.loops.lock();
        if self.service.lifecycle.has_ended() {
            return;
        }
        self.service.lifecycle.drain(grace, patience.unwrap_or(self.service.config.drain_idle_timeout));
        if loops.is_none() {
            drop(loops);
            self.service.lifecycle.stop();
            finish(&self.service);
        }
    }

    /// Calls `callback` once when the server is closed and its I/O threads are done; at once where they are. It is called
    /// on one of them.
    pub fn on_closed(&self, callback: Box<dyn FnOnce() + Send>) {
        self.service.lifecycle.on_end(callback);
    }

    /// Whether [`Server::close`] was not called yet.
    pub fn is_open(&self) -> bool {
        self.service.lifecycle.is_serving()
    }

    /// The last lines of its log, for whoever has more to note.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.service.recent
    }

    /// Its handlers, for whoever makes them.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.service.roster
    }

    /// What its connections share.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Everything that is counted.
    pub fn stats(&self) -> Vec<Counted> {
        self.service.metrics.list()
    }

    /// How long requests took: by host, route, method and class of status.
    pub fn latencies(&self) -> Vec<Latency> {
        self.service.metrics.latencies()
    }

    /// Shows in its statistics what is counted of its requests' sessions; the first that are given stay.
    pub fn show_sessions(&self, counts: Arc<SessionCounts>) {
        let _ = self.service.metrics.sessions.set(counts);
    }

    /// Shows in its statistics what a pool does for it, which is called so there.
    pub fn show_pool<W: Work>(&self, name: &'static str, pool: &Arc<Pool<W>>) {
        let pool = Arc::downgrade(pool);
        self.service.metrics.show_pool(name, move || pool.upgrade().map(|pool| pool.look()));
    }

    pub(crate) fn check_open(&self, doing: &str) -> Result<(), Error> {
        if self.is_open() { Ok(()) } else { Err(Error::Closed(format!("cannot {doing} a closed server"))) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close(Duration::ZERO, None);
    }
}

fn no_loop(source: io::Error) -> Error {
    Error::Listen { address: "an event loop".into(), source }
}

/// Ends a drain when everything is done or its time is over.
async fn supervise(service: Arc<Service>) {
    let mut phase = service.lifecycle.subscribe();
    loop {
        let until = match *phase.borrow_and_update() {
            Phase::Serving => None,
            Phase::Draining(drain) => Some(drain.until),
            Phase::Stopped => return,
        };
        let Some(until) = until else {
            if phase.changed().await.is_err() {
                return;
            }
            continue;
        };
        if service.alive.load(Ordering::Acquire) == 0 {
            break;
        }
        tokio::select! {
            () = service.empty.notified() => {}
            () = tokio::time::sleep_until(until) => break,
            _ = phase.changed() => {}
        }
    }
    service.lifecycle.stop();
}

/// Says which certificates end soon, until the server ends.
async fn remind(service: Arc<Service>) {
    let mut phase = service.lifecycle.subscribe();
    while tokio::time::timeout(tls::REMIND, phase.wait_for(|phase| *phase != Phase::Serving)).await.is_err() {
        let contexts = service.hosts.read().contexts();
        for report in tls::remind(&contexts, OffsetDateTime::now_utc().unix_timestamp()) {
            service.observer.report(report);
        }
    }
}

/// After the last I/O thread: lets go of handlers, then tells who waits.
fn finish(service: &Service) {
    service.pulse.forget();
    if service.only.is_some() {
        return service.lifecycle.end(); // The hosts are another server's.
    }
    let contexts = service.hosts.read().contexts();
    contexts.iter().for_each(|context| context.forget_handler());
    // Dropped outside the lock, because dropping handlers may run anything.
    let hosts = std::mem::take(&mut *service.hosts.write());
    drop(hosts);
    if let Some(log) = &service.access_log {
        log.close();
    }
    service.lifecycle.end();
}
