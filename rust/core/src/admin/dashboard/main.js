// The page: what comes is written as text, never as HTML, since names and log lines are of strangers' making.

const PATIENCE = 3; // seconds without an event until the page says so
const LOG_LINES = 200;
const find = (id) => document.getElementById(id);
const model = new Model();
const charts = new Charts(find("charts"), find("moment"));
const tables = Object.fromEntries(["routes", "errors", "connections", "hosts", "handlers", "calls"].map((id) => [id, new Rows(find(id).tBodies[0])]));
let [latest, heard, source, retry, sortedBy, lastLine] = [null, null, null, 1, "p99", 0];

// What goes wrong, by group: a counter with labels, and which of them where it is not all; or a single counter.
const ERRORS = [
  ["Requests refused by the server", "requests_refused"],
  ["TLS handshakes that failed", "handshakes_failed"],
  ["Connections turned away", "connections_turned_away"],
  ["Requests without a whole response", "requests_ended", ["aborted", "write_timeout", "handler", "shutdown"]],
  ["Others", [
    ["handler_failures", "handlers that failed"], ["requests_aborted", "requests that came in part"],
    ["accept_errors", "connections that the machine could not accept"], ["loop_takeovers", "event loops taken from slow handlers"],
    ["access_log_dropped", "lines of the access log that were dropped"],
  ]],
];
const STATES = {
  handshake: "in their handshake", http1: "HTTP/1, with a request", http1_idle: "HTTP/1, idle", http2: "HTTP/2", stream: "streams",
};
const CLOSES = {
  client: "closed by clients", server: "closed by the server", idle: "closed when idle", aborted: "broken off in a request",
  write_timeout: "cut off: its client took nothing", refused: "closed with a request refused", shutdown: "closed at the end of the server",
};

function show(snapshot) {
  latest = snapshot;
  document.querySelector("main").hidden = false;
  const { version, state, uptime, process, counters } = snapshot;
  put(find("version"), version);
  put(find("uptime"), `up ${elapsed(uptime)}`);
  put(find("process"), `process ${process.id}`);
  showState();
  charts.draw(model);
  const seconds = model.window();
  for (const place of document.querySelectorAll(".window")) {
    put(place, seconds ? `over the last ${model.windowWords()}` : "since the start");
  }
  showAttention(snapshot);
  showRoutes();
  showErrors(counters);
  showConnections(counters);
  showHosts(snapshot);
  showHandlers(snapshot);
  put(find("listeners"), snapshot.listeners.length ? `Listening on ${snapshot.listeners.join(", ")}` : "Listening nowhere");
}

function showState() {
  const silent = heard === null ? 0 : performance.now() / 1000 - heard;
  const lost = latest !== null && silent > PATIENCE;
  const [text, name] = latest === null ? [retry > 1 ? "No answer, trying again" : "Connecting…", "lost"]
    : lost ? [`No data for ${elapsed(silent)}, trying again`, "lost"]
    : { serving: ["Serving", "serving"], draining: ["Draining: finishing what is in flight", "draining"] }[latest.state] ?? [latest.state, "draining"];
  // A screen reader is told of a change, not of every second.
  put(find("state"), text, lost && find("state").className === "state lost" ? "off" : "polite");
  find("state").className = latest === null && retry === 1 ? "state" : `state ${name}`;
  document.querySelector("main").classList.toggle("stale", lost);
  put(document.querySelector("title"), lost ? "(no data) portico dashboard" : "portico dashboard");
}

function showRoutes() {
  const rows = model.routes().sort((a, b) => (b[sortedBy] ?? 0) - (a[sortedBy] ?? 0) || b.count - a.count).slice(0, 30);
  tables.routes.show(rows, (row) => row.key, (row) => [
    { text: row.route ?? "(no route)", class: row.route ? "" : "zero", narrow: row.host ?? "(default)" },
    { text: row.host ?? "(default)", class: row.host ? "wide" : "wide zero" },
    number(count(row.count)), wide(number(duration(row.mean))), wide(number(duration(row.p50))), number(duration(row.p99)),
    row.failed ? { ...number(count(row.failed)), class: "number fails" } : number(["0", ""], true),
    wide(number(percent(row.busy * 100))),
  ]);
  find("no-routes").hidden = rows.length > 0;
  find("routes").hidden = rows.length === 0;
}

function showErrors(counters) {
  const rows = [];
  for (const [group, name, only] of ERRORS) {
    const found = Array.isArray(name)
      ? name.map(([single, words]) => ({ key: single, words, minute: model.grown(single), all: counters[single] ?? 0 }))
      : Object.entries(counters[name] ?? {}).filter(([label]) => !only || only.includes(label))
        .map(([label, all]) => ({ key: `${name} ${label}`, words: label, minute: model.grown(name, label), all }));
    const some = found.filter((row) => row.all > 0).sort((a, b) => b.minute - a.minute || b.all - a.all);
    if (some.length) rows.push({ key: group, words: group, group: true }, ...some);
  }
  tables.errors.show(rows, (row) => row.key, (row) => row.group
    ? [{ text: row.words, span: 3 }]
    : [{ text: row.words }, number(count(row.minute), !row.minute), number(count(row.all))], (row) => row.group ? "group" : "");
  find("no-errors").hidden = rows.length > 0;
  find("errors").hidden = rows.length === 0;
}

function showConnections(counters) {
  const rows = [["open", counters.connections_open, counters.connections_accepted]];
  for (const [state, now] of Object.entries(counters.connections_by_state ?? {})) rows.push([STATES[state] ?? state, now, null]);
  rows.push(["WebSockets", counters.websockets_open, counters.websockets], ["TLS handshakes", null, counters.handshakes]);
  for (const [label, words] of Object.entries(CLOSES)) rows.push([words, null, counters.connections_closed?.[label] ?? 0]);
  const cell = (value) => value === null || value === undefined ? { text: "", class: "number" } : number(count(value), !value);
  tables.connections.show(rows, (row) => row[0], ([words, now, all]) => [{ text: words }, cell(now), cell(all)]);
}

function showHosts({ hosts, hosts_total: all, time }) {
  tables.hosts.show(hosts, (host, index) => JSON.stringify([host.name, host.subject, index]), (host) => {
    const left = daysLeft(host, time);
    return [
      { text: host.name ?? "(default)", class: host.name ? "" : "zero", small: host.subject === `CN=${host.name}` ? "" : host.subject },
      { text: new Date(host.not_after * 1000).toISOString().slice(0, 10), class: "number zero" },
      { text: left < 0 ? "expired" : grouped.format(Math.floor(left)), class: "number", badge: left < 7 ? "bad" : left < 30 ? "warn" : "good" },
    ];
  });
  put(find("hosts-count"), all > hosts.length ? `${hosts.length} of ${grouped.format(all)}, those that end first` : "");
  find("no-hosts").hidden = hosts.length > 0;
  find("hosts").hidden = hosts.length === 0;
}

function daysLeft(host, time) {
  return (host.not_after - time) / 86400;
}

function showHandlers({ handlers, handlers_total: all, counters, loops }) {
  tables.handlers.show(handlers, (handler, index) => `${index} ${handler.name}`, (handler) => [
    { text: handler.name },
    { text: handler.runs, small: [handler.why, ...handler.slow_paths.map((path) => `on the pool: ${path}`)].join("; ") },
  ]);
  const calls = Object.entries(counters.handler_calls ?? {}).map(([runs, all]) => [runs, model.grown("handler_calls", runs), all]);
  tables.calls.show(calls, (row) => row[0], ([runs, minute, all]) => [{ text: runs }, number(count(minute), !minute), number(count(all), !all)]);
  const of = (name) => counters[name]?.handlers ?? 0;
  const lag = Math.max(0, ...loops.map((loop) => loop.waiting_seconds ?? loop.lag_seconds));
  put(find("pool"), [
    all > handlers.length ? `${handlers.length} of ${grouped.format(all)} handlers` : "",
    of("pool_threads") ? `pool: ${of("pool_threads") - of("pool_threads_idle")} of ${of("pool_threads")} threads busy, ${grouped.format(of("pool_queue"))} waiting` : "",
    loops.length ? `loops turn within ${duration(lag).join(" ")}` : "",
  ].filter(Boolean).join(" · "));
  find("no-handlers").hidden = handlers.length > 0;
  find("handlers").hidden = handlers.length === 0;
}

// What somebody ought to look at now, the worst first.
function showAttention({ hosts, time, counters, loops, limits }) {
  const found = [];
  const last = model.windowWords();
  const stuck = loops.filter((loop) => loop.waiting_seconds > 2);
  for (const loop of stuck) found.push(["bad", `${loop.name} has not turned for ${elapsed(loop.waiting_seconds)}: something holds it.`]);
  for (const host of hosts.slice(0, 3)) {
    const left = daysLeft(host, time);
    const name = host.name ?? "the default host";
    if (left < 0) found.push(["bad", `The certificate of ${name} has expired.`]);
    else if (left < 7) found.push(["bad", `The certificate of ${name} ends in ${left < 1 ? "less than a day" : left < 2 ? "a day" : `${Math.floor(left)} days`}.`]);
  }
  const failed = model.grown("responses", "5xx");
  const share = failed / Math.max(1, total(counters.responses) - total(model.samples[0].counters.responses));
  if (failed >= 5 && share >= .01) found.push(["bad", `In the last ${last} ${short(share * 100)} % of the responses were 5xx.`]);
  const refused = model.grown("requests_refused", "max_in_flight");
  if (refused) found.push(["warn", `In the last ${last} ${grouped.format(refused)} requests were refused: max_in_flight (${grouped.format(limits.max_in_flight)}) was reached.`]);
  for (const limit of ["max_connections", "max_connections_per_ip"]) {
    const turned = model.grown("connections_turned_away", limit);
    if (turned) found.push(["warn", `In the last ${last} ${grouped.format(turned)} connections were turned away: ${limit} was reached.`]);
  }
  const list = find("attention");
  const key = JSON.stringify(found);
  if (list.shown !== key) list.replaceChildren(...found.map(([kind, text]) => element("li", { class: kind, text })));
  list.shown = key;
  list.hidden = found.length === 0;
}

function showLines(lines) {
  const list = find("log");
  for (const line of lines) {
    if (line.number <= lastLine) continue;
    lastLine = line.number;
    list.prepend(element("li", { class: line.level },
      element("time", { text: clock(line.time), title: new Date(line.time * 1000).toISOString() }),
      element("span", { class: "level", text: line.level }), element("span", { class: "message", text: line.message })));
  }
  while (list.childElementCount > LOG_LINES) list.lastChild.remove();
  find("no-log").hidden = list.childElementCount > 0;
}

// ---- what comes

function connect() {
  source?.close();
  source = new EventSource("events");
  source.addEventListener("snapshot", (event) => {
    const snapshot = JSON.parse(event.data);
    const now = performance.now() / 1000;
    if (latest && latest.started !== snapshot.started) lastLine = 0;
    [heard, retry] = [now, 1];
    model.add(snapshot, now);
    show(snapshot);
  });
  source.addEventListener("log", (event) => showLines(JSON.parse(event.data)));
  // The browser itself tries again after a break, but not after an answer that is no stream.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1000 * retry);
    retry = Math.min(10, retry * 2);
  });
}

for (const head of document.querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    document.querySelector("th[aria-sort]").removeAttribute("aria-sort");
    head.setAttribute("aria-sort", "descending");
    sortedBy = head.dataset.sort;
    if (latest) showRoutes();
  });
}
setInterval(showState, 1000);
connect();
