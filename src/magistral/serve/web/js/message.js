// One question or answer on the page.

import { Growing } from "./growing.js";
import { number, t } from "./i18n.js";
import { outline } from "./outline.js";

export function element(name, attributes = {}, ...children) {
  const e = Object.assign(document.createElement(name), attributes);
  e.append(...children);
  return e;
}

export function button(word, onclick, label = "") {
  const b = element("button", { type: "button", className: "small", textContent: word, onclick });
  if (label) b.setAttribute("aria-label", label);
  return b;
}

export function question(node) {
  return element("li", { className: "user" }, element("div", { className: "body", textContent: node.text, dir: "auto" }), tools());
}

const tools = () => element("div", { className: "tools" });

export class Answer {
  constructor(node) {
    this.node = node;
    this.started = performance.now();
    this.summary = element("summary");
    this.thinking = element("div", { className: "md" });
    this.outline = element("details", { className: "outline", hidden: true });
    this.fold = element("details", { className: "thinking", hidden: true }, this.summary, this.outline, this.thinking);
    this.text = element("div", { className: "md" });
    this.notes = element("div");
    this.element = element("li", { className: "assistant" }, this.fold, this.text, this.notes, tools());
    this.growing = { thinking: new Growing(this.thinking, t("copy"), () => this.drawn()), text: new Growing(this.text, t("copy")) };
  }

  think(text) {
    if (this.fold.hidden) Object.assign(this.fold, { hidden: false, open: true });
    this.node.thinking += text;
    this.node.about.thinking_s = this.seconds(); // so far: it may be stopped
    this.growing.thinking.push(text);
    this.summary.textContent = t("thinking", { s: number(this.seconds(), 0) });
  }

  say(text) {
    if (this.node.text === "" && this.node.thinking) this.thought();
    this.node.text += text;
    this.growing.text.push(text);
  }

  // The thinking is over: say how long it took, and fold it.
  thought() {
    this.fold.open = false;
    this.label();
  }

  // What is known: no tokens were counted of an answer that was stopped.
  label() {
    const { thinking_s: s, usage } = this.node.about;
    const known = [t("thought", { s: number(s ?? 0, 1) })];
    if (usage) known.push(t("nTokens", { n: number(usage.completion_tokens_details.reasoning_tokens) }));
    this.summary.textContent = known.join(" · ");
  }

  seconds() {
    return (performance.now() - this.started) / 1000;
  }

  // All of it has come, or was kept.
  finish() {
    const { about, thinking, text } = this.node;
    if (thinking && this.growing.thinking.text === "") this.growing.thinking.push(thinking);
    if (text && this.growing.text.text === "") this.growing.text.push(text);
    this.fold.hidden = !thinking;
    this.growing.thinking.finish();
    this.growing.text.finish();
    this.label();
    this.notes.replaceChildren(...notesOf(this.node));
  }

  drawn() {
    this.mark();
    const lines = outline(this.node.thinking).map(({ at, text }) => {
      const go = () => {
        const block = this.growing.thinking.blockAt(at);
        block.tabIndex = -1; // so that the keyboard goes on from there
        block.focus({ preventScroll: true });
        block.scrollIntoView();
      };
      return element("li", {}, element("button", { type: "button", className: "small", textContent: text, dir: "auto", onclick: go }));
    });
    this.outline.hidden = lines.length === 0;
    this.outline.replaceChildren(element("summary", { textContent: `${t("outline")} (${number(lines.length)})` }), element("ol", {}, ...lines));
  }

  // Each checked step in the margin beside it. The server counts characters, the browser halves of some.
  mark() {
    const found = this.node.about.magistral?.notes?.find((n) => n.kind === "checks");
    const characters = found ? Array.from(this.node.thinking) : [];
    for (const step of found?.data.steps ?? []) {
      const block = this.growing.thinking.blockAt(characters.slice(0, step.at).join("").length);
      if (!block) continue;
      if (block.firstChild?.className !== "margin") block.prepend(element("span", { className: "margin" }));
      block.firstChild.append(mark(step));
    }
  }
}

function notesOf({ about, thinking }) {
  const said = about.magistral ?? {};
  const lines = (said.notes ?? []).filter((n) => !["vote", "checks", "flash"].includes(n.kind)).map((n) => note(n.text));
  if (about.failed) lines.push(note(t("failed", { why: about.failed }), "failed"));
  if (about.stopped) lines.push(note(t("stopped")));
  if (about.finish === "length") lines.push(note(t("ranOut")));
  for (const n of said.notes ?? []) {
    if (n.kind === "vote") lines.push(...votes(n.data));
    if (n.kind === "checks") lines.push(n.data.steps.length ? checks(n.data) : note(t(thinking ? "noSteps" : "noThought")));
    if (n.kind === "flash") lines.push(note(t("speed", { v: number(n.data.tokens_per_s, 0) })));
  }
  return lines;
}

const note = (text, more = "") => element("p", { className: `note ${more}`, textContent: text, dir: "auto" });

function votes({ n_agree: n, k, dissent }) {
  const others = dissent.map((d) => {
    const body = element("div", { className: "md" });
    const grown = new Growing(body, t("copy"));
    grown.push([d.thinking, d.answer].filter(Boolean).join("\n\n---\n\n"));
    grown.finish();
    return element("details", { className: "dissent" }, element("summary", { textContent: t("dissent", { answer: d.claim || "?" }), dir: "auto" }), body);
  });
  return [note(t("agree", { n, k })), ...others];
}

const MARKS = { right: "✓", wrong: "✗", unknown: "?" };

function mark(step) {
  const said = `${step.text}: ${t(step.verdict)}`;
  const sign = element("span", { className: step.verdict, textContent: MARKS[step.verdict], title: said });
  sign.setAttribute("role", "img");
  sign.setAttribute("aria-label", said);
  return sign;
}

function checks({ steps, agrees, language }) {
  const lines = steps.map((s) => {
    const mark = element("span", { textContent: `${MARKS[s.verdict]} ` });
    mark.setAttribute("aria-hidden", "true");
    const line = element("li", { className: s.verdict, dir: "ltr" }, mark, s.text, element("span", { className: "hidden", textContent: `: ${t(s.verdict)}` }));
    line.title = s.reason;
    return line;
  });
  const spoken = language.consistent ? [] : [note(language.reason, "failed")];
  const last = agrees === null ? [] : [note(t(agrees ? "agrees" : "differs"), agrees ? "" : "failed")];
  return element("div", {}, element("ul", { className: "checks" }, ...lines), ...last, ...spoken);
}
