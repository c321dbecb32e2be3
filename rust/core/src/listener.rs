//! Listening sockets: bind, accept, and who is let in.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as Socket2, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::config::Config;
use crate::connection::{self, Address, ConnectionInfo};
use crate::error::{Error, Report, Stage};
use crate::event_loops::EventLoops;
use crate::metrics::Turned;
use crate::proxy;
use crate::raw::Streams;
use crate::server::{Server, Service};
use crate::shutdown::{draining, out_of_patience};
use crate::stream::Socket;
use crate::trace::{self, Event, Opened};

/// Where to listen, and how.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The address.
    pub place: Place,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Whether several sockets, as of several processes, may share the address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// How many connections the kernel queues; none for the server's setting.
    pub backlog: Option<i32>,
}

/// An address to listen on.
#[derive(Debug, Clone)]
pub enum Place {
    /// Host name or IP address, and a port; 0 lets the machine choose.
    Inet {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket, made here and removed at the end.
    Unix(PathBuf),
    /// A socket that listens already, as a supervisor hands over.
    Inherited(Arc<OwnedFd>),
}

impl Place {
    fn describe(&self) -> String {
        match self {
            Place::Inet { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Inet { host, port } => format!("{host}:{port}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
            Place::Inherited(fd) => format!("descriptor {}", fd.as_raw_fd()),
        }
    }
}

/// Waiting after an accept failed, as without free descriptors: nothing is lost, the kernel keeps the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before others get a turn.
const ACCEPT_TURN: u32 = 64;
/// How long closing a listener waits for its socket to be gone.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long a listener that closes accepts what is being connected; and where another socket has the same address, so that
/// who comes meanwhile is let in all the same, and the slow can be waited for.
const SETTLE: Duration = Duration::from_millis(10);
const SETTLE_SHARED: Duration = Duration::from_millis(300);
/// Linux copies the option from the listener to what it accepts: one system call less for each connection.
const NODELAY_IS_INHERITED: bool = cfg!(target_os = "linux");

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

/// A socket that listens, and on which nobody accepts yet. A Unix socket's file goes with it.
pub struct Bound {
    socket: Listening,
    address: Address,
    /// Where a Unix socket stands, and which file that was when it was made.
    path: Option<(PathBuf, Option<(u64, u64)>)>,
    inherited: bool,
    reuse_port: bool,
    tls: bool,
    streams: Option<Arc<Streams>>,
    proxy_protocol: bool,
}

/// mio's, because what those accept cannot block from the start: otherwise two more system calls for each connection.
enum Listening {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// A connection that nobody looks after yet.
enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Listening {
    fn tcp(socket: Socket2) -> Self {
        Listening::Tcp(mio::net::TcpListener::from_std(socket.into()))
    }

    fn unix(socket: Socket2) -> Self {
        Listening::Unix(mio::net::UnixListener::from_std(OwnedFd::from(socket).into()))
    }

    fn accept(&self) -> io::Result<(Accepted, Address)> {
        match self {
            Listening::Tcp(socket) => {
                socket.accept().map(|(socket, peer)| (Accepted::Tcp(socket.into()), Address::Inet(peer)))
            }
            Listening::Unix(socket) => {
                socket.accept().map(|(socket, _)| (Accepted::Unix(socket.into()), Address::Unix(None)))
            }
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Bound {
    /// Binds and listens.
    pub(crate) fn new(endpoint: &Endpoint, config: &Config) -> Result<Self, Error> {
        let backlog = endpoint.backlog.unwrap_or(config.backlog);
        match Self::bind(endpoint, backlog) {
            Ok(mut bound) => {
                (bound.tls, bound.reuse_port) = (endpoint.tls, endpoint.reuse_port);
                if config.nodelay && NODELAY_IS_INHERITED && matches!(bound.socket, Listening::Tcp(_)) {
                    let _ = SockRef::from(&bound.socket).set_tcp_nodelay(true);
                }
                Ok(bound)
            }
            Err(source) => Err(Error::Listen { address: endpoint.place.describe(), source }),
        }
    }

    fn bind(endpoint: &Endpoint, backlog: i32) -> io::Result<Self> {
        match &endpoint.place {
            Place::Unix(path) => Self::unix(path, backlog),
            Place::Inherited(fd) => Self::inherited(fd.try_clone()?),
            Place::Inet { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match Self::inet(address, endpoint.reuse_port, backlog) {
                        Ok(bound) => return Ok(bound),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn inet(address: SocketAddr, reuse_port: bool, backlog: i32) -> io::Result<Self> {
        let socket = Socket2::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Only lets the address be taken again while old connections linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        if address.is_ipv6() {
            // So that ::1 and 127.0.0.1, or :: and 0.0.0.0, can be listened on side by side on every system.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        let address = Address::Inet(socket.local_addr()?.as_socket().unwrap_or(address));
        Ok(Bound {
            socket: Listening::tcp(socket),
            address,
            path: None,
            inherited: false,
            reuse_port: false,
            tls: false,
            streams: None,
            proxy_protocol: false,
        })
    }

    fn unix(path: &PathBuf, backlog: i32) -> io::Result<Self> {
        let socket = Socket2::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        let place = SockAddr::unix(path)?;
        match socket.bind(&place) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path, &place) => {
                std::fs::remove_file(path)?;
                socket.bind(&place)?;
            }
            bound => bound?,
        }
        socket.listen(backlog)?;
        let address = Address::Unix(Some(path.display().to_string()));
        let path = Some((path.clone(), file_id(path)));
        Ok(Bound {
            socket: Listening::unix(socket),
            address,
            path,
            inherited: false,
            reuse_port: false,
            tls: false,
            streams: None,
            proxy_protocol: false,
        })
    }
}

impl Bound {
    fn inherited(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket2::from(fd);
        if !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening socket"));
        }
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let (socket, address) = match local.as_socket() {
            Some(address) => (Listening::tcp(socket), Address::Inet(address)),
            None => {
                let path = local.as_pathname().map(|path| path.display().to_string());
                (Listening::unix(socket), Address::Unix(path))
            }
        };
        Ok(Bound {
            socket,
            address,
            path: None,
            inherited: true,
            reuse_port: false,
            tls: false,
            streams: None,
            proxy_protocol: false,
        })
    }

    /// Has a callback take its connections, in place of HTTP.
    #[must_use]
    pub fn with_streams(mut self, streams: Streams) -> Self {
        self.streams = Some(Arc::new(streams));
        self
    }

    /// What is spoken there and where, for people.
    fn words(&self) -> String {
        let scheme = match (&self.streams, self.tls) {
            (None, true) => "https://",
            (None, false) => "http://",
            (Some(_), true) => "streams by TLS on ",
            (Some(_), false) => "streams on ",
        };
        format!("{scheme}{}", self.address)
    }

    /// What is really listened on.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Has a proxy say, before anything else on each connection, for whom it connects.
    #[must_use]
    pub fn with_proxy_protocol(mut self) -> Self {
        self.proxy_protocol = true;
        self
    }

    pub(crate) fn has_proxy_protocol(&self) -> bool {
        self.proxy_protocol
    }

    /// Whether connections to it may have other addresses at this end.
    fn is_on_several(&self) -> bool {
        // Who handed it over may have made it transparent.
        self.inherited || matches!(self.address, Address::Inet(address) if address.ip().is_unspecified())
    }
}

/// Device and inode.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether that is a socket on which nobody listens, as a process leaves behind that died.
fn is_left_over(path: &Path, place: &SockAddr) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    // Not blocking: a server that is busy may have a full queue.
    let probe = || Socket2::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(place);
    is_socket && probe().is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused)
}

/// Lets every packet pass but SYN: whoever is connecting gets in, and nobody new begins to. The kernel counts from the
/// header of TCP, of which byte 13 has the flags (RFC 9293 section 3.1).
#[cfg(target_os = "linux")]
const NO_SYN: &[SockFilter] = &[
    SockFilter::new(0x30, 0, 0, 13),       // load byte 13
    SockFilter::new(0x45, 0, 1, 0x02),     // SYN?
    SockFilter::new(0x06, 0, 0, 0),        // drop
    SockFilter::new(0x06, 0, 0, u32::MAX), // pass
];

impl Bound {
    /// Has the kernel take no new connections, and keep those that it has, or is making. A client that is not let in tries
    /// again after a second, and is refused then, or has come to another socket of the address.
    fn refuse_more(&self) {
        if self.inherited {
            return; // Others may accept from it.
        }
        self.remove_file();
        #[cfg(target_os = "linux")]
        if let Listening::Tcp(_) = self.socket {
            // Without it a connection that comes in the last moment is reset.
            let _ = SockRef::from(&self.socket).attach_filter(NO_SYN);
        }
    }

    /// How long connections that are being made may take.
    fn settling(&self) -> Duration {
        match self.socket {
            _ if self.inherited => Duration::ZERO,
            Listening::Tcp(_) if self.reuse_port => SETTLE_SHARED,
            _ => SETTLE,
        }
    }

    fn remove_file(&self) {
        if let Some((path, file)) = &self.path
            && file_id(path) == *file
        {
            // Only our own: a successor may have put its socket there.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !self.inherited {
            // Closing alone would leave it listening where a forked child has a copy of the descriptor.
            let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
        }
        self.remove_file();
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Bound {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_fd().as_raw_fd()
    }
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

fn turned_away(service: &Service, why: Turned, message: String) {
    service.metrics.turned(why);
    service.observer.report(Report {
        stage: Stage::Admission,
        reason: why.label(),
        message,
        status: None,
        connection: None,
    });
}

/// By a limit.
fn too_many(service: &Service, why: Turned, peer: &Address, local: &Address) {
    let limit = why.label();
    turned_away(
        service,
        why,
        format!("connection from {peer} to {local} turned away: as many are open as {limit} allows"),
    );
}

/// What is spoken on the connections of a listener.
#[derive(Clone)]
pub(crate) struct Spoken {
    pub(crate) tls: bool,
    /// Who takes them, where they are not for HTTP.
    pub(crate) streams: Option<Arc<Streams>>,
    /// Whether a proxy says first for whom it connects.
    proxy_protocol: bool,
}

fn admit(
    socket: Accepted,
    peer: Address,
    (several, listener): (bool, &Address),
    spoken: &Spoken,
    service: &Arc<Service>,
    loops: &EventLoops,
) {
    // Dropping the socket closes it.
    if spoken.proxy_protocol && !service.config.trusted_proxies.has(&peer) {
        let message = format!(
            "connection from {peer} to {listener} turned away: it is none of trusted_proxies, and proxy_protocol is for those alone"
        );
        trace::turned_away(service.trace.get(), &peer, listener, Turned::UntrustedProxy.label());
        return turned_away(service, Turned::UntrustedProxy, message);
    }
    // Whose seat it is a proxy has yet to say.
    let mut seat = match service.seat(network(&peer).filter(|_| !spoken.proxy_protocol)) {
        Ok(seat) => seat,
        Err(why) => {
            trace::turned_away(service.trace.get(), &peer, listener, why.label());
            return too_many(service, why, &peer, listener);
        }
    };
    let mut local = listener.clone();
    if let Accepted::Tcp(socket) = &socket {
        if !NODELAY_IS_INHERITED && service.config.nodelay && socket.set_nodelay(true).is_err() {
            return; // It is gone already.
        }
        if several && let Ok(address) = socket.local_addr() {
            local = Address::Inet(address);
        }
    }
    let id = service.next_connection_id();
    let opened = Opened::accepted(service.trace.get(), id, &peer, &local, spoken.tls);
    let (service, spoken) = (service.clone(), spoken.clone());
    let one = loops.least_busy();
    let place = one.occupy();
    one.spawn(async move {
        let _place = place;
        let socket = match socket {
            Accepted::Tcp(socket) => TcpStream::from_std(socket).map(Socket::Tcp),
            Accepted::Unix(socket) => UnixStream::from_std(socket).map(Socket::Unix),
        };
        let mut socket = match socket {
            Ok(socket) => socket,
            Err(error) => return accept_failed(&service, &local, &error),
        };
        let mut info = ConnectionInfo::new(opened.id, peer, local, spoken.tls);
        if spoken.proxy_protocol {
            // Boxed, so that connections without it need no room for it.
            if let Err(why) = Box::pin(learn(&service, &mut socket, &mut info, &mut seat)).await {
                return opened.close(why.label());
            }
            opened.trace.tell(|| proxied(&info));
        }
        connection::run(service, socket, info, spoken, opened).await;
    });
}

/// Has the proxy say whose connection it is, or says why that one is not let in.
async fn learn(
    service: &Service,
    socket: &mut Socket,
    info: &mut ConnectionInfo,
    seat: &mut Seat,
) -> Result<(), Turned> {
    let (peer, local) = (info.peer.clone(), info.local.clone());
    let (mut phase, begun) = (service.lifecycle.subscribe(), Instant::now());
    let opened = tokio::select! {
        biased;
        opened = proxy::opening::open(service, socket, info) => opened,
        () = out_of_patience(&mut phase, begun) => Err((Turned::Shutdown, "the server is closed".into())),
    };
    if let Err((why, message)) = opened {
        let message = format!("connection from {peer} to {local} turned away: its PROXY header: {message}");
        turned_away(service, why, message);
        return Err(why);
    }
    // The proxy's own address stays where it tells no other, and is not limited.
    let told = info.proxy.as_ref().is_some_and(|proxy| proxy.header.addresses.is_some());
    let taken = match network(&info.peer).filter(|_| told) {
        Some(network) => seat.count_for(network),
        None => Ok(()),
    };
    if let Err(why) = taken {
        too_many(service, why, &info.peer, &info.local);
    }
    taken
}

fn proxied(info: &ConnectionInfo) -> Event {
    let header = info.proxy.as_ref().map(|proxy| &proxy.header);
    let addresses = header.and_then(|header| header.addresses.as_ref());
    Event::Proxied {
        version: header.map_or(0, |header| header.version.into()),
        client: addresses.map(|(client, _)| client.to_string().into()),
        server: addresses.map(|(_, server)| server.to_string().into()),
    }
}

/// What `max_connections_per_ip` counts: an IPv4 address, the /64 network of an IPv6 address.
fn network(address: &Address) -> Option<IpAddr> {
    let Address::Inet(address) = address else { return None };
    Some(match address.ip().to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    })
}

impl Service {
    /// Takes a seat for one connection, where there is one; dropping it gives it back.
    fn seat(self: &Arc<Self>, network: Option<IpAddr>) -> Result<Seat, Turned> {
        let open = &self.metrics.connections_open;
        if open.add() > self.config.max_connections as u64 {
            open.remove();
            return Err(Turned::MaxConnections);
        }
        let mut seat = Seat { alive: self.join(), network: None };
        if let Some(network) = network {
            seat.count_for(network)?;
        }
        self.metrics.connections_accepted.add();
        Ok(seat)
    }
}

/// One connection's place among those allowed.
struct Seat {
    alive: crate::server::Alive,
    network: Option<IpAddr>,
}

impl Seat {
    /// Counts it as one of those that are open from there, where that is limited.
    fn count_for(&mut self, network: IpAddr) -> Result<(), Turned> {
        let service = self.alive.service();
        let Some(most) = service.config.max_connections_per_ip else { return Ok(()) };
        let mut seats = service.seats.lock();
        let taken = seats.entry(network).or_insert(0);
        if *taken >= most {
            return Err(Turned::MaxConnectionsPerIp);
        }
        *taken += 1;
        drop(seats);
        self.network = Some(network);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let service = self.alive.service();
        service.metrics.connections_open.remove();
        if let Some(network) = self.network {
            let mut seats = service.seats.lock();
            if let Some(taken) = seats.get_mut(&network) {
                *taken -= 1;
                if *taken == 0 {
                    seats.remove(&network);
                }
            }
        }
    }
}
