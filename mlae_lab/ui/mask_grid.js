// @ts-check
// The canvas. Python holds the document {rev, keep, rate, targets}; this file paints locally at once and commits
// when a gesture ends. `rev` rises only when Python replaces the document, so an edit in flight is never lost and an
// old echo never overwrites a newer stroke. The undo history lives in the tab, in its session storage, so that it survives a
// reload; what Python replaces can be undone too.

/**
 * A cell; row -1 is the head of a column, column -1 the label of a layer.
 * @typedef {[row: number, column: number]} Position
 * @typedef {{ keep: number[][], rate: number[][], targets: string[], labels: string[], groups: string[] }} Doc
 * @typedef {Doc & { rev: number, family: string }} GridMessage family: what the rows belong to, such as a backbone
 * @typedef {{ past: Doc[], future: Doc[], doc: Doc }} History
 *
 * A gesture. from, to: corners of a block; value: what the cells are set to; boxes: of the bars of a curve.
 * @typedef {object} Stroke
 * @property {"paste" | "columns" | "rows" | "cells" | "block" | "curve"} kind
 * @property {Position} [from]
 * @property {Position} [to]
 * @property {boolean | number} [value]
 * @property {DOMRect[]} [boxes]
 * @property {Doc} [before] the document when the gesture began
 * @property {[x: number, y: number]} [last] position of the pointer
 */

/** @type {WeakMap<HTMLElement | ShadowRoot, Board>} */
const boards = new WeakMap();
const STORED = "mlae-lab-undo:"; // and the family
const MOST = 0.95, STEP = 0.05, UNDO_STEPS = 300, LEAST_TRACK = 66;
const ABOVE = 318, LEAST_CELL = 28; // pixels of the page above the first row and under the last; a cell fitted to the window
const HELP = {
  exists: "Drag to add or remove experts. Drag along the numbers for whole layers or columns; hold Shift for a block.",
  rate: "Drag to set p of existing experts. Drag down the bars on the right to set p of several layers in one stroke.",
  block: "Drag a block: all its cells get the value of the first one.",
  copy: "Press the layer to copy.",
};

/** @type {(p: number) => number} */
const rounded = (p) => Math.round(p * 100) / 100;
/** @type {(p: number) => string} */
const text = (p) => (p === 0 ? "" : String(rounded(p)).replace(/^0/, ""));
/** @type {(part: HTMLElement) => Position} a layer's label has no column */
const positionOf = ({ dataset: { row = -1, column = -1 } }) => [Number(row), Number(column)];
/** @type {(doc: Doc) => Doc} */
const copyOf = (doc) => ({ ...doc, keep: doc.keep.map((row) => [...row]), rate: doc.rate.map((row) => [...row]) });
/** @type {(a: Doc, b: Doc) => boolean} */
const equal = (a, b) => JSON.stringify([a.keep, a.rate, a.targets]) === JSON.stringify([b.keep, b.rate, b.targets]);

/** The undo history of a family in this tab; an empty one if there is none, or none that can be read.
 * @param {string} family @returns {History} */
function stored(family) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORED + family));
    if (kept && Array.isArray(kept.past) && Array.isArray(kept.future) && kept.doc && Array.isArray(kept.doc.keep)) return kept;
  } catch { /* no storage, or not a history */ }
  return { past: [], future: [], doc: null };
}

/** Store a history; where it is too large, only its later half, and so on.
 * @param {string} family @param {History} history */
function store(family, { past, future, doc }) {
  for (let kept = past; ; kept = kept.slice(-Math.floor(kept.length / 2))) {
    try {
      sessionStorage.setItem(STORED + family, JSON.stringify({ past: kept, future, doc }));
      return;
    } catch {
      if (kept.length < 2) return;
    }
  }
}

class Board {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    /** @type {HTMLElement} */
    this.root = parent.querySelector(".mg");
    /** @type {HTMLElement} */
    this.bar = this.root.querySelector(".mg-bar");
    /** @type {HTMLElement} */
    this.message = this.root.querySelector(".mg-message");
    /** @type {HTMLElement} */
    this.scroll = this.root.querySelector(".mg-scroll");
    /** @type {HTMLInputElement} */
    this.strength = this.root.querySelector(".mg-strength");
    /** @type {HTMLInputElement} */
    this.seed = this.root.querySelector(".mg-seed");
    /** @type {Doc} */
    this.doc = null;
    this.rev = null;
    /** @type {Stroke | null} */
    this.stroke = null;
    this.timer = null;
    /** @type {GridMessage | null} */
    this.waiting = null;
    this.layer = "exists";
    this.tool = "brush";
    /** @type {{ from: number, keep: number[], rate: number[] } | null} a copied layer */
    this.clip = null;
    /** @type {Position | null} */
    this.anchor = null;
    /** @type {Position} */
    this.focus = [0, 0];
    /** @type {Doc[]} */
    this.past = [];
    /** @type {Doc[]} */
    this.future = [];
    /** @type {Set<number>} rows to paint */
    this.dirty = new Set();
    /** @type {(target: HTMLElement, kind: string, act: (event: any) => void) => void} */
    const on = (target, kind, act) => target.addEventListener(kind, act);
    on(this.scroll, "pointerdown", (e) => this.down(e));
    on(this.scroll, "pointermove", (e) => this.move(e));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) on(this.scroll, end, () => this.up());
    on(this.scroll, "click", (e) => this.click(e));
    on(this.scroll, "keydown", (e) => this.key(e));
    on(this.bar, "click", (e) => { const b = e.target.closest("button"); if (b) this.press(b); });
    on(this.strength, "input", () => { this.layer = "rate"; this.dress(); });
    on(this.root, "focusout", (e) => { if (!this.root.contains(e.relatedTarget)) this.leave(); });
    this.shortcut = (e) => this.undoKey(e);
    document.addEventListener("keydown", this.shortcut);
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(this.root);
    this.refit = () => this.fit();
    window.addEventListener("resize", this.refit);
    this.dress();
  }

  leave() { // the frame of a selected block belongs to the keyboard, which is elsewhere now
    this.anchor = null;
    this.mark();
    this.commit();
  }

  close() {
    this.commit();
    this.keep();
    document.removeEventListener("keydown", this.shortcut);
    window.removeEventListener("resize", this.refit);
    this.watch.disconnect();
  }

  // ------------------------------------------------------------ the document

  /** @param {GridMessage} data @param {(name: string, value: unknown) => void} send */
  update(data, send) {
    this.send = send;
    if (data.rev === this.rev) return;
    if (this.stroke) { this.waiting = data; return; }
    clearTimeout(this.timer);
    this.timer = null;
    const doc = copyOf({ keep: data.keep, rate: data.rate, targets: data.targets, labels: data.labels, groups: data.groups });
    if (!this.doc || data.family !== this.family) this.recall(data.family);
    if (this.doc) this.remember(doc);
    this.family = data.family;
    this.rev = data.rev;
    this.load(doc);
    this.keep();
  }

  /** Store the undo history of the shown family. */
  keep() {
    if (this.doc) store(this.family, { past: this.past, future: this.future, doc: this.doc });
  }

  /** Switch to the history of another family.
   * @param {string} family */
  recall(family) {
    const { past, future, doc } = stored(family);
    this.keep();
    [this.past, this.future, this.doc] = [past, future, doc];
  }

  /** @param {Doc} next */
  remember(next) {
    if (equal(this.doc, next)) return;
    this.past = [...this.past, copyOf(this.doc)].slice(-UNDO_STEPS);
    this.future = [];
  }

  /** @param {Doc} doc */
  load(doc) {
    const same = this.doc && this.cells && doc.keep.length === this.cells.length && doc.keep[0].length === this.cells[0].length
      && JSON.stringify(doc.targets) === JSON.stringify(this.built);
    this.doc = doc;
    this.anchor = null;
    if (same) for (let r = 0; r < doc.keep.length; r++) this.paint(r);
    else { this.clip = null; this.build(); }
    this.dress();
  }

  /** One step of undo, one commit.
   * @param {() => void} change @param {number} wait milliseconds before the commit @param {string | null} message */
  edit(change, wait = 0, message = null) {
    const before = copyOf(this.doc);
    change();
    this.flush();
    this.finish(before, wait, message);
  }

  /** @param {Doc} before @param {number} wait @param {string | null} message */
  finish(before, wait, message = null) {
    if (equal(before, this.doc)) { this.dress(message); return; }
    this.past = [...this.past, before].slice(-UNDO_STEPS);
    this.future = [];
    this.dress(message);
    this.changed(wait);
  }

  /** @param {Doc[]} from @param {Doc[]} to @param {string} message */
  travel(from, to, message) {
    if (!from.length) return;
    to.push(copyOf(this.doc));
    this.load(from.pop());
    this.dress(message);
    this.changed(0);
  }

  undo() { this.travel(this.past, this.future, "Undone."); }
  redo() { this.travel(this.future, this.past, "Redone."); }

  /** @param {number} wait */
  changed(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.commit(), wait);
    if (wait === 0) this.commit();
  }

  commit() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.keep();
    const { keep, rate, targets } = copyOf(this.doc);
    this.send("edit", { rev: this.rev, keep, rate, targets });
  }

  // ------------------------------------------------------------ the grid

  build() {
    const { keep, labels, groups, targets } = this.doc, rows = keep.length, columns = keep[0].length;
    const active = this.scroll.contains(/** @type {Document | ShadowRoot} */ (this.root.getRootNode()).activeElement);
    this.built = [...targets];
    const board = this.box("div", "mg-board", "grid");
    board.setAttribute("aria-label", `Mask: ${rows} layers by ${columns} experts. Arrow keys move, with Shift they mark a block; ` +
      "Space adds or removes experts or sets the rate; 0 to 9 set p in tenths; Control C and Control V copy a layer.");
    const head = this.row(board);
    head.append(this.box("span", "", "columnheader"));
    this.heads = keep[0].map((_, c) => {
      const button = this.box("button", "mg-head", "columnheader");
      button.textContent = String(c + 1);
      button.dataset.column = String(c);
      button.title = `Expert ${c + 1} in all layers`;
      button.setAttribute("aria-label", `Expert ${c + 1}: switch in all layers`);
      head.append(button);
      return button;
    });
    const title = this.box("span", "mg-rate mg-title", "columnheader");
    title.textContent = "drop rate p";
    head.append(title);
    /** @type {HTMLElement[][]} */
    this.cells = [];
    /** @type {HTMLElement[]} labels of the layers */
    this.sides = [];
    /** @type {[HTMLElement, HTMLOutputElement][]} */
    this.bars = [];
    const several = new Set(groups).size > 1;
    for (let r = 0; r < rows; r++) {
      if (several && groups[r] !== groups[r - 1]) {
        const name = document.createElement("div");
        name.className = "mg-group";
        name.textContent = `${groups[r]}, from input to output`;
        name.setAttribute("role", "presentation");
        board.append(name);
      }
      const row = this.row(board);
      const side = this.box("button", "mg-side", "rowheader");
      side.dataset.row = String(r);
      side.title = `All experts of layer ${labels[r]}`;
      side.setAttribute("aria-label", `Layer ${labels[r]}: switch all experts`);
      this.sides.push(side);
      row.append(side);
      this.cells.push(keep[r].map((_, c) => {
        const cell = this.box("div", "mg-cell", "gridcell");
        cell.dataset.row = String(r);
        cell.dataset.column = String(c);
        cell.append(document.createElement("span"));
        row.append(cell);
        return cell;
      }));
      const holder = this.box("div", "mg-rate", "gridcell");
      const track = this.box("div", "mg-track", "slider");
      track.tabIndex = 0;
      track.dataset.slider = String(r);
      for (const [name, value] of [["label", `Drop rate of layer ${labels[r]}`], ["valuemin", 0], ["valuemax", MOST]]) track.setAttribute("aria-" + name, String(value));
      track.append(document.createElement("i"));
      const output = document.createElement("output");
      holder.append(track, output);
      this.bars.push([track, output]);
      row.append(holder);
    }
    if (!several) {
      const axis = document.createElement("div");
      axis.className = "mg-axis";
      axis.setAttribute("aria-hidden", "true");
      axis.append(...["input", "", "output"].map((end) => Object.assign(document.createElement("span"), { textContent: end })));
      board.append(axis);
    }
    this.board = board;
    this.scroll.replaceChildren(board);
    this.fit();
    for (let r = 0; r < rows; r++) this.paint(r);
    this.focus = [Math.min(this.focus[0], rows - 1), Math.min(this.focus[1], columns - 1)];
    this.roving(active);
  }

  /** @param {HTMLElement} board */
  row(board) {
    const row = this.box("div", "mg-row", "row");
    board.append(row);
    return row;
  }

  /** @param {"div" | "span" | "button"} tag @param {string} style @param {string} role */
  box(tag, style, role) {
    const element = document.createElement(tag);
    element.className = style;
    element.setAttribute("role", role);
    if (element instanceof HTMLButtonElement) element.type = "button";
    return element;
  }

  fit() { // as large as there is space for, up to twelve rows in view, with at least 24 pixels from one cell to the next
    if (!this.board || !this.root.clientWidth) return;
    const rows = this.doc.keep.length, columns = this.doc.keep[0].length, several = new Set(this.doc.groups).size > 1;
    const wide = this.root.clientWidth, named = several && wide > 640, labels = named ? 58 : 40;
    const room = Math.floor((wide - labels - LEAST_TRACK - 66) / columns) - 3;
    const high = rows > 14 ? 40 : Math.max(LEAST_CELL, Math.floor((innerHeight - ABOVE) / rows) - 3);
    const cell = Math.max(21, Math.min(rows > 30 ? 26 : rows > 14 ? 32 : 40, room, high));
    const track = Math.max(LEAST_TRACK, Math.min(190, wide - labels - 66 - columns * (cell + 3)));
    this.sides.forEach((side, r) => { side.textContent = named ? this.doc.labels[r] : this.doc.labels[r].split(" ")[0]; });
    this.board.style.setProperty("--cell", cell + "px");
    this.board.style.setProperty("--track", track + "px");
    this.board.style.gridTemplateColumns = `${labels}px repeat(${columns}, ${cell}px) auto`;
  }

  /** @param {number} r */
  paint(r) {
    const kept = this.doc.keep[r], rates = this.doc.rate[r], name = this.doc.labels[r];
    kept.forEach((on, c) => {
      const cell = this.cells[r][c], p = rates[c], fill = on ? (p ? 0.76 * (1 - p) : 1) : 0;
      cell.classList.toggle("on", Boolean(on));
      cell.classList.toggle("off", !on);
      cell.classList.toggle("strong", fill >= 0.58);
      cell.style.setProperty("--fill", String(fill));
      cell.firstChild.textContent = on ? text(p) : "";
      cell.setAttribute("aria-selected", String(Boolean(on)));
      cell.setAttribute("aria-label", `Layer ${name}, expert ${c + 1}: ${on ? (p ? "on, drop rate " + rounded(p) : "on") : "masked"}`);
    });
    const [track, output] = this.bars[r], { value, shared, none } = this.rowRate(r);
    track.classList.toggle("none", none);
    track.setAttribute("aria-disabled", String(none));
    track.setAttribute("aria-valuenow", String(rounded(value)));
    track.style.setProperty("--at", (value / MOST) * 100 + "%");
    output.textContent = none ? "none" : shared ? value.toFixed(2) : "varies";
    track.setAttribute("aria-valuetext", none ? "no experts" : shared ? value.toFixed(2) : `varies, ${value.toFixed(2)} on average`);
  }

  /** @param {number} r */
  rowRate(r) {
    const present = this.doc.rate[r].filter((_, c) => this.doc.keep[r][c]);
    const shared = present.every((p) => p === present[0]);
    return { none: !present.length, shared, value: !present.length ? 0 : shared ? present[0] : present.reduce((a, b) => a + b) / present.length };
  }

  flush() {
    for (const r of this.dirty) this.paint(r);
    this.dirty.clear();
  }

  /** @param {string | null} message instead of the help text */
  dress(message = null) {
    for (const b of this.bar.querySelectorAll("button")) {
      if (b.dataset.layer) b.setAttribute("aria-pressed", String(b.dataset.layer === this.layer));
      if (b.dataset.tool) b.setAttribute("aria-pressed", String(b.dataset.tool === this.tool));
      if (b.dataset.act === "undo") b.setAttribute("aria-disabled", String(!this.past.length));
      if (b.dataset.act === "redo") b.setAttribute("aria-disabled", String(!this.future.length));
    }
    const p = Number(this.strength.value);
    this.root.querySelector(".mg-strong").textContent = p.toFixed(2);
    this.strength.style.setProperty("--at", (p / MOST) * 100 + "%");
    if (this.sides) this.sides.forEach((side, r) => side.classList.toggle("source", this.clip !== null && this.clip.from === r));
    const copied = this.clip && this.tool === "copy" && `Layer ${this.doc.labels[this.clip.from]} is copied: press or drag over layers to paste, press it a second time to end.`;
    this.message.textContent = message || copied || HELP[this.tool === "brush" ? this.layer : this.tool];
    this.mark();
  }

  mark() { // the block that is dragged, or selected with Shift and arrow keys
    if (!this.cells) return;
    const [a, b] = this.stroke && this.stroke.kind === "block" ? [this.stroke.from, this.stroke.to] : this.anchor ? [this.anchor, this.focus] : [null, null];
    this.cells.forEach((row, r) => row.forEach((cell, c) => cell.classList.toggle("marked", Boolean(a) &&
      r >= Math.min(a[0], b[0]) && r <= Math.max(a[0], b[0]) && c >= Math.min(a[1], b[1]) && c <= Math.max(a[1], b[1]))));
  }

  // ------------------------------------------------------------ cells

  /** @param {number} r @param {number} c @param {boolean} on whether the expert exists */
  put(r, c, on) {
    const { keep, rate } = this.doc;
    if (Boolean(keep[r][c]) === on) return;
    const present = rate[r].find((_, i) => keep[r][i]);
    keep[r][c] = on ? 1 : 0;
    rate[r][c] = on ? present || 0 : 0;
    this.dirty.add(r);
  }

  /** @param {number} r @param {number} c @param {boolean | number} value existence or drop rate */
  set(r, c, value) {
    if (typeof value === "boolean") return this.put(r, c, value);
    if (!this.doc.keep[r][c] || this.doc.rate[r][c] === value) return;
    this.doc.rate[r][c] = value;
    this.dirty.add(r);
  }

  /** What a stroke that begins on these cells sets: the opposite of their state.
   * @param {Position[]} cells */
  valueFor(cells) {
    if (this.layer === "exists") return !cells.every(([r, c]) => this.doc.keep[r][c]);
    const p = rounded(Number(this.strength.value)), present = cells.filter(([r, c]) => this.doc.keep[r][c]);
    return present.length && present.every(([r, c]) => this.doc.rate[r][c] === p) ? 0 : p;
  }

  /** The cells that a position stands for.
   * @param {number} r @param {number} c @returns {Position[]} */
  line(r, c) {
    return c < 0 ? this.doc.keep[0].map((_, i) => [r, i]) : r < 0 ? this.doc.keep.map((_, i) => [i, c]) : [[r, c]];
  }

  /** @param {Position} from @param {Position} to */
  block([r0, c0], [r1, c1]) {
    /** @type {Position[]} */
    const cells = [];
    for (let r = Math.min(r0, r1); r <= Math.max(r0, r1); r++) for (let c = Math.min(c0, c1); c <= Math.max(c0, c1); c++) cells.push([r, c]);
    return cells;
  }

  /** @param {number} r */
  paste(r) {
    this.doc.keep[r] = [...this.clip.keep];
    this.doc.rate[r] = [...this.clip.rate];
    this.dirty.add(r);
  }

  /** @param {number} r */
  copy(r) {
    this.clip = { from: r, keep: [...this.doc.keep[r]], rate: [...this.doc.rate[r]] };
  }

  /** @param {number} r @param {number} p */
  setRow(r, p) {
    this.doc.rate[r] = this.doc.rate[r].map((old, c) => (this.doc.keep[r][c] ? p : old));
    this.dirty.add(r);
  }

  // ------------------------------------------------------------ strokes: a press, moves, an end

  /** @param {Position} position @param {boolean} selecting a block @returns {Stroke | null} */
  begin([r, c], selecting) {
    if (this.tool === "copy" && r >= 0) {
      if (this.clip && this.clip.from !== r) return { kind: "paste" };
      if (this.clip) this.clip = null; else this.copy(r);
      this.dress();
      return null;
    }
    const value = this.valueFor(this.line(r, c));
    if (r < 0) return { kind: "columns", value };
    if (c < 0) return { kind: "rows", value };
    return this.tool === "block" || selecting ? { kind: "block", from: [r, c], to: [r, c], value } : { kind: "cells", value };
  }

  /** @param {Stroke} stroke @param {Position} position */
  over(stroke, [r, c]) {
    if (stroke.kind === "paste" && r >= 0 && r !== this.clip.from) this.paste(r);
    if (stroke.kind === "rows" && r >= 0) for (const cell of this.line(r, -1)) this.set(...cell, stroke.value);
    if (stroke.kind === "columns" && c >= 0) for (const cell of this.line(-1, c)) this.set(...cell, stroke.value);
    if (stroke.kind === "cells" && r >= 0 && c >= 0) this.set(r, c, stroke.value);
    if (stroke.kind === "block" && r >= 0 && c >= 0) { stroke.to = [r, c]; this.mark(); }
    this.flush();
  }

  /** @param {Stroke} stroke */
  end(stroke) {
    if (stroke.kind === "block") for (const cell of this.block(stroke.from, stroke.to)) this.set(...cell, stroke.value);
    this.flush();
  }

  /** @param {number} x @param {number} y */
  at(x, y) {
    const element = /** @type {Document | ShadowRoot} */ (this.root.getRootNode()).elementFromPoint(x, y);
    /** @type {HTMLElement | null} */
    const part = element ? element.closest("[data-row], [data-column]") : null;
    return part && this.scroll.contains(part) ? positionOf(part) : null;
  }

  /** @param {PointerEvent & { target: HTMLElement }} e */
  down(e) {
    if (e.button > 0 || this.stroke) return;
    /** @type {HTMLElement | null} */
    const track = e.target.closest(".mg-track");
    const position = track ? null : this.at(e.clientX, e.clientY);
    if (!track && !position) return;
    e.preventDefault();
    const before = copyOf(this.doc);
    this.anchor = null;
    this.handled = true;
    if (track) {
      this.stroke = { kind: "curve", before, last: [e.clientX, e.clientY], boxes: this.bars.map(([bar]) => bar.getBoundingClientRect()) };
      track.focus();
      this.draw(e.clientX, e.clientY);
    } else {
      this.focus = position;
      this.roving(true);
      const stroke = this.begin(position, e.shiftKey);
      if (!stroke) return;
      this.stroke = { ...stroke, before, last: [e.clientX, e.clientY] };
      this.over(this.stroke, position);
    }
    this.pointer = e.pointerId;
    try { this.scroll.setPointerCapture(e.pointerId); } catch { /* the pointer is already released */ }
  }

  /** @param {PointerEvent} e */
  move(e) {
    if (!this.stroke || e.pointerId !== this.pointer) return;
    if (this.stroke.kind === "curve") this.draw(e.clientX, e.clientY);
    else {
      const [x0, y0] = this.stroke.last, dx = e.clientX - x0, dy = e.clientY - y0;
      const parts = Math.max(1, Math.ceil(Math.hypot(dx, dy) / 10)); // a fast movement skips no cell
      for (let i = 1; i <= parts; i++) {
        const position = this.at(x0 + (dx * i) / parts, y0 + (dy * i) / parts);
        if (position) this.over(this.stroke, position);
      }
    }
    this.stroke.last = [e.clientX, e.clientY];
  }

  /** Set each bar between the last position of the pointer and this one.
   * @param {number} x @param {number} y */
  draw(x, y) {
    const { boxes, last: [x0, y0] } = this.stroke;
    boxes.forEach((box, r) => {
      const middle = (box.top + box.bottom) / 2, inside = Math.abs(y - middle) <= box.height / 2 + 2;
      const passed = (middle - y0) * (middle - y) < 0;
      if (!inside && !passed) return;
      const pointer = inside ? x : x0 + ((x - x0) * (middle - y0)) / (y - y0);
      const share = Math.min(1, Math.max(0, (pointer - box.left) / box.width));
      this.setRow(r, rounded(Math.round((share * MOST) / STEP) * STEP));
    });
    this.flush();
  }

  up() {
    setTimeout(() => { this.handled = false; }, 60); // the click that follows a press is not a second one
    if (!this.stroke) return;
    const stroke = this.stroke;
    this.end(stroke);
    this.stroke = null;
    if (this.waiting) { // Python replaced the document meanwhile: this stroke is one step of undo away
      const data = this.waiting;
      this.waiting = null;
      this.update(data, this.send);
      return;
    }
    this.finish(stroke.before, 0);
  }

  /** A click without a pointer event before it: from assistive technology.
   * @param {MouseEvent & { target: HTMLElement }} e */
  click(e) {
    if (this.handled) return;
    /** @type {HTMLElement | null} */
    const part = e.target.closest("[data-row], [data-column]");
    if (part) this.tap(positionOf(part), 0);
  }

  /** @param {Position} position @param {number} wait */
  tap(position, wait) {
    this.edit(() => {
      const stroke = this.begin(position, false);
      if (stroke) { this.over(stroke, position); this.end(stroke); }
    }, wait);
  }

  // ------------------------------------------------------------ keys

  /** Let the focused part be the only one in the tab order.
   * @param {boolean} focus whether to move the browser's focus there */
  roving(focus) {
    for (const part of [...this.cells.flat(), ...this.heads, ...this.sides]) part.tabIndex = -1;
    const [r, c] = this.focus, part = r < 0 ? this.heads[Math.max(0, c)] : c < 0 ? this.sides[r] : this.cells[r][c];
    part.tabIndex = 0;
    if (focus) part.focus();
  }

  /** @param {KeyboardEvent & { target: HTMLElement }} e */
  key(e) {
    /** @type {HTMLElement | null} */
    const track = e.target.closest(".mg-track");
    if (track) return this.slide(e, Number(track.dataset.slider));
    if (!e.target.closest("[data-row], [data-column]")) return;
    const [r, c] = this.focus;
    /** @type {Position[]} */
    const marked = this.anchor ? this.block(this.anchor, this.focus) : [[r, c]];
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -99], End: [0, 99] };
    const letter = e.ctrlKey || e.metaKey ? e.key.toLowerCase() : "";
    if (steps[e.key]) {
      const least = e.shiftKey || e.key === "Home" ? 0 : -1; // the numbers at the edge are part of the grid
      /** @type {Position} */
      const to = [Math.min(this.cells.length - 1, Math.max(c < 0 ? 0 : least, r + steps[e.key][0])),
        Math.min(this.heads.length - 1, Math.max(r < 0 ? 0 : least, c + steps[e.key][1]))];
      this.anchor = e.shiftKey && r >= 0 && c >= 0 ? this.anchor || [r, c] : null;
      this.focus = to;
      this.roving(true);
      this.mark();
    } else if ((e.key === " " || e.key === "Enter") && this.anchor) {
      const value = this.valueFor([this.anchor]);
      this.edit(() => { for (const cell of marked) this.set(...cell, value); }, 350);
    } else if (e.key === " " || e.key === "Enter") {
      this.tap([r, c], 350);
    } else if (/^[0-9]$/.test(e.key) && !letter) {
      this.edit(() => { for (const cell of marked.flatMap(([a, b]) => this.line(a, b))) this.set(...cell, Number(e.key) / 10); }, 350);
    } else if (letter === "c" && r >= 0) {
      this.copy(r);
      this.dress(`Layer ${this.doc.labels[r]} is copied: Control V pastes it onto the focused layer.`);
    } else if (letter === "v" && r >= 0 && this.clip) {
      const onto = [...new Set(marked.map(([row]) => row))];
      this.edit(() => onto.forEach((row) => this.paste(row)), 350);
    } else if (e.key === "Escape" && (this.anchor || this.clip)) {
      this.anchor = this.clip = null;
      this.dress();
    } else {
      return;
    }
    e.preventDefault();
  }

  /** @param {KeyboardEvent} e @param {number} r */
  slide(e, r) {
    const { value, none } = this.rowRate(r);
    const to = { ArrowRight: value + STEP, ArrowUp: value + STEP, ArrowLeft: value - STEP, ArrowDown: value - STEP,
      PageUp: value + 4 * STEP, PageDown: value - 4 * STEP, Home: 0, End: MOST }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    if (!none) this.edit(() => this.setRow(r, rounded(Math.min(MOST, Math.max(0, to)))), 350);
  }

  /** @param {KeyboardEvent} e */
  undoKey(e) {
    const from = e.composedPath()[0], key = (e.key || "").toLowerCase(); // autofill sends keys without a name
    if (!(e.ctrlKey || e.metaKey) || e.altKey || (key !== "z" && key !== "y") || this.stroke || !this.root.isConnected) return;
    if (from instanceof Element && from.matches("textarea, [contenteditable], input:not([type=range])")) return;
    e.preventDefault();
    if (key === "y" || e.shiftKey) this.redo(); else this.undo();
  }

  // ------------------------------------------------------------ the tool bar

  /** @param {HTMLButtonElement} button */
  press(button) {
    const { layer, tool, act } = button.dataset, { doc } = this;
    if (layer) { this.layer = layer; if (this.tool === "copy") this.tool = "brush"; }
    if (tool) { this.tool = tool; this.clip = null; }
    if (layer || tool) { this.anchor = null; return this.dress(); }
    /** @type {(value: (r: number, c: number) => boolean) => () => void} */
    const every = (value) => () => doc.keep.forEach((row, r) => row.forEach((_, c) => this.put(r, c, value(r, c))));
    const acts = {
      undo: () => this.undo(),
      redo: () => this.redo(),
      mirror: () => this.edit(() => this.mirror(), 0, "Mirrored: the order of the layers is reversed."),
      invert: () => this.edit(() => this.invert(), 0, "Inverted: existing experts are removed, missing ones added."),
      fill: () => this.edit(every(() => true), 0, "All experts added."),
      clear: () => this.edit(every(() => false), 0, "All experts removed."),
      shuffle: () => this.edit(() => this.shuffle(), 0, `Shuffled with seed ${this.seed.value}: the same cells in a random order.`),
    };
    acts[act]();
  }

  /** The rows of each group. */
  grouped() {
    /** @type {Record<string, number[]>} */
    const rows = {};
    this.doc.groups.forEach((group, r) => (rows[group] = rows[group] || []).push(r));
    return Object.values(rows);
  }

  all() { this.doc.keep.forEach((_, r) => this.dirty.add(r)); }

  mirror() {
    const { keep, rate } = copyOf(this.doc);
    for (const rows of this.grouped()) rows.forEach((r, i) => {
      this.doc.keep[r] = keep[rows[rows.length - 1 - i]];
      this.doc.rate[r] = rate[rows[rows.length - 1 - i]];
    });
    this.all();
  }

  invert() {
    this.doc.keep.forEach((row, r) => {
      const first = this.doc.rate[r].find((_, c) => row[c]) || 0;
      this.doc.rate[r] = row.map((on) => (on ? 0 : first));
      this.doc.keep[r] = row.map((on) => (on ? 0 : 1));
    });
    this.all();
  }

  shuffle() {
    const random = mulberry32(Math.max(0, Math.floor(Number(this.seed.value)) || 0)), wide = this.doc.keep[0].length;
    for (const rows of this.grouped()) {
      const flat = rows.flatMap((r) => this.doc.keep[r].map((k, c) => [k, this.doc.rate[r][c]]));
      for (let last = flat.length - 1; last > 0; last--) {
        const other = Math.floor(random() * (last + 1));
        [flat[last], flat[other]] = [flat[other], flat[last]];
      }
      rows.forEach((r, i) => {
        const part = flat.slice(i * wide, (i + 1) * wide);
        this.doc.keep[r] = part.map(([k]) => k);
        this.doc.rate[r] = part.map(([, p]) => p);
      });
    }
    this.all();
  }
}

/** @param {ComponentArguments<GridMessage>} component */
export default function ({ data, parentElement, setStateValue }) {
  let board = boards.get(parentElement);
  if (!board) {
    board = new Board(parentElement);
    boards.set(parentElement, board);
  }
  board.update(data, setStateValue);
  return () => { board.close(); boards.delete(parentElement); };
}
