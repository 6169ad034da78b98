// @ts-check
// The arms of a study as a table: sorted by a click on a column, filtered by text; a cleared box hides an arm from the
// figures. The browser owns order, filter and hidden arms; Python sends rows, and which arms are hidden at the start.

/**
 * @typedef {{ name: string, image: string, sign: string, title: string, runs: { id: string, seed: number, word: string }[],
 *   cells: Record<string, [string, number | string | null]> }} ArmRow
 * @typedef {{ rows: ArmRow[], columns: [string, string][], hidden: string[] }} ArmsMessage
 */

/** @type {WeakMap<HTMLElement, ArmsTable>} */
const tables = new WeakMap();

/** @param {string} tag @param {string} [style] @param {string} [text] */
function element(tag, style, text) {
  const created = document.createElement(tag);
  if (style) created.className = style;
  if (text !== undefined) created.textContent = text;
  return created;
}

class ArmsTable {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {Set<string>} names */
    this.hidden = new Set();
    this.sorted = "";
    this.descending = true;
    this.shown = "";
    this.filter = /** @type {HTMLInputElement} */ (element("input"));
    this.filter.type = "search";
    this.filter.placeholder = "Filter arms";
    this.filter.setAttribute("aria-label", "Filter arms by name or verdict");
    this.filter.addEventListener("input", () => this.fill());
    this.note = element("span", "note");
    this.note.setAttribute("role", "status");
    this.all = this.action("Show all", () => { this.hidden.clear(); });
    this.only = this.action("Show only these", () => {
      this.hidden = new Set(this.rows.filter((row) => !this.matches(row)).map((row) => row.name));
    });
    const bar = element("div", "bar");
    bar.append(this.filter, this.note, this.all, this.only);
    this.scroll = element("div", "scroll");
    this.scroll.tabIndex = 0; // a scrolled region can be reached with the keyboard
    this.scroll.setAttribute("role", "region");
    this.scroll.setAttribute("aria-label", "Arms of the study");
    root.replaceChildren(bar, this.scroll);
  }

  /** @param {string} text @param {() => void} act */
  action(text, act) {
    const button = /** @type {HTMLButtonElement} */ (element("button", "action", text));
    button.type = "button";
    button.addEventListener("click", () => { act(); this.send(); });
    return button;
  }

  /** @param {ArmsMessage} data @param {(name: string, value: unknown) => void} state
   * @param {(name: string, value: unknown) => void} trigger */
  update(data, state, trigger) {
    this.state = state;
    this.trigger = trigger;
    const text = JSON.stringify([data.rows, data.columns]);
    if (text === this.shown) return;
    if (!this.shown) this.hidden = new Set(data.hidden);
    this.shown = text;
    this.rows = data.rows;
    this.columns = data.columns;
    this.fill();
  }

  send() {
    this.fill();
    this.state("hidden", [...this.hidden]); // names: the order of the rows may change meanwhile
  }

  /** @param {ArmRow} row */
  matches(row) {
    const words = this.filter.value.toLowerCase().split(/\s+/);
    const text = `${row.name} ${row.cells.verdict[0]}`.toLowerCase();
    return words.every((word) => text.includes(word));
  }

  ordered() {
    if (!this.sorted) return this.rows; // as sent: the best first
    const known = (row) => row.cells[this.sorted][1];
    return [...this.rows].sort((a, b) => {
      const [x, y] = [known(a), known(b)];
      if (x === null || y === null) return Number(x === null) - Number(y === null); // without a value: last
      const order = typeof x === "string" ? x.localeCompare(String(y)) : Number(x) - Number(y);
      return this.descending ? -order : order;
    });
  }

  fill() {
    const active = /** @type {Document | ShadowRoot} */ (this.root.getRootNode()).activeElement;
    const focused = active instanceof HTMLElement ? active.dataset.focus : null;
    const table = element("table"), head = element("tr"), body = element("tbody");
    head.append(element("th", "", "Shown"));
    const images = this.rows.some((row) => row.image);
    if (images) head.append(element("th", "", "Mask"));
    for (const [key, label] of this.columns) {
      const cell = element("th"), button = /** @type {HTMLButtonElement} */ (element("button", "sort", label));
      const on = key === this.sorted;
      button.type = "button";
      button.dataset.focus = `sort ${key}`;
      button.append(element("span", "arrow", on ? (this.descending ? " ↓" : " ↑") : ""));
      cell.setAttribute("aria-sort", on ? (this.descending ? "descending" : "ascending") : "none");
      button.addEventListener("click", () => {
        const text = typeof this.rows[0].cells[key][1] === "string";
        this.descending = this.sorted === key ? !this.descending : !text;
        this.sorted = key;
        this.fill();
      });
      cell.append(button);
      head.append(cell);
    }
    head.append(element("th", "", "Runs"));
    const rows = this.ordered().filter((row) => this.matches(row));
    for (const row of rows) body.append(this.row(row, images));
    const top = element("thead");
    top.append(head);
    table.append(top, body);
    this.scroll.replaceChildren(table);
    const hidden = this.hidden.size, filtered = this.rows.length - rows.length;
    const counts = hidden ? [`${hidden} of ${this.rows.length} arms hidden`] : [`${this.rows.length} arms`];
    if (filtered) counts.push(`${rows.length} match`);
    this.note.textContent = counts.join(", ");
    this.all.hidden = !hidden;
    this.only.hidden = !filtered || !rows.length;
    if (focused) /** @type {HTMLElement} */ (this.scroll.querySelector(`[data-focus="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @param {ArmRow} row @param {boolean} images */
  row(row, images) {
    const line = element("tr", this.hidden.has(row.name) ? "off" : ""), first = element("td");
    const box = /** @type {HTMLInputElement} */ (element("input"));
    box.type = "checkbox";
    box.checked = !this.hidden.has(row.name);
    box.setAttribute("aria-label", `Show ${row.name} in the figures`);
    box.dataset.focus = `box ${row.name}`;
    box.addEventListener("change", () => {
      box.checked ? this.hidden.delete(row.name) : this.hidden.add(row.name);
      this.send();
    });
    first.append(box);
    line.append(first);
    if (images) {
      const cell = element("td");
      if (row.image) {
        const image = /** @type {HTMLImageElement} */ (element("img"));
        image.src = row.image;
        image.alt = "";
        cell.append(image);
      }
      line.append(cell);
    }
    for (const [key] of this.columns) {
      const cell = element("td", `${key} ${key === "verdict" ? row.sign : ""}`, row.cells[key][0]);
      if (key === "verdict") cell.title = row.title;
      line.append(cell);
    }
    const runs = element("td", "runs");
    for (const run of row.runs) {
      const link = /** @type {HTMLAnchorElement} */ (element("a", "", String(run.seed)));
      link.href = new URL(`train?run=${run.id}`, document.baseURI).href;
      link.title = `Run ${run.id}, seed ${run.seed}, ${run.word}`;
      link.setAttribute("aria-label", `Run of ${row.name} with seed ${run.seed}`);
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in another tab
        event.preventDefault();
        this.trigger("opened", run.id);
      });
      runs.append(link, " ");
    }
    line.append(runs);
    return line;
  }
}

/** @param {ComponentArguments<ArmsMessage>} component */
export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  /** @type {HTMLElement} */
  const root = parentElement.querySelector(".arms");
  let table = tables.get(root);
  if (!table) tables.set(root, (table = new ArmsTable(root)));
  table.update(data, setStateValue, setTriggerValue);
  return () => tables.delete(root);
}
