//! Listening sockets: [`bound`] takes an address, here is accepted, [`admission`] says who is let in.

mod admission;
mod bound;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::connection::Address;
use crate::error::{Report, Stage};
use crate::event_loops::EventLoops;
use crate::server::{Server, Service};
use crate::shutdown::draining;
pub(crate) use admission::Spoken;
use admission::admit;
pub use bound::{Bound, Endpoint, Place};

/// Waiting after an accept failed, as without free descriptors: nothing is lost, the kernel keeps the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before others get a turn.
const ACCEPT_TURN: u32 = 64;
/// How long closing a listener waits for its socket to be gone.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// One listening socket of a server.
pub struct Listener {
    address: Address,
    tls: bool,
    stop: watch::Sender<bool>,
    /// Disconnected when the socket is closed.
    gone: crate::locks::Mutex<std::sync::mpsc::Receiver<()>>,
    /// A server that is there for this listener alone.
    owner: Option<Arc<Server>>,
}

impl Listener {
    /// The address that is really listened on, with the port that the machine chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Stops accepting; connections that were accepted go on. Waits up to a second for the address to be free.
    pub fn close(&self) {
        self.stop.send_replace(true);
        let _ = self.gone.lock().recv_timeout(CLOSE_WAIT);
        if let Some(owner) = &self.owner {
            owner.close(CLOSE_WAIT, None);
        }
    }

    /// Closes that server with this listener.
    pub(crate) fn owned_by(mut self, owner: Arc<Server>) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// Begins to accept on the first of `loops`.
pub(crate) fn start(service: Arc<Service>, loops: &EventLoops, bound: Bound) -> Listener {
    let (address, tls) = (bound.address.clone(), bound.tls);
    let (stop, stopped) = watch::channel(false);
    let (alive, gone) = std::sync::mpsc::channel();
    let alive_guard = service.join();
    let others = loops.clone();
    let words = bound.words();
    service.places.lock().push(words.clone());
    service.listening.fetch_add(1, Ordering::AcqRel);
    service.has_listened.store(true, Ordering::Release);
    loops.first().spawn(async move {
        accept(bound, &service, &others, stopped).await;
        service.listening.fetch_sub(1, Ordering::AcqRel);
        service.no_longer_at(&words);
        drop(alive);
        drop(alive_guard);
    });
    Listener { address, tls, stop, gone: crate::locks::Mutex::new(gone), owner: None }
}

/// Accepts until told to stop, then what is queued already, so that nobody who got a connection loses it.
async fn accept(bound: Bound, service: &Arc<Service>, loops: &EventLoops, mut stopped: watch::Receiver<bool>) {
    let mut phase = service.lifecycle.subscribe();
    let (local, several) = (bound.address.clone(), bound.is_on_several());
    let spoken = Spoken { tls: bound.tls, streams: bound.streams.clone(), proxy_protocol: bound.proxy_protocol };
    #[expect(deprecated, reason = "sound for a type that owns its descriptor, as Bound does; `register` needs unsafe")]
    let source = match AsyncFd::new(bound) {
        Ok(source) => source,
        Err(error) => return accept_failed(service, &local, &error),
    };
    // Told to stop; and what was connecting then has had its time.
    let (mut last, mut settled) = (false, false);
    let mut turn = 0u32;
    loop {
        match source.get_ref().socket.accept() {
            Ok((socket, peer)) => {
                let local = (several, &local);
                admit(socket, peer, local, &spoken, service, loops);
                // A flood of connections must not keep this thread from those it has.
                turn = (turn + 1) % ACCEPT_TURN;
                if turn == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && settled => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && last => {
                settled = true;
                let bound = source.get_ref();
                bound.refuse_more();
                tokio::time::sleep(bound.settling()).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::select! {
                    biased;
                    () = told(&mut stopped) => last = true,
                    _ = draining(&mut phase) => last = true,
                    ready = source.readable() => match ready {
                        Ok(mut guard) => guard.clear_ready_matching(tokio::io::Ready::READABLE),
                        Err(error) => return accept_failed(service, &local, &error),
                    },
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                accept_failed(service, &local, &error);
                if last {
                    return;
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for [`Listener::close`]. A listener that was merely dropped goes on for as long as its server.
async fn told(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending().await
    }
}

fn accept_failed(service: &Service, local: &Address, error: &io::Error) {
    service.metrics.accept_errors.add();
    service.observer.report(Report {
        stage: Stage::Accept,
        reason: "accept",
        message: format!("cannot accept on {local}: {error}"),
        status: None,
        connection: None,
    });
}
