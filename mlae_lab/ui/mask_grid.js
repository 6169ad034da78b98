// The canvas. Python holds the document {rev, keep, rate, targets}; this file paints locally at once and commits
// when a gesture ends. `rev` rises only when Python replaces the document, so an edit in flight is never lost and an
// old echo never overwrites a newer stroke. Undo lives here, as long as the tab; what Python replaces can be undone too.
const boards = new WeakMap();
const histories = new Map(); // by family: what can be undone outlives a visit to another page
const MOST = 0.95, STEP = 0.05, UNDO_STEPS = 300, LEAST_TRACK = 66;
const HELP = {
  exists: "Drag to switch experts on or off. Drag along the numbers for whole layers or columns, hold Shift for a block.",
  rate: "Drag to set p on experts that exist. Drag down the bars on the right to draw p over the layers in one stroke.",
  block: "Drag a block: all of it follows its first cell.",
  copy: "Press the layer to copy.",
};

const rounded = (p) => Math.round(p * 100) / 100;
const text = (p) => (p === 0 ? "" : String(rounded(p)).replace(/^0/, ""));
const placeOf = ({ dataset: { row = -1, column = -1 } }) => [Number(row), Number(column)]; // a layer's number has no column
const copyOf = (doc) => ({ ...doc, keep: doc.keep.map((row) => [...row]), rate: doc.rate.map((row) => [...row]) });
const alike = (a, b) => JSON.stringify([a.keep, a.rate, a.targets]) === JSON.stringify([b.keep, b.rate, b.targets]);

function mulberry32(seed) { // T. Ettinger's generator, public domain; tests/reference.py has the same
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= (t + Math.imul(t ^ (t >>> 7), t | 61)) | 0;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

class Board {
  constructor(parent) {
    this.root = parent.querySelector(".mg");
    this.bar = this.root.querySelector(".mg-bar");
    this.says = this.root.querySelector(".mg-say");
    this.scroll = this.root.querySelector(".mg-scroll");
    this.strength = this.root.querySelector(".mg-strength");
    this.seed = this.root.querySelector(".mg-seed");
    this.doc = null;
    this.rev = null;
    this.stroke = null;
    this.timer = null;
    this.waiting = null;
    this.layer = "exists";
    this.tool = "brush";
    this.clip = null;
    this.anchor = null;
    this.focus = [0, 0];
    this.past = [];
    this.future = [];
    this.dirty = new Set();
    const on = (target, kind, act) => target.addEventListener(kind, act);
    on(this.scroll, "pointerdown", (e) => this.down(e));
    on(this.scroll, "pointermove", (e) => this.move(e));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) on(this.scroll, end, () => this.up());
    on(this.scroll, "click", (e) => this.click(e));
    on(this.scroll, "keydown", (e) => this.key(e));
    on(this.bar, "click", (e) => { const b = e.target.closest("button"); if (b) this.press(b); });
    on(this.strength, "input", () => { this.layer = "rate"; this.dress(); });
    on(this.root, "focusout", (e) => { if (!this.root.contains(e.relatedTarget)) this.commit(); });
    this.shortcut = (e) => this.undoKey(e);
    document.addEventListener("keydown", this.shortcut);
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(this.root);
    this.dress();
  }

  close() {
    this.commit();
    if (this.doc) histories.set(this.family, { past: this.past, future: this.future, doc: this.doc });
    document.removeEventListener("keydown", this.shortcut);
    this.watch.disconnect();
  }

  // ------------------------------------------------------------ the document

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
  }

  recall(family) { // the canvas of another backbone has a history of its own
    const { past = [], future = [], doc = null } = histories.get(family) || {};
    if (this.doc) histories.set(this.family, { past: this.past, future: this.future, doc: this.doc });
    [this.past, this.future, this.doc] = [past, future, doc];
  }

  remember(next) {
    if (alike(this.doc, next)) return;
    this.past = [...this.past, copyOf(this.doc)].slice(-UNDO_STEPS);
    this.future = [];
  }

  load(doc) {
    const same = this.doc && this.cells && doc.keep.length === this.cells.length && doc.keep[0].length === this.cells[0].length
      && JSON.stringify(doc.targets) === JSON.stringify(this.built);
    this.doc = doc;
    this.anchor = null;
    if (same) for (let r = 0; r < doc.keep.length; r++) this.paint(r);
    else { this.clip = null; this.build(); }
    this.dress();
  }

  edit(change, wait = 0, words = null) { // one step of undo, one commit
    const before = copyOf(this.doc);
    change();
    this.flush();
    this.finish(before, wait, words);
  }

  finish(before, wait, words = null) {
    if (alike(before, this.doc)) { this.dress(words); return; }
    this.past = [...this.past, before].slice(-UNDO_STEPS);
    this.future = [];
    this.dress(words);
    this.changed(wait);
  }

  travel(from, to, words) {
    if (!from.length) return;
    to.push(copyOf(this.doc));
    this.load(from.pop());
    this.dress(words);
    this.changed(0);
  }

  undo() { this.travel(this.past, this.future, "One step back."); }
  redo() { this.travel(this.future, this.past, "One step forward again."); }

  changed(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.commit(), wait);
    if (wait === 0) this.commit();
  }

  commit() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
    const { keep, rate, targets } = copyOf(this.doc);
    this.send("edit", { rev: this.rev, keep, rate, targets });
  }

  // ------------------------------------------------------------ the image

  build() {
    const { keep, labels, groups, targets } = this.doc, rows = keep.length, columns = keep[0].length;
    const active = this.scroll.contains(this.root.getRootNode().activeElement);
    this.built = [...targets];
    const board = this.box("div", "mg-board", "grid");
    board.setAttribute("aria-label", `Mask: ${rows} layers by ${columns} experts. Arrow keys move, with Shift they mark a block; ` +
      "Space switches experts or sets the rate; 0 to 9 set p in tenths; Control C and Control V copy a layer.");
    const head = this.row(board);
    head.append(this.box("span", "", "columnheader"));
    this.heads = keep[0].map((_, c) => {
      const button = this.box("button", "mg-head", "columnheader");
      button.textContent = c + 1;
      button.dataset.column = c;
      button.title = `Expert ${c + 1} in all layers`;
      button.setAttribute("aria-label", `Expert ${c + 1}: switch in all layers`);
      head.append(button);
      return button;
    });
    const title = this.box("span", "mg-rate mg-title", "columnheader");
    title.textContent = "drop rate p";
    head.append(title);
    this.cells = [];
    this.sides = [];
    this.bars = [];
    const several = new Set(groups).size > 1;
    for (let r = 0; r < rows; r++) {
      if (several && groups[r] !== groups[r - 1]) {
        const name = document.createElement("div");
        name.className = "mg-group";
        name.textContent = groups[r];
        name.setAttribute("role", "presentation");
        board.append(name);
      }
      const row = this.row(board);
      const side = this.box("button", "mg-side", "rowheader");
      side.dataset.row = r;
      side.title = `All experts of layer ${labels[r]}`;
      side.setAttribute("aria-label", `Layer ${labels[r]}: switch all experts`);
      this.sides.push(side);
      row.append(side);
      this.cells.push(keep[r].map((_, c) => {
        const one = this.box("div", "mg-cell", "gridcell");
        one.dataset.row = r;
        one.dataset.column = c;
        one.append(document.createElement("span"));
        row.append(one);
        return one;
      }));
      const holder = this.box("div", "mg-rate", "gridcell");
      const track = this.box("div", "mg-track", "slider");
      track.tabIndex = 0;
      track.dataset.slider = r;
      for (const [name, value] of [["label", `Drop rate of layer ${labels[r]}`], ["valuemin", 0], ["valuemax", MOST]]) track.setAttribute("aria-" + name, value);
      track.append(document.createElement("i"));
      const output = document.createElement("output");
      holder.append(track, output);
      this.bars.push([track, output]);
      row.append(holder);
    }
    this.board = board;
    this.scroll.replaceChildren(board);
    this.fit();
    for (let r = 0; r < rows; r++) this.paint(r);
    this.focus = [Math.min(this.focus[0], rows - 1), Math.min(this.focus[1], columns - 1)];
    this.roving(active);
  }

  row(board) {
    const row = this.box("div", "mg-row", "row");
    board.append(row);
    return row;
  }

  box(tag, style, role) {
    const made = document.createElement(tag);
    made.className = style;
    made.setAttribute("role", role);
    if (tag === "button") made.type = "button";
    return made;
  }

  fit() { // as large as the place allows, 24 pixels from one cell to the next at least
    if (!this.board || !this.root.clientWidth) return;
    const rows = this.doc.keep.length, columns = this.doc.keep[0].length, several = new Set(this.doc.groups).size > 1;
    const wide = this.root.clientWidth, named = several && wide > 640, side = named ? 58 : 40;
    const room = Math.floor((wide - side - LEAST_TRACK - 66) / columns) - 3;
    const cell = Math.max(21, Math.min(rows > 30 ? 26 : rows > 14 ? 32 : 40, room));
    const track = Math.max(LEAST_TRACK, Math.min(190, wide - side - 66 - columns * (cell + 3)));
    this.sides.forEach((one, r) => { one.textContent = named ? this.doc.labels[r] : this.doc.labels[r].split(" ")[0]; });
    this.board.style.setProperty("--cell", cell + "px");
    this.board.style.setProperty("--track", track + "px");
    this.board.style.gridTemplateColumns = `${side}px repeat(${columns}, ${cell}px) auto`;
  }

  paint(r) {
    const kept = this.doc.keep[r], rates = this.doc.rate[r], name = this.doc.labels[r];
    kept.forEach((on, c) => {
      const cell = this.cells[r][c], p = rates[c], fill = on ? (p ? 0.76 * (1 - p) : 1) : 0;
      cell.classList.toggle("on", Boolean(on));
      cell.classList.toggle("off", !on);
      cell.classList.toggle("strong", fill >= 0.58);
      cell.style.setProperty("--fill", fill);
      cell.firstChild.textContent = on ? text(p) : "";
      cell.setAttribute("aria-selected", String(Boolean(on)));
      cell.setAttribute("aria-label", `Layer ${name}, expert ${c + 1}: ${on ? (p ? "on, drop rate " + rounded(p) : "on") : "masked"}`);
    });
    const [track, output] = this.bars[r], { value, shared, none } = this.rowRate(r);
    track.classList.toggle("none", none);
    track.setAttribute("aria-disabled", String(none));
    track.setAttribute("aria-valuenow", rounded(value));
    track.style.setProperty("--at", (value / MOST) * 100 + "%");
    output.textContent = none ? "none" : shared ? value.toFixed(2) : "varies";
    track.setAttribute("aria-valuetext", none ? "no experts" : shared ? value.toFixed(2) : `varies, ${value.toFixed(2)} on average`);
  }

  rowRate(r) {
    const present = this.doc.rate[r].filter((_, c) => this.doc.keep[r][c]);
    const shared = present.every((p) => p === present[0]);
    return { none: !present.length, shared, value: !present.length ? 0 : shared ? present[0] : present.reduce((a, b) => a + b) / present.length };
  }

  flush() {
    for (const r of this.dirty) this.paint(r);
    this.dirty.clear();
  }

  dress(words = null) {
    const name = (r) => this.doc.labels[r];
    for (const b of this.bar.querySelectorAll("button")) {
      if (b.dataset.layer) b.setAttribute("aria-pressed", String(b.dataset.layer === this.layer));
      if (b.dataset.tool) b.setAttribute("aria-pressed", String(b.dataset.tool === this.tool));
      if (b.dataset.act === "undo") b.setAttribute("aria-disabled", String(!this.past.length));
      if (b.dataset.act === "redo") b.setAttribute("aria-disabled", String(!this.future.length));
    }
    const p = Number(this.strength.value);
    this.root.querySelector(".mg-strong").textContent = p.toFixed(2);
    this.strength.style.setProperty("--at", (p / MOST) * 100 + "%");
    this.root.classList.toggle("rating", this.layer === "rate");
    if (this.sides) this.sides.forEach((side, r) => side.classList.toggle("source", this.clip !== null && this.clip.from === r));
    const copied = this.clip && this.tool === "copy" && `Layer ${name(this.clip.from)} is copied: press or drag over layers to paste, press it again to end.`;
    this.says.textContent = words || copied || HELP[this.tool === "brush" ? this.layer : this.tool];
    this.mark();
  }

  mark() { // the block under the hand, or the one that Shift and arrows made
    if (!this.cells) return;
    const [a, b] = this.stroke && this.stroke.kind === "block" ? [this.stroke.from, this.stroke.to] : this.anchor ? [this.anchor, this.focus] : [null, null];
    this.cells.forEach((row, r) => row.forEach((cell, c) => cell.classList.toggle("marked", Boolean(a) &&
      r >= Math.min(a[0], b[0]) && r <= Math.max(a[0], b[0]) && c >= Math.min(a[1], b[1]) && c <= Math.max(a[1], b[1]))));
  }

  // ------------------------------------------------------------ cells

  put(r, c, on) {
    const { keep, rate } = this.doc;
    if (Boolean(keep[r][c]) === on) return;
    const near = rate[r].find((_, i) => keep[r][i]);
    keep[r][c] = on ? 1 : 0;
    rate[r][c] = on ? near || 0 : 0;
    this.dirty.add(r);
  }

  set(r, c, value) { // on the layer that is painted: true or false, or a rate
    if (typeof value === "boolean") return this.put(r, c, value);
    if (!this.doc.keep[r][c] || this.doc.rate[r][c] === value) return;
    this.doc.rate[r][c] = value;
    this.dirty.add(r);
  }

  valueFor(cells) { // what a stroke that begins on these cells does: the opposite of what they are
    if (this.layer === "exists") return !cells.every(([r, c]) => this.doc.keep[r][c]);
    const p = rounded(Number(this.strength.value)), there = cells.filter(([r, c]) => this.doc.keep[r][c]);
    return there.length && there.every(([r, c]) => this.doc.rate[r][c] === p) ? 0 : p;
  }

  line(r, c) {
    return c < 0 ? this.doc.keep[0].map((_, i) => [r, i]) : r < 0 ? this.doc.keep.map((_, i) => [i, c]) : [[r, c]];
  }

  block([r0, c0], [r1, c1]) {
    const cells = [];
    for (let r = Math.min(r0, r1); r <= Math.max(r0, r1); r++) for (let c = Math.min(c0, c1); c <= Math.max(c0, c1); c++) cells.push([r, c]);
    return cells;
  }

  paste(r) {
    this.doc.keep[r] = [...this.clip.keep];
    this.doc.rate[r] = [...this.clip.rate];
    this.dirty.add(r);
  }

  take(r) {
    this.clip = { from: r, keep: [...this.doc.keep[r]], rate: [...this.doc.rate[r]] };
  }

  setRow(r, p) {
    this.doc.rate[r] = this.doc.rate[r].map((old, c) => (this.doc.keep[r][c] ? p : old));
    this.dirty.add(r);
  }

  // ------------------------------------------------------------ strokes: a press, moves, an end

  begin([r, c], marking) {
    if (this.tool === "copy" && r >= 0) {
      if (this.clip && this.clip.from !== r) return { kind: "paste" };
      if (this.clip) this.clip = null; else this.take(r);
      this.dress();
      return null;
    }
    const value = this.valueFor(this.line(r, c));
    if (r < 0) return { kind: "columns", value };
    if (c < 0) return { kind: "rows", value };
    return this.tool === "block" || marking ? { kind: "block", from: [r, c], to: [r, c], value } : { kind: "cells", value };
  }

  over(stroke, [r, c]) {
    if (stroke.kind === "paste" && r >= 0 && r !== this.clip.from) this.paste(r);
    if (stroke.kind === "rows" && r >= 0) for (const cell of this.line(r, -1)) this.set(...cell, stroke.value);
    if (stroke.kind === "columns" && c >= 0) for (const cell of this.line(-1, c)) this.set(...cell, stroke.value);
    if (stroke.kind === "cells" && r >= 0 && c >= 0) this.set(r, c, stroke.value);
    if (stroke.kind === "block" && r >= 0 && c >= 0) { stroke.to = [r, c]; this.mark(); }
    this.flush();
  }

  end(stroke) {
    if (stroke.kind === "block") for (const cell of this.block(stroke.from, stroke.to)) this.set(...cell, stroke.value);
    this.flush();
  }

  at(x, y) {
    const found = this.root.getRootNode().elementFromPoint(x, y);
    const part = found && found.closest ? found.closest("[data-row], [data-column]") : null;
    return part && this.scroll.contains(part) ? placeOf(part) : null;
  }

  down(e) {
    if (e.button > 0 || this.stroke) return;
    const track = e.target.closest(".mg-track");
    const place = track ? null : this.at(e.clientX, e.clientY);
    if (!track && !place) return;
    e.preventDefault();
    const before = copyOf(this.doc);
    this.anchor = null;
    this.handled = true;
    if (track) {
      this.stroke = { kind: "curve", before, last: [e.clientX, e.clientY], places: this.bars.map(([bar]) => bar.getBoundingClientRect()) };
      track.focus();
      this.draw(e.clientX, e.clientY);
    } else {
      this.focus = place;
      this.roving(true);
      const begun = this.begin(place, e.shiftKey);
      if (!begun) return;
      this.stroke = { ...begun, before, last: [e.clientX, e.clientY] };
      this.over(this.stroke, place);
    }
    this.pointer = e.pointerId;
    try { this.scroll.setPointerCapture(e.pointerId); } catch (ignored) { /* a pointer that has already gone */ }
  }

  move(e) {
    if (!this.stroke || e.pointerId !== this.pointer) return;
    if (this.stroke.kind === "curve") this.draw(e.clientX, e.clientY);
    else {
      const [x0, y0] = this.stroke.last, dx = e.clientX - x0, dy = e.clientY - y0;
      const parts = Math.max(1, Math.ceil(Math.hypot(dx, dy) / 10)); // a fast hand skips no cell
      for (let i = 1; i <= parts; i++) {
        const place = this.at(x0 + (dx * i) / parts, y0 + (dy * i) / parts);
        if (place) this.over(this.stroke, place);
      }
    }
    this.stroke.last = [e.clientX, e.clientY];
  }

  draw(x, y) { // each bar between the last place and this one follows the line of the hand
    const { places, last: [x0, y0] } = this.stroke;
    places.forEach((place, r) => {
      const middle = (place.top + place.bottom) / 2, here = Math.abs(y - middle) <= place.height / 2 + 2;
      const passed = (middle - y0) * (middle - y) < 0;
      if (!here && !passed) return;
      const hand = here ? x : x0 + ((x - x0) * (middle - y0)) / (y - y0);
      const share = Math.min(1, Math.max(0, (hand - place.left) / place.width));
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

  click(e) { // without a pointer before it: from assistive technology
    if (this.handled) return;
    const part = e.target.closest("[data-row], [data-column]");
    if (part) this.tap(placeOf(part), 0);
  }

  tap(place, wait) {
    this.edit(() => {
      const stroke = this.begin(place, false);
      if (stroke) { this.over(stroke, place); this.end(stroke); }
    }, wait);
  }

  // ------------------------------------------------------------ keys

  roving(take) {
    for (const part of [...this.cells.flat(), ...this.heads, ...this.sides]) part.tabIndex = -1;
    const [r, c] = this.focus, part = r < 0 ? this.heads[Math.max(0, c)] : c < 0 ? this.sides[r] : this.cells[r][c];
    part.tabIndex = 0;
    if (take) part.focus();
  }

  key(e) {
    const track = e.target.closest(".mg-track");
    if (track) return this.slide(e, Number(track.dataset.slider));
    if (!e.target.closest("[data-row], [data-column]")) return;
    const [r, c] = this.focus, marked = this.anchor ? this.block(this.anchor, this.focus) : [[r, c]];
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -99], End: [0, 99] };
    const letter = e.ctrlKey || e.metaKey ? e.key.toLowerCase() : "";
    if (steps[e.key]) {
      const least = e.shiftKey || e.key === "Home" ? 0 : -1; // the numbers at the edge are part of the grid
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
      this.take(r);
      this.dress(`Layer ${this.doc.labels[r]} is copied: Control V pastes it on the layer of the focus.`);
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

  slide(e, r) {
    const { value, none } = this.rowRate(r);
    const to = { ArrowRight: value + STEP, ArrowUp: value + STEP, ArrowLeft: value - STEP, ArrowDown: value - STEP,
      PageUp: value + 4 * STEP, PageDown: value - 4 * STEP, Home: 0, End: MOST }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    if (!none) this.edit(() => this.setRow(r, rounded(Math.min(MOST, Math.max(0, to)))), 350);
  }

  undoKey(e) {
    const from = e.composedPath()[0], key = (e.key || "").toLowerCase(); // what fills in a form sends keys without a name
    if (!(e.ctrlKey || e.metaKey) || e.altKey || (key !== "z" && key !== "y") || this.stroke || !this.root.isConnected) return;
    if (from instanceof Element && from.matches("textarea, [contenteditable], input:not([type=range])")) return;
    e.preventDefault();
    if (key === "y" || e.shiftKey) this.redo(); else this.undo();
  }

  // ------------------------------------------------------------ the tool bar

  press(button) {
    const { layer, tool, act } = button.dataset, { doc } = this;
    if (layer) { this.layer = layer; if (this.tool === "copy") this.tool = "brush"; }
    if (tool) { this.tool = tool; this.clip = null; }
    if (layer || tool) { this.anchor = null; return this.dress(); }
    const every = (value) => () => doc.keep.forEach((row, r) => row.forEach((_, c) => this.put(r, c, value(r, c))));
    const acts = {
      undo: () => this.undo(),
      redo: () => this.redo(),
      mirror: () => this.edit(() => this.mirror(), 0, "Mirrored: the first layer and the last change places."),
      invert: () => this.edit(() => this.invert(), 0, "Inverted: what was there is gone, what was not is there."),
      fill: () => this.edit(every(() => true), 0, "Every expert exists."),
      clear: () => this.edit(every(() => false), 0, "No expert is left."),
      shuffle: () => this.edit(() => this.shuffle(), 0, `Shuffled with seed ${this.seed.value}: the same cells in other places.`),
    };
    acts[act]();
  }

  grouped() {
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

export default function ({ data, parentElement, setStateValue }) {
  let board = boards.get(parentElement);
  if (!board) {
    board = new Board(parentElement);
    boards.set(parentElement, board);
  }
  board.update(data, setStateValue);
  return () => { board.close(); boards.delete(parentElement); };
}
