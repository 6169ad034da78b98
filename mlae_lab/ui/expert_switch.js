// @ts-check
// The experts of a run as switches. The browser owns what was clicked and sends it; `rev` rises only when Python
// replaces the state (reset, another mask, a link), so a slow answer never undoes a newer click.

/** @typedef {{ rev: number, keep: number[][], off: [number, number][], labels: string[], fill: number }} SwitchMessage */

/** @type {WeakMap<HTMLElement, Switches>} */
const boards = new WeakMap();
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

class Switches {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.rev = null;
    this.shape = "";
    /** @type {Set<string>} cells as "row,column" */
    this.off = new Set();
    root.addEventListener("click", (e) => this.click(/** @type {Element} */ (e.target).closest("button")));
    root.addEventListener("keydown", (e) => this.move(e));
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(root);
  }

  close() { this.watch.disconnect(); }

  /** @param {SwitchMessage} data @param {(name: string, value: unknown) => void} send */
  update(data, send) {
    this.send = send;
    this.keep = data.keep;
    this.labels = data.labels;
    const shape = JSON.stringify([data.keep, data.labels]);
    if (shape !== this.shape) { this.shape = shape; this.build(); }
    if (data.rev !== this.rev) {
      this.rev = data.rev;
      this.off = new Set(data.off.map(([r, c]) => `${r},${c}`));
    }
    this.root.style.setProperty("--fill", String(data.fill));
    this.paint();
  }

  /** The cells of a row that hold an expert.
   * @param {number | string} row */
  experts(row) { return this.keep[row].flatMap((kept, c) => (kept ? [`${row},${c}`] : [])); }

  /** @param {HTMLButtonElement | null} button */
  click(button) {
    if (!button) return;
    const { row, column } = button.dataset;
    const chosen = row === undefined ? this.keep.flatMap((kept, r) => (kept[column] ? [`${r},${column}`] : []))
      : column === undefined ? this.experts(row) : [`${row},${column}`];
    const on = chosen.some((cell) => this.off.has(cell)); // a layer with any expert off is switched on first
    for (const cell of chosen) on ? this.off.delete(cell) : this.off.add(cell);
    this.paint();
    this.send("edit", { rev: this.rev, off: [...this.off].map((cell) => cell.split(",").map(Number)) });
  }

  /** @param {KeyboardEvent} event */
  move(event) {
    const target = /** @type {HTMLElement} */ (event.target), step = ARROWS[event.key], from = target.dataset;
    if (!step || from.row === undefined || from.column === undefined) return;
    let [r, c] = [Number(from.row) + step[0], Number(from.column) + step[1]];
    while (this.keep[r] && c >= 0 && c < this.keep[r].length && !this.keep[r][c]) { r += step[0]; c += step[1]; }
    /** @type {HTMLElement} */
    const next = this.root.querySelector(`button[data-row="${r}"][data-column="${c}"]`);
    if (!next) return;
    event.preventDefault();
    target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  build() {
    const board = document.createElement("div");
    board.className = "es-board";
    board.setAttribute("role", "group");
    board.setAttribute("aria-label", "Experts of the run: press a cell to switch its expert off or on, a layer's number for the whole layer; arrow keys move");
    const button = (style, data, text, title) => {
      const created = document.createElement("button");
      created.type = "button";
      created.className = style;
      Object.assign(created.dataset, data);
      created.textContent = text;
      created.title = title;
      created.setAttribute("aria-label", title);
      board.append(created);
      return created;
    };
    board.append(document.createElement("span"));
    this.keep[0].forEach((_, c) => button("es-head", { column: c }, c + 1, `Expert ${c + 1} in all layers`));
    let first = true;
    this.keep.forEach((kept, r) => {
      button("es-side", { row: r }, this.labels[r], `All experts of layer ${this.labels[r]}`);
      kept.forEach((exists, c) => {
        if (exists) {
          button("es-cell", { row: r, column: c }, "", `Layer ${this.labels[r]}, expert ${c + 1}`).tabIndex = first ? 0 : -1;
          first = false;
        } else {
          const none = document.createElement("span");
          none.className = "es-none";
          none.title = `Layer ${this.labels[r]}, expert ${c + 1}: not in this run`;
          board.append(none);
        }
      });
    });
    this.root.replaceChildren(board);
    this.fit();
  }

  fit() {
    const board = /** @type {HTMLElement} */ (this.root.firstChild), wide = this.root.clientWidth;
    if (!board || !wide || !this.keep) return;
    const rows = this.keep.length, columns = this.keep[0].length, side = this.labels.some((l) => l.length > 3) ? 62 : 32;
    const most = rows > 30 ? 22 : rows > 14 ? 28 : 38;
    const cell = Math.max(16, Math.min(most, Math.floor((wide - side - 4) / columns) - 4));
    board.style.gridTemplateColumns = `${side}px repeat(${columns}, ${cell}px)`;
    board.style.setProperty("--cell", cell + "px");
  }

  paint() {
    for (const cell of /** @type {NodeListOf<HTMLElement>} */ (this.root.querySelectorAll(".es-cell"))) {
      const on = !this.off.has(`${cell.dataset.row},${cell.dataset.column}`);
      cell.setAttribute("aria-pressed", String(on));
    }
  }
}

/** @param {ComponentArguments<SwitchMessage>} component */
export default function ({ data, parentElement, setStateValue }) {
  /** @type {HTMLElement} */
  const root = parentElement.querySelector(".es");
  let board = boards.get(root);
  if (!board) boards.set(root, (board = new Switches(root)));
  board.update(data, setStateValue);
  return () => { board.close(); boards.delete(root); };
}
