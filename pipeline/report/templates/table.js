// Tables: press a heading to sort, type to filter rows, press a row to see its picture.
// Each <div class="table"> holds its data as JSON: {columns, rows, marked, pictures?, ids?}. Cells are set as text, never
// as markup. `pictures` names the picture of each row, `ids` is what links point to.
"use strict";

const ROWS_AT_FIRST = 50;

function format(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  if (typeof value !== "number" || Number.isInteger(value) || text.length < 5) return text;
  if (value !== 0 && Math.abs(value) < 0.01) return String(Number(value.toPrecision(3)));
  return value.toFixed(Math.abs(value) < 10 ? 3 : 1);
}

function compare(a, b) {
  // Missing values come last in both directions.
  if (a === null || b === null) return a === b ? 0 : a === null ? Infinity : -Infinity;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

// A filter of a numeric column: 3 (exactly), 2..5, >1, <=0.5.
function numberFilter(text) {
  const range = text.match(/^\s*(-?[\d.]*)\s*\.\.\s*(-?[\d.]*)\s*$/);
  if (range) {
    const low = range[1] === "" ? -Infinity : Number(range[1]), high = range[2] === "" ? Infinity : Number(range[2]);
    return (value) => value >= low && value <= high;
  }
  const one = text.match(/^\s*(<=|>=|<|>|=)?\s*(-?[\d.]+)\s*$/);
  if (!one) return null;
  const limit = Number(one[2]);
  return {
    "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit, ">=": (v) => v >= limit,
  }[one[1]] || ((v) => v === limit);
}

function makeTable(container) {
  const { columns, rows, marked, pictures, ids } = JSON.parse(container.querySelector("script").textContent);
  const numeric = columns.map((_, c) => rows.some((r) => typeof r[c] === "number"));
  const long = columns.map((_, c) => rows.some((r) => format(r[c]).length > 60));
  const order = rows.map((cells, i) => ({
    cells, marked: marked[i], picture: pictures ? pictures[i] : null, id: ids ? ids[i] : null,
    text: cells.map(format).join(" ").toLowerCase(),
  }));
  let shown = ROWS_AT_FIRST;

  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "filter rows";
  search.setAttribute("aria-label", "filter rows");
  const count = document.createElement("span");
  count.className = "faint";
  count.setAttribute("role", "status");
  const more = document.createElement("button");
  more.textContent = "show all";
  const tools = document.createElement("div");
  tools.className = "tools";
  if (rows.length > 5) tools.append(search, count, more);
  const table = document.createElement("table");
  const head = table.createTHead();
  const headings = head.insertRow();
  const filters = rows.length > 5 ? head.insertRow() : null;
  if (filters) filters.className = "filters";
  const body = table.createTBody();
  const scroll = document.createElement("div");
  scroll.className = rows.length > 30 ? "scroll tall" : "scroll";
  scroll.append(table);
  container.append(tools, scroll);

  const inputs = columns.map((name, c) => {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    button.textContent = name;
    cell.append(button);
    cell.scope = "col";
    if (numeric[c]) cell.className = "number-cell";
    button.addEventListener("click", () => {
      const descending = cell.getAttribute("aria-sort") !== "descending";
      for (const other of headings.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      order.sort((a, b) => {
        const difference = compare(a.cells[c], b.cells[c]);
        return Number.isFinite(difference) && descending ? -difference : difference;
      });
      draw();
    });
    headings.append(cell);
    if (!filters) return null;
    const input = document.createElement("input");
    input.type = "text";
    input.placeholder = numeric[c] ? ">0, 1..3" : "contains";
    input.setAttribute("aria-label", `filter ${name}`);
    input.addEventListener("input", draw);
    const place = document.createElement("th");
    place.append(input);
    filters.append(place);
    return input;
  });

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = inputs.map((input, c) => {
      const text = input ? input.value.trim() : "";
      if (!text) return null;
      const test = numeric[c] ? numberFilter(text) : null;
      input.setAttribute("aria-invalid", String(numeric[c] && !test));
      if (test) return (value) => typeof value === "number" && test(value);
      return numeric[c] ? null : (value) => format(value).toLowerCase().includes(text.toLowerCase());
    });
    const matches = order.filter(
      (row) => words.every((word) => row.text.includes(word)) && tests.every((t, c) => !t || t(row.cells[c])),
    );
    body.replaceChildren(
      ...matches.slice(0, shown).map((row) => {
        const line = document.createElement("tr");
        line.className = `${row.marked ? "marked" : ""} ${row.picture ? "pictured" : ""}`.trim();
        if (row.id) line.id = row.id;
        if (row.picture) {
          line.tabIndex = 0;
          const named = row.cells.map((v, c) => (format(v) === "" ? "" : `${columns[c]} ${format(v)}`));
          const open = () => enlarge(row.picture, named.slice(1).filter(Boolean).join("; "), container.dataset.compared !== undefined);
          line.addEventListener("click", open);
          line.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault(); // else the key also presses the button that the dialog focuses
            open();
          });
        }
        row.cells.forEach((value, c) => {
          const cell = line.insertCell();
          cell.textContent = format(value);
          cell.className = numeric[c] ? "number-cell" : long[c] ? "long" : "";
          if (long[c]) {
            cell.title = format(value);
            if (!row.picture) cell.addEventListener("click", () => cell.classList.toggle("open"));
          }
        });
        return line;
      }),
    );
    const wrong = inputs.some((input) => input && input.getAttribute("aria-invalid") === "true");
    count.textContent = `${Math.min(shown, matches.length)} of ${rows.length} rows`;
    if (matches.length < rows.length) count.textContent += `, ${matches.length} match`;
    if (wrong) count.textContent += "; filters of numbers are 3, >2, <=0.5 or 1..4";
    more.hidden = matches.length <= shown;
  }

  search.addEventListener("input", draw);
  more.addEventListener("click", () => {
    shown = Infinity;
    draw();
  });
  if (ids) shown = Infinity;
  draw();
}

document.querySelectorAll("div.table").forEach(makeTable);
