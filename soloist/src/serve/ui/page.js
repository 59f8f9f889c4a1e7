"use strict";
// The page of a member: shows what /events says, as it comes.

/** What a bar is full with: what was left right after the last renewal. */
const bar = { full: 0, key: "" };
/** As many handovers are shown unless more are asked for. */
const ROWS = 10;

// === what is shown ===


/** Those who are active as far as the lock says. */
function actives(status) {
  const slots = status.slots ? status.slots.filter((slot) => slot.holder) : [];
  if (status.slots) return slots;
  return status.holder ? [{ slot: 1, holder: status.holder, fencing_token: status.fencing_token }] : [];
}

/** The activation that goes on, as the history has it. */
function present() {
  const changes = last.history ? last.history.changes : [];
  const newest = changes[changes.length - 1];
  const status = last.status;
  return newest && !newest.end && status && newest.member === status.holder ? newest : null;
}

function headline(status) {
  const who = actives(status);
  if (status.slots) return who.length + " of at most " + status.slots.length + " are active";
  return who.length ? who[0].holder + " is active" : "nobody is active";
}

function showState(status) {
  const who = actives(status);
  const text = headline(status);
  const own = who.some((one) => one.holder === status.name);
  const paused = status.paused_until;
  document.title = text + " \u00b7 " + status.group;
  say($("group"), status.group);
  say($("name"), status.name);
  say($("overline"), own ? "this member is the active one" : "this member: " + status.role);
  say($("headline"), text);
  say($("reason"), status.reason);
  say($("token"), who.length ? who.map((one) => token(one.fencing_token)).join(", ") : "-");
  kind(document.querySelector(".hero"), !who.length ? "bad" : paused || !status.health.healthy ? "warn" : "good");
  $("paused").hidden = !paused;
  if (paused) $("paused").replaceChildren("Paused until " + clock(ms(paused)) + ": if the active member dies without a proof, the others wait for the rest of it.");
  $("slots").hidden = !status.slots;
  if (status.slots) {
    const rows = status.slots.map((slot) => make("li", {}, "slot " + slot.slot + ": " + (slot.holder ? slot.holder + ", token " + token(slot.fencing_token) : "free")));
    $("slots").replaceChildren(make("ul", { class: "legend", "aria-label": "Slots" }, ...rows));
  }
}

function showMembers(status) {
  const active = new Set(actives(status).map((one) => one.holder));
  const rows = status.members.map((member) => {
    // The lock and the own word are newer than an announcement.
    const said = member.name === status.name ? status.role : member.role;
    const role = active.has(member.name) ? (said === "stopping" ? said : "active") : said === "active" ? "standby" : said;
    const healthy = member.name === status.name ? status.health.healthy : member.healthy;
    const why = member.name === status.name ? status.health.why : member.why;
    return make("tr", { class: active.has(member.name) ? "holder" : null },
      make("th", { scope: "row" }, member.name, member.name === status.name ? make("small", {}, "this member") : null),
      make("td", { "data-label": "role" }, make("span", {}, pill(role, role === "active" ? "good" : role === "standby" ? "none" : "warn"))),
      make("td", { "data-label": "health" }, make("span", {}, pill(healthy ? "healthy" : "unhealthy", healthy ? "good" : "bad"), why && !healthy ? make("small", {}, why) : null)),
      make("td", { "data-label": "version" }, make("span", {}, member.version)),
      make("td", { "data-label": "there for", class: "time" }, aging(member.since)),
      make("td", { "data-label": "last word", class: "time" }, make("span", {}, aging(member.announced), " ago")));
  });
  $("members").tBodies[0].replaceChildren(...rows);
  $("members").hidden = rows.length === 0;
  $("no-members").hidden = rows.length > 0;
}

function showOwn(status) {
  const workload = status.workload;
  const facts = [
    ["role", status.role],
    ["since", make("span", {}, clock(ms(status.since)), " (", aging(status.since), " ago)")],
    ["workload", workload.state + (workload.pid ? ", pid " + workload.pid : "")],
    ["workload since", workload.since ? make("span", {}, clock(ms(workload.since)), " (", aging(workload.since), " ago)") : null],
    ["health", (status.health.healthy ? "healthy: " : "unhealthy: ") + status.health.why],
    ["lease", status.lease.seconds + " s"],
    ["held together by", status.containment || "nothing yet"],
    ["guard's memory", status.memory_locked === null ? null : status.memory_locked ? "locked" : "not locked"],
    ["slot", status.slot || null],
  ];
  $("own").replaceChildren(...facts.filter(([, value]) => value !== null).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

// === the lease ===

/** What is left, and of how much, of which bar. */
function leaseNow() {
  const lease = last.lease, status = last.status;
  if (!lease || !status) return null;
  const gone = performance.now() - last.leaseAt;
  const whole = status.lease.seconds * 1000;
  if (status.role === "active" && lease.valid_for_ms > 0) {
    return { key: "own" + status.fencing_token, left: lease.valid_for_ms - gone, label: "lease: stops by itself without a renewal in" };
  }
  if (lease.wait_ms !== null) {
    return { key: "wait", left: lease.wait_ms - gone, full: lease.wait_of_ms, label: "nothing proves that nobody is active: may start in" };
  }
  if (lease.heard_ms !== null && status.holder && status.holder !== status.name) {
    return { key: "heard", left: whole - lease.heard_ms - gone, full: whole, label: "lease of " + status.holder + ": may be followed without a proof in" };
  }
  return null;
}

function showLease() {
  const shown = leaseNow();
  const track = $("lease"), fill = $("lease-fill");
  if (!shown) {
    say($("lease-label"), line.lostAt === null ? "lease: nobody holds one" : "lease: not known while the connection is lost");
    say($("lease-value"), "");
    fill.style.transition = "none";
    fill.style.transform = "scaleX(0)";
    track.setAttribute("aria-valuenow", "0");
    return;
  }
  if (shown.key !== bar.key) bar.full = 0;
  bar.key = shown.key;
  bar.full = shown.full || Math.max(bar.full, shown.left);
  const part = Math.min(1, Math.max(0, shown.left / bar.full));
  say($("lease-label"), shown.label);
  fill.style.transition = "none";
  fill.style.transform = "scaleX(" + part + ")";
  // The bar drains by itself from here on; the next word of the member starts it anew.
  void fill.offsetWidth;
  fill.style.transition = "transform " + Math.max(0, shown.left) + "ms linear";
  fill.style.transform = "scaleX(0)";
  tickLease();
}

function tickLease() {
  const shown = leaseNow();
  if (!shown) return;
  const left = Math.max(0, shown.left);
  const part = bar.full ? left / bar.full : 0;
  say($("lease-value"), left < 60000 ? (left / 1000).toFixed(1) + " s" : age(left));
  const track = $("lease");
  kind(track, part < .2 ? "bad" : part < .45 ? "warn" : "good");
  track.setAttribute("aria-valuemax", (bar.full / 1000).toFixed(0));
  track.setAttribute("aria-valuenow", (left / 1000).toFixed(0));
  track.setAttribute("aria-valuetext", (left / 1000).toFixed(0) + " seconds left");
}

// === handovers ===

/** The parts of the gap before `change`, in milliseconds: what this member saw of both sides. */
function partsOf(before, change) {
  if (!before || !before.until) return null;
  const until = ms(before.until), from = ms(change.from), seen = change.seen, parts = [];
  const stopping = before.seen && before.seen.stopping ? ms(before.seen.stopping) : null;
  if (stopping) parts.push(["stop", "stop", until - stopping]);
  if (!seen) {
    parts.push(["whole", "gap", from - until]);
  } else {
    parts.push(["free", "notice", ms(seen.acquiring) - until], ["write", "write", ms(seen.active) - ms(seen.acquiring)]);
    if (seen.running) parts.push(["start", "start", ms(seen.running) - ms(seen.active)]);
  }
  return parts.map(([part, name, length]) => ({ part, name, length: Math.max(0, length) }));
}

const total = (parts) => parts.reduce((sum, one) => sum + (one.part === "stop" ? 0 : one.length), 0);
/** Who started the workload knows how long that took; others know the time up to the write. */
const lengthOf = (parts) => span(total(parts)) + (parts.some((one) => one.part === "whole") ? " + start" : "");
const drawn = (parts) => parts.reduce((sum, one) => sum + one.length, 0);

/** So long that most bars can be compared: one that is far longer is cut, and says so. */
function scaleOf(lengths) {
  const sorted = lengths.slice().sort((a, b) => a - b);
  if (!sorted.length) return 1;
  const median = sorted[Math.floor(sorted.length / 2)];
  return Math.max(.001, Math.min(sorted[sorted.length - 1], median * 4));
}

function gapBar(parts, scale) {
  const text = parts.map((one) => one.name + " " + span(one.length)).join(", ");
  const svg = draw("svg", { viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img", "aria-label": text });
  svg.append(draw("title", {}, text));
  let x = 0;
  for (const one of parts) {
    const width = Math.min(1000 - x, one.length / scale * 1000);
    if (width > 0) svg.append(draw("rect", { x, y: 0, width: Math.max(width, 2), height: 14, class: "part-" + one.part }));
    x += width;
  }
  if (drawn(parts) > scale * 1.001) {
    for (const at of [940, 960]) svg.append(draw("rect", { x: at, y: 0, width: 8, height: 14, class: "more" }));
  }
  return svg;
}

function showHandovers(history) {
  const changes = history.changes;
  const all = changes.map((change, index) => partsOf(changes[index - 1], change));
  const scale = scaleOf(all.filter(Boolean).map(drawn));
  const rows = changes.map((change, index) => {
    const before = changes[index - 1], parts = all[index];
    const gap = make("td", { "data-label": "gap before it", class: "gap" });
    if (parts) gap.append(make("span", { class: "number" }, lengthOf(parts)), gapBar(parts, scale));
    else gap.append(make("span", { class: "quiet" }, before ? "not proven" : "-"));
    return make("tr", {},
      make("td", { "data-label": "since", class: "time" }, make("time", { datetime: change.from, title: change.from }, clock(ms(change.from)))),
      make("th", { scope: "row" }, change.member, make("small", {}, change.until ? "for " + span(change.duration_ms) : change.end ? "end not proven" : "goes on")),
      make("td", { "data-label": "token" }, token(change.fencing_token)),
      gap,
      make("td", { "data-label": "why" }, make("span", {}, change.why, before && before.end && !change.why.includes(before.end) ? make("small", {}, "before: " + before.end) : null)));
  }).reverse();
  const isAll = $("all").getAttribute("aria-expanded") === "true";
  $("handovers").tBodies[0].replaceChildren(...(isAll ? rows : rows.slice(0, ROWS)));
  $("all").hidden = rows.length <= ROWS;
  say($("all"), isAll ? "Show the newest" : "Show all " + rows.length);
  $("handovers").hidden = $("legend").hidden = rows.length === 0;
  $("no-handovers").hidden = rows.length > 0;
  const parts = all[all.length - 1];
  say($("last-gap"), parts ? lengthOf(parts) : "-");
  showLanes();
}

/** A lane for each member, a bar for each time of being active. */
function showLanes() {
  const changes = last.history ? last.history.changes : [];
  $("lanes-figure").hidden = changes.length === 0;
  if (!changes.length) return;
  const svg = $("lanes"), width = Math.max(280, $("lanes-figure").clientWidth), lane = 24;
  const names = [...new Set(changes.map((change) => change.member))].sort();
  const from = ms(changes[0].from), to = Math.max(now(), from + 1000);
  const longest = Math.max(...names.map((name) => name.length));
  const left = Math.min(width * .3, longest * 7.5 + 14), right = width - 6;
  const at = (time) => left + (Math.min(Math.max(time, from), to) - from) / (to - from) * (right - left);
  const height = names.length * lane + 20;
  svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  svg.setAttribute("height", height);
  const nodes = [];
  names.forEach((name, row) => {
    const y = row * lane + lane / 2;
    const shown = name.length * 7.5 + 14 > left ? name.slice(0, Math.floor((left - 22) / 7.5)) + "..." : name;
    nodes.push(draw("line", { x1: left, x2: right, y1: y, y2: y, class: "lane" }), draw("text", { x: 0, y: y + 4 }, shown));
  });
  changes.forEach((change, index) => {
    const y = names.indexOf(change.member) * lane + 5, next = changes[index + 1];
    const end = change.until ? ms(change.until) : next ? ms(next.from) : to;
    const x = at(ms(change.from)), size = Math.max(2, at(end) - x);
    const turn = draw("rect", { x, y, width: size, height: lane - 10, rx: 3, class: next || change.end ? "turn" : "turn open", opacity: change.end ? .55 : 1 });
    turn.append(draw("title", {}, change.member + ", token " + token(change.fencing_token) + ", from " + change.from));
    nodes.push(turn);
    if (index > 0) nodes.push(draw("line", { x1: x, x2: x, y1: 0, y2: names.length * lane, class: "tick" }));
  });
  nodes.push(draw("text", { x: left, y: height - 4 }, clock(from)), draw("text", { x: right, y: height - 4, "text-anchor": "end" }, "now"));
  svg.replaceChildren(...nodes);
  say($("lanes-span"), "the last " + age(to - from));
}

// === news ===

let told = { reason: null, head: null, who: "" };

function tellNews(status) {
  const who = actives(status).map((one) => one.holder).join();
  const head = headline(status) + (status.slots ? "" : status.holder ? " with token " + token(status.fencing_token) : "");
  if (told.reason !== status.role + status.reason) log(status.reason, status.role, status.role === "active" ? "good" : status.role === "standby" ? "none" : "warn");
  if (told.head !== null && (told.head !== head || told.who !== who)) {
    say($("news"), head);
    // Where several may be active, others are all the time: the slot that was handed over counts.
    if (asked.switchover && actives(status).some((one) => one.slot === asked.slot && one.holder !== asked.from)) {
      outcome("good", "Done: " + head + ".");
      asked.switchover = false;
    }
  }
  told = { reason: status.role + status.reason, head, who };
}

// === requests ===

const asked = { switchover: false, from: "", slot: 1 };

function outcome(which, text) {
  $("outcome").hidden = false;
  kind($("outcome"), which);
  say($("outcome"), text);
}

function showActions(status) {
  const can = status.role === "active";
  // Over a network one that was killed is announced for a while beside its next run.
  const others = [...new Set(status.members.filter((member) => member.name !== status.name && member.healthy).map((member) => member.name))].sort();
  const to = $("to"), names = JSON.stringify(others);
  if (to.dataset.names !== names) {
    const chosen = to.value;
    to.replaceChildren(make("option", { value: "" }, "whoever has waited longest"), ...others.map((name) => make("option", { value: name }, name)));
    to.value = others.includes(chosen) ? chosen : "";
    to.dataset.names = names;
  }
  $("switchover").disabled = !can || others.length === 0;
  $("pause").disabled = !can;
  $("resume").disabled = !can || !status.paused_until;
  const elsewhere = actives(status).map((one) => one.holder).filter((name) => name !== status.name);
  say($("act-hint"), can
    ? "Requests need the token of --http-token-file. It stays in this page, and is gone when you close or reload it."
    : elsewhere.length
      ? "Only an active member takes requests: open the page of " + elsewhere.join(" or ") + "."
      : "Only an active member takes requests, and this one is " + status.role + ".");
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  // A header carries bytes of Latin 1 and nothing else.
  const secret = new TextEncoder().encode($("secret").value.trim());
  if (secret.length) headers.Authorization = "Bearer " + String.fromCharCode(...secret);
  outcome("none", "Asking ...");
  try {
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 202) return true;
    outcome("bad", "Refused (" + answer.status + "): " + (said.error || "no reason was given"));
    if (answer.status === 401) $("secret").focus();
  } catch (error) {
    outcome("bad", "The member did not answer: look at who is active before you ask again.");
  }
  return false;
}

async function switchOver() {
  const status = last.status;
  const body = { fencing_token: status.fencing_token };
  if ($("to").value) body.to = $("to").value;
  asked.switchover = true;
  asked.from = status.name;
  asked.slot = status.slot || 1;
  if (await ask("/switchover", body)) {
    if (asked.switchover) outcome("none", "Accepted: " + status.name + " stops its workload ...");
  } else {
    asked.switchover = false;
  }
}

$("switchover").addEventListener("click", () => {
  say($("sure-text"), last.status.name + " stops its workload now, and " + ($("to").value || "the healthy standby that has waited longest") + " starts when nothing of it is left. This cannot be taken back.");
  $("sure").showModal();
});
$("sure-no").addEventListener("click", () => $("sure").close());
$("sure-yes").addEventListener("click", () => {
  $("sure").close();
  switchOver();
});
$("pause").addEventListener("click", async () => {
  if (await ask("/pause", { for: $("for").value })) outcome("good", "Accepted: the lease is made long for " + $("for").value + ".");
});
$("resume").addEventListener("click", async () => {
  if (await ask("/resume", {})) outcome("good", "Accepted: the pause ends.");
});
$("all").addEventListener("click", () => {
  const isAll = $("all").getAttribute("aria-expanded") === "true";
  $("all").setAttribute("aria-expanded", String(!isAll));
  showHandovers(last.history);
});
$("act").addEventListener("submit", (event) => event.preventDefault());

// === the connection ===

page.place = () => "/events?with=lease,history";
page.lost = () => {
  for (const id of ["switchover", "pause", "resume"]) $(id).disabled = true;
  showLease();
};
page.hears.status = (status) => {
  last.status = status;
  connected();
  showState(status);
  showMembers(status);
  showOwn(status);
  showActions(status);
  showLease();
  tellNews(status);
};
page.hears.history = (history) => {
  last.history = history;
  showHandovers(history);
  tick();
};
page.hears.lease = (lease) => {
  setClock(lease);
  showLease();
};
page.ticks = () => {
  const going = present();
  say($("active-for"), going ? age(now() - ms(going.from)) : "-");
};

setInterval(tickLease, 100);
setInterval(showLanes, 5000);
addEventListener("resize", showLanes);
connect();
