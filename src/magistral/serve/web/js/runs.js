// Training runs: curves that grow while a run goes on, and completions by group with their rewards and reasons.

import * as api from "./api.js";
import { number, t } from "./i18n.js";
import { element } from "./message.js";

const $ = (id) => document.getElementById(id);
const EVERY_MS = 3000;
const STATES = ["running", "done", "stopped", "failed", "killed"];
const word = (state) => (STATES.includes(state) ? t(`run_${state}`) : state);

const ltr = (text) => `\u2066${text}\u2069`; // a path or a command, in a sentence of any direction

let timer = null;
let plots = new Map(); // name of a curve -> { plot, host }
let shown = ""; // whose completions

export async function start() {
  clearInterval(timer);
  const { data: all, folder } = await api.runs();
  $("runs-folder").textContent = t("runsIn", { folder: ltr(folder) });
  const start = ltr(`magistral rl recipes/quickstart.toml --out ${folder}/first`);
  $("no-runs").textContent = t("noRuns", { start, look: ltr("magistral serve --runs") });
  $("no-runs").hidden = all.length > 0;
  $("run-row").hidden = all.length === 0;
  const before = $("run").value;
  $("run").replaceChildren(...all.map(({ name, state }) => new Option(`${name} (${word(state)})`, name)));
  if (all.some(({ name }) => name === before)) $("run").value = before;
  $("run").onchange = fresh;
  $("step").onchange = completions;
  await fresh();
  timer = setInterval(refresh, EVERY_MS);
}

export function stop() {
  clearInterval(timer);
}

async function fresh() {
  for (const { plot } of plots.values()) plot.destroy();
  plots = new Map();
  shown = "";
  $("step").replaceChildren();
  $("curves").replaceChildren();
  $("groups").replaceChildren();
  if ($("run").value) await refresh();
}

async function refresh() {
  const name = $("run").value;
  if (!name || document.hidden) return;
  const { state, metrics, steps } = await api.run(name);
  $("run-state").textContent = word(state);
  await draw(metrics);
  $("groups-row").hidden = steps.length === 0;
  offer(steps.reverse());
  await completions();
}

// Newest first. Who looks at the newest goes on to the next one when it comes, who chose another stays there.
function offer(steps) {
  if (steps.length === $("step").length && String(steps[0] ?? "") === $("step").options[0]?.value) return; // it may be open
  const chosen = $("step").selectedIndex > 0 ? Number($("step").value) : null;
  $("step").replaceChildren(...steps.map((step) => new Option(number(step), step)));
  if (steps.includes(chosen)) $("step").value = chosen;
}

async function completions() {
  const name = $("run").value, step = $("step").value, wanted = `${name} ${step}`;
  if (!step || wanted === shown) return;
  shown = wanted;
  const groups = await api.groups(name, step);
  if (shown === wanted) $("groups").replaceChildren(...groups.map(group));
}

async function draw(metrics) {
  const { default: UPlot } = await import("../vendor/uplot/uPlot.esm.js");
  if (!document.querySelector('link[href*="uplot"]')) {
    document.head.append(element("link", { rel: "stylesheet", href: "vendor/uplot/uPlot.min.css" }));
  }
  const ink = getComputedStyle(document.documentElement);
  const names = [...new Set(metrics.flatMap(({ values }) => Object.keys(values)))].sort();
  for (const name of names) {
    const rows = metrics.filter(({ values }) => typeof values[name] === "number");
    const data = [rows.map(({ step }) => step), rows.map(({ values }) => values[name])];
    if (plots.has(name)) {
      plots.get(name).plot.setData(data);
      continue;
    }
    const host = element("div", { className: "curve" }, element("h2", { textContent: name }));
    $("curves").append(host);
    const axis = { stroke: ink.getPropertyValue("--dim"), grid: { stroke: ink.getPropertyValue("--line"), width: 1 } };
    const options = {
      width: 320, height: 180, scales: { x: { time: false } }, axes: [axis, { ...axis, size: 70, values: (_, values) => values.map((v) => String(Number(v.toPrecision(4)))) }],
      series: [{}, { stroke: ink.getPropertyValue("--accent"), width: 2, label: name }], legend: { show: false },
    };
    plots.set(name, { plot: new UPlot(options, data, host), host });
  }
}

function group({ question, reference, completions }) {
  const lines = completions.map((c) => {
    const head = `${t("reward")} ${number(c.reward, 3)} · ${number(c.tokens)} ${t("tokens")} · ${c.outcome}`;
    const reasons = element("ul", {}, ...c.reasons.map((text) => element("li", { textContent: text })));
    return element("details", {}, element("summary", { textContent: head }), reasons, element("pre", { textContent: c.text, dir: "auto", tabIndex: 0 }));
  });
  return element("div", { className: "group" }, element("p", { textContent: `${question} → ${reference}`, dir: "auto" }), ...lines);
}
