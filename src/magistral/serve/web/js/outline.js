// The outline of a trace: its paragraphs that begin with a signpost, since a model's thinking has no headings.

const LEAST = 3; // signposts, below which an outline helps nobody
const LONGEST = 70; // characters of an entry

// Of the eight languages of the page: doubt, a check, another way, a conclusion; and in any language a number or a heading.
const SIGNPOSTS = [
  "wait", "hmm", "hold on", "actually", "let me", "let's", "alternatively", "another", "first", "next", "then", "finally", "therefore", "step", "case", "but", "okay", "to (?:check|verify)",
  "attends", "attendez", "en fait", "vérifions", "autrement", "d['’]abord", "ensuite", "enfin", "étape", "cas", "donc", "mais",
  "espera", "en realidad", "veamos", "comprobemos", "verifiquemos", "alternativamente", "primero", "luego", "finalmente", "paso", "caso", "pero",
  "warte", "moment", "eigentlich", "prüfen wir", "alternativ", "zuerst", "dann", "schließlich", "schritt", "fall", "aber", "also",
  "aspetta", "in realtà", "verifichiamo", "in alternativa", "prima", "poi", "infine", "passo", "quindi", "ma",
  "انتظر", "لحظة", "لنتحقق", "بدلًا", "أولًا", "أولا", "ثانيًا", "ثم", "أخيرًا", "إذن", "الخطوة", "لكن",
  "подожди(?:те)?", "стоп", "проверим", "давай(?:те)?", "иначе", "сначала", "затем", "наконец", "шаг", "случай", "но", "значит",
];
const UNSPACED = ["等等", "等一下", "不对", "让我", "检查", "验证", "或者", "另外", "换", "首先", "其次", "然后", "接下来", "最后", "因此", "所以", "步骤", "第", "但"];
const SIGNPOST = new RegExp(`^(?:#{1,6} |\\*\\*|\\d+[.)、:] ?|(?:${SIGNPOSTS.join("|")})(?![\\p{L}\\p{N}])|${UNSPACED.join("|")})`, "iu");

// [{ at, text }]: where in the trace each begins, and its first line, or the beginning of it.
export function outline(trace) {
  const found = [];
  for (const { index, 0: line } of trace.matchAll(/(?<=^|\n[ \t]*\n)[^\n]+/g)) {
    if (SIGNPOST.test(line.trimStart())) found.push({ at: index, text: shortened(line) });
  }
  return found.length < LEAST ? [] : found;
}

function shortened(line) {
  const plain = line.replace(/\\[()[\]]|\*\*|[$`]|^#+ /g, "").trim();
  return plain.length > LONGEST ? `${plain.slice(0, LONGEST).replace(/\s+\S*$/, "")}…` : plain;
}
