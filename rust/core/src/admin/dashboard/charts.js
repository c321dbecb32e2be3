// The charts: rows of numbers and a strip each, above one time axis, with one cursor for all.

const LINES = [
  {
    name: "Requests", value: (point) => perSecond(point.rate), scale: linear(10, short),
    parts: [
      { key: "2xx, 3xx", tone: "accent", of: (point) => point.rate, shown: (point) => perSecond(Math.max(0, point.rate - point.refused - point.failed)), area: "wash" },
      { key: "4xx", tone: "warn", of: (point) => point.refused + point.failed, shown: (point) => perSecond(point.refused), area: "warn", quiet: true },
      { key: "5xx", tone: "bad", of: (point) => point.failed, shown: (point) => perSecond(point.failed), area: "bad", quiet: true },
    ],
  },
  {
    name: "Latency", value: (point) => duration(point.p99), after: "p99", legend: true, scale: logarithmic,
    parts: [
      { key: "p99", tone: "accent", of: (point) => point.p99, shown: (point) => duration(point.p99) },
      { key: "p95", tone: "middle", of: (point) => point.p95, shown: (point) => duration(point.p95) },
      { key: "p50", tone: "soft", of: (point) => point.p50, shown: (point) => duration(point.p50) },
    ],
  },
  { name: "In flight", small: true, value: (point) => count(point.in_flight), scale: linear(5, short), parts: [{ tone: "accent", of: (point) => point.in_flight, area: "wash" }] },
  { name: "Sent in bodies", small: true, value: (point) => bytesPerSecond(point.sent), scale: binary(2 ** 10, bytesPerSecond), parts: [{ tone: "accent", of: (point) => point.sent, area: "wash" }] },
  { name: "Connections", small: true, value: (point) => count(point.connections), scale: linear(5, short), parts: [{ tone: "accent", of: (point) => point.connections, area: "wash" }] },
  { name: "CPU", small: true, value: (point) => percent(point.cpu), after: "of a core", scale: linear(10, (number) => `${short(number)} %`), parts: [{ tone: "accent", of: (point) => point.cpu, area: "wash" }] },
  { name: "Memory", small: true, value: (point) => bytes(point.memory), scale: binary(2 ** 24, bytes), parts: [{ tone: "accent", of: (point) => point.memory, area: "wash" }] },
];
const [WIDE, HIGH] = [1000, 100]; // of the drawings, whatever their size on the screen

// From 0 to a round number that is at least `least`. Gives the place of a value from 0 to 1, and the labels at such places.
function linear(least, label, step = 1) {
  return (values, small) => {
    const top = Math.max(least, ...values) / step;
    const power = 10 ** Math.floor(Math.log10(top));
    const most = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((one) => one * power >= top * .999) * power * step;
    const at = small ? [1] : [0, .5, 1];
    return { place: (value) => value / most, labels: at.map((part) => [part, label(most * part)]) };
  };
}

// The same for bytes, whose units are powers of 1024.
function binary(least, measure) {
  return (values, small) => {
    const unit = 1024 ** Math.floor(Math.log2(Math.max(least, ...values)) / 10);
    return linear(least, (number) => measure(number).join(" "), unit)(values, small);
  };
}

// Whole decades, two at the least: what takes 1 ms and what takes 1 s can both be read.
function logarithmic(values) {
  const known = values.filter((value) => value > 0);
  let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [.001, .1];
  low = Math.max(-6, Math.floor(Math.log10(low)));
  high = Math.ceil(Math.log10(high));
  if (high - low < 2) low = high - 2;
  const labels = [];
  for (let power = low; power <= high; power += high - low > 4 ? 2 : 1) labels.push([(power - low) / (high - low), duration(10 ** power).map((part) => part.replace(/\.0+$/, "")).join(" ")]);
  return { place: (value) => value > 0 ? Math.max(0, (Math.log10(value) - low) / (high - low)) : 0, labels };
}

class Charts {
  constructor(root, moment) {
    [this.root, this.moment, this.age] = [root, moment, null];
    this.rows = LINES.map((line) => new Row(line, root));
    this.axis = element("div", { "aria-hidden": "true" });
    root.append(element("div", { class: "row axis" }, this.axis));
    root.addEventListener("pointermove", (event) => this.point(event.clientX));
    root.addEventListener("pointerleave", () => this.look(null));
    root.addEventListener("keydown", (event) => this.press(event));
    root.addEventListener("blur", () => this.look(null));
  }

  draw(model) {
    this.model = model;
    const now = model.samples.at(-1).at;
    if (model.span() !== this.span) this.stretch(model.span());
    for (const row of this.rows) row.draw(model.points, model.restarts, now, this.span);
    this.look(this.age);
  }

  // Has the time axis go so many seconds back.
  stretch(span) {
    this.span = span;
    this.root.setAttribute("aria-valuemin", String(-span));
    const step = span > 60 ? 60 : 20;
    const labels = [];
    for (let ago = span; ago >= 0; ago -= step) {
      const label = element("span", { text: ago === 0 ? "now" : span > 60 ? `−${ago / 60} min` : `−${ago} s` });
      label.style.left = `${100 - 100 * ago / span}%`;
      labels.push(label);
    }
    this.axis.replaceChildren(...labels);
  }

  point(x) {
    const box = this.rows[0].plot.getBoundingClientRect();
    const age = this.span * (box.right - x) / box.width;
    this.look(age >= 0 && age <= this.span ? age : null);
  }

  press(event) {
    const step = { ArrowLeft: 1, ArrowRight: -1, ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key];
    if (step) this.look(Math.min(this.span, Math.max(0, Math.round(this.age ?? 0) + step)) || null);
    else if (event.key === "Home") this.look(this.span);
    else if (event.key === "End" || event.key === "Escape") this.look(null);
    else return;
    event.preventDefault();
  }

  // Shows the numbers of so many seconds ago; of now, for null.
  look(age) {
    this.age = age;
    const points = this.model?.points ?? [];
    if (!points.length) return;
    const now = this.model.samples.at(-1).at;
    const near = (best, point) => Math.abs(now - point.at - age) < Math.abs(now - best.at - age) ? point : best;
    const point = age === null ? points.at(-1) : points.reduce(near);
    const ago = Math.max(0, Math.round(now - point.at));
    for (const row of this.rows) row.tell(point, age === null ? null : 1 - (now - point.at) / this.span);
    put(this.moment, age === null ? "" : `${ago} s ago, ${clock(Date.now() / 1000 - ago)}`);
    const words = this.rows.map((row) => row.words(point)).join(", ");
    this.root.setAttribute("aria-valuenow", String(-ago));
    this.root.setAttribute("aria-valuetext", `${ago ? `${ago} seconds ago` : "now"}: ${words}`);
  }
}

// One row: its numbers, its strip, its scale.
class Row {
  constructor(line, root) {
    this.line = line;
    this.value = element("p", { class: "value" });
    this.keys = line.parts.map((part) => element("dd"));
    const names = line.parts.map((part) => element("dt", { class: part.tone, text: part.key ?? "" }));
    const keys = line.parts[0].key ? element("dl", { class: line.legend ? "keys large" : "keys" }, ...names.flatMap((name, index) => [name, this.keys[index]])) : null;
    const label = element("div", { class: "label-part" }, element("p", { class: "label", text: line.name }), ...[line.legend ? null : this.value, keys].filter(Boolean));
    this.svg = drawing("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.grid = drawing("g");
    this.marks = drawing("g");
    this.cursor = drawing("line", { class: "cursor", y1: 0, y2: HIGH, visibility: "hidden" });
    this.areas = line.parts.map((part) => drawing("path", { class: `area ${part.area ?? ""}` }));
    this.strokes = line.parts.map((part) => drawing("path", { class: `stroke ${part.tone}` }));
    this.svg.append(this.grid, ...this.areas, ...this.strokes.toReversed(), this.marks, this.cursor);
    this.plot = element("div", { class: "plot" }, this.svg);
    this.scale = element("div", { class: "scale" });
    root.append(element("div", { class: line.small ? "row small" : "row" }, label, this.plot, this.scale));
  }

  draw(points, restarts, now, span) {
    const { parts, small } = this.line;
    const values = points.flatMap((point) => parts.map((part) => part.of(point) ?? 0));
    const { place, labels } = this.line.scale(values, small);
    const x = (at) => (WIDE * (1 - (now - at) / span)).toFixed(1);
    const y = (value) => (HIGH - 1 - (HIGH - 2) * Math.min(1, place(value))).toFixed(1);
    parts.forEach((part, index) => {
      const runs = unbroken(part.quiet ? notable(points, part.of) : points, part.of);
      const along = (run) => run.map((point) => `${x(point.at)} ${y(part.of(point))}`).join("L");
      this.strokes[index].setAttribute("d", runs.map((run) => `M${along(run)}h.1`).join(""));
      const under = (run) => `M${x(run[0].at)} ${HIGH}L${along(run)}L${x(run.at(-1).at)} ${HIGH}Z`;
      this.areas[index].setAttribute("d", part.area ? runs.map(under).join("") : "");
    });
    const key = labels.join();
    if (key !== this.drawn) {
      this.drawn = key;
      const heights = labels.map(([part]) => HIGH - 1 - (HIGH - 2) * part);
      const places = small ? [...heights, HIGH - 1] : heights;
      this.grid.replaceChildren(...places.map((y) => drawing("line", { class: "grid", x1: 0, x2: WIDE, y1: y, y2: y })));
      this.scale.replaceChildren(...labels.map(([part, text]) => {
        const label = element("span", { text });
        label.style.top = `${100 - 100 * part}%`;
        return label;
      }));
    }
    this.marks.replaceChildren(...restarts.map((at) => drawing("line", { class: "mark", x1: x(at), x2: x(at), y1: 0, y2: HIGH })));
  }

  tell(point, place) {
    measure(this.value, this.line.value(point), this.line.after);
    this.line.parts.forEach((part, index) => part.shown && measure(this.keys[index], part.shown(point)));
    this.cursor.setAttribute("visibility", place === null ? "hidden" : "visible");
    if (place !== null) for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, String(WIDE * place));
  }

  words(point) {
    return [this.line.name, ...this.line.value(point), this.line.after ?? ""].join(" ").trim();
  }
}

// The points where something is not 0, and those beside them.
function notable(points, of) {
  return points.filter((_, index) => [index - 1, index, index + 1].some((at) => points[at] && of(points[at]) > 0));
}

// Stretches of points that have a value and follow each other closely.
function unbroken(points, of) {
  const runs = [];
  let last = null;
  for (const point of points) {
    const value = of(point);
    if (value === null || value === undefined) {
      last = null;
      continue;
    }
    if (last && point.at - last.at <= GAP) runs.at(-1).push(point);
    else runs.push([point]);
    last = point;
  }
  return runs;
}
