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

// Charts: each .chart holds its Vega specification. One that is hidden is drawn when it is first shown.
function draw(chart) {
  if (chart.dataset.drawn) return;
  chart.dataset.drawn = "true";
  const specification = JSON.parse(chart.querySelector("script").textContent);
  const settings = { mode: "vega", renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip };
  vegaEmbed(chart, specification, settings).catch((error) => console.error(error));
}

for (const chart of document.querySelectorAll(".chart")) {
  if (!chart.closest("[hidden]")) draw(chart);
}

// The choice of the cost axis: a radio button names the figure it shows.
for (const choice of document.querySelectorAll("input[data-shows]")) {
  choice.addEventListener("change", () => {
    for (const other of document.querySelectorAll("input[data-shows]")) {
      document.getElementById(other.dataset.shows).hidden = !other.checked;
    }
    draw(document.getElementById(choice.dataset.shows).querySelector(".chart"));
    window.dispatchEvent(new Event("resize")); // the window may have another width than when it was drawn
  });
}

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
