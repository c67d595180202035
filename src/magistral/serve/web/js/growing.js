// A text that grows: blocks that are finished are rendered once, only the last one again and again, once a frame.

import { load, loaded, render } from "./markdown.js";

const LONGEST = 6000; // characters of a block without an empty line, after which it is cut at a line
const SLICE_MS = 12; // of a frame, for drawing: a long text takes several, and the page answers between them
const undrawn = new Set();
let scheduled = false;
let around = (draw) => draw();

// What is to happen around each drawing: `wrap` calls the function that it is given.
export function drawWithin(wrap) {
  around = wrap;
}

function drawSoon(text) {
  undrawn.add(text);
  if (!scheduled) requestAnimationFrame(drawSlice);
  scheduled = true;
}

function drawSlice() {
  const until = performance.now() + SLICE_MS, texts = [...undrawn];
  scheduled = false;
  undrawn.clear();
  around(() => texts.forEach((text) => drawn(text, until)));
}

function drawn(text, until) {
  try {
    if (!text.draw(until)) drawSoon(text);
  } catch (error) {
    console.error(error); // a text that cannot be drawn stops no other
  }
}

export class Growing {
  constructor(element, copy, drawn = () => {}) {
    this.element = element;
    this.copy = copy;
    this.drawn = drawn; // called when all of a text that is done has been drawn
    this.text = "";
    this.restart();
  }

  restart() {
    this.element.replaceChildren();
    this.blocks = []; // finished and not drawn yet
    this.tail = this.text;
    this.last = null;
    this.at = 0; // where in the text the block begins that is drawn next
  }

  push(text) {
    this.text += text;
    this.tail += text;
    drawSoon(this);
  }

  finish() {
    this.done = true;
    drawSoon(this);
  }

  // What there is time for; true if nothing is left.
  draw(until) {
    if (!loaded()) load().then(() => this.again());
    this.blocks.push(...cut(this.tail));
    this.tail = this.blocks.pop();
    if (this.done && this.tail.trim()) this.blocks.push(this.tail);
    if (this.done) this.tail = "";
    while (this.blocks.length) {
      if (performance.now() > until) return false;
      this.show(this.blocks.shift(), true);
    }
    if (this.tail.trim()) this.show(this.tail, false);
    if (this.done) this.drawn();
    return true;
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

  again() {
    if (this.drawnWith) return; // once, when the modules have come
    this.drawnWith = true;
    this.restart();
    drawSoon(this);
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
