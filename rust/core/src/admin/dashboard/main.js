// The page: what comes is written as text, never as HTML, since names and log lines are of strangers' making.

const PATIENCE = 3; // seconds without an event until the page says so
const LOG_LINES = 200;
const find = (id) => document.getElementById(id);
const model = new Model();
const charts = new Charts(find("charts"), find("moment"));
const tables = Object.fromEntries(["routes", "errors", "connections", "hosts", "handlers"].map((id) => [id, new Rows(find(id).tBodies[0])]));
let [latest, heard, source, retry, sortedBy, lastLine] = [null, null, null, 1, "p99", 0];

// What goes wrong, by group: a counter with labels, and which of them where it is not all; or a single counter.
const ERRORS = [
  ["Requests refused by the server", "requests_refused"],
  ["TLS handshakes that failed", "handshakes_failed"],
  ["Connections turned away", "connections_turned_away"],
  ["Connections cut off", "connections_closed", ["aborted", "write_timeout", "refused"]],
  ["Others", [
    ["handler_failures", "handlers that failed"], ["requests_aborted", "requests that clients broke off"],
    ["accept_errors", "connections that the machine could not accept"], ["loop_takeovers", "event loops taken from slow handlers"],
  ]],
];
const CLOSES = {
  client: "closed by clients", server: "closed by the server", idle: "closed when idle", shutdown: "closed at the end of the server",
};

function show(snapshot) {
  latest = snapshot;
  const { version, state, uptime, process, counters } = snapshot;
  put(find("version"), version);
  put(find("uptime"), `up ${elapsed(uptime)}`);
  put(find("process"), `process ${process.id}`);
  showState();
  charts.draw(model);
  const seconds = model.window();
  for (const place of document.querySelectorAll(".window")) {
    put(place, seconds ? `over the last ${seconds > MINUTE - 2 ? "minute" : `${Math.round(seconds)} s`}` : "since the start");
  }
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
    { text: row.route ?? "(no route)", class: row.route ? "name" : "name zero" }, { text: row.host ?? "(default)", class: row.host ? "" : "zero" },
    number(count(row.count)), number(duration(row.mean)), number(duration(row.p50)), number(duration(row.p99)),
    row.failed ? { ...number(count(row.failed)), class: "number fails" } : number(["0", ""], true),
    number(percent(row.busy * 100)),
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
    : [{ text: row.words, class: "name" }, number(count(row.minute), !row.minute), number(count(row.all))], (row) => row.group ? "group" : "");
  find("no-errors").hidden = rows.length > 0;
  find("errors").hidden = rows.length === 0;
}

function showConnections(counters) {
  const rows = [["open", counters.connections_open, counters.connections_accepted], ["WebSockets", counters.websockets_open, counters.websockets]];
  rows.push(["TLS handshakes", null, counters.handshakes]);
  for (const [label, words] of Object.entries(CLOSES)) rows.push([words, null, counters.connections_closed?.[label] ?? 0]);
  tables.connections.show(rows, (row) => row[0], ([words, now, all]) => [
    { text: words, class: "name" }, now === null ? { text: "", class: "number" } : number(count(now), !now), number(count(all), !all),
  ]);
}

function showHosts({ hosts, hosts_total: all, time }) {
  tables.hosts.show(hosts, (host) => JSON.stringify([host.name, host.subject, host.not_after]), (host) => {
    const left = (host.not_after - time) / 86400;
    const words = left < 0 ? "expired" : grouped.format(Math.floor(left));
    return [
      { text: host.name ?? "(default)", class: host.name ? "name" : "name zero" }, { text: host.subject },
      { text: words, class: "number", badge: left < 7 ? "bad" : left < 30 ? "warn" : "good", small: new Date(host.not_after * 1000).toISOString().slice(0, 10) },
    ];
  });
  put(find("hosts-count"), all > hosts.length ? `${hosts.length} of ${grouped.format(all)}, those that end first` : "");
  find("no-hosts").hidden = hosts.length > 0;
  find("hosts").hidden = hosts.length === 0;
}

function showHandlers({ handlers, pool }) {
  tables.handlers.show(handlers, (handler, index) => `${index} ${handler.name}`, (handler) => [
    { text: handler.name, class: "name" },
    { text: handler.runs, small: [handler.reason, ...handler.long_paths.map((path) => `on the pool: ${path}`)].join("; ") },
  ]);
  put(find("pool"), pool ? `pool: ${pool.threads - pool.idle} of ${pool.threads} threads busy, ${grouped.format(pool.queued)} waiting` : "");
  find("no-handlers").hidden = handlers.length > 0;
  find("handlers").hidden = handlers.length === 0;
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

// A table's body whose rows stay the same elements as long as they mean the same: what is selected stays so.
function Rows(body) {
  const known = new Map();
  this.show = (items, key, cells, name = () => "") => {
    const kept = new Set();
    items.forEach((item, index) => {
      const id = key(item, index);
      kept.add(id);
      let row = known.get(id);
      if (!row) known.set(id, row = element("tr", { class: name(item) }));
      cells(item).forEach((cell, column) => {
        const place = row.cells[column] ?? row.appendChild(element(column === 0 && !cell.span ? "th" : "td", cell.span ? {} : { scope: "row" }));
        fill(place, cell);
      });
      if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    });
    for (const [id, row] of known) if (!kept.has(id)) known.delete(id), row.remove();
  };
}

function number([digits, unit], zero = false) {
  return { text: digits, unit, class: zero ? "number zero" : "number" };
}

function fill(place, cell) {
  const key = JSON.stringify(cell);
  if (place.shown === key) return;
  place.shown = key;
  place.className = cell.class ?? "";
  if (cell.span) place.colSpan = cell.span;
  const parts = [cell.badge ? element("span", { class: `badge ${cell.badge}`, text: cell.text }) : cell.text];
  if (cell.unit) parts.push(element("span", { class: "unit", text: cell.unit }));
  if (cell.small) parts.push(element("small", { text: cell.small }));
  place.replaceChildren(...parts);
}

function measure(place, [digits, unit], after) {
  fill(place, { text: digits, unit: [unit, digits === "–" ? "" : after].filter(Boolean).join(" "), class: place.className });
}

function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function drawing(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

function put(place, text, live) {
  if (live) place.setAttribute("aria-live", live);
  if (place.textContent !== text) place.textContent = text;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
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
