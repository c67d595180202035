// A text that grows: blocks that are finished are rendered once, only the last one again and again, once a frame.

import { load, loaded, render } from "./markdown.js";

const LONGEST = 6000; // characters of a block without an empty line, after which it is cut at a line

export class Growing {
  constructor(element, copy) {
    this.element = element;
    this.copy = copy;
    this.text = "";
    this.tail = "";
    this.last = null;
    this.at = 0; // where in the text the block begins that is being written
    this.waiting = false;
  }

  push(text) {
    this.text += text;
    this.tail += text;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.draw());
  }

  draw(all = false) {
    this.waiting = false;
    if (!loaded()) load().then(() => this.again());
    const blocks = cut(this.tail);
    const rest = blocks.pop();
    for (const block of blocks) this.show(block, true);
    this.tail = rest;
    if (rest.trim()) this.show(rest, all);
    if (all) this.tail = "";
  }

  show(text, finished) {
    this.last ??= this.element.appendChild(document.createElement("div"));
    Object.assign(this.last, { dir: "auto", at: this.at });
    render(this.last, text, finished ? this.copy : "");
    if (!finished) return;
    this.last = null;
    this.at += text.length;
  }

  // The block in which that place of the text stands.
  blockAt(place) {
    return [...this.element.children].filter((block) => block.at <= place).pop();
  }

  finish() {
    this.done = true;
    this.draw(true);
  }

  again() {
    if (this.drawnWith) return; // once, when the modules have come
    this.drawnWith = true;
    this.element.replaceChildren();
    this.last = null;
    this.at = 0;
    this.tail = this.text;
    this.draw(this.done);
    this.redrawn?.();
  }
}

// Blocks between empty lines outside code and formulas; the last one may still grow.
export function cut(text) {
  const blocks = [];
  let start = 0, at = 0, closes = null;
  while (at < text.length) {
    const end = text.indexOf("\n", at);
    if (end < 0) break;
    const line = text.slice(at, end).trim();
    at = end + 1;
    if (closes) {
      if (closes(line)) closes = null;
    } else {
      closes = opens(line);
    }
    const empty = line === "" && text.slice(start, end).trim() !== "";
    if (!closes && (empty || at - start > LONGEST)) {
      blocks.push(text.slice(start, at));
      start = at;
    }
  }
  return [...blocks, text.slice(start)];
}

function opens(line) {
  const fence = /^(`{3,}|~{3,})/.exec(line);
  if (fence) return (later) => later.startsWith(fence[1]) && later.replaceAll(fence[1][0], "") === "";
  for (const [open, close] of [["\\[", "\\]"], ["$$", "$$"]]) {
    if (line.startsWith(open) && !line.slice(2).endsWith(close)) return (later) => later.endsWith(close);
  }
  return null;
}
