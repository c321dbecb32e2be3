//! Who is let in, and to which event loop: the limits on connections, and the proxy that says for whom it connects.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::{TcpStream, UnixStream};

use super::accept_failed;
use super::bound::Accepted;
use crate::connection::{self, Address, ConnectionInfo};
use crate::error::{Report, Stage};
use crate::event_loops::EventLoops;
use crate::metrics::Turned;
use crate::proxy;
use crate::raw::Streams;
use crate::server::Service;
use crate::shutdown::out_of_patience;
use crate::stream::{Kind, Socket};
use crate::trace::{self, Event, Opened};

/// Linux copies the option from the listener to what it accepts: one system call less for each connection.
pub(super) const NODELAY_IS_INHERITED: bool = cfg!(target_os = "linux");

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
    pub(super) proxy_protocol: bool,
}

pub(super) fn admit(
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
    let mut seat = match service.seat(network(&peer).filter(|_| !spoken.proxy_protocol && !service.spares(&peer))) {
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
            Accepted::Tcp(socket) => TcpStream::from_std(socket).map(Kind::Tcp),
            Accepted::Unix(socket) => UnixStream::from_std(socket).map(Kind::Unix),
        };
        let mut socket = match socket {
            Ok(socket) => Socket::new(socket, service.metrics.clone()),
            Err(error) => {
                opened.close("aborted");
                return accept_failed(&service, &local, &error);
            }
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
    /// Whether connections from there are not counted by address: at an admin listener those of this machine, from where probes
    /// come, and whatever comes through a tunnel.
    fn spares(&self, peer: &Address) -> bool {
        self.only.is_some() && matches!(peer, Address::Inet(address) if address.ip().to_canonical().is_loopback())
    }

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
