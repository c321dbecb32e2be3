//! Reads what a proxy says before anything else, and not one byte more: what follows belongs to TLS or to HTTP.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::protocol::{self, FIRST, Header, Malformed, Next, Proxied};
use crate::connection::ConnectionInfo;
use crate::metrics::Turned;
use crate::server::Service;
use crate::stream::Socket;

/// Why nothing was made of a connection, and the words for it.
type Failed = (Turned, String);

/// Reads the header within its time, and notes in `info` whose connection it is.
pub(crate) async fn open(service: &Service, socket: &mut Socket, info: &mut ConnectionInfo) -> Result<(), Failed> {
    let timeout = service.config.header_timeout;
    let header = tokio::time::timeout(timeout, read(socket)).await.unwrap_or_else(|_| {
        Err((Turned::ProxyTimeout, format!("not here within {} s (header_timeout)", timeout.as_secs_f64())))
    })?;
    let (proxy, own) = (info.peer.clone(), info.local.clone());
    if let Some((peer, local)) = header.addresses.clone() {
        (info.peer, info.local) = (peer, local);
    }
    info.proxy = Some(Arc::new(Proxied { peer: proxy, local: own, header }));
    Ok(())
}

async fn read(socket: &mut Socket) -> Result<Header, Failed> {
    let mut read = vec![0; FIRST];
    fill(socket, &mut read).await?;
    loop {
        let start = read.len();
        match protocol::next(&read).map_err(malformed)? {
            Next::Done => return Header::parse(&read).map_err(malformed),
            // The format has at most 64 KiB, and who sends them is trusted.
            Next::Exactly(more) => read.resize(start + more, 0),
            // One at a time, because the line's end may be followed by what is not ours. Version 2 is quicker.
            Next::Line => read.push(0),
        }
        fill(socket, &mut read[start..]).await?;
    }
}

async fn fill(socket: &mut Socket, space: &mut [u8]) -> Result<(), Failed> {
    socket.read_exact(space).await.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => (Turned::ProxyLeft, "the connection ended within it, or before it".into()),
        _ => (Turned::ProxyLeft, error.to_string()),
    })
}

fn malformed(why: Malformed) -> Failed {
    (Turned::ProxyHeader, why.to_string())
}
