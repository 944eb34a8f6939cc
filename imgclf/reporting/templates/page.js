// Tables that sort by a click on a column's head. All else on the page works without a script.
"use strict";

// What stands for a number, such as 1,829 or 98.61%; a dash, which is no number, comes last either way.
const number = (text) => parseFloat(text.replaceAll(",", ""));
const collator = new Intl.Collator("en", { numeric: true });

function sort(table, column, numeric, direction) {
  const rows = [...table.tBodies[0].rows].map((row) => {
    const text = row.cells[column].textContent.trim();
    return { row, value: numeric ? number(text) : text };
  });
  rows.sort((a, b) => {
    if (!numeric) return direction * collator.compare(a.value, b.value);
    const missing = Number.isNaN(a.value) - Number.isNaN(b.value);
    return missing || (Number.isNaN(a.value) ? 0 : direction * (a.value - b.value));
  });
  table.tBodies[0].append(...rows.map((each) => each.row));
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.dataset.sort) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(table, column, head.dataset.sort === "number", up ? 1 : -1);
    });
  });
}
document.documentElement.classList.add("scripted");
