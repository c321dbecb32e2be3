"use strict";
// From snapshots, whose counters only ever grow, to rates and percentiles of a while. The server keeps nothing for this page.

const HISTORY = 300; // seconds on the charts, at the most
const MINUTE = 60; // seconds that the tables look back
const SMOOTH = 5; // seconds over which a point's percentiles are taken
const GAP = 3.5; // seconds without an event that make a hole in a line

class Model {
  constructor() {
    this.samples = []; // of the last minute, oldest first
    this.points = []; // of the charts, oldest first
    this.restarts = []; // moments at which another process answered
    this.offset = 0;
  }

  // Takes one snapshot; `now` is this machine's clock in seconds, by which time passes while nothing comes.
  add(snapshot, now) {
    const last = this.samples.at(-1);
    const restarted = last && (last.started !== snapshot.started || snapshot.uptime < last.uptime);
    if (last && !restarted && snapshot.uptime === last.uptime) return;
    if (restarted) {
      this.offset = last.at + Math.max(1, now - last.heard) - snapshot.uptime;
      this.restarts.push(last.at + Math.max(1, now - last.heard));
      this.samples = [];
    }
    const sample = {
      at: snapshot.uptime + this.offset, heard: now, started: snapshot.started, uptime: snapshot.uptime,
      counters: snapshot.counters, latency: snapshot.latency.counts, cpu: snapshot.process.cpu_seconds,
      routes: new Map(snapshot.routes.map((route) => [routeKey(route), route])),
    };
    const before = this.samples.at(-1);
    if (before) this.points.push(this.point(snapshot, sample, before));
    this.samples.push(sample);
    while (this.samples[0].at < sample.at - MINUTE - .5) this.samples.shift();
    while (this.points.length && this.points[0].at < sample.at - HISTORY - 2) this.points.shift();
    this.restarts = this.restarts.filter((at) => at > sample.at - HISTORY);
    this.bounds = snapshot.latency.bounds;
  }

  point(snapshot, sample, before) {
    const seconds = sample.at - before.at;
    const rate = (of) => Math.max(0, of(sample.counters) - of(before.counters)) / seconds;
    const from = this.samples.find((one) => one.at >= sample.at - SMOOTH - .5) || before;
    const counts = difference(sample.latency, from.latency);
    const percentile = (part) => quantile(snapshot.latency.bounds, counts, part);
    return {
      at: sample.at,
      rate: rate((counters) => total(counters.requests)),
      failed: rate((counters) => counters.responses["5xx"]),
      refused: rate((counters) => counters.responses["4xx"]),
      p50: percentile(.5), p95: percentile(.95), p99: percentile(.99),
      connections: snapshot.counters.connections_open,
      in_flight: snapshot.counters.requests_in_flight,
      cpu: Math.max(0, sample.cpu - before.cpu) / seconds * 100,
      sent: rate((counters) => counters.body_sent_bytes),
      memory: snapshot.process.resident_bytes,
    };
  }

  // Seconds on the charts: whole minutes.
  span() {
    const age = this.points.length ? this.samples.at(-1).at - this.points[0].at : 0;
    return Math.min(HISTORY, Math.max(1, Math.ceil((age - 1) / 60)) * 60);
  }

  // Seconds that the tables look back on; none before there is anything to look back on.
  window() {
    return this.samples.length > 1 ? this.samples.at(-1).at - this.samples[0].at : 0;
  }

  // The same in words.
  windowWords() {
    const seconds = this.window();
    return seconds > MINUTE - 2 ? "minute" : `${Math.max(1, Math.round(seconds))} s`;
  }

  // How much a counter grew in that time.
  grown(name, label) {
    const of = (sample) => label === undefined ? sample.counters[name] : sample.counters[name]?.[label];
    return Math.max(0, (of(this.samples.at(-1)) ?? 0) - (of(this.samples[0]) ?? 0));
  }

  // What the routes did in that time; since the start, while it is not there yet.
  routes() {
    const seconds = this.window();
    const [now, then] = [this.samples.at(-1), seconds ? this.samples[0].routes : new Map()];
    const rows = [];
    for (const [key, route] of now.routes) {
      const old = then.get(key);
      const count = route.requests - (old?.requests ?? 0);
      if (count <= 0) continue;
      const sum = route.seconds - (old?.seconds ?? 0);
      const counts = difference(route.counts, old?.counts ?? []);
      rows.push({
        key, host: route.host, route: route.route, count,
        failed: route.failed - (old?.failed ?? 0), mean: sum / count, busy: sum / (seconds || now.uptime),
        p50: quantile(this.bounds, counts, .5), p99: quantile(this.bounds, counts, .99),
      });
    }
    return rows;
  }
}

function routeKey(route) {
  return JSON.stringify([route.host, route.route]);
}

function total(labels) {
  return Object.values(labels ?? {}).reduce((sum, count) => sum + count, 0);
}

function difference(now, then) {
  return now.map((count, index) => Math.max(0, count - (then[index] ?? 0)));
}

// The value below which such a part of what was counted lies, taken as spread evenly within its bucket; null of nothing.
function quantile(bounds, counts, part) {
  const wanted = part * counts.reduce((sum, count) => sum + count, 0);
  if (wanted === 0) return null;
  let below = 0;
  for (const [index, count] of counts.entries()) {
    if (below + count >= wanted && count > 0) {
      const low = index === 0 ? 0 : bounds[index - 1];
      const high = bounds[index] ?? low; // beyond the last bound nothing is known but that
      return low + (high - low) * (wanted - below) / count;
    }
    below += count;
  }
  return bounds.at(-1);
}

// Numbers for people: [digits, unit].
const grouped = new Intl.NumberFormat("en-GB");

function short(number) {
  if (number >= 10 || Number.isInteger(number)) return grouped.format(Math.round(number));
  return number.toFixed(number < .1 ? 2 : 1);
}

function count(number) {
  return [grouped.format(number), ""];
}

function perSecond(number) {
  return [short(number), "/s"];
}

function percent(number) {
  return [short(number), "%"];
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return ["–", ""];
  const [number, unit] = seconds >= 1 ? [seconds, "s"] : seconds >= .001 ? [seconds * 1e3, "ms"] : [seconds * 1e6, "µs"];
  return [number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2), unit];
}

function bytes(number) {
  if (number >= 1000 * 2 ** 20) return [(number / 2 ** 30).toFixed(2), "GiB"];
  return number >= 1000 * 2 ** 10 ? [short(number / 2 ** 20), "MiB"] : [short(number / 2 ** 10), "KiB"];
}

function bytesPerSecond(number) {
  const [digits, unit] = bytes(number);
  return [digits, `${unit}/s`];
}

function elapsed(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}
