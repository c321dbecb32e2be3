//! The one list of settings: names, ranges, defaults and words. The Python docstrings, `docs/settings.md` and the error
//! messages are made from it or checked against it.

use std::borrow::Cow;

use super::kind::{Kind, Setting, Value};
use crate::http::coding::{Coding, RequestCoding};
use crate::proxy::Style;

const fn count(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Count { min, max, optional: false, unit }
}

const fn seconds(optional: bool) -> Kind {
    Kind::Seconds { min: 0.01, max: 86_400.0, optional }
}

static COMPRESSION: &[Cow<'static, str>] = &[Cow::Borrowed("zstd"), Cow::Borrowed("br"), Cow::Borrowed("gzip")];

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "max_request_read_bytes",
        kind: count(0, 16 * GIB, "bytes"),
        default: Value::Integer(10 * MIB),
        doc: "The largest request body. A larger one is answered with 413 and its connection closed.",
        set: |c, v| c.max_request_read_bytes = v.count(),
    },
    Setting {
        name: "max_read_buffer_size",
        kind: count(4 * KIB, GIB, "bytes"),
        default: Value::Integer(MIB),
        doc: "The most that is read ahead of the handler on one connection: pipelined requests wait in the kernel beyond it. In HTTP/2 it is the connection's flow-control window.",
        set: |c, v| c.max_read_buffer_size = v.count(),
    },
    Setting {
        name: "max_header_bytes",
        kind: count(KIB, 16 * MIB, "bytes"),
        default: Value::Integer(64 * KIB),
        doc: "The largest request head, and the most trailers. A larger one is answered with 431, or 414 when the target alone is too long. Decoded size counts in HTTP/2. The head of a part of a form may be as large.",
        set: |c, v| c.max_header_bytes = v.count(),
    },
    Setting {
        name: "max_headers",
        kind: count(1, 10_000, "headers"),
        default: Value::Integer(100),
        doc: "The most header lines of a request. More are answered with 431.",
        set: |c, v| c.max_headers = v.count(),
    },
    Setting {
        name: "max_connections",
        kind: count(1, 10_000_000, "connections"),
        default: Value::Integer(10_000),
        doc: "The most connections open at once, over all listeners. One more is closed as soon as it is accepted.",
        set: |c, v| c.max_connections = v.count(),
    },
    Setting {
        name: "max_connections_per_ip",
        kind: Kind::Count { min: 1, max: 10_000_000, optional: true, unit: "connections" },
        default: Value::Nothing,
        doc: "The most connections open at once from one IP address (a /64 network for IPv6). One more is closed as soon as it is accepted.",
        set: |c, v| c.max_connections_per_ip = v.optional_count(),
    },
    Setting {
        name: "max_in_flight",
        kind: count(1, 10_000_000, "requests"),
        default: Value::Integer(1_000),
        doc: "The most requests being answered at once. One more is answered at once with 503 and Retry-After.",
        set: |c, v| c.max_in_flight = v.count(),
    },
    Setting {
        name: "max_form_parts",
        kind: count(0, 100_000, "parts"),
        default: Value::Integer(1_000),
        doc: "The most fields and files of a form. More are answered with 413.",
        set: |c, v| c.max_form_parts = v.count(),
    },
    Setting {
        name: "max_form_field_bytes",
        kind: count(0, GIB, "bytes"),
        default: Value::Integer(2 * MIB),
        doc: "The most that a form's fields take, all of them and decoded, with their names and those of files. They are held in memory. More is answered with 413.",
        set: |c, v| c.max_form_field_bytes = v.count(),
    },
    Setting {
        name: "max_form_file_bytes",
        kind: Kind::Count { min: 0, max: 16 * GIB, optional: true, unit: "bytes" },
        default: Value::Nothing,
        doc: "The largest file in a form. A larger one is answered with 413. None: `max_request_read_bytes` is limit enough.",
        set: |c, v| c.max_form_file_bytes = v.optional_count(),
    },
    Setting {
        name: "form_memory_bytes",
        kind: count(0, GIB, "bytes"),
        default: Value::Integer(MIB),
        doc: "How much of a form's files is held in memory where it is read as it comes, by a handler with `stream_body`. A file that has no room in it goes to a temporary file, of which a form has one.",
        set: |c, v| c.form_memory_bytes = v.count(),
    },
    Setting {
        name: "form_folder",
        kind: Kind::Folder,
        default: Value::Nothing,
        doc: "The folder of these temporary files, which have no name in it. None: the system's, by `TMPDIR`.",
        set: |c, v| c.form_folder = v.folder(),
    },
    Setting {
        name: "handshake_timeout",
        kind: seconds(false),
        default: Value::Real(10.0),
        doc: "How long a TLS handshake may take. Then the connection is closed.",
        set: |c, v| c.handshake_timeout = v.seconds(),
    },
    Setting {
        name: "header_timeout",
        kind: seconds(false),
        default: Value::Real(10.0),
        doc: "How long a request head may take from its first byte, and a new connection until its first request. Then 408 if a request was begun, and close.",
        set: |c, v| c.header_timeout = v.seconds(),
    },
    Setting {
        name: "body_timeout",
        kind: seconds(false),
        default: Value::Real(30.0),
        doc: "How long a request body may make no progress, for which a few bytes are too little: 4 KiB are progress. Then 408 and close.",
        set: |c, v| c.body_timeout = v.seconds(),
    },
    Setting {
        name: "keepalive_timeout",
        kind: seconds(false),
        default: Value::Real(60.0),
        doc: "How long a connection may be idle between requests. Then it is closed.",
        set: |c, v| c.keepalive_timeout = v.seconds(),
    },
    Setting {
        name: "drain_idle_timeout",
        kind: Kind::Seconds { min: 0.0, max: 86_400.0, optional: false },
        default: Value::Real(1.0),
        doc: "How long `close` waits for what clients that have asked nothing may be sending just then: on a connection between two requests, a new one, in a handshake or a head. It is answered, and the connection closed; without anything it is closed then.",
        set: |c, v| c.drain_idle_timeout = v.seconds(),
    },
    Setting {
        name: "write_timeout",
        kind: seconds(false),
        default: Value::Real(30.0),
        doc: "How long a client may take none of a response, or a few bytes only: 4 KiB are progress. Then the connection is dropped.",
        set: |c, v| c.write_timeout = v.seconds(),
    },
    Setting {
        name: "handler_timeout",
        kind: seconds(true),
        default: Value::Nothing,
        doc: "How long a handler may take. Then the client gets 503 and the handler's result is dropped when it comes.",
        set: |c, v| c.handler_timeout = v.optional_seconds(),
    },
    Setting {
        name: "http1",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether HTTP/1.0 and HTTP/1.1 are spoken.",
        set: |c, v| c.http1 = v.switch(),
    },
    Setting {
        name: "http2",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether HTTP/2 is spoken: by ALPN over TLS, by prior knowledge on cleartext listeners.",
        set: |c, v| c.http2 = v.switch(),
    },
    Setting {
        name: "compression",
        kind: Kind::Words(Coding::WORDS),
        default: Value::Words(Cow::Borrowed(COMPRESSION)),
        doc: "The content codings of responses; the client's weights decide, then this order. `()` or None: none. Text types only, and what a handler does not keep out by `cache-control: no-transform` or `content-encoding: identity`, as it should where a body holds secrets beside what a stranger may choose (BREACH).",
        set: |c, v| c.compression = v.codings(),
    },
    Setting {
        name: "compression_min_bytes",
        kind: count(0, GIB, "bytes"),
        default: Value::Integer(KIB),
        doc: "The smallest body that is compressed, where its length is known.",
        set: |c, v| c.compression_min_bytes = v.count(),
    },
    Setting {
        name: "decompression",
        kind: Kind::Words(RequestCoding::WORDS),
        default: Value::Words(Cow::Borrowed(&[])),
        doc: "The content codings of request bodies that are decoded before their handler sees them. A body of another coding is then refused with 415, and one that decodes to more than `max_request_read_bytes`, or to over 1 MiB and over 200 times what came, with 413. `()` or None: none, bodies are handed on as they come.",
        set: |c, v| c.decompression = v.request_codings(),
    },
    Setting {
        name: "websocket",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether WebSockets are spoken, over HTTP/1.1 and HTTP/2. Without them whoever asks for one gets 501.",
        set: |c, v| c.websocket = v.switch(),
    },
    Setting {
        name: "nodelay",
        kind: Kind::Switch,
        default: Value::Switch(true),
        doc: "Whether TCP_NODELAY is set on accepted connections.",
        set: |c, v| c.nodelay = v.switch(),
    },
    Setting {
        name: "backlog",
        kind: count(1, 65_535, "connections"),
        default: Value::Integer(1_024),
        doc: "How many connections the kernel queues for a listener before they are accepted. `listen(backlog=)` overrides it for one listener.",
        set: |c, v| c.backlog = v.count() as i32,
    },
    Setting {
        name: "trusted_proxies",
        kind: Kind::Proxies,
        default: Value::Nothing,
        doc: "The proxies in front that are believed about clients: by `listen(proxy_protocol=True)`, and by `forwarded`. IP addresses and networks; `unix` is whoever connects to a Unix socket. `()` or None: none.",
        set: |c, v| c.trusted_proxies = v.proxies().into(),
    },
    Setting {
        name: "forwarded",
        kind: Kind::Choice(Style::WORDS),
        default: Value::Text(Cow::Borrowed("off")),
        doc: "The headers by which `trusted_proxies` say who the client is, and what scheme and host it used: `forwarded` is `Forwarded` (RFC 7239), `x-forwarded` is `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`. The proxies have to set or remove what clients send of these; the other kind is not looked at.",
        set: |c, v| c.forwarded = v.style(),
    },
    Setting {
        name: "access_log",
        kind: Kind::Log,
        default: Value::Nothing,
        doc: "Where a line goes for each request that has ended: to the end of a file, into a named pipe, `-` to standard output, `stderr` to standard error, `logging` to the logger `portico.access`. None: nowhere. `server.reopen_logs()` opens a file anew.",
        set: |c, v| c.access_log = v.log(),
    },
    Setting {
        name: "access_log_format",
        kind: Kind::Choice(&["combined", "common", "json"]),
        default: Value::Text(Cow::Borrowed("combined")),
        doc: "What these lines look like: Combined or Common Log Format, as Apache and nginx write them, or a JSON object for each, with durations, TLS and more.",
        set: |c, v| c.access_log_format = v.log_format(),
    },
    Setting {
        name: "request_id_header",
        kind: Kind::Header,
        default: Value::Nothing,
        doc: "The header of requests' ids, as `X-Request-Id`. Each request then has one: the client's, where that is 1 to 128 letters, digits and `-_.~+/=:;@`, or a new one; with `trusted_proxies` only they may give one. Handlers see it as `request.id`, logs name it, and the response has the header too. None: no ids.",
        set: |c, v| c.request_id_header = v.header(),
    },
    Setting {
        name: "dispatch",
        kind: Kind::Choice(&["auto", "inline", "threads", "asyncio"]),
        default: Value::Text(Cow::Borrowed("auto")),
        doc: "How `def` handlers run: `inline` on the thread that read the request (they must not block), `threads` on a pool, `asyncio` on the event loop; `auto` on the pool until it has proved short, then inline, but for paths whose calls were long. `async def` handlers always run on an event loop.",
        set: |c, v| c.dispatch = v.dispatch(),
    },
    Setting {
        name: "threads",
        kind: Kind::Range { min: 1, max: 1_000 },
        default: Value::Pair(5, 20),
        doc: "The least and the most threads of the pool. The least are started with the first listener, where a handler needs them; it grows while every thread is busy.",
        set: |c, v| c.threads = v.pair(),
    },
    Setting {
        name: "io_threads",
        kind: Kind::Count { min: 1, max: 256, optional: true, unit: "threads" },
        default: Value::Nothing,
        doc: "How many threads do TLS, HTTP and `inline` handlers. The default is the number of cores, 4 at the most.",
        set: |c, v| c.io_threads = v.optional_count().unwrap_or_else(default_io_threads),
    },
    Setting {
        name: "stream_timeout",
        kind: seconds(true),
        default: Value::Real(60.0),
        doc: "How long a read of a `portico.Connection` may take that is given no time of its own, and how long a connection waits for one of the `stream_threads`. Then `TimeoutError`, or close.",
        set: |c, v| c.stream_timeout = v.optional_seconds(),
    },
    Setting {
        name: "stream_threads",
        kind: count(1, 10_000, "threads"),
        default: Value::Integer(200),
        doc: "The most threads for `def` callbacks of `listen(stream=)`, each of which has one for as long as its connection lasts; for bodies that an iterable makes while they are sent, and for `def` handlers with `stream_body` and WSGI applications that read one while it comes. More wait for their turn. Threads are started as they are needed, and end when they are not.",
        set: |c, v| c.stream_threads = v.count(),
    },
    Setting {
        name: "probes",
        kind: Kind::Switch,
        default: Value::Switch(false),
        doc: "Whether ordinary listeners answer `/probe/startup`, `/probe/readiness`, `/probe/liveness` and `/metrics` too, for every host and ahead of its handler. Whoever reaches the server then reads its metrics; `Server.listen_admin` keeps them apart.",
        set: |c, v| c.probes = v.switch(),
    },
    Setting {
        name: "max_metric_series",
        kind: count(0, 100_000, "series"),
        default: Value::Integer(500),
        doc: "The most combinations of host, route, method and class of status for which requests and how long they took are counted apart. Others are counted with `other` for host and route.",
        set: |c, v| c.max_metric_series = v.count(),
    },
    Setting {
        name: "liveness_timeout",
        kind: seconds(false),
        default: Value::Real(10.0),
        doc: "How long an event loop may not turn before `/probe/liveness` says so.",
        set: |c, v| c.liveness_timeout = v.seconds(),
    },
];

fn default_io_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}
