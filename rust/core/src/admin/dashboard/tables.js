// Elements: text goes in as text, and what means the same stays the same element.

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
        const names = column === 0 && !cell.span; // its row
        const place = row.cells[column] ?? row.appendChild(names ? element("th", { scope: "row" }) : element("td"));
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

// Left out where there is no room.
function wide(cell) {
  return { ...cell, class: `${cell.class} wide` };
}

function fill(place, cell) {
  const key = JSON.stringify(cell);
  if (place.shown === key) return;
  place.shown = key;
  place.className = cell.class ?? "";
  if (cell.span) place.colSpan = cell.span;
  const parts = [cell.badge ? element("span", { class: `badge ${cell.badge}`, text: cell.text }) : cell.text];
  if (cell.unit) parts.push(element("span", { class: "unit", text: cell.unit }));
  if (cell.narrow) parts.push(element("small", { class: "narrow", text: cell.narrow }));
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
