//! An HTTPS server for many host names, to be carried inside another program. No language binding is in here.
//!
//! The flow, stage by stage; each calls only the next:
//!
//! 1. [`listener`] binds sockets, accepts, and turns away whom the limits exclude.
//! 2. [`tls`] does the handshake with the certificate for the host name that the client asks for.
//! 3. [`connection`] finds out which protocol is spoken; [`http`] reads requests, by [`http::h1`] or HTTP/2.
//! 4. [`dispatch`] hands a request to its host's [`Handler`], the seam to whoever embeds this; [`routing`] puts many of
//!    them behind one, [`files`] is one that needs no language: what is below a folder.
//! 5. The handler answers on its [`Reply`], now or later, from any thread.
//! 6. [`http::response`] is checked and written out.
//!
//! Where others stand in front, [`proxy`] says whom to believe about clients, before 2 and in 3.
//!
//! A listener for streams leads from 2 to [`raw`] instead: there a callback has the bytes to itself. A response may end
//! HTTP on its connection, or in its stream, and leave it to [`websocket`].
//!
//! Around it: [`config`] (settings that cannot be wrong), [`error`] (what failed, where, and who caused it), `metrics`,
//! `record` (what is said of each request when it has ended), [`access_log`], [`trace`] (what each connection does, for those
//! who ask), `shutdown`, [`server`], which owns the threads, [`locks`], and what 3 and `raw` share: `stream` (a connection's
//! bytes, with or without TLS), `timer` (one for its waits) and `farewell` (how it ends). [`admin`] is what those look at who
//! run it. Each I/O thread runs an event loop of its
//! own, and a connection stays on the loop that it began on; one thread at a time turns a loop (`event_loops`).
//!
//! ```
//! use std::sync::Arc;
//! use portico_core::http::{Request, Response};
//! use portico_core::{Config, Endpoint, Place, Server, StdThreads};
//!
//! struct Quiet;
//! impl portico_core::Observer for Quiet {
//!     fn report(&self, _: portico_core::Report) {}
//! }
//!
//! # fn main() -> Result<(), portico_core::Error> {
//! let hello = |request: Request| Response::new(http::StatusCode::OK, format!("hello {}\n", request.path()));
//! let server = Server::new(Config::default(), Some(Arc::new(hello)), Arc::new(StdThreads), Arc::new(Quiet))?;
//! let place = Place::Inet { host: "127.0.0.1".into(), port: 0 };
//! let listener = server.listen(&Endpoint { place, tls: false, reuse_port: false, backlog: None })?;
//! println!("http://{}", listener.address());
//! server.close(std::time::Duration::from_secs(30), None);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod access_log;
pub mod admin;
pub mod config;
pub mod connection;
pub mod dispatch;
pub mod error;
mod event_loops;
mod farewell;
pub mod files;
pub mod http;
pub mod listener;
pub mod locks;
mod metrics;
pub mod proxy;
pub mod raw;
mod recent;
mod record;
mod request_id;
pub mod routing;
pub mod server;
mod shutdown;
mod stream;
mod timer;
pub mod tls;
pub mod trace;
pub mod websocket;

pub use admin::{Token, Workers};
pub use config::Config;
pub use connection::{Address, ConnectionInfo};
pub use dispatch::{Auto, Handler, Inline, Judge, Placing, Pool, Pooled, Reply, Resolved, Roster, Runs, Told};
pub use error::{Blame, Error, Observer, Report, RequestError};
pub use event_loops::{Driven, Driver, LoopWaker};
pub use files::StaticFiles;
pub use listener::{Bound, Endpoint, Listener, Place};
pub use metrics::{Counted, Kind, Latency, SessionCounts, Stat, statistics};
pub use raw::{StreamHandler, Streams};
pub use recent::{Level, Line, Recent};
pub use routing::{Pattern, Router};
pub use server::{Server, Spawn, StdThreads};
