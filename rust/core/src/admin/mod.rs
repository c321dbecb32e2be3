//! What people who run a server look at: metrics, probes, and whatever else stands at the admin listener.
//!
//! An admin listener is a server of its own, with a thread, limits and counters of its own, which looks at the one that it
//! is for. So it answers while every handler and every event loop of that one is stuck, and is not counted there.

mod access;
mod dashboard;
mod probes;
mod snapshot;
mod workers;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode, header};

pub use access::Token;
pub(crate) use probes::Probe;
pub use workers::Workers;

use crate::config::Config;
use crate::dispatch::{Handler, Reply};
use crate::error::Error;
use crate::http::{Request, Response};
use crate::listener::{Endpoint, Listener};
use crate::metrics::{self, Format, Metrics};
use crate::server::{Server, Service, Spawn};
use access::{Access, Entry};
use dashboard::Dashboard;

/// How often the event loops are asked whether they turn.
const PULSE: Duration = Duration::from_secs(1);

impl Server {
    /// Serves metrics and probes of this server, and what else is for those who run it, on a thread of its own until the
    /// server has ended. `token` is what clients have to show. With `workers` it is what those say, put together.
    ///
    /// # Errors
    /// [`Error::Config`]: an address that others can reach needs a token, and TLS a certificate; [`Error::Closed`];
    /// [`Error::Listen`].
    pub fn listen_admin(
        &self,
        endpoint: &Endpoint,
        token: Option<Token>,
        workers: Option<Arc<Workers>>,
    ) -> Result<Listener, Error> {
        let watched = self.service().clone();
        let access = Arc::new(Access::new(token));
        let shows = match workers {
            Some(workers) => Shows::Workers(workers),
            None => Shows::Server(Dashboard::new(watched.clone())),
        };
        let own = OnceLock::new();
        let handler = Arc::new(Admin { watched: watched.clone(), access: access.clone(), shows, own });
        let admin = Arc::new(self.beside(config(), handler.clone(), |spawn| Arc::new(OneThread(spawn)))?);
        let _ = handler.own.set(admin.service().metrics.clone());
        self.check_open("listen on")?;
        let bound = admin.bind(endpoint)?;
        access.check(bound.address())?;
        let listener = admin.accept(bound)?;
        admin.on_first_loop(async move {
            loop {
                watched.pulse.feel();
                tokio::time::sleep(PULSE).await;
            }
        })?;
        self.on_closed({
            let admin = admin.clone();
            Box::new(move || admin.close(Duration::ZERO, None))
        });
        Ok(listener.owned_by(admin))
    }
}

/// The most connections of an admin listener.
const CONNECTIONS: usize = 512;
/// With more than so many of them each is closed behind its response, so that there is always room for a probe.
const CROWD: u64 = 64;

/// The limits of an admin listener: those of a few people and programs.
fn config() -> Config {
    let short = Duration::from_secs(5);
    Config {
        io_threads: 1,
        max_connections: CONNECTIONS,
        max_connections_per_ip: Some(64),
        max_in_flight: CONNECTIONS,
        max_request_read_bytes: 0,
        max_header_bytes: 16 * 1024,
        handshake_timeout: short,
        header_timeout: short,
        body_timeout: short,
        write_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(90),
        websocket: false,
        ..Config::default()
    }
}

/// Gives the only thread of a server the name that says what it is for.
struct OneThread(Arc<dyn Spawn>);

impl Spawn for OneThread {
    fn spawn(&self, _: String, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        self.0.spawn("portico-admin".into(), body)
    }
}

/// Answers at an admin listener. It is called in the middle of its loop's turn, so nothing here may block.
struct Admin {
    watched: Arc<Service>,
    access: Arc<Access>,
    shows: Shows,
    /// The counters of the admin listener itself, once it is there.
    own: OnceLock<Arc<Metrics>>,
}

/// Whose admin listener it is.
enum Shows {
    /// The server's that it watches.
    Server(Dashboard),
    /// That of a supervisor's workers.
    Workers(Arc<Workers>),
}

impl Handler for Admin {
    fn call(&self, request: Box<Request>, reply: Reply) {
        let is_crowded = self.own.get().is_some_and(|own| own.connections_open.get() > CROWD);
        let reply = Answering { reply, is_crowded };
        match &self.shows {
            Shows::Server(dashboard) => reply.send(self.answer(dashboard, &request)),
            Shows::Workers(workers) => self.answer_for(workers, request, reply),
        }
    }
}

/// Where an answer goes.
struct Answering {
    reply: Reply,
    /// Others shall have room.
    is_crowded: bool,
}

impl Answering {
    fn send(self, response: Response) {
        let response = dressed(response);
        self.reply.send(if self.is_crowded { response.with(header::CONNECTION, "close") } else { response });
    }
}

/// Numbers of now, for whoever may see them alone, and nothing that a browser shall take for something else.
fn dressed(response: Response) -> Response {
    let response = response.with(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if response.headers.iter().any(|(name, _)| name == header::CACHE_CONTROL) {
        return response;
    }
    response.with(header::CACHE_CONTROL, "no-store")
}

impl Admin {
    fn answer(&self, dashboard: &Dashboard, request: &Request) -> Response {
        if request.method != Method::GET && request.method != Method::HEAD {
            return not_allowed();
        }
        let path = request.target.raw_path();
        if let Some(probe) = Probe::at(path) {
            // Anybody may ask: who restarts a container seldom has a token, and learns a word.
            return probe.answer(&self.watched);
        }
        match self.access.enter(request) {
            Entry::Not(response) => response,
            Entry::Free if path == "/metrics" => metrics_page(&self.watched, request),
            Entry::Free => dashboard.answer(path).unwrap_or_else(|| Response::plain(StatusCode::NOT_FOUND)),
        }
    }

    /// The same for a supervisor, which asks its workers.
    fn answer_for(&self, workers: &Arc<Workers>, request: Box<Request>, reply: Answering) {
        if request.method != Method::GET && request.method != Method::HEAD {
            return reply.send(not_allowed());
        }
        let (workers, path) = (workers.clone(), request.target.raw_path().to_string());
        if Probe::at(&path).is_some() {
            tokio::spawn(async move { reply.send(workers.probe(&path).await) });
            return;
        }
        match self.access.enter(&request) {
            Entry::Not(response) => reply.send(response),
            Entry::Free if path == "/metrics" => {
                let format = Format::of(&request.headers.joined("accept").unwrap_or_default());
                tokio::spawn(async move { reply.send(workers.metrics(format).await) });
            }
            Entry::Free if path == "/" => reply.send(workers.page(request.host())),
            Entry::Free => reply.send(Response::plain(StatusCode::NOT_FOUND)),
        }
    }
}

/// What an ordinary listener answers with the setting `probes`, if it is that.
pub(crate) fn at_ordinary_listener(service: &Service, request: &Request) -> Option<Response> {
    let path = request.target.raw_path();
    let probe = Probe::at(path);
    if probe.is_none() && path != "/metrics" {
        return None;
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        return Some(not_allowed());
    }
    Some(probe.map_or_else(|| metrics_page(service, request), |probe| probe.answer(service)))
}

fn not_allowed() -> Response {
    Response::plain(StatusCode::METHOD_NOT_ALLOWED).with(header::ALLOW, "GET, HEAD")
}

/// `/metrics`, in the format that its client wants.
pub(crate) fn metrics_page(service: &Service, request: &Request) -> Response {
    service.pulse.feel();
    let accept = request.headers.joined("accept").unwrap_or_default();
    let format = Format::of(&accept);
    Response::new(StatusCode::OK, metrics::render(service, format))
        .with(header::CONTENT_TYPE, format.content_type())
        .with(header::CACHE_CONTROL, "no-store")
}
