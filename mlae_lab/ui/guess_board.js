// @ts-check
// A guess by direct manipulation: one row of a grid, some of its cells, or the points of a curve. The browser owns the
// guess and sends it complete; `rev` rises only when Python replaces it.

/** @typedef {{ mode: "row" | "cells" | "curve", rev: number, value: any, rows: number, columns: number, count: number,
 *   x: number[], given: number, low: number, high: number, x_label: string }} GuessMessage */

/** @type {WeakMap<HTMLElement, GuessBoard>} */
const guessBoards = new WeakMap();
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const WIDE = 620, HIGH = 330, EDGE = { left: 62, right: 40, top: 16, bottom: 44 };

class GuessBoard {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.board = /** @type {HTMLElement} */ (root.querySelector(".gb-board"));
    this.status = /** @type {HTMLElement} */ (root.querySelector(".gb-status"));
    this.rev = null;
    this.shape = "";
    /** @type {number | null} */
    this.row = null;
    /** @type {Set<string>} cells as "row,column" */
    this.cells = new Set();
    /** @type {number[]} */
    this.points = [];
    this.touched = false;
    this.board.addEventListener("click", (e) => this.click(/** @type {Element} */ (e.target).closest("button")));
    this.board.addEventListener("keydown", (e) => this.key(e));
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(root);
  }

  close() { this.watch.disconnect(); }

  /** @param {GuessMessage} data @param {(name: string, value: unknown) => void} send */
  update(data, send) {
    this.data = data;
    this.send = send;
    const { value: _, rev: __, ...rest } = data, shape = JSON.stringify(rest);
    if (data.rev !== this.rev) {
      this.rev = data.rev;
      this.touched = data.value !== null;
      if (data.mode === "row") this.row = data.value;
      if (data.mode === "cells") this.cells = new Set((data.value || []).map((cell) => cell.join(",")));
      if (data.mode === "curve") this.points = data.value || data.x.slice(1).map(() => data.given);
    }
    if (shape !== this.shape) { this.shape = shape; this.build(); }
    this.paint();
  }

  report() {
    const { mode, count } = this.data;
    let value = null;
    if (mode === "row") value = this.row;
    if (mode === "cells" && this.cells.size === count) value = [...this.cells].map((cell) => cell.split(",").map(Number));
    if (mode === "curve" && this.touched) value = this.points.map((point) => Math.round(point));
    this.send("value", { rev: this.rev, value });
  }

  // ---------------------------------------------------------------- grids

  /** @param {HTMLElement | null} button */
  click(button) {
    if (!button || this.data.mode === "curve") return;
    if (this.data.mode === "row") this.choose(Number(button.dataset.row));
    else this.toggle(`${button.dataset.row},${button.dataset.column}`);
  }

  /** @param {number} row */
  choose(row) { this.row = row; this.paint(); this.report(); }

  /** @param {string} cell */
  toggle(cell) {
    if (this.cells.has(cell)) this.cells.delete(cell);
    else if (this.cells.size < this.data.count) this.cells.add(cell);
    else { this.status.textContent = `All ${this.data.count} are picked. Press one of them again to release it.`; return; }
    this.paint();
    this.report();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = STEPS[event.key], target = /** @type {HTMLElement} */ (event.target);
    if (this.data.mode === "curve") return this.keyOfCurve(event, target);
    if (!step) return;
    event.preventDefault();
    if (this.data.mode === "row") {
      const row = Math.max(0, Math.min(this.data.rows - 1, Number(target.dataset.row) + step[0] + step[1]));
      this.choose(row);
      /** @type {HTMLElement} */ (this.board.querySelector(`[data-row="${row}"]`)).focus();
      return;
    }
    const row = Number(target.dataset.row) + step[0], column = Number(target.dataset.column) + step[1];
    /** @type {HTMLElement | null} */
    const next = this.board.querySelector(`[data-row="${row}"][data-column="${column}"]`);
    if (!next) return;
    target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  build() {
    const { mode, rows, columns } = this.data;
    this.board.replaceChildren();
    this.board.className = `gb-board gb-${mode}`;
    if (mode === "curve") return this.buildCurve();
    this.board.setAttribute("role", mode === "row" ? "radiogroup" : "group");
    this.board.setAttribute("aria-label", mode === "row"
      ? "Twelve layers: choose one; arrow keys move" : "Twelve layers by eight experts: press a cell to pick it; arrow keys move");
    for (let r = 0; r < rows; r++) {
      const name = document.createElement("span");
      name.className = "gb-name";
      name.textContent = `${r === 0 ? "input " : r === rows - 1 ? "output " : ""}${r + 1}`;
      const button = (column) => {
        const created = document.createElement("button");
        created.type = "button";
        created.dataset.row = String(r);
        if (column !== null) created.dataset.column = String(column);
        created.setAttribute("aria-label", column === null ? `Layer ${r + 1}` : `Layer ${r + 1}, expert ${column + 1}`);
        created.title = created.getAttribute("aria-label");
        return created;
      };
      if (mode === "row") {
        const line = button(null);
        line.className = "gb-line";
        line.setAttribute("role", "radio");
        line.append(name, ...Array.from({ length: columns }, () => Object.assign(document.createElement("i"), { className: "gb-cell" })));
        this.board.append(line);
      } else {
        const line = document.createElement("div");
        line.className = "gb-line";
        line.append(name);
        for (let c = 0; c < columns; c++) {
          const cell = button(c);
          cell.className = "gb-cell";
          cell.tabIndex = r === 0 && c === 0 ? 0 : -1;
          line.append(cell);
        }
        this.board.append(line);
      }
    }
    this.fit();
  }

  fit() {
    if (!this.data || this.data.mode === "curve" || !this.root.clientWidth) return;
    const cell = Math.max(18, Math.min(34, Math.floor((this.root.clientWidth - 84) / this.data.columns) - 4));
    this.board.style.setProperty("--cell", cell + "px");
  }

  paint() {
    const { mode, count } = this.data;
    if (mode === "row") {
      this.board.querySelectorAll("[data-row]").forEach((line) => {
        const row = Number(/** @type {HTMLElement} */ (line).dataset.row), on = row === this.row;
        line.setAttribute("aria-checked", String(on));
        /** @type {HTMLElement} */ (line).tabIndex = on || (this.row === null && row === 0) ? 0 : -1;
      });
      this.status.textContent = this.row === null ? "No layer is chosen yet." : `Layer ${this.row + 1} gets the eight experts.`;
    } else if (mode === "cells") {
      this.board.querySelectorAll("[data-row]").forEach((cell) => {
        const { row, column } = /** @type {HTMLElement} */ (cell).dataset;
        cell.setAttribute("aria-pressed", String(this.cells.has(`${row},${column}`)));
      });
      this.status.textContent = `${this.cells.size} of ${count} experts are picked.`;
    } else this.paintCurve();
  }

  // ---------------------------------------------------------------- the curve

  /** @param {number} x */
  toX(x) { const most = Math.max(...this.data.x); return EDGE.left + (x / most) * (WIDE - EDGE.left - EDGE.right); }
  /** @param {number} y */
  toY(y) {
    const { low, high } = this.data;
    return EDGE.top + ((high - y) / (high - low)) * (HIGH - EDGE.top - EDGE.bottom);
  }
  /** @param {number} y */
  fromY(y) {
    const { low, high } = this.data;
    const value = high - ((y - EDGE.top) / (HIGH - EDGE.top - EDGE.bottom)) * (high - low);
    return Math.max(low, Math.min(high, value));
  }

  buildCurve() {
    const { x, given, low, high, x_label } = this.data;
    this.board.removeAttribute("role");
    this.board.setAttribute("aria-label", "");
    const levels = [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
    const grid = levels.map((level) => `<line class="gb-grid" x1="${EDGE.left}" x2="${WIDE - EDGE.right}" y1="${this.toY(level)}" y2="${this.toY(level)}"/>`
      + `<text class="gb-tick" x="${EDGE.left - 8}" y="${this.toY(level) + 4}" text-anchor="end">${level} %</text>`).join("");
    const ticks = x.map((at) => `<text class="gb-tick" x="${this.toX(at)}" y="${HIGH - 24}" text-anchor="middle">${at}</text>`).join("");
    const handles = x.slice(1).map((at, i) => `<g class="gb-handle" data-point="${i}" role="slider" tabindex="0" aria-orientation="vertical"
      aria-label="Accuracy at ${x_label} ${at}" aria-valuemin="${low}" aria-valuemax="${high}"><circle class="gb-reach" r="22"/><circle class="gb-dot" r="10"/>
      <text class="gb-value" text-anchor="middle"></text></g>`).join("");
    this.board.innerHTML = `<svg viewBox="0 0 ${WIDE} ${HIGH}" role="group" aria-label="Accuracy over ${x_label}: drag the points, or use the arrow keys">
      ${grid}${ticks}<text class="gb-tick" x="${(WIDE + EDGE.left) / 2}" y="${HIGH - 4}" text-anchor="middle">${x_label}</text>
      <polyline class="gb-path"/><circle class="gb-given" r="8" cx="${this.toX(x[0])}" cy="${this.toY(given)}"/>
      <text class="gb-value" x="${this.toX(x[0]) + 14}" y="${this.toY(given) - 12}">${Math.round(given)} % (given)</text>${handles}</svg>`;
    const svg = /** @type {SVGSVGElement} */ (this.board.querySelector("svg"));
    this.board.querySelectorAll(".gb-handle").forEach((handle) => {
      const element = /** @type {SVGElement & HTMLElement} */ (handle), index = Number(element.dataset.point);
      const follow = (/** @type {PointerEvent} */ e) => {
        const box = svg.getBoundingClientRect();
        this.set(index, this.fromY(((e.clientY - box.top) / box.height) * HIGH), false);
      };
      element.addEventListener("pointerdown", (e) => {
        e.preventDefault();
        element.focus();
        element.setPointerCapture(e.pointerId);
        element.addEventListener("pointermove", follow);
      });
      const end = () => { element.removeEventListener("pointermove", follow); if (this.touched) this.report(); };
      element.addEventListener("pointerup", end);
      element.addEventListener("pointercancel", end);
    });
  }

  /** @param {number} index @param {number} value @param {boolean} send */
  set(index, value, send) {
    this.touched = true;
    this.points[index] = Math.max(this.data.low, Math.min(this.data.high, value));
    this.paintCurve();
    if (send) this.report();
  }

  /** @param {KeyboardEvent} event @param {HTMLElement} target */
  keyOfCurve(event, target) {
    const handle = /** @type {HTMLElement | null} */ (target.closest(".gb-handle"));
    const change = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (!handle || !change) return;
    event.preventDefault();
    const index = Number(handle.dataset.point);
    this.set(index, Math.round(this.points[index]) + change, true);
  }

  paintCurve() {
    const { x, given } = this.data;
    const line = [[x[0], given], ...this.points.map((y, i) => [x[i + 1], y])];
    this.board.querySelector(".gb-path")?.setAttribute("points", line.map(([a, b]) => `${this.toX(a)},${this.toY(b)}`).join(" "));
    this.board.querySelectorAll(".gb-handle").forEach((handle, i) => {
      handle.setAttribute("transform", `translate(${this.toX(x[i + 1])} ${this.toY(this.points[i])})`);
      handle.setAttribute("aria-valuenow", String(Math.round(this.points[i])));
      handle.setAttribute("aria-valuetext", `${Math.round(this.points[i])} %`);
      const label = handle.querySelector(".gb-value");
      label.textContent = `${Math.round(this.points[i])} %`;
      label.setAttribute("y", this.points[i] > this.data.high - 12 ? "28" : "-16");
    });
    this.status.textContent = this.touched ? "" : "Drag at least one point.";
  }
}

/** @param {ComponentArguments<GuessMessage>} component */
export default function ({ data, parentElement, setStateValue }) {
  /** @type {HTMLElement} */
  const root = parentElement.querySelector(".gb");
  let board = guessBoards.get(root);
  if (!board) guessBoards.set(root, (board = new GuessBoard(root)));
  board.update(data, setStateValue);
  return () => { board.close(); guessBoards.delete(root); };
}
