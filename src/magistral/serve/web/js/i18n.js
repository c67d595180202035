// The language of the interface: chosen once, else the browser's.

import { LANGUAGES, STRINGS } from "./strings.js";

const wished = [localStorage.getItem("language"), ...navigator.languages.map((l) => l.slice(0, 2))];
let language = wished.find((l) => l in LANGUAGES) ?? "en";

export function t(name, values = {}) {
  return STRINGS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

export const number = (value, digits = 0) => value.toLocaleString(language, { maximumFractionDigits: digits });

// Put the words into every element that names one: data-t its text, data-t-label and data-t-placeholder its attributes.
export function translate(root = document) {
  document.documentElement.lang = language;
  document.documentElement.dir = language === "ar" ? "rtl" : "ltr";
  for (const e of root.querySelectorAll("[data-t]")) e.textContent = t(e.dataset.t);
  for (const e of root.querySelectorAll("[data-t-label]")) {
    e.setAttribute("aria-label", t(e.dataset.tLabel));
    if (e.tagName === "BUTTON") e.title = t(e.dataset.tLabel);
  }
  for (const e of root.querySelectorAll("[data-t-placeholder]")) e.placeholder = t(e.dataset.tPlaceholder);
}

export function languageMenu(select, changed) {
  for (const [code, name] of Object.entries(LANGUAGES)) select.append(Object.assign(new Option(name, code), { lang: code }));
  select.value = language;
  select.addEventListener("change", () => {
    language = select.value;
    localStorage.setItem("language", language);
    translate();
    changed();
  });
}
