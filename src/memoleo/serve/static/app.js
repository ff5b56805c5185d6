// The page of the dashboard: asks for data.json every two seconds and draws it.
"use strict";

const EVERY = 2000;
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};

// -- numbers as people write them ---------------------------------------------------------------

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => (n >= 1e6 ? short.format(n) : whole.format(Math.round(n)));
const percent = (n) => (n === 100 || n === 0 ? `${n} %` : `${Math.min(n, 99.9).toFixed(1)} %`);

const digits = (n) => Number(n.toPrecision(n < 10 ? 2 : 3));

function duration(ms) {
  if (!ms) return "0";
  if (ms < 0.1) return `${digits(ms * 1000)} µs`;
  if (ms < 1000) return `${digits(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${digits(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The same in one unit, where there is little room. */
function brief(ms) {
  for (const [unit, length] of [["d", 864e5], ["h", 36e5], ["min", 6e4], ["s", 1e3]])
    if (ms >= length) return `${(ms / length).toFixed(ms / length < 10 ? 1 : 0)} ${unit}`;
  return duration(ms);
}

function age(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = 0;
  while (bytes >= 1024 && n < units.length - 1) { bytes /= 1024; n++; }
  return `${n && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[n]}`;
}

// -- light and dark -----------------------------------------------------------------------------

const remembered = {
  get(name) { try { return localStorage.getItem(`memoleo.${name}`); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(`memoleo.${name}`, value); } catch { /* private */ } },
};

const probe = make("i", { hidden: true });

function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// -- charts -------------------------------------------------------------------------------------

const charts = {};

/** Draw lines (or bars): each of `lines` has a name, values, and the name of its colour. */
function draw(id, times, lines, { bars = false, log = false, format, range, empty }) {
  const place = $(id);
  const shape = JSON.stringify([lines.map((l) => [l.name, l.colour]), isDark(), bars]);
  const known = charts[id];
  const any = lines.some((line) => line.values.some((value) => value !== null && value !== 0));
  if (!any) {
    if (known) known.plot.destroy();
    delete charts[id];
    place.replaceChildren(make("p", { className: "empty", textContent: empty }));
    $(`${id}-legend`).replaceChildren();
    return;
  }
  const data = [times, ...lines.map((line) => line.values)];
  if (known && known.shape === shape) {
    known.lines = lines;
    known.plot.setData(data);
  } else {
    if (known) known.plot.destroy();
    place.replaceChildren();
    charts[id] = { shape, lines, format, plot: plot(id, data, lines, { bars, log, format, range }) };
  }
  legend(id);
}

function plot(id, data, lines, { bars, log, format, range }) {
  const place = $(id);
  const quiet = colour("quiet"), line = colour("line");
  const axis = {
    stroke: quiet, font: "12px system-ui, sans-serif", ticks: { show: false },
    grid: { stroke: line, width: 1 },
  };
  const drawn = bars && uPlot.paths.bars({ size: [0.72, 22], align: 0, radius: 0.15 });
  return new uPlot({
    width: place.clientWidth || 300,
    height: bars ? 150 : 200,
    legend: { show: false },
    padding: [8, 20, 0, 0],
    cursor: { y: false, drag: { x: false }, points: { show: !bars, size: 7 } },
    scales: { x: { time: true, range: (self, first, last) => around(self.data[0], first, last, bars) }, y: { range, distr: log ? 3 : 1 } },
    hooks: { setCursor: [() => legend(id)] },
    axes: [
      { ...axis, grid: { show: false }, space: 70, size: 26, values: clock },
      { ...axis, splits: log ? decades : undefined, size: 54, space: bars ? 26 : 36, values: (_, values) => values.map((value) => (value === null ? "" : format(value))) },
    ],
    series: [
      {},
      ...lines.map((l) => ({
        label: l.name, stroke: colour(l.colour), width: bars ? 0 : 2,
        fill: bars ? colour(l.colour) : undefined, paths: drawn || undefined,
        spanGaps: true, points: { show: !bars && lonely(l.values), size: 6 },
      })),
    ],
  }, data, place);
}

/** Leave room for the halves of the outermost bars. */
function around(times, first, last, bars) {
  const half = bars && times.length > 1 ? (times[1] - times[0]) / 2 : 0;
  return [first - half, last + half];
}

/** A logarithmic scale has no zero. */
const above = (ms) => (ms === null ? null : Math.max(ms, 0.001));

function decades(_plot, _axis, low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    found.push(Number(`1e${power}`));
  return found;
}

const lonely = (values) => values.filter((value) => value !== null).length < 3;

function clock(_plot, splits, _axis, _space, step) {
  let day = null;
  return splits.map((at) => {
    const date = new Date(at * 1000);
    const today = date.toDateString();
    const hours = date.toTimeString().slice(0, 5);
    const name = date.toLocaleDateString("en", { day: "numeric", month: "short" });
    const text = step >= 86400 || (hours === "00:00" && day !== today) ? name : hours;
    day = today;
    return text;
  });
}

/** Name the lines, with the values under the cursor or else the latest. */
function legend(id) {
  const chart = charts[id];
  if (!chart) return;
  const at = chart.plot.cursor.idx;
  const parts = chart.lines.map((line) => {
    const values = line.shown || line.values;
    let index = at ?? values.length - 1;
    if (at == null) while (index > 0 && values[index] === null) index--;
    const value = values[index];
    const mark = make("i");
    mark.style.background = colour(line.colour);
    const text = value === null || value === undefined ? "–" : chart.format(value);
    return make("span", {}, mark, `${line.name} `, make("b", { textContent: text }));
  });
  if (at != null) {
    const date = new Date(chart.plot.data[0][at] * 1000);
    const options = { weekday: "short", hour: "2-digit", minute: "2-digit", hour12: false };
    parts.push(make("span", { textContent: date.toLocaleString("en", options) }));
  }
  $(`${id}-legend`).replaceChildren(...parts);
}

// -- tables -------------------------------------------------------------------------------------

/** Fill a table; each column is [title, cell], a cell is text, or properties of a td. */
function fill(id, columns, rows, none) {
  const head = make("tr", {}, ...columns.map(([title]) => make("th", { scope: "col", textContent: title })));
  const body = rows.map((row) => make("tr", {}, ...columns.map(([, cell]) => {
    const content = cell(row);
    if (content instanceof Node) return content;
    return make("td", typeof content === "object" ? content : { textContent: content });
  })));
  if (!rows.length) body.push(make("tr", {}, make("td", { className: "none", colSpan: columns.length, textContent: none })));
  $(id).replaceChildren(make("thead", {}, rows.length ? head : ""), make("tbody", {}, ...body));
}

const number = (name) => (row) => ({ textContent: count(row[name] || 0), className: row[name] ? "" : "zero" });
const trouble = (name) => (row) => ({ textContent: count(row[name] || 0), className: row[name] ? "bad" : "zero" });
const took = (name) => (row) => ({ textContent: duration(row[name]), className: row[name] ? "" : "zero" });

function rateCell(row) {
  const inner = make("i");
  inner.style.width = `${row.hit_rate}%`;
  return make("td", {}, make("div", { className: "bar" }, inner), percent(row.hit_rate));
}

function entryCell(row) {
  const cell = make("td", { title: row.key }, row.label || row.key.slice(0, 12));
  const below = row.label ? `${row.type} · ${row.key.slice(0, 12)}` : row.type;
  cell.append(make("small", { textContent: row.value === undefined ? below : `${below} · ${row.value}` }));
  return cell;
}

// -- the page -----------------------------------------------------------------------------------

let period = remembered.get("period") || "hour";
let operation = null;
let latest = null;
let turn = 0;

const NAMES = { hour: "the last hour", day: "the last 24 hours", week: "the last 7 days", month: "the last 30 days" };
const STEPS = { 60: "per minute", 3600: "per hour", 86400: "per day" };

function tile(id, big, small, width) {
  const place = $(id);
  place.querySelector(".big").textContent = big;
  place.querySelector(".small").textContent = small;
  if (width !== undefined) place.querySelector(".bar i").style.width = `${Math.min(100, width)}%`;
}

function tiles(data) {
  const lookups = data.types.reduce((sum, row) => sum + row.lookups, 0);
  const answered = data.types.reduce((sum, row) => sum + row.answered, 0);
  const rate = lookups ? (100 * answered) / lookups : 0;
  tile("rate", lookups ? percent(rate) : "–",
    lookups ? `${count(answered)} of ${count(lookups)} lookups` : "no lookups in this time", rate);
  const { today, week, ever } = data.savings;
  const since = (name, show) => `today ${show(today.total[name])} · this week ${show(week.total[name])}`;
  const money = ever.total.money === null ? "" : ` · ${ever.total.money.toFixed(2)} ${ever.currency}`;
  tile("time", duration(ever.total.ms), since("ms", brief) + money);
  tile("tokens", count(ever.total.tokens), since("tokens", (n) => short.format(n)));
  const store = data.store, limit = store.max_bytes;
  tile("stored", count(store.entries),
    limit ? `${size(store.bytes)} of ${size(limit)}` : size(store.bytes), limit ? (100 * store.bytes) / limit : 0);
}

function drawAll(data) {
  const { times, types, operations } = data.series;
  const rows = Object.keys(types).length ? Object.values(types) : [];
  const sum = (name) => times.map((_, at) => rows.reduce((total, row) => total + row[name][at], 0));
  const lookups = sum("lookups"), answered = sum("answered");
  $("lookups-step").textContent = STEPS[data.step] || "";
  draw("lookups", times, [
    { name: "computed", colour: "rest", values: lookups, shown: lookups.map((n, at) => n - answered[at]) },
    { name: "answered from the cache", colour: "fill", values: answered },
  ], {
    bars: true, format: count, empty: "Nothing was looked up in this time.",
    range: (_, _low, high) => [0, Math.max(4, high * 1.08)],
  });

  const order = data.types.filter((row) => row.lookups && types[row.type]).slice(0, 6);
  draw("rates", times, order.map((row, at) => ({
    name: row.type, colour: `series-${at + 1}`,
    values: types[row.type].lookups.map((n, i) => (n ? (100 * types[row.type].answered[i]) / n : null)),
  })), { format: (n) => `${Math.round(n)} %`, range: () => [0, 103], empty: "Nothing was looked up in this time." });

  const names = data.operations.map((row) => row.operation).filter((name) => operations[name]);
  if (!names.includes(operation)) operation = names[0] || null;
  const choice = $("operation");
  if (JSON.stringify([...choice.options].map((o) => o.value)) !== JSON.stringify(names))
    choice.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  choice.value = operation || "";
  choice.hidden = names.length < 2;
  const series = operations[operation] || {};
  draw("latency", times, [["p99", "series-4"], ["p95", "series-3"], ["p50", "series-5"]].map(([name, tint]) => ({
    name, colour: tint, values: (series[`${name}_ms`] || times.map(() => null)).map(above),
  })), {
    log: true, format: duration, range: (_, low, high) => uPlot.rangeLog(low, high, 10, true),
    empty: "No operation was timed: put @timed on a function.",
  });
}

function tables(data) {
  for (const place of document.querySelectorAll(".period")) place.textContent = NAMES[data.period];
  fill("types", [
    ["type", (row) => row.type],
    ["hit rate", rateCell],
    ["lookups", number("lookups")], ["hits", number("hits")], ["misses", number("misses")],
    ["stale", number("stale")], ["shared", number("shared")], ["errors", trouble("errors")],
    ["corrupt", trouble("corrupt")], ["time saved", took("saved_ms")], ["tokens saved", number("tokens_saved")],
    ["stored", (row) => number("n")({ n: data.store.by_type[row.type] })],
  ], data.types, "Nothing was cached in this time.");
  fill("operations", [
    ["operation", (row) => row.operation],
    ["count", number("count")], ["errors", trouble("errors")], ["p50", took("p50_ms")], ["p95", took("p95_ms")],
    ["p99", took("p99_ms")], ["mean", took("avg_ms")], ["max", took("max_ms")], ["retries", number("retries")],
  ], data.operations, "No operation was timed in this time.");
  const entry = [["entry", entryCell], ["size", (row) => size(row.size)]];
  fill("largest", [...entry, ["cost", took("cost_ms")], ["age", (row) => age(row.age)]], data.largest, "Nothing is stored yet.");
  fill("hottest", [...entry, ["cost", took("cost_ms")], ["used", (row) => `${age(row.idle)} ago`]], data.hottest, "Nothing is stored yet.");
}

function health(data) {
  const marks = { ok: "✓", warning: "!", problem: "✕" };
  $("health").replaceChildren(...data.store.findings.map((found) => {
    const text = make("div", {}, found.message);
    if (found.advice) text.append(make("small", { textContent: found.advice }));
    return make("li", { className: found.status }, make("i", { textContent: marks[found.status], title: found.status }), text);
  }));
  $("version").textContent = `memoleo ${data.version}`;
}

function show(data) {
  latest = data;
  notice(data.enabled ? "" : "Caching is switched off: every call is the plain call.");
  tiles(data);
  drawAll(data);
  tables(data);
  health(data);
  document.title = `${$("rate").querySelector(".big").textContent} · memoleo`;
}

function live(on, text) {
  $("live").className = on ? "on" : "off";
  const span = $("live").querySelector("span");
  if (span.textContent !== text) span.textContent = text;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function failed(text) {
  notice(text);
  live(false, "the store can't be read");
}

async function refresh() {
  const mine = ++turn;
  try {
    const answer = await fetch(`data.json?period=${period}`, { cache: "no-store" });
    const data = await answer.json();
    if (mine !== turn) return;
    if (!answer.ok) return failed(data.error);
    show(data);
    live(true, "live");
  } catch {
    if (mine !== turn) return;
    live(false, latest ? `no answer since ${new Date(latest.now * 1000).toTimeString().slice(0, 5)}` : "no answer");
  }
}

async function keepUp() {
  if (!document.hidden) await refresh();
  setTimeout(keepUp, EVERY);
}

function choose(chosen) {
  period = NAMES[chosen] ? chosen : "hour";
  for (const button of $("period").children) button.setAttribute("aria-pressed", button.value === period);
}

function theme(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  if (latest) drawAll(latest);
}

document.body.append(probe);
theme(remembered.get("theme"));
choose(period);
$("period").addEventListener("click", (event) => {
  if (!event.target.value) return;
  choose(event.target.value);
  remembered.set("period", period);
  refresh();
});
$("theme").addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  remembered.set("theme", next);
  theme(next);
});
$("operation").addEventListener("change", (event) => {
  operation = event.target.value;
  if (latest) drawAll(latest);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(null));
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
new ResizeObserver(() => {
  for (const [id, { plot }] of Object.entries(charts)) {
    const width = $(id).clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}).observe(document.querySelector("main"));
keepUp();
