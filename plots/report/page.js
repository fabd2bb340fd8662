"use strict";
// Columns that sort. Without this script the tables are there all the same, in their own order.
const numbers = new Intl.Collator(undefined, { numeric: true });

function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? (cell.textContent === "\u2013" ? "" : cell.textContent);
}

// What is absent comes last in either direction; numbers by value where both are, else as text.
function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const [x, y] = [Number(a), Number(b)];
  return sign * (Number.isNaN(x) || Number.isNaN(y) ? numbers.compare(a, b) : x - y);
}

function sort(table, column) {
  const head = table.tHead.rows[0].cells;
  const sign = head[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head) other.removeAttribute("aria-sort");
  head[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => compare(key(one, column), key(other, column), sign));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
  });
}

// What is wider than the window can be reached and scrolled by keyboard.
function reach() {
  for (const box of document.querySelectorAll(".wide")) {
    const wide = box.scrollWidth > box.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "scrolls sideways"]]) {
      wide ? box.setAttribute(name, value) : box.removeAttribute(name);
    }
  }
}
addEventListener("load", reach);
addEventListener("resize", reach);

// For tests, and for whoever wonders: how many of the pictures could be shown.
addEventListener("load", () => {
  const shown = [...document.images].filter((image) => image.naturalWidth > 0);
  document.body.dataset.images = `${shown.length} of ${document.images.length}`;
});
