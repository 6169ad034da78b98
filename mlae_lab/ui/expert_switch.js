// @ts-check
// The experts of a run as switches, clicked or painted with a drag. The browser owns what was clicked and sends it; `rev`
// rises only when Python replaces the state (reset, another mask, a link), so a slow answer never undoes a newer click.
// A drag is one edit. The undo history is that of this board; what Python replaced can be undone, too.

/** @typedef {{ rev: number, keep: number[][], off: [number, number][], labels: string[], fill: number }} SwitchMessage */

/** @type {WeakMap<HTMLElement, Switches>} */
const boards = new WeakMap();
const UNDO_STEPS = 200;
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** @param {Set<string>} a @param {Set<string>} b */
const same = (a, b) => a.size === b.size && [...a].every((cell) => b.has(cell));

class Switches {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.rev = null;
    this.shape = "";
    /** @type {Set<string>} cells as "row,column" */
    this.off = new Set();
    /** @type {Set<string>[]} */
    this.past = [];
    /** @type {{ on: boolean, before: Set<string>, last: [x: number, y: number] } | null} a drag over cells */
    this.stroke = null;
    this.handled = false; // the click that follows a stroke
    root.addEventListener("click", (e) => this.click(e));
    root.addEventListener("keydown", (e) => this.move(e));
    root.addEventListener("pointerdown", (e) => this.down(e));
    root.addEventListener("pointermove", (e) => this.drag(e));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) root.addEventListener(end, () => this.up());
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
      const off = new Set(data.off.map(([r, c]) => `${r},${c}`));
      if (this.rev !== null && !same(off, this.off)) this.past.push(this.off);
      this.rev = data.rev;
      this.off = off;
      this.stroke = null;
    }
    this.root.style.setProperty("--fill", String(data.fill));
    this.paint();
  }

  /** The cells of a row that hold an expert.
   * @param {number | string} row */
  experts(row) { return this.keep[row].flatMap((kept, c) => (kept ? [`${row},${c}`] : [])); }

  /** @param {MouseEvent} event */
  click(event) {
    if (this.handled && event.detail) return; // the end of a stroke; a key has detail 0
    const button = /** @type {Element} */ (event.target).closest("button");
    if (!button) return;
    if (button.dataset.act) { this.undo(); return; }
    const { row, column } = button.dataset;
    const chosen = row === undefined ? this.keep.flatMap((kept, r) => (kept[column] ? [`${r},${column}`] : []))
      : column === undefined ? this.experts(row) : [`${row},${column}`];
    const on = chosen.some((cell) => this.off.has(cell)); // a layer with any expert off is switched on first
    const before = new Set(this.off);
    for (const cell of chosen) on ? this.off.delete(cell) : this.off.add(cell);
    this.changed(before);
  }

  /** One step of undo, one edit.
   * @param {Set<string>} before */
  changed(before) {
    if (!same(before, this.off)) {
      this.past = [...this.past, before].slice(-UNDO_STEPS);
      this.commit();
    }
    this.paint();
  }

  commit() {
    this.send("edit", { rev: this.rev, off: [...this.off].map((cell) => cell.split(",").map(Number)) });
  }

  undo() {
    if (!this.past.length) return;
    this.off = this.past.pop();
    this.commit();
    this.paint();
  }

  // ---------------------------------------------------------------- a drag

  /** The cell with an expert at a point of the window.
   * @param {number} x @param {number} y @returns {HTMLElement | null} */
  at(x, y) {
    const part = /** @type {Document | ShadowRoot} */ (this.root.getRootNode()).elementFromPoint(x, y);
    return part && this.root.contains(part) ? part.closest(".es-cell") : null;
  }

  /** @param {PointerEvent} event */
  down(event) {
    this.handled = false;
    const cell = this.at(event.clientX, event.clientY);
    if (event.button > 0 || !cell) return;
    this.handled = true;
    const on = this.off.has(`${cell.dataset.row},${cell.dataset.column}`); // the opposite of the first cell's state
    this.stroke = { on, before: new Set(this.off), last: [event.clientX, event.clientY] };
    this.root.setPointerCapture(event.pointerId);
    this.focusOn(cell);
    this.drag(event);
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (!this.stroke) return;
    const { on, last: [x0, y0] } = this.stroke, [x1, y1] = [event.clientX, event.clientY];
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / 8)); // a fast drag skips no cell
    for (let i = 1; i <= steps; i++) {
      const cell = this.at(x0 + (i / steps) * (x1 - x0), y0 + (i / steps) * (y1 - y0));
      if (!cell) continue;
      const name = `${cell.dataset.row},${cell.dataset.column}`;
      on ? this.off.delete(name) : this.off.add(name);
    }
    this.stroke.last = [x1, y1];
    this.paint();
  }

  up() {
    if (!this.stroke) return;
    const { before } = this.stroke;
    this.stroke = null;
    this.changed(before);
  }

  /** @param {HTMLElement} cell */
  focusOn(cell) {
    /** @type {HTMLElement | null} */
    const current = this.root.querySelector('.es-cell[tabindex="0"]');
    if (current) current.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  }

  /** @param {KeyboardEvent} event */
  move(event) {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      this.undo();
      return;
    }
    const target = /** @type {HTMLElement} */ (event.target), step = ARROWS[event.key], from = target.dataset;
    if (!step || from.row === undefined || from.column === undefined) return;
    let [r, c] = [Number(from.row) + step[0], Number(from.column) + step[1]];
    while (this.keep[r] && c >= 0 && c < this.keep[r].length && !this.keep[r][c]) { r += step[0]; c += step[1]; }
    /** @type {HTMLElement} */
    const next = this.root.querySelector(`button[data-row="${r}"][data-column="${c}"]`);
    if (!next) return;
    event.preventDefault();
    if (next.classList.contains("es-cell")) this.focusOn(next);
    else next.focus();
  }

  build() {
    const board = document.createElement("div");
    board.className = "es-board";
    board.setAttribute("role", "group");
    board.setAttribute("aria-label", "Experts of the run: press a cell to switch its expert off or on, a layer's number for the whole layer; drag for several; arrow keys move, Control Z undoes");
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
    if (this.labels.every((label) => label.length <= 3)) {
      const axis = document.createElement("div");
      axis.className = "es-axis";
      axis.setAttribute("aria-hidden", "true");
      axis.append(...["input", "", "output"].map((end) => Object.assign(document.createElement("span"), { textContent: end })));
      board.append(axis);
    }
    const bar = document.createElement("div");
    bar.className = "es-bar";
    this.back = document.createElement("button");
    this.back.type = "button";
    this.back.dataset.act = "undo";
    this.back.textContent = "Undo";
    this.back.title = "Control Z";
    bar.append(this.back);
    this.past = [];
    this.root.replaceChildren(board, bar);
    this.fit();
  }

  fit() {
    const board = /** @type {HTMLElement} */ (this.root.firstChild), wide = this.root.clientWidth;
    if (!board || !wide || !this.keep) return;
    const rows = this.keep.length, columns = this.keep[0].length, side = this.labels.some((l) => l.length > 3) ? 62 : 42;
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
    this.back.setAttribute("aria-disabled", String(!this.past.length));
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
