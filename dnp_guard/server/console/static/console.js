// Keyboard shortcuts, and the threshold's effect while it is moved. Every page works without this file.
"use strict";

const rows = [...document.querySelectorAll("a.row")];
let here = -1;

function move(by) {
  if (!rows.length) return;
  here = Math.min(rows.length - 1, Math.max(0, here + by));
  for (const row of rows) row.closest("tr").classList.toggle("here", row === rows[here]);
  rows[here].focus();
}

function choose(key) {
  const choice = document.querySelector(`input[data-key="${key}"]`);
  if (choice) {
    choice.checked = true;
    choice.focus();
  }
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  n: () => document.getElementById("next")?.click(),
  s: () => document.getElementById("verdict")?.requestSubmit(),
  "/": () => document.getElementById("search")?.focus(),
  1: () => choose("1"),
  2: () => choose("2"),
  3: () => choose("3"),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("textarea, select, input:not([type=radio])");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

const slider = document.getElementById("at");
if (slider) {
  const seen = slider.dataset.seen.trim().split(" ").map((word) => [Number(word.slice(0, -1)), word.slice(-1)]);
  slider.addEventListener("input", () => {
    const gone = seen.filter(([probability]) => probability < Number(slider.value));
    document.getElementById("at-shown").textContent = Number(slider.value).toFixed(2);
    document.getElementById("left").textContent = gone.length;
    document.getElementById("alarms").textContent = gone.filter(([, verdict]) => verdict === "f").length;
    document.getElementById("right").textContent = gone.filter(([, verdict]) => verdict === "r").length;
    for (const item of document.querySelectorAll("[data-probability]")) {
      const isGone = Number(item.dataset.probability) < Number(slider.value);
      item.classList.toggle("gone", isGone);
      item.classList.toggle("stays", !isGone);
    }
  });
}
