// What moves on pages.localhost: the clock, the chat, and the pages that are stopped. Each page has one of them.
"use strict";

const find = (selector) => document.querySelector(selector);

function watchClock(clock) {
  const turn = (hand, degrees) => find("." + hand).setAttribute("transform", "rotate(" + degrees + ")");
  const events = new EventSource(clock.dataset.events);
  events.onmessage = ({ data }) => {
    const { now, zone, watchers } = JSON.parse(data);
    // The server's own time, wherever the reader is.
    const east = Number(zone.slice(0, 3)) * 60 + Number(zone[0] + zone.slice(3));
    const there = new Date(now * 1000 + east * 60000);
    const [hour, minute, second] = [there.getUTCHours(), there.getUTCMinutes(), there.getUTCSeconds()];
    turn("hour", (hour % 12) * 30 + minute / 2);
    turn("minute", minute * 6 + second / 10);
    turn("second", second * 6);
    find("#time").textContent = there.toISOString().slice(11, 19);
    find("#watchers").textContent = watchers === 1 ? "You are the only one who watches" : watchers + " watch it now";
  };
  events.onerror = () => { find("#watchers").textContent = "No answer; asking again"; };
}

function talk(chat) {
  const list = find("#said");
  const form = find(".say");
  const socket = new WebSocket(location.origin.replace("http", "ws") + chat.dataset.socket);
  let me = "";
  const ready = (yes) => form.querySelectorAll("input, button").forEach((it) => { it.disabled = !yes; });
  socket.onopen = () => ready(true);
  socket.onmessage = ({ data }) => {
    const line = JSON.parse(data);
    if (line.you) { me = line.you; return; }
    if (line.here) find("#state").textContent = "You are " + me + (line.here === 1 ? ", alone here" : ", one of " + line.here + " here");
    const item = document.createElement("li");
    const who = document.createElement("b");
    who.textContent = line.who === me ? "You" : line.who;
    item.className = line.does ? "does" : line.who === me ? "mine" : "";
    item.append(who, " " + (line.does || line.says));
    list.append(item);
    while (list.children.length > 200) list.firstChild.remove();
    list.scrollTop = list.scrollHeight;
  };
  socket.onclose = ({ code, reason }) => {
    ready(false);
    find("#state").textContent = "The end (" + code + (reason ? ", " + reason : "") + ")";
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    socket.send(form.line.value);
    form.reset();
  });
}

async function tryOut(event) {
  event.preventDefault();
  const link = event.currentTarget;
  const said = link.nextElementSibling;
  const started = performance.now();
  said.textContent = "running";
  try {
    const answer = await fetch(link.href, { cache: "no-store", headers: { accept: "text/plain" } });
    const text = (await answer.text()).trim();
    said.textContent = answer.status + " after " + Math.round(performance.now() - started) + " ms. " + text;
  } catch {
    said.textContent = "no answer";
  }
}

const clock = find("[data-events]");
const chat = find("[data-socket]");
if (clock) watchClock(clock);
if (chat) talk(chat);
document.querySelectorAll("[data-try]").forEach((link) => link.addEventListener("click", tryOut));
