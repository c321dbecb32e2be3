//! From an address to a socket that listens.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as Socket2, Type};

use super::admission::NODELAY_IS_INHERITED;
use crate::config::Config;
use crate::connection::Address;
use crate::error::Error;
use crate::raw::Streams;

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

/// How long a listener that closes accepts what is being connected; and where another socket has the same address, so that
/// who comes meanwhile is let in all the same, and the slow can be waited for.
const SETTLE: Duration = Duration::from_millis(10);
const SETTLE_SHARED: Duration = Duration::from_millis(300);
/// A socket that listens, and on which nobody accepts yet. A Unix socket's file goes with it.
pub struct Bound {
    pub(super) socket: Listening,
    pub(super) address: Address,
    /// Where a Unix socket stands, and which file that was when it was made.
    path: Option<(PathBuf, Option<(u64, u64)>)>,
    inherited: bool,
    reuse_port: bool,
    pub(super) tls: bool,
    pub(super) streams: Option<Arc<Streams>>,
    pub(super) proxy_protocol: bool,
}

/// mio's, because what those accept cannot block from the start: otherwise two more system calls for each connection.
pub(super) enum Listening {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// A connection that nobody looks after yet.
pub(super) enum Accepted {
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

    pub(super) fn accept(&self) -> io::Result<(Accepted, Address)> {
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
    pub(super) fn words(&self) -> String {
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
    pub(super) fn is_on_several(&self) -> bool {
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
    pub(super) fn refuse_more(&self) {
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
    pub(super) fn settling(&self) -> Duration {
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
