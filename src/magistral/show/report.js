// Hide the completions that a filter leaves out. The page is whole without this.
const filters = [...document.querySelectorAll("[data-filter]")];
const completions = [...document.querySelectorAll(".completion")];
const count = document.getElementById("count");

function apply() {
  let n = 0;
  for (const c of completions) {
    c.hidden = filters.some((f) => f.value !== "" && c.dataset[f.dataset.filter] !== f.value);
    n += !c.hidden;
  }
  if (count) count.textContent = `${n} of ${completions.length}`;
}

for (const f of filters) f.addEventListener("change", apply);
apply();
