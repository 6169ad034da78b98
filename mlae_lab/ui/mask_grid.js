// The painted grid. Python holds the document {rev, keep, rate}; this file paints locally at once and commits
// when a gesture ends. `rev` rises only when Python replaces the document, so an edit in flight is never lost
// and an old echo never overwrites a newer stroke.
const boards = new WeakMap();

function text(p) {
  return p === 0 ? "" : String(Math.round(p * 100) / 100).replace(/^0/, "");
}

class Board {
  constructor(parent) {
    this.parent = parent;
    this.root = parent.querySelector(".mg");
    this.rev = null;
    this.stroke = null;
    this.timer = null;
    this.focus = [0, 0];
    this.root.addEventListener("pointerdown", (e) => this.down(e));
    this.root.addEventListener("pointermove", (e) => this.move(e));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) this.root.addEventListener(end, () => this.up());
    this.root.addEventListener("keydown", (e) => this.key(e));
    this.root.addEventListener("click", (e) => this.click(e));
    this.root.addEventListener("input", (e) => this.slide(e));
    this.root.addEventListener("focusout", () => this.commit(0));
  }

  update(data, send) {
    this.send = send;
    this.labels = data.labels;
    if (data.rev !== this.rev && !this.stroke) {
      clearTimeout(this.timer);
      this.timer = null;
      this.rev = data.rev;
      this.keep = data.keep.map((row) => [...row]);
      this.rate = data.rate.map((row) => [...row]);
      this.build();
    }
  }

  build() {
    const rows = this.keep.length, columns = this.keep[0].length;
    const cell = columns > 12 ? 27 : columns > 8 ? 33 : 40;
    const active = document.activeElement && this.root.contains(this.root.getRootNode().activeElement);
    this.root.replaceChildren();
    const scroll = document.createElement("div");
    scroll.className = "mg-scroll";
    const board = document.createElement("div");
    board.className = "mg-board";
    board.style.setProperty("--cell", cell + "px");
    board.style.gridTemplateColumns = `auto repeat(${columns}, ${cell}px) auto`;
    board.setAttribute("role", "grid");
    board.setAttribute("aria-label", `Mask: ${rows} layers by ${columns} experts. Arrow keys move, space switches an expert on or off.`);
    const head = this.row(board);
    head.append(this.box("span", "", "columnheader"));
    for (let c = 0; c < columns; c++) {
      const button = this.box("button", "mg-head", "columnheader");
      button.textContent = c + 1;
      button.dataset.column = c;
      button.title = `Switch expert ${c + 1} in all layers`;
      button.setAttribute("aria-label", `Expert ${c + 1}: switch in all layers`);
      head.append(button);
    }
    const title = this.box("span", "mg-rate", "columnheader");
    title.textContent = "drop rate p";
    title.style.opacity = 0.65;
    head.append(title);
    this.cells = [];
    this.sliders = [];
    for (let r = 0; r < rows; r++) {
      const row = this.row(board);
      const side = this.box("button", "mg-side", "rowheader");
      side.dataset.row = r;
      side.textContent = this.labels[r];
      side.title = `Switch all experts of layer ${this.labels[r]}`;
      side.setAttribute("aria-label", `Layer ${this.labels[r]}: switch all experts`);
      row.append(side);
      this.cells.push([]);
      for (let c = 0; c < columns; c++) {
        const one = this.box("div", "mg-cell", "gridcell");
        one.dataset.row = r;
        one.dataset.column = c;
        one.append(document.createElement("span"));
        this.cells[r].push(one);
        row.append(one);
      }
      const holder = this.box("div", "mg-rate", "gridcell");
      const slider = document.createElement("input");
      Object.assign(slider, { type: "range", min: 0, max: 0.95, step: 0.05 });
      slider.dataset.slider = r;
      slider.setAttribute("aria-label", `Drop rate of layer ${this.labels[r]}`);
      const output = document.createElement("output");
      holder.append(output, slider);
      this.sliders.push([slider, output]);
      row.append(holder);
    }
    scroll.append(board);
    const legend = document.createElement("div");
    legend.className = "mg-legend";
    legend.innerHTML = '<span><i class="a"></i>expert, always on</span><span><i class="b"></i>expert, dropped with chance p in a step</span><span><i class="c"></i>no expert</span>';
    this.root.append(scroll, legend);
    for (let r = 0; r < rows; r++) this.paint(r);
    this.focus = [Math.min(this.focus[0], rows - 1), Math.min(this.focus[1], columns - 1)];
    this.roving(active);
  }

  row(board) {
    const row = document.createElement("div");
    row.style.display = "contents";
    row.setAttribute("role", "row");
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

  paint(r) {
    const kept = this.keep[r], rates = this.rate[r];
    kept.forEach((on, c) => {
      const cell = this.cells[r][c], p = rates[c];
      cell.classList.toggle("on", Boolean(on));
      cell.classList.toggle("off", !on);
      cell.classList.toggle("strong", Boolean(on) && p < 0.45);
      cell.style.setProperty("--fill", on ? 1 - p : 0);
      cell.firstChild.textContent = on ? text(p) : "";
      cell.setAttribute("aria-selected", String(Boolean(on)));
      cell.setAttribute("aria-label", `Layer ${this.labels[r]}, expert ${c + 1}: ${on ? (p ? "on, drop rate " + p : "on") : "masked"}`);
    });
    const present = rates.filter((_, c) => kept[c]);
    const shared = present.every((p) => p === present[0]);
    const [slider, output] = this.sliders[r];
    const value = present.length ? (shared ? present[0] : present.reduce((a, b) => a + b) / present.length) : 0;
    slider.disabled = present.length === 0;
    slider.value = value;
    slider.style.setProperty("--at", (value / 0.95) * 100 + "%");
    output.textContent = present.length === 0 ? "none" : shared ? value.toFixed(2) : "varies";
  }

  roving(take) {
    for (const row of this.cells) for (const cell of row) cell.tabIndex = -1;
    const cell = this.cells[this.focus[0]][this.focus[1]];
    cell.tabIndex = 0;
    if (take) cell.focus();
  }

  at(x, y) {
    const root = this.root.getRootNode();
    const found = root.elementFromPoint(x, y);
    const cell = found && found.closest ? found.closest(".mg-cell") : null;
    return cell && this.root.contains(cell) ? [Number(cell.dataset.row), Number(cell.dataset.column)] : null;
  }

  put(r, c, on) {
    if (Boolean(this.keep[r][c]) === on) return;
    this.keep[r][c] = on ? 1 : 0;
    if (on) {
      const near = this.rate[r].filter((_, i) => i !== c && this.keep[r][i]);
      this.rate[r][c] = near.length ? near[0] : Number(this.sliders[r][0].value) || 0;
    }
    this.paint(r);
  }

  down(e) {
    const place = this.at(e.clientX, e.clientY);
    if (!place || e.button > 0) return;
    e.preventDefault();
    this.stroke = { on: !this.keep[place[0]][place[1]], last: [e.clientX, e.clientY] };
    try { this.root.setPointerCapture(e.pointerId); } catch (ignored) { /* a pointer that has already gone */ }
    this.focus = place;
    this.roving(true);
    this.put(place[0], place[1], this.stroke.on);
  }

  move(e) {
    if (!this.stroke) return;
    const [x0, y0] = this.stroke.last, dx = e.clientX - x0, dy = e.clientY - y0;
    const parts = Math.max(1, Math.ceil(Math.hypot(dx, dy) / 10)); // a fast hand skips no cell
    for (let i = 1; i <= parts; i++) {
      const place = this.at(x0 + (dx * i) / parts, y0 + (dy * i) / parts);
      if (place) this.put(place[0], place[1], this.stroke.on);
    }
    this.stroke.last = [e.clientX, e.clientY];
  }

  up() {
    if (!this.stroke) return;
    this.stroke = null;
    this.changed(0);
  }

  key(e) {
    const cell = e.target.closest ? e.target.closest(".mg-cell") : null;
    if (!cell) return;
    let [r, c] = this.focus;
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (steps[e.key]) {
      r = Math.min(this.cells.length - 1, Math.max(0, r + steps[e.key][0]));
      c = Math.min(this.cells[0].length - 1, Math.max(0, c + steps[e.key][1]));
      this.focus = [r, c];
      this.roving(true);
    } else if (e.key === " " || e.key === "Enter") {
      this.put(r, c, !this.keep[r][c]);
      this.changed(350);
    } else if (e.key === "Home" || e.key === "End") {
      this.focus = [r, e.key === "Home" ? 0 : this.cells[0].length - 1];
      this.roving(true);
    } else {
      return;
    }
    e.preventDefault();
  }

  click(e) {
    const side = e.target.closest ? e.target.closest(".mg-side, .mg-head") : null;
    if (!side) return;
    const cells = side.dataset.row !== undefined
      ? this.keep[0].map((_, c) => [Number(side.dataset.row), c])
      : this.keep.map((_, r) => [r, Number(side.dataset.column)]);
    const on = !cells.every(([r, c]) => this.keep[r][c]);
    for (const [r, c] of cells) this.put(r, c, on);
    this.changed(0);
  }

  slide(e) {
    const r = Number(e.target.dataset.slider);
    if (Number.isNaN(r)) return;
    const p = Math.round(Number(e.target.value) * 100) / 100;
    this.rate[r] = this.rate[r].map((old, c) => (this.keep[r][c] ? p : old));
    this.paint(r);
    this.changed(250);
  }

  changed(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.commit(), wait);
    if (wait === 0) this.commit();
  }

  commit() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.send("edit", { rev: this.rev, keep: this.keep, rate: this.rate });
  }
}

export default function ({ data, parentElement, setStateValue }) {
  let board = boards.get(parentElement);
  if (!board) {
    board = new Board(parentElement);
    boards.set(parentElement, board);
  }
  board.update(data, setStateValue);
  return () => { board.commit(); boards.delete(parentElement); };
}
