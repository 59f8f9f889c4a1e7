"use strict";
// The page of a controller: shows the groups that /events tells of, some at a time. What is not shown is not sent.

/** What is shown: one entry for each group, by NAMESPACE/NAME. */
const shown = new Map();
const view = { after: [], next: null, leads: null, counts: null, asks: false };

const STANDING = {
  fine: ["good", "active"],
  lone: ["warn", "no standby"],
  short: ["bad", "too few active"],
  nobody: ["bad", "nobody active"],
};
const called = (group) => group.namespace + "/" + group.name;
const names = (group) => group.active.map((one) => one.pod).join(", ");

// === one group ===

function standing(group) {
  if (group.paused) return ["warn", "paused"];
  if (group.concern) return ["bad", "needs a look"];
  return STANDING[group.standing];
}

function failover(last) {
  if (!last) return make("span", { class: "quiet" }, "none in this term");
  const length = last.recorded_ms + last.labelled_ms;
  return make("span", {}, make("span", { class: "number" }, span(length)), " ", aging(last.at), " ago");
}

/** Both parts of the last failover, to scale. */
function failoverBar(last) {
  const parts = [["free", "record", last.recorded_ms], ["write", "label", last.labelled_ms]];
  const whole = Math.max(1, last.recorded_ms + last.labelled_ms);
  const text = parts.map(([, name, length]) => name + " " + span(length)).join(", ");
  const svg = draw("svg", { viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img", "aria-label": text, height: 14 });
  let x = 0;
  for (const [part, , length] of parts) {
    const width = length / whole * 1000;
    svg.append(draw("rect", { x, y: 0, width, height: 14, class: "part-" + part }));
    x += width;
  }
  return make("span", { class: "gap" }, text, svg);
}

function summary(group) {
  const [which, word] = standing(group);
  const tokens = group.active.map((one) => token(one.fencing_token)).join(", ");
  const cell = (name, ...content) => make("span", { class: "cell", "data-label": name }, make("span", {}, make("i", { class: "hidden" }, name + ": "), ...content));
  return [
    make("span", { class: "cell name" }, make("b", {}, group.name), make("small", {}, group.namespace)),
    cell("active", group.active.length ? names(group) : "-", group.active.length ? make("small", {}, "token " + tokens) : null),
    cell("pods ready", group.ready + " of " + group.pods),
    cell("last failover", failover(group.last_failover)),
    make("span", { class: "cell" }, pill(word, which)),
  ];
}

function podsOf(group) {
  const rows = group.members.map((pod) => make("tr", { class: pod.role === "active" ? "holder" : null },
    make("th", { scope: "row" }, pod.pod),
    make("td", { "data-label": "role" }, make("span", {}, pill(pod.role || "no label", pod.role === "active" ? "good" : "none"))),
    make("td", { "data-label": "ready" }, make("span", {}, pod.trouble || (pod.ready ? "ready" : "not ready"))),
    make("td", { "data-label": "node" }, pod.node || "-")));
  const heads = ["pod", "role", "ready", "node"].map((name) => make("th", { scope: "col" }, name));
  return make("table", { class: "stacked" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
}

/** In single quotes for a shell. */
const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function patch(group, spec) {
  return "kubectl patch activestandby " + group.name + " -n " + group.namespace + " --type=merge -p " + quoted(JSON.stringify({ spec }));
}

/** What an operator may want to do, as a command: the API server asks who it is. */
function commandsOf(group) {
  const next = group.members.find((pod) => pod.role !== "active" && pod.ready && !pod.trouble);
  const commands = [];
  if (group.declared) {
    commands.push(group.paused ? ["Resume", patch(group, { paused: false })] : ["Pause", patch(group, { paused: true })]);
    if (next) commands.push(["Hand over to " + next.pod, patch(group, { switchover: { to: next.pod, request: "after-" + group.transitions } })]);
  } else if (next) {
    commands.push(["Hand over to " + next.pod, "kubectl annotate pod " + next.pod + " -n " + group.namespace + " soloist.dev/become-active=true"]);
  }
  commands.push(["Who was active, and why", "kubectl describe lease " + group.name + " -n " + group.namespace]);
  return commands;
}

function commandLine([what, command]) {
  const code = make("code", { tabindex: "0" }, command);
  const button = make("button", { type: "button", "aria-label": "Copy: " + what }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      say(button, "Copied");
      say($("news"), "copied");
    } catch (error) {
      // Without TLS a page may not copy: what is selected can be.
      getSelection().selectAllChildren(code);
      say(button, "Selected");
    }
  });
  return make("li", {}, make("span", { class: "quiet" }, what), code, button);
}

function facts(group) {
  const last = group.last_failover;
  const rows = [
    ["why", group.reason || "-"],
    ["waits for", group.waits],
    ["concern", group.concern],
    ["changes", String(group.transitions)],
    ["wanted", group.wanted + " active"],
    ["declared", group.declared ? "by an ActiveStandby object" : "by --selector"],
    ["last failover", last && make("span", {}, last.why === group.reason ? "" : last.why + " ", failoverBar(last))],
  ];
  const list = rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return make("dl", { class: "facts" }, ...list);
}

/** Changes only what is another one now: whoever is in the middle of it stays there. */
function fill(entry, key, made, data) {
  const text = JSON.stringify(data);
  if (entry.texts[key] === text) return;
  entry.texts[key] = text;
  entry[key].replaceChildren(...[made()].flat());
}

function entryOf(name) {
  const parts = { head: make("summary"), facts: make("div"), pods: make("div"), commands: make("ul", { class: "commands" }) };
  const details = make("details", {}, parts.head, make("div", { class: "inside" }, parts.facts, parts.pods, parts.commands));
  const entry = { ...parts, node: make("li", { "data-group": name }, details), details, texts: {}, group: null };
  details.addEventListener("toggle", () => details.open && showInside(entry));
  return entry;
}

function showInside(entry) {
  const group = entry.group;
  fill(entry, "facts", () => facts(group), [group.reason, group.waits, group.concern, group.transitions, group.wanted, group.declared, group.last_failover]);
  const more = group.pods - group.members.length;
  fill(entry, "pods", () => [podsOf(group), more > 0 ? make("p", { class: "quiet" }, "and " + more + " more") : ""], [group.members, more]);
  fill(entry, "commands", () => commandsOf(group).map(commandLine), commandsOf(group));
}

function showGroup(group) {
  const name = called(group);
  const entry = shown.get(name) || entryOf(name);
  const before = entry.group;
  entry.group = group;
  shown.set(name, entry);
  fill(entry, "head", () => summary(group), [group.active, group.ready, group.pods, group.last_failover, group.standing, group.paused, group.concern]);
  if (entry.details.open) showInside(entry);
  if (before && (names(before) !== names(group) || before.standing !== group.standing)) {
    const text = name + ": " + (group.active.length ? names(group) + " active, " + group.reason : group.waits || "nobody is active");
    const [which, word] = standing(group);
    log(text, word, which);
    say($("news"), text);
  }
}

// === all of them ===

function headline(counts) {
  if (!view.leads) return "this controller does not lead";
  if (counts.groups === 0) return "no groups yet";
  if (counts.trouble) return counts.trouble + (counts.trouble === 1 ? " group needs" : " groups need") + " attention";
  if (counts.paused === counts.groups) return counts.groups === 1 ? "the group is paused" : "all groups are paused";
  if (counts.paused) return "all groups that are not paused have their active pods";
  return counts.groups === 1 ? "the group has its active pods" : "all groups have their active pods";
}

function showGroups(news) {
  if (view.asks) shown.clear();
  [view.next, view.leads, view.counts, view.asks] = [news.next, news.leads, news.counts, false];
  news.groups.forEach(showGroup);
  const order = new Set(news.order);
  for (const name of shown.keys()) if (!order.has(name)) shown.delete(name);
  const list = $("groups"), wanted = news.order.map((name) => shown.get(name).node);
  const is = [...list.children];
  // Moved only if it must be: what is moved loses the focus.
  if (is.length !== wanted.length || is.some((node, index) => node !== wanted[index])) list.replaceChildren(...wanted);
  for (const [name, count] of Object.entries(news.counts)) say($("count-" + name), String(count));
  showState();
}

function showState() {
  const status = last.status, counts = view.counts;
  if (!status || !counts) return;
  const text = headline(counts);
  document.title = text + " \u00b7 " + status.group;
  say($("headline"), text);
  say($("overline"), view.leads ? "this controller leads" : "this controller: " + status.role);
  say($("reason"), view.leads || !status.holder ? status.reason : status.holder + " leads: its page shows the groups");
  kind(document.querySelector(".hero"), !view.leads || !counts.groups ? "none" : counts.trouble ? "bad" : counts.lone || counts.paused ? "warn" : "good");
  // Of what is asked for now nothing is known yet.
  if (view.asks) return;
  const few = shown.size === 0, searched = $("filter").value || $("only").value || view.after.length;
  $("none").hidden = !few;
  say($("none"), !view.leads ? "The controller that leads shows them." : searched ? "No group is like that." : "No group has pods yet.");
  $("next").hidden = !view.next;
  $("first").hidden = view.after.length === 0;
  say($("shown"), few ? "" : shown.size + (view.next || view.after.length || searched ? " of " + counts.groups : "") + " shown");
}

// === the search ===

function place() {
  const words = new URLSearchParams({ with: "lease,groups" });
  const after = view.after[view.after.length - 1];
  for (const [name, value] of [["filter", $("filter").value.trim()], ["only", $("only").value], ["after", after]]) if (value) words.set(name, value);
  return "/events?" + words;
}

/** Listens for something else: what is shown stays until the first word of it. */
function search(after) {
  view.after = after;
  view.asks = true;
  connect();
}

let typing = 0;
$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => search([]), 150);
});
$("only").addEventListener("change", () => search([]));
$("search").addEventListener("submit", (event) => event.preventDefault());
$("next").addEventListener("click", () => search([...view.after, view.next]));
$("first").addEventListener("click", () => search([]));

page.place = place;
page.hears.status = (status) => {
  last.status = status;
  connected();
  say($("group"), status.group);
  say($("name"), status.name);
  showState();
};
page.hears.lease = setClock;
page.hears.groups = showGroups;
connect();
