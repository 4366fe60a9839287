// Tables: click a heading to sort, type to filter rows, click a truncated text to show all of it.
// Each <div class="table"> holds its data as JSON: {columns, rows, marked}. Cells are set as text, never as markup.
"use strict";

const ROWS_AT_FIRST = 50;

function format(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return value.toFixed(Math.abs(value) < 10 ? 3 : 1);
}

function compare(a, b) {
  // Missing values come last in both directions.
  if (a === null || b === null) return a === b ? 0 : a === null ? Infinity : -Infinity;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function makeTable(container) {
  const { columns, rows, marked } = JSON.parse(container.querySelector("script").textContent);
  const numeric = columns.map((_, c) => rows.some((r) => typeof r[c] === "number"));
  const long = columns.map((_, c) => rows.some((r) => format(r[c]).length > 60));
  const order = rows.map((cells, i) => ({ cells, marked: marked[i], text: cells.map(format).join(" ").toLowerCase() }));
  let shown = ROWS_AT_FIRST;

  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "filter rows";
  search.setAttribute("aria-label", "filter rows");
  const count = document.createElement("span");
  count.className = "faint";
  const more = document.createElement("button");
  more.textContent = "show all";
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append(search, count, more);
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(table);
  container.append(tools, scroll);

  columns.forEach((name, c) => {
    const cell = document.createElement("th");
    cell.textContent = name;
    if (numeric[c]) cell.className = "number-cell";
    cell.addEventListener("click", () => {
      const descending = cell.getAttribute("aria-sort") !== "descending";
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      order.sort((a, b) => {
        const difference = compare(a.cells[c], b.cells[c]);
        return Number.isFinite(difference) && descending ? -difference : difference;
      });
      draw();
    });
    head.append(cell);
  });

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = order.filter((row) => words.every((word) => row.text.includes(word)));
    body.replaceChildren(
      ...matches.slice(0, shown).map((row) => {
        const line = document.createElement("tr");
        if (row.marked) line.className = "marked";
        row.cells.forEach((value, c) => {
          const cell = line.insertCell();
          cell.textContent = format(value);
          cell.className = numeric[c] ? "number-cell" : long[c] ? "long" : "";
          if (long[c]) cell.addEventListener("click", () => cell.classList.toggle("open"));
        });
        return line;
      }),
    );
    count.textContent = `${Math.min(shown, matches.length)} of ${matches.length} rows`;
    more.hidden = matches.length <= shown;
  }

  search.addEventListener("input", draw);
  more.addEventListener("click", () => {
    shown = Infinity;
    draw();
  });
  draw();
}

document.querySelectorAll("div.table").forEach(makeTable);
