// The page's beginning: language, theme, models, the two views.

import * as api from "./api.js";
import * as chat from "./chat.js";
import { languageMenu, translate } from "./i18n.js";
import { load } from "./markdown.js";

const $ = (id) => document.getElementById(id);

translate();
languageMenu($("language"), () => chat.show());

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});

$("menu").addEventListener("click", () => {
  const open = $("side").classList.toggle("open");
  $("menu").setAttribute("aria-expanded", String(open));
});

api.onKeyNeeded(
  () =>
    new Promise((resolve) => {
      if (!$("key-dialog").open) $("key-dialog").showModal();
      $("key-dialog").addEventListener("close", () => resolve($("key").value), { once: true });
    }),
);

async function view(name) {
  for (const other of ["chat", "runs"]) {
    $(other).hidden = other !== name;
    if (other === name) $(`tab-${other}`).setAttribute("aria-current", "page");
    else $(`tab-${other}`).removeAttribute("aria-current");
  }
  const runs = await import("./runs.js");
  if (name === "runs") runs.start();
  else runs.stop();
}
$("tab-chat").addEventListener("click", () => view("chat"));
$("tab-runs").addEventListener("click", () => view("runs"));

for (const { id } of await api.models()) $("model").append(new Option(id, id));
chat.start();
requestIdleCallback(() => load());
