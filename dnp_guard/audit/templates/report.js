"use strict";
const search = document.getElementById("search");
const outcome = document.getElementById("outcome");
const rows = document.querySelectorAll("#withheld tbody tr");

function filter() {
  const words = search.value.trim().toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (outcome.value && row.dataset.outcome !== outcome.value);
    shown += !row.hidden;
  }
  document.getElementById("shown").textContent = shown;
}

if (search) {
  document.getElementById("filter").hidden = false;
  search.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
}
