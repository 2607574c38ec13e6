"use strict";
// The page at /ui. It asks the agent's API for everything, with the key that its user enters.

const LOOK_EVERY_MS = 2000;
const HISTORY = 150; // looks: five minutes
const ROWS_AT_FIRST = 100;

const at = (id) => document.getElementById(id);
const sandboxes = new Map(); // by ID: the last sample, rates, history
const totals = { rate: [], denied: [] };
let lookedAt = null;
let sort = { column: "rate", descending: true };
let rowLimit = ROWS_AT_FIRST;
let details = null; // the sandbox that is shown: { id, entries, abort }
let timer = null;

// Makes an element. Text is never parsed as HTML: sandboxes choose the names in it.
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function short(value) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let place = 0;
  while (value >= 999.5 && place < prefixes.length - 1) {
    value /= 1000;
    place += 1;
  }
  const digits = value < 9.95 && (place > 0 || value % 1 >= 0.05) ? 1 : 0;
  return value.toFixed(digits) + prefixes[place];
}

const bits = (bytes) => `${short(bytes * 8)}b/s`;

// A line over the values, the newest at the right.
function drawLine(svg, values, width, height, length) {
  const largest = Math.max(...values, 0);
  const step = width / Math.max(length - 1, 1);
  const left = width - step * (values.length - 1);
  const y = (value) => height - 1 - (largest > 0 ? value / largest : 0) * (height - 2);
  const points = values.map((value, place) => `${(left + place * step).toFixed(1)},${y(value).toFixed(1)}`);
  let path = svg.firstElementChild;
  if (path === null) {
    path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.append(path);
  }
  path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
}

function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 110 20");
  svg.setAttribute("aria-hidden", "true");
  drawLine(svg, values.slice(-60), 110, 20, 60);
  return svg;
}

// ---- the agent

const key = () => sessionStorage.getItem("key");

async function ask(path, signal) {
  const response = await fetch(path, {
    headers: { "X-API-Key": key() ?? "" }, cache: "no-store", signal,
  });
  if (response.status === 401) {
    leave("The agent does not accept this key.");
    throw new Error("the key is not accepted");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.message ?? `the agent answers ${response.status}`);
  }
  return response;
}

function say(text, isProblem = false) {
  at("state").textContent = text;
  at("state").classList.toggle("problem", isProblem);
}

async function look() {
  clearTimeout(timer);
  if (key() === null) return;
  // A page that nobody sees asks nothing.
  if (!document.hidden) {
    try {
      const response = await ask("/agent/v1/traffic");
      addTraffic(await response.json(), performance.now());
      say(`as of ${new Date().toLocaleTimeString()}`);
      draw();
    } catch (error) {
      say(error.message, true);
    }
  }
  clearTimeout(timer);
  if (key() !== null) timer = setTimeout(look, LOOK_EVERY_MS);
}

function addTraffic(samples, now) {
  const elapsed = lookedAt === null ? null : (now - lookedAt) / 1000;
  const before = new Map(sandboxes);
  sandboxes.clear();
  // A counter starts again at 0 with another agent.
  const perSecond = (value, old) => (elapsed ? Math.max(value >= old ? value - old : value, 0) / elapsed : 0);
  for (const sample of samples) {
    const known = before.get(sample.sandboxID);
    const old = known?.sample ?? sample;
    const row = {
      id: sample.sandboxID,
      sample,
      rate: perSecond(sample.passed.bytes, old.passed.bytes),
      packets: perSecond(sample.passed.packets, old.passed.packets),
      denied: perSecond(sample.denied.packets, old.denied.packets),
      deniedTotal: sample.denied.packets,
      proxied: sample.proxiedConnections,
      observed: sample.mode === "observe",
      status: sample.mode === "observe" ? "observed" : sample.status,
      history: known?.history ?? [],
    };
    if (known !== undefined) row.history.push(row.rate);
    if (row.history.length > 60) row.history.shift();
    sandboxes.set(row.id, row);
  }
  if (elapsed !== null) {
    for (const column of ["rate", "denied"]) {
      totals[column].push(sum(column));
      if (totals[column].length > HISTORY) totals[column].shift();
    }
  }
  lookedAt = now;
}

function sum(column) {
  let total = 0;
  for (const row of sandboxes.values()) total += row[column];
  return total;
}

// ---- all sandboxes

function draw() {
  if (details !== null) {
    drawSummary();
    return;
  }
  const observed = [...sandboxes.values()].filter((row) => row.observed).length;
  at("total-sandboxes").textContent = sandboxes.size;
  at("total-rate").textContent = bits(sum("rate"));
  at("total-denied").textContent = `${short(sum("denied"))}/s`;
  at("total-proxied").textContent = short(sum("proxied"));
  at("total-observed").textContent = observed;
  at("observed-tile").classList.toggle("active", observed > 0);
  drawLine(at("rate-chart"), totals.rate, 300, 60, HISTORY);
  drawLine(at("denied-chart"), totals.denied, 300, 60, HISTORY);
  at("rate-peak").textContent = totals.rate.length ? `peak ${bits(Math.max(...totals.rate))}` : "";
  at("denied-peak").textContent = totals.denied.length ? `peak ${short(Math.max(...totals.denied))}` : "";
  drawRows();
}

function shownRows() {
  const text = at("filter").value.trim();
  const rows = [...sandboxes.values()].filter((row) => row.id.includes(text));
  const direction = sort.descending ? -1 : 1;
  const compare = (one, other) => {
    const [a, b] = [one[sort.column], other[sort.column]];
    if (a === b) return one.id < other.id ? -1 : 1;
    return (a < b ? -1 : 1) * direction;
  };
  return rows.sort(compare);
}

function drawRows() {
  const rows = shownRows();
  const body = at("sandboxes").tBodies[0];
  const focused = document.activeElement?.closest?.("#sandboxes tbody a")?.dataset.id;
  body.replaceChildren(...rows.slice(0, rowLimit).map(sandboxRow));
  if (focused !== undefined) linkOf(focused)?.focus();
  for (const heading of at("sandboxes").querySelectorAll("th[data-sort]")) {
    const isSorted = heading.dataset.sort === sort.column;
    if (isSorted) heading.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  }
  at("more").hidden = rows.length <= rowLimit;
  const count = Math.min(rows.length, rowLimit);
  at("shown").textContent = sandboxes.size === 0 ? "There are no sandboxes." : `${count} of ${sandboxes.size}`;
}

const linkOf = (id) => document.querySelector(`#sandboxes a[data-id="${CSS.escape(id)}"]`);

function sandboxRow(row) {
  const link = element("a", { href: `#sandbox=${encodeURIComponent(row.id)}`, "data-id": row.id }, row.id);
  const number = (text, isDenied = false, more = "") =>
    element("td", { class: `number ${isDenied ? "denied" : ""} ${more}` }, text);
  return element("tr", {},
    element("td", {}, link),
    number(bits(row.rate)),
    element("td", { class: "wide" }, sparkline(row.history)),
    number(short(row.packets), false, "wide"),
    number(short(row.denied), row.denied > 0),
    number(short(row.deniedTotal)),
    number(short(row.proxied), false, "wide"),
    statusCell(row));
}

function statusCell(row) {
  const cell = element("td");
  if (row.observed) {
    cell.append(element("span", { class: "badge" }, `observed ${short(row.sample.wouldDeny.packets)}`));
  }
  if (row.sample.status !== "enforcing") {
    cell.append(" ", element("span", { class: "denied" }, row.sample.status));
  } else if (!row.observed) {
    cell.append(row.sample.status);
  }
  return cell;
}

// ---- one sandbox

function openDetails(id) {
  closeDetails();
  details = { id, entries: new Map(), abort: new AbortController() };
  at("overview").hidden = true;
  at("details").hidden = false;
  at("details-title").textContent = id;
  at("details-title").focus();
  for (const table of ["denied", "reached", "rules"]) at(table).tBodies[0].replaceChildren();
  drawSummary();
  follow(details);
}

function closeDetails() {
  details?.abort.abort();
  details = null;
}

// The record of the sandbox, and each entry that changes, one a line.
async function follow(shown) {
  const path = `/agent/v1/sandboxes/${encodeURIComponent(shown.id)}/flows?follow=true&last=500`;
  try {
    const response = await ask(path, shown.abort.signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let pending = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (pending + value).split("\n");
      pending = lines.pop();
      for (const line of lines.filter((text) => text !== "")) {
        const entry = JSON.parse(line);
        entry.what = destination(entry);
        shown.entries.set([entry.decision, entry.reason, entry.what].join(" "), entry);
      }
      if (details === shown) drawEntries();
    }
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    return;
  }
  if (details === shown) setTimeout(() => details === shown && follow(shown), LOOK_EVERY_MS);
}

function destination(entry) {
  if (entry.merged) return `${entry.merged} rarer destinations`;
  const host = entry.name ?? entry.address ?? "";
  const bracketed = entry.port !== undefined && host.includes(":") ? `[${host}]` : host;
  const port = entry.port === undefined ? "" : `:${entry.port}`;
  return `${entry.protocol ?? ""} ${entry.inbound ? "from " : ""}${bracketed}${port}`.trim();
}

const countOf = (entry) => entry.connections || entry.packets || 0;

function ruleOf(entry) {
  if (entry.rule === undefined) return entry.reason;
  const { list, index, entry: text } = entry.rule;
  return index === undefined ? `${list}: ${text}` : `${list}[${index}]: ${text}`;
}

function drawSummary() {
  const row = sandboxes.get(details.id);
  const summary = at("details-summary");
  if (row === undefined) {
    summary.textContent = lookedAt === null ? "" : "There is no such sandbox any more; the record still has this.";
    return;
  }
  const until = row.sample.observeUntil ? ` until ${row.sample.observeUntil}` : "";
  summary.replaceChildren(
    ...(row.observed ? [element("span", { class: "badge" }, `observed, not enforced${until}`), " "] : []),
    `${row.sample.status} on ${row.sample.interface} · ${bits(row.rate)} · ${short(row.packets)} packets/s · ` +
    `${short(row.denied)} denied/s · ${short(row.deniedTotal)} denied · ${short(row.proxied)} connections through the proxy`,
  );
}

function drawEntries() {
  const newest = [...details.entries.values()].sort((one, other) => (one.lastSeen < other.lastSeen ? 1 : -1));
  const isDenied = (entry) => entry.decision !== "allowed";
  at("denied").tBodies[0].replaceChildren(...newest.filter(isDenied).slice(0, 200).map(deniedRow));
  const reached = newest.filter((entry) => !isDenied(entry)).slice(0, 200);
  at("reached").tBodies[0].replaceChildren(...reached.map((entry) => element("tr", {},
    element("td", { class: "number" }, short(countOf(entry))),
    element("td", { class: "what" }, entry.what),
    element("td", {}, entry.reason))));
  const hits = new Map();
  for (const entry of newest) hits.set(ruleOf(entry), (hits.get(ruleOf(entry)) ?? 0) + countOf(entry));
  const rules = [...hits].sort((one, other) => other[1] - one[1]);
  at("rules").tBodies[0].replaceChildren(...rules.map(([rule, count]) => element("tr", {},
    element("td", { class: "number" }, short(count)), element("td", { class: "what" }, rule))));
}

function deniedRow(entry) {
  const isObserved = entry.decision === "would_deny";
  const reason = element("td", {}, element("span", { class: isObserved ? "badge" : "denied" },
    isObserved ? `would deny: ${entry.reason}` : entry.reason));
  const advice = element("td", {});
  if (entry.allowWith !== undefined) {
    advice.append(element("code", {}, entry.allowWith));
    if (entry.allowEntry !== undefined) advice.append(copyButton(entry.allowWith));
  }
  return element("tr", {},
    element("td", { class: "number" }, short(countOf(entry))),
    element("td", { class: "what" }, entry.what), reason, advice);
}

function copyButton(text) {
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy ${text}` }, "Copy");
  button.addEventListener("click", () => {
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    // Without TLS, browsers have no clipboard for pages; the selection is there to be copied.
    navigator.clipboard?.writeText(text).then(() => { button.textContent = "Copied"; }, () => {});
  });
  return button;
}

// ---- the page

function showPlace() {
  const id = new URLSearchParams(location.hash.slice(1)).get("sandbox");
  const hasKey = key() !== null;
  at("login").hidden = hasKey;
  at("leave").hidden = !hasKey;
  if (!hasKey) {
    closeDetails();
    at("overview").hidden = true;
    at("details").hidden = true;
    at("key").focus();
    return;
  }
  if (id !== null) {
    openDetails(id);
    return;
  }
  const before = details?.id;
  closeDetails();
  at("details").hidden = true;
  at("overview").hidden = false;
  draw();
  if (before !== undefined) linkOf(before)?.focus();
}

function leave(reason) {
  sessionStorage.removeItem("key");
  sandboxes.clear();
  lookedAt = null;
  say("");
  showPlace();
  at("refused").textContent = reason;
}

function applyTheme() {
  const chosen = localStorage.getItem("theme");
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (chosen) document.documentElement.dataset.theme = chosen;
  at("theme").textContent = dark ? "Light" : "Dark";
  at("theme").setAttribute("aria-pressed", String(dark));
  return dark;
}

function pressKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input");
  if (event.key === "Escape") {
    if (isTyping) {
      event.target.blur();
    } else if (details !== null) {
      location.hash = "";
    }
    return;
  }
  if (isTyping || details !== null || key() === null) return;
  if (event.key === "/") {
    event.preventDefault();
    at("filter").focus();
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll("#sandboxes tbody a")];
    const place = links.indexOf(document.activeElement);
    const next = place === -1 ? 0 : place + (event.key === "j" ? 1 : -1);
    links[Math.min(Math.max(next, 0), links.length - 1)]?.focus();
  }
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", at("key").value.trim());
  at("key").value = "";
  at("refused").textContent = "";
  showPlace();
  look();
});
at("leave").addEventListener("click", () => leave(""));
at("theme").addEventListener("click", () => {
  localStorage.setItem("theme", applyTheme() ? "light" : "dark");
  applyTheme();
});
at("filter").addEventListener("input", drawRows);
at("more").addEventListener("click", () => {
  rowLimit += ROWS_AT_FIRST;
  drawRows();
});
for (const heading of at("sandboxes").querySelectorAll("th[data-sort]")) {
  heading.querySelector("button").addEventListener("click", () => {
    const column = heading.dataset.sort;
    const isSame = sort.column === column;
    sort = { column, descending: isSame ? !sort.descending : column !== "id" && column !== "status" };
    drawRows();
  });
}
addEventListener("hashchange", showPlace);
addEventListener("keydown", pressKey);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
applyTheme();
showPlace();
look();
