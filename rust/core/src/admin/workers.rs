//! Several processes behind one admin listener: each serves its own on a Unix socket, and what they say is put together.
//!
//! Samples keep their worker as a label and are not added up: a worker that is replaced begins at 0 again, which Prometheus
//! sees in its own series, and would take for a fall of the sum.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::http::Response;
use crate::locks::Mutex;
use crate::metrics::{Format, Merged};

/// How long a worker may take to answer. Who probes waits for a second, as a rule.
const PATIENCE: Duration = Duration::from_millis(800);
/// The most that one may say.
const MOST: u64 = 64 * 1024 * 1024;

/// The workers of a supervisor.
#[derive(Default)]
pub struct Workers(Mutex<State>);

#[derive(Default)]
struct State {
    /// By name, where its admin listener is.
    sockets: BTreeMap<String, PathBuf>,
    ended: u64,
}

/// What a worker says: status and body, or why there is nothing.
type Said = Result<(u16, String), String>;

impl Workers {
    /// A worker serves from now on, in place of the one that had that name.
    pub fn joined(&self, name: String, socket: PathBuf) {
        self.0.lock().sockets.insert(name, socket);
    }

    /// The worker with that socket has ended.
    pub fn ended(&self, socket: &Path) {
        let mut state = self.0.lock();
        state.ended += 1;
        state.sockets.retain(|_, known| known != socket);
    }

    /// What is answered at a probe's path: 200 where every worker's answer is; for readiness, where any one's is, since they
    /// take connections from the same sockets.
    pub(super) async fn probe(&self, path: &str) -> Response {
        let said = self.ask(path, Format::Prometheus).await;
        let is_well = |said: &Said| matches!(said, Ok((200, _)));
        let readiness = path.ends_with("/readiness");
        let well = if readiness { said.iter().any(|(_, s)| is_well(s)) } else { said.iter().all(|(_, s)| is_well(s)) };
        let mut lines: Vec<_> = said
            .iter()
            .map(|(name, said)| match said {
                Ok((_, text)) => format!("worker {name}: {}", text.trim_end()),
                Err(why) => format!("worker {name}: {why}"),
            })
            .collect();
        let status = match (said.is_empty(), well) {
            (true, _) => {
                lines.push("no worker serves".into());
                StatusCode::SERVICE_UNAVAILABLE
            }
            (false, true) => StatusCode::OK,
            (false, false) => StatusCode::SERVICE_UNAVAILABLE,
        };
        lines.push(String::new());
        Response::new(status, lines.join("\n")).with(header::CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// The metrics of all of them, and of this process.
    pub(super) async fn metrics(&self, format: Format) -> Response {
        let said = self.ask("/metrics", format).await;
        let (alive, ended) = {
            let state = self.0.lock();
            (state.sockets.len(), state.ended)
        };
        let mut merged = Merged::of_supervisor(format, alive, ended);
        for (name, said) in &said {
            if let Ok((200, text)) = said {
                merged.add(name, text);
            }
        }
        Response::new(StatusCode::OK, merged.finish(format)).with(header::CONTENT_TYPE, format.content_type())
    }

    /// Asks all of them at once.
    async fn ask(&self, path: &str, format: Format) -> Vec<(String, Said)> {
        let sockets = self.0.lock().sockets.clone();
        let asked = sockets.into_iter().map(|(name, socket)| async move {
            let said = tokio::time::timeout(PATIENCE, ask(&socket, path, format)).await;
            let said = said.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
            (name, said)
        });
        futures_util::future::join_all(asked).await
    }
}

/// One request by HTTP/1.0, whose answer ends with the connection.
async fn ask(socket: &Path, path: &str, format: Format) -> Said {
    let answer = async {
        let mut stream = UnixStream::connect(socket).await?;
        let accept = format.content_type();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = answer.await.map_err(|error| error.to_string())?;
    let text = String::from_utf8(answer).map_err(|_| "no text".to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    Ok((status, body.to_string()))
}
