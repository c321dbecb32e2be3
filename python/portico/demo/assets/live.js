// Polls /stats.json once a second and draws what changed. Without it the page shows the figures of when it was made.
"use strict";

const SECONDS = 60;
const WIDTH = 600;
const HEIGHT = 140;
const chart = document.getElementById("chart");
const pulse = document.getElementById("pulse");
const rates = []; // Requests per second, the newest last.
let before = null; // The answered requests when last asked, and when that was.

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const show = (id, text) => { document.getElementById(id).textContent = text; };
const number = (value) => value.toLocaleString("en");

async function poll() {
  try {
    const response = await fetch("/stats.json", { cache: "no-store" });
    const stats = await response.json();
    const answered = sum(stats.responses);
    show("answered", number(answered));
    show("open", number(stats.connections_open));
    show("handshakes", number(stats.handshakes));
    show("flight", number(stats.requests_in_flight));
    const now = performance.now();
    // A server that was started anew counts from 0.
    if (before && answered >= before.answered) {
      rates.push((answered - before.answered) * 1000 / (now - before.at));
      rates.splice(0, rates.length - SECONDS);
      draw();
    }
    before = { answered, at: now };
    pulse.classList.remove("lost");
  } catch {
    pulse.classList.add("lost"); // The server has gone; it may come back.
    show("rate", "no answer");
    before = null;
  }
  setTimeout(poll, 1000);
}

function draw() {
  const top = Math.max(4, ...rates) * 1.15;
  const step = WIDTH / (SECONDS - 1);
  const points = rates.map((rate, i) => {
    const x = WIDTH - (rates.length - 1 - i) * step;
    const y = HEIGHT - 2 - rate / top * (HEIGHT - 4);
    return x.toFixed(1) + " " + y.toFixed(1);
  });
  const first = WIDTH - (rates.length - 1) * step;
  chart.querySelector(".line").setAttribute("d", "M" + points.join("L"));
  chart.querySelector(".area").setAttribute("d", "M" + first + " " + HEIGHT + "L" + points.join("L") + "L" + WIDTH + " " + HEIGHT + "Z");
  const rate = rates[rates.length - 1];
  show("rate", (rate < 10 ? rate.toFixed(1) : number(Math.round(rate))) + " now, " + number(Math.round(Math.max(...rates))) + " at most");
}

async function sendMany(event) {
  const button = event.target;
  const count = 500;
  button.disabled = true;
  const started = performance.now();
  const asked = Array.from({ length: count }, () => fetch("/hello", { cache: "no-store" }).then((r) => r.ok, () => false));
  const good = (await Promise.all(asked)).filter(Boolean).length;
  const took = performance.now() - started;
  show("said", number(good) + " of " + count + " answered in " + Math.round(took) + " ms");
  button.disabled = false;
}

const button = document.getElementById("more");
button.hidden = false;
button.addEventListener("click", sendMany);
poll();
