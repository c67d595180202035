// Markdown with LaTeX to safe elements. What a model writes is hostile: HTML is text, nothing is loaded, links are named.

let tools = null;

export async function load() {
  if (tools) return;
  const [{ default: purify }, { default: hljs }] = await Promise.all([
    import("../vendor/dompurify/purify.es.mjs"),
    import("../vendor/highlight/highlight.min.js"),
    import("../vendor/markdown-it/markdown-it.min.js"),
    import("../vendor/katex/katex.min.js"),
    styles("vendor/katex/katex.min.css"),
  ]);
  const md = globalThis.markdownit({ html: false, linkify: false, highlight: (code, language) => colour(hljs, code, language) });
  md.disable("image");
  md.inline.ruler.before("escape", "math", inlineMath);
  md.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph"] });
  md.renderer.rules.math = (tokens, i) => `<span class="math${tokens[i].block ? " display" : ""}" data-tex="${md.utils.escapeHtml(tokens[i].content)}"></span>`;
  tools = { md, purify, katex: globalThis.katex };
}

export const loaded = () => tools !== null;

function styles(href) {
  return new Promise((resolve) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href, onload: resolve, onerror: resolve });
    document.head.append(link);
  });
}

function colour(hljs, code, language) {
  return code.length < 20000 && hljs.getLanguage(language) ? hljs.highlight(code, { language, ignoreIllegals: true }).value : "";
}

const OPENINGS = [["\\(", "\\)", false], ["\\[", "\\]", true], ["$$", "$$", true], ["$", "$", false]];

function inlineMath(state, silent) {
  const { src, pos } = state;
  const found = OPENINGS.find(([open]) => src.startsWith(open, pos));
  if (!found) return false;
  const [open, close, display] = found;
  const end = src.indexOf(close, pos + open.length);
  const tex = end < 0 ? "" : src.slice(pos + open.length, end);
  if (!tex.trim()) return false;
  if (open === "$" && (/^\s|\s$/.test(tex) || /^\d/.test(src.slice(end + 1)))) return false; // $5 and $6 are money
  if (!silent) push(state, tex, display);
  state.pos = end + close.length;
  return true;
}

function blockMath(state, first, last, silent) {
  const line = (i) => state.src.slice(state.bMarks[i] + state.tShift[i], state.eMarks[i]);
  const open = ["\\[", "$$"].find((mark) => line(first).startsWith(mark));
  if (!open) return false;
  const close = open === "$$" ? "$$" : "\\]";
  let end = first;
  while (end < last && !line(end).slice(end === first ? 2 : 0).trimEnd().endsWith(close)) end++;
  if (end === last) return false;
  if (silent) return true;
  const text = state.getLines(first, end + 1, state.blkIndent, false).trim();
  push(state, text.slice(2, text.lastIndexOf(close)), true);
  state.line = end + 1;
  return true;
}

function push(state, tex, display) {
  const token = state.push("math", "span", 0);
  token.content = tex;
  token.block = display;
}

const ALLOWED = {
  ALLOWED_TAGS: "p br strong em s code pre ul ol li blockquote h1 h2 h3 h4 h5 h6 table thead tbody tr th td a hr span".split(" "),
  ALLOWED_ATTR: ["class", "href", "start", "data-tex"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

// Fill `element` with the text; `copy` is the word on the button beside code, none while it is still being written.
export function render(element, text, copy = "") {
  if (!tools) {
    element.textContent = text;
    element.className = "block plain";
    return;
  }
  element.className = "block";
  element.replaceChildren(tools.purify.sanitize(tools.md.render(text), ALLOWED));
  for (const span of element.querySelectorAll(".math")) {
    tools.katex.render(span.dataset.tex, span, {
      displayMode: span.classList.contains("display"), throwOnError: false, trust: false, maxExpand: 100, maxSize: 20, output: "htmlAndMathml",
    });
  }
  for (const link of element.querySelectorAll("a")) Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow" });
  if (copy) for (const pre of element.querySelectorAll("pre")) pre.append(copyButton(pre, copy));
  for (const pre of element.querySelectorAll("pre")) pre.tabIndex = 0; // it scrolls, so the keyboard must reach it
}

function copyButton(pre, word) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: word, className: "small" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(pre.querySelector("code").textContent);
    button.textContent = "✓";
    setTimeout(() => (button.textContent = word), 1500);
  });
  return button;
}
