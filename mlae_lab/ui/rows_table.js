// @ts-check
// A table of rows with a check box each. The browser owns which rows are marked, and where the server does not sort and
// filter, order and filter, too. Python sends rows, texts, and which rows are marked at the start.

/**
 * @typedef {{ id: string, text: string, title?: string, label: string }} Link
 * @typedef {{ id: string, cells: Record<string, [string, number | string | null]>, image?: number, small?: string,
 *   links?: Record<string, Link[]>, styles?: Record<string, string>, titles?: Record<string, string>,
 *   group?: number }} Row
 * @typedef {{ check: string, box: string, region: string, one: string, many: string, filter?: string,
 *   filterLabel?: string }} Words
 * @typedef {{ kind: string, rows: Row[], columns: [string, string, boolean][], images: string[], marked: string[],
 *   all: string[], hides: boolean, words: Words, searched?: string[], sorted?: [string, boolean],
 *   groups?: [string, string][] }} Message
 */

/** @type {WeakMap<HTMLElement, RowsTable>} */
const tables = new WeakMap();

/** @param {string} tag @param {string} [style] @param {string} [text] */
function element(tag, style, text) {
  const created = document.createElement(tag);
  if (style) created.className = style;
  if (text !== undefined) created.textContent = text;
  return created;
}

class RowsTable {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {Set<string>} ids of rows */
    this.marked = new Set();
    this.sorted = "";
    this.descending = true;
    this.shown = "";
    this.filter = /** @type {HTMLInputElement} */ (element("input"));
    this.filter.type = "search";
    this.filter.addEventListener("input", () => this.fill());
    this.note = element("span", "note");
    this.note.setAttribute("role", "status");
    this.none = this.action(() => { this.marked.clear(); });
    this.every = this.action(() => {
      this.marked = new Set(this.data.hides ? this.rows.filter((row) => !this.matches(row)).map((row) => row.id)
        : this.data.all);
    });
    this.bar = element("div", "bar");
    this.bar.append(this.filter, this.note, this.none, this.every);
    this.scroll = element("div", "scroll");
    this.scroll.tabIndex = 0; // a scrolled region can be reached with the keyboard
    this.scroll.setAttribute("role", "region");
    root.replaceChildren(this.bar, this.scroll);
  }

  /** @param {() => void} act */
  action(act) {
    const button = /** @type {HTMLButtonElement} */ (element("button", "action"));
    button.type = "button";
    button.addEventListener("click", () => { act(); this.send(); });
    return button;
  }

  /** @param {Message} data @param {(name: string, value: unknown) => void} state
   * @param {(name: string, value: unknown) => void} trigger */
  update(data, state, trigger) {
    this.state = state;
    this.trigger = trigger;
    const text = JSON.stringify(data);
    if (text === this.shown) return;
    if (!this.shown) {
      this.marked = new Set(data.marked);
      this.root.classList.add(data.kind);
      this.filter.hidden = !data.words.filter;
      this.filter.placeholder = data.words.filter ?? "";
      this.filter.setAttribute("aria-label", data.words.filterLabel ?? "");
      this.scroll.setAttribute("aria-label", data.words.region);
    }
    this.shown = text;
    this.data = data;
    this.rows = data.rows;
    const known = new Set(data.all);
    const before = this.marked.size;
    for (const id of this.marked) if (!known.has(id)) this.marked.delete(id); // gone, or filtered out by the server
    if (this.marked.size < before) this.send(); // the server acts on what is marked here, on nothing else
    else this.fill();
  }

  send() {
    this.fill();
    this.state("marked", [...this.marked]); // ids: the order of the rows may change meanwhile
  }

  /** @param {Row} row */
  matches(row) {
    const words = this.filter.value.toLowerCase().split(/\s+/);
    const text = (this.data.searched ?? []).map((key) => row.cells[key][0]).join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  ordered() {
    if (!this.sorted || this.data.sorted) return this.rows; // as sent
    const known = (/** @type {Row} */ row) => row.cells[this.sorted][1];
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
    const rows = this.ordered().filter((row) => this.matches(row));
    const table = element("table"), body = element("tbody"), images = this.rows.some((row) => row.image !== undefined);
    let group = -1;
    for (const row of rows) {
      if (row.group !== undefined && row.group !== group) body.append(this.groupRow((group = row.group), images));
      body.append(this.row(row, images));
    }
    const top = element("thead");
    top.append(this.head(rows, images));
    table.append(top, body);
    this.scroll.replaceChildren(table);
    this.fillBar(rows);
    if (focused) /** @type {HTMLElement} */ (this.scroll.querySelector(`[data-focus="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @param {Row[]} rows */
  fillBar(rows) {
    const { words, hides, all } = this.data, marked = this.marked.size, filtered = this.rows.length - rows.length;
    const total = `${all.length.toLocaleString("en")} ${all.length === 1 ? words.one : words.many}`;
    const counts = marked ? [`${marked.toLocaleString("en")} of ${total} ${hides ? "hidden" : "selected"}`] : [total];
    if (filtered) counts.push(`${rows.length} match`);
    this.note.textContent = counts.join(", ");
    this.none.textContent = hides ? "Show all" : "Clear selection";
    this.every.textContent = hides ? "Show only these" : `Select all ${total}`;
    this.none.hidden = !marked;
    this.every.hidden = hides ? !filtered || !rows.length : marked === all.length || all.length < 2;
  }

  /** @param {Row[]} rows @param {boolean} images */
  head(rows, images) {
    const line = element("tr"), first = element("th", "", this.data.hides ? this.data.words.check : "");
    if (!this.data.hides) {
      const box = this.box("all rows", rows.length > 0 && rows.every((row) => this.marked.has(row.id)),
        "Select all rows of this page", (on) => {
          for (const row of rows) on ? this.marked.add(row.id) : this.marked.delete(row.id);
        });
      first.append(box);
    }
    line.append(first);
    if (images) line.append(element("th", "", "Mask"));
    const [sorted, descending] = this.data.sorted ?? [this.sorted, this.descending];
    for (const [key, label, sortable] of this.data.columns) {
      if (!sortable) {
        line.append(element("th", "", label));
        continue;
      }
      const cell = element("th"), button = /** @type {HTMLButtonElement} */ (element("button", "sort", label));
      const on = key === sorted;
      button.type = "button";
      button.dataset.focus = `sort ${key}`;
      button.append(element("span", "arrow", on ? (descending ? " ↓" : " ↑") : ""));
      cell.setAttribute("aria-sort", on ? (descending ? "descending" : "ascending") : "none");
      button.addEventListener("click", () => {
        if (this.data.sorted) return this.trigger("sorted", key);
        const text = typeof this.rows[0].cells[key][1] === "string";
        this.descending = this.sorted === key ? !this.descending : !text;
        this.sorted = key;
        this.fill();
      });
      cell.append(button);
      line.append(cell);
    }
    return line;
  }

  /** @param {number} index @param {boolean} images */
  groupRow(index, images) {
    const [title, note] = (this.data.groups ?? [])[index];
    const line = element("tr", "group"), cell = /** @type {HTMLTableCellElement} */ (element("th", "", title));
    cell.colSpan = this.data.columns.length + 1 + Number(images);
    cell.scope = "rowgroup";
    cell.append(element("span", "", ` ${note}`));
    line.append(cell);
    return line;
  }

  /** @param {string} name @param {boolean} on @param {string} label @param {(on: boolean) => void} mark */
  box(name, on, label, mark) {
    const box = /** @type {HTMLInputElement} */ (element("input"));
    box.type = "checkbox";
    box.checked = on;
    box.setAttribute("aria-label", label);
    box.dataset.focus = `box ${name}`;
    box.addEventListener("change", () => { mark(box.checked); this.send(); });
    return box;
  }

  /** @param {Row} row @param {boolean} images */
  row(row, images) {
    const { hides, words } = this.data, marked = this.marked.has(row.id);
    const line = element("tr", marked ? (hides ? "off" : "on") : ""), first = element("td");
    first.append(this.box(row.id, marked !== hides, words.box.replace("{}", row.cells.name[0]), (on) => {
      on !== hides ? this.marked.add(row.id) : this.marked.delete(row.id);
    }));
    line.append(first);
    if (images) {
      const cell = element("td", "image");
      if (row.image !== undefined) {
        const image = /** @type {HTMLImageElement} */ (element("img"));
        image.src = this.data.images[row.image];
        image.alt = "";
        cell.append(image);
      }
      line.append(cell);
    }
    for (const [key] of this.data.columns) {
      const links = row.links?.[key];
      const cell = element("td", `${key} ${row.styles?.[key] ?? ""}`, links ? "" : row.cells[key][0]);
      if (row.titles?.[key]) cell.title = row.titles[key];
      for (const entry of links ?? []) cell.append(this.link(entry), " ");
      if (key === "name" && row.small) cell.append(element("small", "", row.small));
      line.append(cell);
    }
    return line;
  }

  /** @param {Link} entry */
  link(entry) {
    const link = /** @type {HTMLAnchorElement} */ (element("a", "", entry.text));
    link.href = new URL(`train?run=${entry.id}`, document.baseURI).href;
    link.title = entry.title ?? "";
    link.setAttribute("aria-label", entry.label);
    link.dataset.focus = `link ${entry.id}`;
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in another tab
      event.preventDefault();
      this.trigger("opened", entry.id);
    });
    return link;
  }
}

/** @param {ComponentArguments<Message>} component */
export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  /** @type {HTMLElement} */
  const root = parentElement.querySelector(".rows-table");
  let table = tables.get(root);
  if (!table) tables.set(root, (table = new RowsTable(root)));
  table.update(data, setStateValue, setTriggerValue);
  return () => tables.delete(root);
}
