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
use crate::http::target::split_port;
use crate::locks::Mutex;
use crate::metrics::{Format, Merged};

/// How long a worker may take to answer. Who probes waits for a second, as a rule.
const PATIENCE: Duration = Duration::from_millis(800);
/// The most that one may say.
const MOST: u64 = 64 * 1024 * 1024;

/// What people see first.
const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>portico: workers</title>
<h1>portico</h1>
<p>Each worker has a dashboard of its own:
<ul>
{rows}</ul>
<p>Of all of them together: <a href=\"/metrics\">metrics</a>, <a href=\"/probe/startup\">startup</a>,
<a href=\"/probe/readiness\">readiness</a>, <a href=\"/probe/liveness\">liveness</a>.
";

/// The workers of a supervisor.
#[derive(Default)]
pub struct Workers(Mutex<State>);

#[derive(Default)]
struct State {
    /// By name.
    serving: BTreeMap<String, Worker>,
    ended: u64,
}

/// Where a worker is found.
#[derive(Clone)]
struct Worker {
    /// Its admin listener for the supervisor.
    socket: PathBuf,
    /// The port at which people find its dashboard.
    port: Option<u16>,
}

/// What a worker says: status and body, or why there is nothing.
type Said = Result<(u16, String), String>;

impl Workers {
    /// A worker serves from now on, in place of the one that had that name.
    pub fn joined(&self, name: String, socket: PathBuf, port: Option<u16>) {
        self.0.lock().serving.insert(name, Worker { socket, port });
    }

    /// The worker with that socket has ended.
    pub fn ended(&self, socket: &Path) {
        let mut state = self.0.lock();
        state.ended += 1;
        state.serving.retain(|_, known| known.socket != socket);
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
            (state.serving.len(), state.ended)
        };
        let mut merged = Merged::of_supervisor(format, alive, ended);
        for (name, said) in &said {
            if let Ok((200, text)) = said {
                merged.add(name, text);
            }
        }
        Response::new(StatusCode::OK, merged.finish(format)).with(header::CONTENT_TYPE, format.content_type())
    }

    /// A page for people: the way to the dashboard of each, by whatever name `host` they have come.
    pub(super) fn page(&self, host: &str) -> Response {
        let host = split_port(host.as_bytes()).0;
        // What a name or an address is made of, and no markup.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
        let host = std::str::from_utf8(host).ok().filter(|host| !host.is_empty() && host.bytes().all(|b| is_plain(&b)));
        let serving = self.0.lock().serving.clone();
        let rows: String = serving
            .iter()
            .map(|(name, worker)| match host.zip(worker.port) {
                // With the scheme of this page.
                Some((host, port)) => format!("<li><a href=\"//{host}:{port}/\">worker {name}</a>\n"),
                None => format!("<li>worker {name}\n"),
            })
            .collect();
        Response::new(StatusCode::OK, PAGE.replacen("{rows}", &rows, 1))
            .with(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .with(header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
            .with(header::REFERRER_POLICY, "no-referrer")
    }

    /// Asks all of them at once.
    async fn ask(&self, path: &str, format: Format) -> Vec<(String, Said)> {
        let serving = self.0.lock().serving.clone();
        let asked = serving.into_iter().map(|(name, worker)| async move {
            let said = tokio::time::timeout(PATIENCE, ask(&worker.socket, path, format)).await;
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
