"use strict";
// What the pages have in common: helpers, what was said, and the connection. All text of others goes into text nodes;
// nothing of it becomes markup.

const $ = (id) => document.getElementById(id);

/** The last word of each kind, and when it came by the clock of this page. */
const last = { status: null, history: null, lease: null, leaseAt: 0, skew: 0 };
const SAID_MAX = 100;
const RETRY_MIN_MS = 250, RETRY_MAX_MS = 4000;
/** Longer silence than this, with a comment or an event each 15 s, is a dead connection. */
const SILENCE_MAX_MS = 40000;

// === small helpers ===

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Changes a text only if it is another one: what is read aloud is read once. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function kind(node, value) {
  if (node.dataset.kind !== value) node.dataset.kind = value;
}

/** Milliseconds since 1970 of an RFC 3339 time, with the microseconds as a fraction. */
function ms(time) {
  if (!time) return null;
  const whole = Date.parse(time);
  const fraction = /\.\d{3}(\d+)/.exec(time);
  return whole + (fraction ? Number("0." + fraction[1]) : 0);
}

/** Now, by the member's clock. */
const now = () => Date.now() + last.skew;

/** A length for people: 7.1 ms, 850 ms, 3.2 s, 12m 34s. */
function span(length) {
  if (length === null || Number.isNaN(length)) return "-";
  const size = Math.max(0, length);
  if (size < 100) return size.toFixed(1) + " ms";
  if (size < 1000) return Math.round(size) + " ms";
  if (size < 10000) return (size / 1000).toFixed(1) + " s";
  return age(size);
}

function age(length) {
  const s = Math.max(0, Math.floor(length / 1000));
  if (s < 60) return s + "s";
  if (s < 3600) return Math.floor(s / 60) + "m " + (s % 60) + "s";
  if (s < 86400) return Math.floor(s / 3600) + "h " + (Math.floor(s / 60) % 60) + "m";
  return Math.floor(s / 86400) + "d " + (Math.floor(s / 3600) % 24) + "h";
}

function clock(at) {
  const date = new Date(at);
  const two = (number) => String(number).padStart(2, "0");
  const time = two(date.getHours()) + ":" + two(date.getMinutes()) + ":" + two(date.getSeconds());
  const today = new Date(now()).toDateString() === date.toDateString();
  return today ? time : date.getFullYear() + "-" + two(date.getMonth() + 1) + "-" + two(date.getDate()) + " " + time;
}

/** An age that goes on by itself: see `tick`. */
function aging(time) {
  return time ? make("time", { datetime: time, "data-age": ms(time), title: time }, age(now() - ms(time))) : "-";
}

const token = (value) => (value === null || value === undefined ? "?" : String(value));

function pill(text, which) {
  return make("span", { class: "pill", "data-kind": which }, text);
}

// === what was said ===

function log(text, role, which) {
  const list = $("said");
  const item = make("li", {}, make("time", { datetime: new Date(now()).toISOString() }, clock(now())), pill(role, which || "none"), make("span", {}, text));
  list.prepend(item);
  while (list.children.length > SAID_MAX) list.lastChild.remove();
}

// === the connection ===

const line = { source: null, wait: RETRY_MIN_MS, lostAt: null, heardAt: 0, timer: 0 };

function heard(event) {
  line.heardAt = performance.now();
  return JSON.parse(event.data);
}

function connected() {
  if (line.lostAt !== null && last.status) {
    const away = "connected again after " + span(performance.now() - line.lostAt);
    log(away, "page", "good");
    say($("news"), away);
  }
  line.lostAt = null;
  line.wait = RETRY_MIN_MS;
  kind($("connection"), "good");
  say($("connection"), "live");
  $("lost").hidden = true;
  document.body.classList.remove("stale");
}

/** Why the member refuses to be listened to, if it does: an EventSource does not say. */
async function refusal() {
  const asking = new AbortController();
  try {
    const answer = await fetch(page.place(), { signal: asking.signal });
    return answer.ok ? null : (await answer.json()).error;
  } catch (error) {
    return null;
  } finally {
    asking.abort();
  }
}

async function lost() {
  const source = line.source, isRefused = source.readyState === EventSource.CLOSED;
  source.close();
  if (line.lostAt === null) {
    line.lostAt = performance.now();
    if (last.status) log("the connection is lost", "page", "bad");
  }
  kind($("connection"), "bad");
  say($("connection"), "not connected");
  $("lost").hidden = false;
  say($("lost"), "This member does not answer since " + clock(now() - (performance.now() - line.lostAt)) + ": what is shown is old. Trying again ...");
  last.lease = null;
  document.body.classList.add("stale");
  kind(document.querySelector(".hero"), "none");
  page.lost();
  clearTimeout(line.timer);
  line.timer = setTimeout(connect, line.wait);
  line.wait = Math.min(RETRY_MAX_MS, line.wait * 1.6);
  const why = isRefused ? await refusal() : null;
  // Unless it listens again by now.
  if (why && line.lostAt !== null) say($("lost"), "This member refuses to be listened to: " + why + ". Trying again ...");
}

/** What a page is: where it listens, to what, and what it does without a connection. */
const page = { place: null, hears: {}, lost() {}, ticks() {} };

function connect() {
  clearTimeout(line.timer);
  if (line.source) line.source.close();
  const source = new EventSource(page.place());
  line.source = source;
  line.heardAt = performance.now();
  source.addEventListener("error", () => source === line.source && lost());
  for (const [name, hear] of Object.entries(page.hears)) {
    source.addEventListener(name, (event) => {
      if (source !== line.source) return;
      hear(heard(event));
      mark(name, event);
    });
  }
}

/** How long it took from the arrival of an event until it was shown, for whoever measures it. */
function mark(name, event) {
  performance.measure("soloist-" + name, { start: event.timeStamp, end: performance.now() });
  // A page that stays open keeps no list of all that ever was.
  if (performance.getEntriesByType("measure").length > 1000) performance.clearMeasures();
}

function tick() {
  for (const node of document.querySelectorAll("[data-age]")) say(node, age(now() - Number(node.dataset.age)));
  page.ticks();
  if (line.lostAt === null && performance.now() - line.heardAt > SILENCE_MAX_MS) lost();
}

/** The lease event has the time by the member's clock. */
function setClock(lease) {
  last.lease = lease;
  last.leaseAt = performance.now();
  last.skew = ms(lease.now) - Date.now();
}

setInterval(tick, 1000);
