// The chat: what is on the page, what is being written, and what of it is kept.

import * as api from "./api.js";
import { drawWithin } from "./growing.js";
import { t } from "./i18n.js";
import { Answer, button, element, question } from "./message.js";
import { Tree } from "./tree.js";

const $ = (id) => document.getElementById(id);
const SAVE_EVERY_MS = 3000; // while an answer is written: a reload loses no more of it

let tree = new Tree();
let running = null; // { abort, id, stopped }
let saved = Promise.resolve(); // the last save: one at a time, so that none overtakes a later one

export function start() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("question").value.trim();
    if (!text || running) return;
    $("question").value = "";
    answer(tree.add(tree.leaf, "user", text));
  });
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("composer").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
  $("stop").addEventListener("click", stop);
  $("answer-now").addEventListener("click", () => running?.id && api.answerNow(running.id).catch(() => {}));
  $("new").addEventListener("click", () => show(new Tree()));
  $("export").addEventListener("click", exported);
  let pause;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(list, 150);
  });
  drawWithin((draw) => {
    const atEnd = nearEnd() && (running || !document.querySelector(".thinking[open]")); // a kept trace is read from its start
    draw();
    if (atEnd) follow();
  });
  list();
  show(tree);
}

function stop() {
  if (running) Object.assign(running, { stopped: true }).abort.abort();
}

// Show the branch that the tree looks at.
export function show(other = tree) {
  tree = other;
  const path = tree.path();
  $("log").replaceChildren(...(path.length ? path.map(shown) : [welcome()]));
  $("log").scrollTop = $("log").scrollHeight;
  for (const open of document.querySelectorAll("#conversations .open")) mark(open);
  $("side").classList.remove("open");
  $("menu").setAttribute("aria-expanded", "false");
  if (!running) $("question").focus();
}

// Of an empty page: what the choices below the question do.
function welcome() {
  const choices = [["flash", "aboutFlash"], ["votes", "aboutVotes"], ["checks", "aboutChecks"], ["answerNow", "aboutAnswerNow"]];
  const lines = choices.flatMap(([name, about]) => [element("dt", { textContent: t(name) }), element("dd", { textContent: t(about) })]);
  return element("li", { className: "welcome" }, element("h2", { textContent: t("welcome") }), element("dl", {}, ...lines));
}

function mark(open) {
  if (open.dataset.id === tree.id) open.setAttribute("aria-current", "true");
  else open.removeAttribute("aria-current");
}

function shown(node) {
  if (node.role === "user") {
    const item = question(node);
    item.lastChild.append(button(t("edit"), () => edit(item, node)), ...branches(node));
    return item;
  }
  const view = new Answer(node);
  view.finish();
  afterwards(view, node);
  return view.element;
}

function afterwards(view, node) {
  const again = button(t("again"), () => running || answer(tree.nodes.get(node.parent)));
  const copy = button(t("copy"), () => navigator.clipboard.writeText(node.text));
  const think = node.about.flash ? [button(t("thinkAboutIt"), () => running || answer(tree.nodes.get(node.parent), { flash: false }))] : [];
  view.element.lastChild.replaceChildren(copy, again, ...think, ...branches(node));
}

function branches(node) {
  const all = tree.siblings(node), at = all.indexOf(node);
  if (all.length < 2) return [];
  const go = (to) => () => {
    if (running) return;
    tree.turnTo(all[to]);
    show();
    keep();
  };
  const earlier = button("‹", go(at - 1), t("before")), later = button("›", go(at + 1), t("after"));
  earlier.disabled = at === 0;
  later.disabled = at === all.length - 1;
  return [earlier, element("span", { textContent: t("branch", { i: at + 1, n: all.length }) }), later];
}

function edit(item, node) {
  const area = element("textarea", { className: "edit", value: node.text, rows: 3, dir: "auto" });
  area.setAttribute("aria-label", t("question"));
  const send = button(t("send"), () => running || !area.value.trim() || answer(tree.add(node.parent, "user", area.value.trim())));
  item.replaceChildren(area, element("div", { className: "tools" }, send, button(t("cancel"), () => show())));
  area.focus();
}

// Ask for an answer to a question of the tree, a new branch if it has one.
async function answer(asked, { flash = $("flash").checked } = {}) {
  const node = tree.add(asked.id, "assistant", "");
  Object.assign(node.about, { flash, stopped: true }); // until it has ended: true of what a reload leaves
  show();
  const view = new Answer(node), here = tree;
  $("log").lastChild.replaceWith(view.element);
  running = { abort: new AbortController(), id: null, stopped: false };
  busy(true);
  keep(here);
  const saving = setInterval(() => save(here), SAVE_EVERY_MS);
  let stopped = false;
  const k = Number($("votes").value);
  const body = {
    model: $("model").value, messages: here.messages(asked.id), flash, trace_checks: $("checks").checked, ...(k > 1 ? { vote: { k } } : {}),
  };
  try {
    await api.ask(body, running.abort.signal, { started: (id) => (running.id = id), chunk: (data) => take(view, data) });
  } catch (error) {
    stopped = running.stopped;
    if (!stopped) node.about.failed = error.message;
  }
  clearInterval(saving);
  node.about.stopped = stopped;
  running = null;
  view.finish();
  busy(false);
  if (here === tree) afterwards(view, node);
  $("status").textContent = node.about.failed ? t("failed", { why: node.about.failed }) : t(node.about.stopped ? "stopped" : "done");
  await keep(here);
}

function take(view, data) {
  const { about } = view.node;
  if (data.usage) about.usage = data.usage;
  if (data.magistral) about.magistral = data.magistral;
  for (const { delta, finish_reason: finish } of data.choices) {
    if (delta.reasoning_content) view.think(delta.reasoning_content);
    if (delta.content) view.say(delta.content);
    if (finish) about.finish = finish;
  }
  $("answer-now").hidden = view.node.text !== "" || !view.node.thinking;
}

const nearEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 80;
const follow = () => ($("log").scrollTop = $("log").scrollHeight);

function busy(is) {
  $("send").hidden = is;
  $("stop").hidden = !is;
  $("log").setAttribute("aria-busy", String(is));
  if (!is) $("answer-now").hidden = true;
}

async function keep(which = tree) {
  await save(which);
  await list();
}

function save(which) {
  saved = saved.then(async () => {
    if (which.forgotten) return;
    await api.keep(which.id, which.body()).catch((error) => ($("status").textContent = t("failed", { why: error.message })));
  });
  return saved;
}

export async function list() {
  const found = await api.conversations($("search").value).catch(() => []);
  $("conversations").replaceChildren(...found.map(line));
}

function line({ id, title, found }) {
  const open = element("button", { type: "button", className: "open", textContent: title || "…", dir: "auto" });
  open.dataset.id = id;
  if (found) open.append(element("span", { className: "found", textContent: found }));
  mark(open);
  open.addEventListener("click", async () => running || show(new Tree(await api.conversation(id))));
  const remove = button("×", async () => {
    if (id === tree.id) {
      tree.forgotten = true; // its answer may be being written, and is not to bring it back
      stop();
      show(new Tree());
    }
    await saved;
    await api.forget(id);
    await list();
  }, `${t("delete")}: ${title}`);
  return element("li", {}, open, remove);
}

function exported() {
  const lines = tree.path().map(({ role, text, thinking }) => `## ${role}\n\n${thinking ? `<details>\n\n${thinking}\n\n</details>\n\n` : ""}${text}\n`);
  const url = URL.createObjectURL(new Blob([`# ${tree.title}\n\n${lines.join("\n")}`], { type: "text/markdown" }));
  element("a", { href: url, download: `${tree.title || "chat"}.md` }).click();
  URL.revokeObjectURL(url);
}
