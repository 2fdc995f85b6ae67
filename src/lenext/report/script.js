"use strict";

// Tooltips: the chart's own rows, as text and never as markup.
const tip = document.getElementById("tip");

function showTip(_handler, event, _item, value) {
  tip.hidden = value === null || typeof value !== "object";
  if (tip.hidden) return;
  const parts = [];
  for (const [name, said] of Object.entries(value)) {
    for (const [tag, content] of [["dt", name], ["dd", said]]) {
      const element = document.createElement(tag);
      element.textContent = content;
      parts.push(element);
    }
  }
  tip.replaceChildren(...parts);
  const beyond = event.clientX + 16 + tip.offsetWidth > window.innerWidth;
  const left = beyond ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 4))}px`;
}

// Charts: each .chart holds its Vega specification. Those in view at first are drawn first, the others at once after
// them: what is not chosen on the screen is on paper.
function draw(chart) {
  const specification = JSON.parse(chart.querySelector("script").textContent);
  specification.description = chart.getAttribute("aria-label"); // else Vega overwrites it with a word of its own
  const settings = { mode: "vega", renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip };
  vegaEmbed(chart, specification, settings)
    .then(() => chart.setAttribute("role", "img"))
    .catch((error) => console.error(error));
}

for (const chart of document.querySelectorAll(".chart")) {
  if (chart.closest(".unchosen")) setTimeout(draw, 0, chart);
  else draw(chart);
}

// The choice of an axis: each radio button of a group names the figure it shows.
for (const choice of document.querySelectorAll("input[data-shows]")) {
  choice.addEventListener("change", () => {
    for (const other of document.getElementsByName(choice.name)) {
      document.getElementById(other.dataset.shows).classList.toggle("unchosen", !other.checked);
    }
  });
}

// Images that tell models apart: those that the one chosen names correctly, and the other does not.
const [rightFor, wrongFor] = ["right-for", "wrong-for"].map((id) => document.getElementById(id));

function filter() {
  const has = (models, chosen) => !chosen || models.split(" ").includes(chosen);
  let shown = 0;
  for (const tile of document.querySelectorAll("#separating [data-right]")) {
    const { right, wrong } = tile.dataset;
    const matches = has(right, rightFor.value) && has(wrong, wrongFor.value);
    tile.classList.toggle("unchosen", !matches);
    shown += matches;
  }
  document.querySelector("#separating output").value = `${shown} ${shown === 1 ? "image" : "images"}`;
}

for (const select of [rightFor, wrongFor]) select?.addEventListener("change", filter);

// Sorting: a column's button sorts by its cells' data-value, else by their text; numbers largest first.
function sort(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const key = (row) => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent ?? "";
  const rows = [...table.tBodies[0].rows];
  const numeric = rows.every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const direction = header.getAttribute("aria-sort") === first ? second : first;
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    const [left, right] = [key(a), key(b)];
    if (left === "" || right === "") return (left === "") - (right === ""); // what was not measured comes last
    return sign * (numeric ? left - right : left.localeCompare(right, undefined, { numeric: true }));
  });
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// Visual words: pointing at one, or reaching it by keyboard, lights it up wherever it is; a click keeps it lit.
const places = document.getElementById("places");
let keptWord = null;

function light(word, mark = null) {
  for (const element of document.querySelectorAll("[data-word].lit")) element.classList.remove("lit");
  for (const element of document.querySelectorAll(`[data-word="${word}"]`)) element.classList.add("lit");
  for (const button of document.querySelectorAll("button[data-word]")) {
    button.setAttribute("aria-pressed", button.dataset.word === keptWord);
  }
  places.classList.toggle("chosen", word !== null);
  for (const drawing of document.querySelectorAll(".placed svg")) {
    const lit = [...drawing.querySelectorAll("circle.lit")];
    const holes = lit.map((circle) => cover(document.createElementNS(drawing.namespaceURI, "rect"), circle));
    drawing.querySelector("mask g").replaceChildren(...holes);
    const frame = drawing.querySelector(".patch");
    frame.toggleAttribute("hidden", !lit.includes(mark));
    if (lit.includes(mark)) cover(frame, mark).setAttribute("style", mark.getAttribute("style") ?? "");
  }
}

// Lays `rectangle` over the patch whose dot is `circle`.
function cover(rectangle, circle) {
  const { x, y, side } = place(circle);
  for (const [name, value] of Object.entries({ x: x - side / 2, y: y - side / 2, width: side, height: side })) {
    rectangle.setAttribute(name, value);
  }
  return rectangle;
}

function tell(circle) {
  const { word } = circle.dataset;
  const all = [...circle.parentElement.children];
  const same = all.filter((other) => other.dataset.word === word).length;
  const said = { Word: word, "In this picture": `${same} of ${all.length} patches` };
  const known = document.querySelector(`.words > [data-word="${word}"]`);
  if (known) Object.assign(said, { "Of all patches": known.dataset.share, "In images": known.dataset.images });
  const box = circle.getBoundingClientRect();
  showTip(null, { clientX: box.right, clientY: box.bottom }, null, said);
  circle.setAttribute("aria-label", Object.entries(said).flat().join(" "));
}

// Shows the word of `element`; without one, the word that was clicked.
function show(element) {
  const mark = element?.matches("circle") ? element : null;
  light(element?.dataset.word ?? keptWord, mark);
  if (mark) tell(mark);
  else tip.hidden = true;
}

// One stop of the tab key per picture; from there the arrow keys go from patch to patch, sideways through all.
function step(event) {
  const from = place(event.target);
  const marks = [...event.currentTarget.children].sort((a, b) => order(place(a), place(b)));
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const upright = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!sideways && !upright) return;
  event.preventDefault();
  const away = (mark) => upright * (place(mark).y - from.y) + 3 * Math.abs(place(mark).x - from.x);
  const next = sideways
    ? marks[marks.indexOf(event.target) + sideways]
    : marks.filter((mark) => upright * (place(mark).y - from.y) > 0).sort((a, b) => away(a) - away(b))[0];
  if (!next) return;
  event.target.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

function place(circle) {
  return { x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")), side: Number(circle.dataset.side) };
}

function order(a, b) {
  return a.y - b.y || a.x - b.x || a.side - b.side;
}

if (places) {
  for (const marks of document.querySelectorAll(".marks")) {
    const circles = [...marks.children].sort((a, b) => order(place(a), place(b)));
    circles.forEach((circle, index) => {
      circle.setAttribute("tabindex", index ? "-1" : "0");
      circle.setAttribute("role", "img");
    });
    marks.closest("svg").setAttribute("role", "group");
    marks.addEventListener("keydown", step);
  }
  const wordOf = (element) => element.closest("[data-word]");
  const reached = () => document.querySelector("[data-word]:focus-visible"); // by keyboard
  document.addEventListener("pointerover", (event) => show(wordOf(event.target) ?? reached()));
  document.addEventListener("focusin", (event) => show(wordOf(event.target)));
  document.addEventListener("focusout", () => show(null));
  document.documentElement.addEventListener("pointerleave", () => show(reached()));
  document.addEventListener("click", (event) => {
    const element = wordOf(event.target);
    if (!element) return;
    keptWord = element.dataset.word === keptWord ? null : element.dataset.word;
    show(element);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    keptWord = null;
    show(null);
  });
}
