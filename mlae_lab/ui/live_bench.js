// @ts-check
// The live bench: one run on one screen. Python sends one packed message per refresh; everything here is updated in
// place. A finished run can be replayed: the same drawing code shows an earlier moment.

/**
 * One evaluation. Arrays over experts are flat, row by row; null where there is no expert or no value.
 * @typedef {object} EvaluationMessage
 * @property {number} epoch
 * @property {string} when "after epoch 3", or "within epoch 3" for an evaluation before its end
 * @property {number} step
 * @property {number} accuracy in percent
 * @property {(number | null)[]} [contribution]
 * @property {(number | null)[]} [coefficient]
 * @property {(number | null)[]} [share] of the steps in which the expert was active
 * @property {(number | null)[]} [gradient]
 * @property {(number | null)[]} [absolute] mean |cosine| of each layer
 * @property {(number | null)[]} [similarity] cosines: the lower triangles of the layers' matrices
 * @property {string[]} [predicted] class of each sample image
 * @property {number[]} [confidence]
 * @property {Record<string, (number | null)[] | null>} grids by name, row by row
 *
 * @typedef {object} PlanMessage
 * @property {number} rows
 * @property {number} columns
 * @property {string} keep bits in hexadecimal, see `bits`
 * @property {number[]} kept experts of each row
 * @property {number} experts
 * @property {string[]} labels of the rows
 * @property {(number | null)[]} rates drop rate p of each cell
 * @property {number} start initial λ
 * @property {boolean} trains whether λ is trained
 *
 * What `live_bench.message` sends.
 * @typedef {object} BenchMessage
 * @property {string} run
 * @property {boolean} live
 * @property {[string, string][]} facts name and value
 * @property {string[]} names of the facts as HTML
 * @property {string} waiting
 * @property {string} warning
 * @property {number} progress 0 to 1
 * @property {string[]} notes
 * @property {number} steps
 * @property {number} epochs
 * @property {number} trained epochs behind the run, a fraction where it stopped within one
 * @property {PlanMessage | null} plan
 * @property {GridMessage[]} grids that the method records; with a mask, those on its canvas
 * @property {boolean} by_layer whether a method without a mask has grids, or may have them after the first evaluation
 * @property {{ first: number, stride: number, hex: string[], pace: number }} masks of steps first, first + stride, ...
 * @property {EvaluationMessage[]} evaluations
 * @property {Record<string, number>} tops upper ends of the colour scales
 * @property {{ reach: number, random: number | null }} cosines end of their colour scale; mean |cosine| of random experts
 * @property {string[]} truth class of each sample image
 * @property {{ run: string, absolute: (number | null)[] } | null} dense
 * @property {string} plotly
 * @property {Record<string, FigureMessage | null>} figures
 * @property {FigureMessage[]} search of a search over a super-network, none without one
 * @property {FigureMessage[]} statistics whatever else the run recorded
 *
 * @typedef {{ key: string, name: string, alt: string, figure: PlotlyFigure }} FigureMessage
 */

/** @type {WeakMap<HTMLElement | ShadowRoot, Bench>} */
const benches = new WeakMap();
const QUANTITIES = {
  beat: { name: "Heartbeat", note: "Fill: contribution of the expert to its layer, ‖λ b aᵀx‖ / ‖Wx + bias‖. Size: norm of its gradient. Ring: active in this step." },
  contribution: { name: "Contribution", note: "Mean over tokens of ‖λ b aᵀx‖ / ‖Wx + bias‖, all experts on.", best: "has the largest contribution" },
  coefficient: { name: "λ", note: "Trained coefficient of the expert: blue below its initial value, orange above.", best: "changed most" },
  share: { name: "Active share", note: "Steps in which the expert was active / all steps.", best: "was active most often" },
  gradient: { name: "Gradient", note: "Mean norm of the gradient of a and b in the steps in which the expert was active.", best: "has the largest gradient" },
};

const reduced = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const number = (v, digits = 3) => (v === null || v === undefined ? "–" : Number(v).toPrecision(digits).replace(/\.?0+(?=$|e)/, ""));

/** The bits of a mask, the lowest bit of the first byte first.
 * @param {string} hex @param {number} cells */
function bits(hex, cells) {
  const on = new Uint8Array(cells);
  for (let i = 0; i < cells; i++) on[i] = (parseInt(hex.substr(2 * (i >> 3), 2), 16) >> (i & 7)) & 1;
  return on;
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function same(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

class Bench {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    /** @type {HTMLElement} */
    this.root = parent.querySelector(".lb");
    /** @type {BenchMessage} */
    this.data = null;
    /** @type {(selector: string) => HTMLElement} */
    const find = (selector) => this.root.querySelector(selector);
    this.facts = find(".lb-facts");
    this.bar = this.root.querySelector("progress");
    this.plots = Object.fromEntries(["accuracy", "loss", "similarity"].map((name) => [name, new Plot(find(`.lb-${name} .plot`))]));
    this.grid = new SvgFigure(find(".lb-grid"), "experts", () => (this.data.plan ? this.gridRows() : this.values.rows()));
    this.values = new ValueGrid(this.grid);
    this.chooseGrid = find(".lb-choose-grid");
    this.tiles = new SvgFigure(find(".lb-tiles"), "similarity-by-layer", () => this.tileRows());
    this.drift = new SvgFigure(find(".lb-drift"), "coefficients", () => this.driftRows());
    this.tip = new Tip(find(".lb-tip"), [this.grid.svg, this.tiles.svg, this.drift.svg]);
    this.more = /** @type {HTMLDetailsElement} */ (find(".lb-more"));
    this.more.addEventListener("toggle", () => { if (this.more.open && this.data) this.statistics(this.palette); });
    /** @type {Record<string, Plot>} by the name of the figure, whatever Python has sent */
    this.extra = {};
    /** @type {Record<string, Plot>} */
    this.searched = {};
    this.album = find(".lb-album");
    this.chosen = "beat";
    this.paused = false;
    /** @type {[number, string][]} steps and masks that are not drawn yet */
    this.queue = [];
    this.shownStep = 0;
    /** @type {Record<string, HTMLButtonElement>} */
    this.buttons = {};
    for (const key in QUANTITIES) this.offer(key, QUANTITIES[key].name);
    this.hold = find(".lb-hold");
    this.hold.addEventListener("click", () => this.pause());
    /** @type {HTMLInputElement} */
    this.slider = this.root.querySelector(".lb-slider");
    this.slider.addEventListener("input", () => { this.playing = false; this.seek(Number(this.slider.value)); this.dress(); });
    /** @type {HTMLSelectElement} */
    this.speed = this.root.querySelector(".lb-speed");
    this.where = find(".lb-where");
    this.choose();
  }

  /** Add a button for a quantity of the experts.
   * @param {string} key @param {string} name */
  offer(key, name) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => { this.chosen = key; this.choose(); });
    this.root.querySelector(".lb-choose").append(button);
    this.buttons[key] = button;
  }

  // ---------------------------------------------------------------- new data

  /** Show a message. Unpacking is asynchronous, so only the newest message counts.
   * @param {Uint8Array<ArrayBuffer>} packed deflated JSON */
  async update(packed) {
    const palette = paletteOf(this.root), number = (this.received = (this.received || 0) + 1);
    if (this.seen && this.seenOn === palette.surface && same(this.seen, packed)) return;
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
    if (number !== this.received) return;
    if (this.paused && this.data && this.data.live) {
      this.waiting = packed;
      this.where.textContent = "Display paused; the run continues.";
      return;
    }
    this.seen = packed.slice();
    this.seenOn = palette.surface;
    const before = this.data;
    this.data = JSON.parse(text);
    if (!before || before.run !== this.data.run || before.live !== this.data.live) this.open();
    this.palette = palette;
    this.root.classList.toggle("early", !this.data.steps); // nothing to play or to save yet
    this.root.classList.toggle("unmeasured", !this.data.evaluations.length);
    this.dressColours();
    this.texts();
    this.curves(palette);
    this.search(palette);
    this.statistics(palette);
    this.byLayer();
    this.onCanvas();
    if (this.data.live) this.follow();
    else this.seek(this.position ?? this.data.steps);
  }

  open() {
    const { live, steps, plan } = this.data;
    this.cells = plan ? plan.rows * plan.columns : 0;
    this.keep = plan ? bits(plan.keep, this.cells) : [];
    this.queue = [];
    this.shownStep = 0;
    this.playing = false;
    this.position = live ? null : steps;
    this.root.classList.toggle("over", !live);
    this.slider.max = String(steps);
    this.slider.step = String(Math.max(1, Math.round(steps / 1000)));
    if (plan) { this.buildGrid(); this.buildTiles(); this.buildDrift(); }
    this.albumOf = null;
    this.painted = this.layout = null;
    this.where.textContent = "";
    this.dress();
  }

  /** The grids that a method without a mask has recorded, and the buttons that choose one. */
  byLayer() {
    const { plan, grids, by_layer: hasGrids } = this.data;
    this.root.classList.toggle("bare", !plan && !hasGrids);
    this.root.classList.toggle("by-layer", !plan && hasGrids);
    /** @type {HTMLElement} */ (this.root.querySelector(".lb-choose")).hidden = !plan;
    this.chooseGrid.hidden = Boolean(plan) || grids.length < 2;
    if (plan || !hasGrids) return;
    const layout = JSON.stringify(grids.map(({ name, rows, columns }) => [name, rows, columns]));
    if (layout === this.layout) return;
    this.layout = layout;
    this.grid.name = "by-layer";
    this.chosenGrid = grids.some((grid) => grid.name === this.chosenGrid) ? this.chosenGrid : grids.length ? grids[0].name : null;
    this.chooseGrid.replaceChildren(...grids.map(({ name, title }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", () => { this.chosenGrid = name; this.paintValues(true); });
      button.dataset.grid = name;
      return button;
    }));
    this.paintValues(true);
  }

  /** Buttons for the grids that a method with a mask records besides the quantities of all experts. */
  onCanvas() {
    const offered = this.data.plan ? this.data.grids : [], names = offered.map(({ name }) => name);
    const before = Object.keys(this.buttons).filter((key) => !(key in QUANTITIES));
    if (before.join() === names.join()) return;
    for (const key of before) { this.buttons[key].remove(); delete this.buttons[key]; }
    for (const { name, title } of offered) this.offer(name, title);
    if (!(this.chosen in this.buttons)) this.chosen = "beat";
    this.choose();
  }

  /** Draw the chosen grid at the evaluation that is shown. rebuild: another grid was chosen.
   * @param {boolean} rebuild */
  paintValues(rebuild = false) {
    const grid = this.data.grids.find(({ name }) => name === this.chosenGrid);
    const note = this.root.querySelector(".lb-formula"), step = this.root.querySelector(".lb-step");
    if (!grid) {
      this.grid.svg.replaceChildren();
      this.grid.say("Values by layer: not evaluated yet");
      note.textContent = step.textContent = "";
      return;
    }
    if (rebuild) {
      this.values.build(grid);
      for (const button of /** @type {HTMLElement[]} */ ([...this.chooseGrid.children])) button.setAttribute("aria-pressed", String(button.dataset.grid === grid.name));
    }
    this.values.grid = grid; // the ends of its scale change from evaluation to evaluation
    const now = this.data.evaluations[this.shownEvaluation];
    step.textContent = this.values.paint(now ? now.grids[grid.name] : null, this.palette);
    note.textContent = `${grid.note} Full colour: ${exact(grid.high)}.${now ? ` Epoch ${now.epoch}.` : ""}`;
  }

  /** The part of the bench that follows the evaluations of a method without a mask.
   * @param {number} at number of the evaluation, -1 before the first */
  withoutMask(at) {
    this.shownEvaluation = at;
    if (this.data.by_layer) this.paintValues();
    this.sampleImages(at);
  }

  dressColours() {
    for (const name of ["accent", "quiet", "hairline", "active", "ink", "surface", "raised", "failure", "warning", "faint", "low", "high"]) this.root.style.setProperty("--lb-" + name, this.palette[name]);
  }

  texts() {
    const { facts, progress, notes } = this.data;
    while (this.facts.children.length > facts.length) this.facts.lastChild.remove();
    facts.forEach(([name, value], i) => {
      let pair = /** @type {HTMLElement} */ (this.facts.children[i]);
      if (!pair) {
        pair = document.createElement("div");
        pair.append(document.createElement("dt"), document.createElement("dd"));
        this.facts.append(pair);
      }
      const dt = /** @type {HTMLElement} */ (pair.firstChild); // its technical word is a button, see ui/terms.py
      if (dt.textContent !== name) dt.innerHTML = this.data.names[i];
      if (pair.dataset.value === value) return;
      pair.dataset.value = value;
      const [first, second] = value.split("\n"), small = document.createElement("small");
      small.textContent = second || "";
      /** @type {HTMLElement} */ (pair.lastChild).replaceChildren(first, ...(second ? [small] : []));
    });
    this.bar.value = progress;
    this.bar.setAttribute("aria-valuetext", `${Math.round(100 * progress)} % of the steps`);
    for (const [name, text] of [["notes", notes.join(" ")], ["waiting", this.data.waiting], ["warning", this.data.warning]]) {
      const line = this.root.querySelector(".lb-" + name);
      if (line.textContent !== text) line.textContent = text;
    }
  }

  curves(palette) {
    for (const name in this.plots) {
      const figure = this.data.figures[name];
      /** @type {HTMLElement} */ (this.root.querySelector(".lb-" + name)).hidden = !figure;
      if (figure) this.plots[name].draw(figure.figure, figure.key + palette.surface, palette, this.data.plotly, figure.name, figure.alt);
    }
  }

  /** Draws every figure in `data.search`.
   * @param {Palette} palette */
  search(palette) {
    const sent = this.data.search, box = /** @type {HTMLElement} */ (this.root.querySelector(".lb-search"));
    box.hidden = !sent.length;
    this.each(sent, this.searched, box, true, palette);
  }

  /** Draws every figure in `data.statistics`; a folded list has no width to draw in.
   * @param {Palette} palette */
  statistics(palette) {
    const sent = this.data.statistics;
    this.more.hidden = !sent.length;
    this.each(sent, this.extra, this.more.querySelector("div"), this.more.open, palette);
  }

  /** Draws figures whose names and number Python decides.
   * @param {FigureMessage[]} sent @param {Record<string, Plot>} plots those drawn so far, by name
   * @param {HTMLElement} list that holds them @param {boolean} open whether it has a width @param {Palette} palette */
  each(sent, plots, list, open, palette) {
    for (const name in plots) {
      if (sent.some((figure) => figure.name === name)) continue;
      plots[name].purge();
      plots[name].node.remove();
      delete plots[name];
    }
    if (!open) return;
    for (const { name, alt, key, figure } of sent) {
      if (!plots[name]) {
        const chart = document.createElement("div");
        chart.className = "plot";
        chart.setAttribute("role", "figure");
        list.append(chart);
        plots[name] = new Plot(chart);
      }
      plots[name].draw(figure, key + palette.surface, palette, this.data.plotly, name, alt);
    }
  }

  // ---------------------------------------------------------------- the live run

  follow() {
    const { masks, evaluations } = this.data;
    if (!this.data.plan) { this.withoutMask(evaluations.length - 1); return; }
    this.at = evaluations.length - 1;
    const { first, stride, hex, pace } = masks;
    const fresh = this.shownStep === 0;
    hex.forEach((mask, i) => {
      const step = first + i * stride;
      if (step > this.shownStep) { this.queue.push([step, mask]); this.shownStep = step; }
    });
    if (fresh && !this.queue.length) this.rings(null); // no step yet: the experts of the mask
    // at the pace of the run, and never more than two seconds behind it
    const most = fresh ? 2 : Math.max(2, Math.ceil(2 * pace));
    if (this.queue.length > most) this.queue.splice(0, this.queue.length - most);
    this.every = Math.max(90, Math.min(1000, 900 / Math.max(pace, 0.5)));
    this.still(this.at);
    if (!this.beating && this.queue.length) this.beat();
  }

  beat() {
    clearTimeout(this.beating);
    this.beating = null;
    if (!this.root.isConnected || !this.data.live || this.paused) return;
    if (reduced()) this.queue.splice(0, this.queue.length - 1);
    const next = this.queue.shift();
    if (next) this.rings(bits(next[1], this.cells), next[0]);
    if (this.queue.length) this.beating = setTimeout(() => this.beat(), this.every);
  }

  pause() {
    if (this.data.live) {
      this.paused = !this.paused;
      if (!this.paused) {
        this.where.textContent = "";
        if (this.waiting) { const packed = this.waiting; this.waiting = null; this.update(packed); }
        this.beat();
      }
    } else {
      this.playing = !this.playing;
      if (this.playing && this.position >= this.data.steps) this.position = 0;
      this.last = null;
      if (this.playing) requestAnimationFrame((time) => this.tick(time));
    }
    this.dress();
  }

  dress() {
    const live = this.data && this.data.live;
    this.hold.textContent = live ? (this.paused ? "Resume display" : "Pause display") : this.playing ? "Pause" : "Play";
    this.hold.setAttribute("aria-pressed", String(live ? this.paused : Boolean(this.playing)));
  }

  // ---------------------------------------------------------------- the replay of a finished run

  tick(time) {
    if (!this.playing || !this.root.isConnected || this.data.live) return;
    if (this.last !== null) {
      const perSecond = this.speed.value === "own" ? this.data.masks.pace : Number(this.speed.value) * (this.data.steps / this.data.trained);
      this.seek(Math.min(this.data.steps, this.position + ((time - this.last) / 1000) * perSecond), time);
      if (this.position >= this.data.steps) { this.playing = false; this.dress(); }
    }
    this.last = time;
    requestAnimationFrame((now) => this.tick(now));
  }

  /** Show the run after some steps.
   * @param {number} step may be a fraction while playing @param {number} [time] of the animation frame, in ms */
  seek(step, time) {
    const { steps, epochs, trained, evaluations, masks, plan } = this.data;
    this.position = step;
    const epoch = steps ? (step / steps) * trained : 0;
    let at = -1;
    while (at + 1 < evaluations.length && evaluations[at + 1].step <= step + 1e-6) at++;
    if (!this.playing || Math.abs(Number(this.slider.value) - step) >= Number(this.slider.step)) this.slider.value = String(step);
    const accuracy = at >= 0 ? `accuracy ${evaluations[at].accuracy.toFixed(1)} %` : "not evaluated yet";
    this.where.textContent = `Epoch ${epoch.toFixed(epochs < 20 ? 1 : 0)} of ${epochs}, ${accuracy}`;
    this.slider.setAttribute("aria-valuetext", this.where.textContent);
    if (plan) {
      this.still(at);
      const number = Math.min(masks.hex.length - 1, Math.floor((Math.max(1, step) - masks.first) / masks.stride));
      const end = step >= steps;
      if (masks.hex.length && number >= 0) this.rings(end ? null : bits(masks.hex[number], this.cells), masks.first + number * masks.stride);
      else this.rings(null);
    } else {
      this.withoutMask(at);
    }
    if (time === undefined || !this.cursorAt || time - this.cursorAt > 120) { this.cursorAt = time; this.cursor(epoch); }
  }

  // a vertical line in the curves at the moment that is shown; none at the end
  cursor(epoch) {
    if (!window.Plotly) return;
    for (const name in this.plots) {
      const { node: chart, figure } = this.plots[name];
      if (!figure || !chart.layout) continue;
      const fixed = figure.layout.shapes || [];
      const line = { type: "line", xref: "x", yref: "paper", x0: epoch, x1: epoch, y0: 0, y1: 1, line: { color: this.palette.active, width: 1.5 } };
      window.Plotly.relayout(chart, { shapes: epoch < this.data.trained ? [...fixed, line] : fixed });
    }
  }

  // ---------------------------------------------------------------- the grid of experts

  buildGrid() {
    const { rows, columns, labels } = this.data.plan;
    const cell = rows > 24 ? 16 : rows > 14 ? 20 : 26, left = 62, top = 4;
    const side = Math.min(cell, Math.floor(420 / columns));
    this.grid.svg.replaceChildren();
    this.grid.size(left + columns * (side + 3) + 4, top + rows * (side + 3) + 30);
    /** @type {{ frame: SVGElement, fill: SVGElement | null, tip: SVGElement, half: number, exists: number }[]} */
    this.shapes = [];
    const quiet = { class: "lb-quiet", "font-size": 11 };
    for (let r = 0; r < rows; r++) {
      const y = top + r * (side + 3);
      this.grid.svg.append(node("text", { ...quiet, x: left - 8, y: y + side / 2 + 4, "text-anchor": "end" }, labels[r]));
      for (let c = 0; c < columns; c++) {
        const x = left + c * (side + 3), exists = this.keep[r * columns + c];
        const group = node("g", { transform: `translate(${x + side / 2} ${y + side / 2})` });
        const half = side / 2 - 0.75;
        const frame = node("rect", { x: -half, y: -half, width: 2 * half, height: 2 * half, rx: 4, fill: "none", class: "lb-line", "stroke-width": 1 });
        group.append(frame);
        let fill = null;
        if (exists) {
          fill = node("rect", { x: -half + 2, y: -half + 2, width: 2 * half - 4, height: 2 * half - 4, rx: 3 });
          group.append(fill);
        } else {
          group.append(node("line", { x1: -half * 0.55, y1: half * 0.55, x2: half * 0.55, y2: -half * 0.55, class: "lb-absent" }));
        }
        const tip = node("desc", {});
        group.append(tip);
        this.grid.svg.append(group);
        this.shapes.push({ frame, fill, tip, half, exists });
      }
    }
    if (labels.every((label) => !label.includes(" "))) this.grid.axis(top, top + rows * (side + 3) - 3);
    const under = top + rows * (side + 3) + 12;
    for (let c = 0; c < columns; c++) this.grid.svg.append(node("text", { ...quiet, x: left + c * (side + 3) + side / 2, y: under, "text-anchor": "middle" }, c + 1));
    this.grid.svg.append(node("text", { ...quiet, x: left - 8, y: under, "text-anchor": "end" }, "expert"));
  }

  /** Draw what evaluation number `at` recorded (-1: before the first).
   * @param {number} at @param {boolean} force draw even if it is shown already */
  still(at, force = false) {
    const now = at >= 0 ? this.data.evaluations[at] : null;
    const key = `${this.palette.surface} ${now ? now.step : ""} ${this.data.dense ? this.data.dense.run : ""}`;
    this.shownEvaluation = at;
    if (key === this.painted && !force) return;
    this.painted = key;
    this.paintGrid(now);
    this.paintTiles(now);
    this.paintDrift(now);
    this.sampleImages(at);
  }

  /** @param {EvaluationMessage | null} now */
  paintGrid(now) {
    const { columns, start } = this.data.plan, palette = this.palette, chosen = this.chosen;
    const key = chosen === "beat" ? "contribution" : chosen;
    const own = this.data.grids.find(({ name }) => name === key), values = !now ? null : own ? now.grids[key] : now[key];
    const top = own ? own.high : key === "share" ? 1 : this.data.tops[key], pull = this.data.tops.gradient;
    let reach = 0.01;
    if (now) for (const value of now.coefficient) if (value !== null) reach = Math.max(reach, Math.abs(value - start));
    let best = null;
    this.shapes.forEach((shape, i) => {
      const r = Math.floor(i / columns), c = i % columns, p = this.data.plan.rates[i];
      const name = `Layer ${this.data.plan.labels[r]}, expert ${c + 1}`, rate = p ? `dropped with p = ${number(p)}` : "never dropped (p = 0)";
      if (!shape.exists) { shape.tip.textContent = name + "\nno expert (fixed mask)"; return; }
      const value = values ? values[i] : null;
      let colour = palette.track, size = 1;
      if (value !== null && value !== undefined) {
        const goal = key === "coefficient" ? Math.abs(value - start) : value;
        if (best === null || goal > best[0]) best = [goal, r, c, value];
        colour = key === "coefficient" ? diverging(palette, (value - start) / reach) : sequential(palette, own ? Math.max(0, value) / top : Math.sqrt(Math.max(0, value) / top));
        if (chosen === "beat") size = 0.35 + 0.65 * Math.sqrt(Math.min(1, now.gradient[i] / pull));
        shape.tip.textContent = [name, `contribution ${number(now.contribution[i])}`, `λ = ${number(now.coefficient[i], 4)}`,
          `${rate}, active in ${Math.round(100 * now.share[i])} % of the steps`, `gradient ${number(now.gradient[i])}`,
          ...this.data.grids.flatMap(({ name: grid, title }) => (now.grids[grid] ? [`${title.toLowerCase()} ${number(now.grids[grid][i])}`] : [])),
        ].join("\n");
      } else {
        shape.tip.textContent = `${name}\n${rate}, not evaluated yet`;
        if (chosen === "beat") size = 0.35;
      }
      const half = (shape.half - 2) * size;
      for (const [attribute, v] of Object.entries({ x: -half, y: -half, width: 2 * half, height: 2 * half, fill: colour })) shape.fill.setAttribute(attribute, String(v));
    });
    const labels = this.data.plan.labels;
    this.grid.say(!now ? `The mask: ${this.data.plan.experts} expert${this.data.plan.experts === 1 ? "" : "s"}, not evaluated yet`
      : best === null ? "The mask has no experts"
      : chosen === "share" && now.share.every((v) => v === null || v === 1) ? "Every expert was active in every step"
      : `Layer ${labels[best[1]]}, expert ${best[2] + 1} ${own ? `has the largest ${own.title.toLowerCase()} (${number(best[3])})` : QUANTITIES[key].best}` + (key === "coefficient" ? `: ${number(start)} → ${number(best[3], 4)}` : ""));
    const note = own ? `${own.note} Full colour: ${exact(own.high)}.` : `${QUANTITIES[chosen].note} Crossed out: no expert.`;
    this.root.querySelector(".lb-formula").textContent = note + (now ? ` Epoch ${now.epoch}.` : "");
  }

  /** Mark the active experts of a step, or none.
   * @param {Uint8Array | null} on @param {number} [step] */
  rings(on, step) {
    const palette = this.palette;
    let count = 0;
    this.shapes.forEach((shape, i) => {
      const active = Boolean(on && on[i] && shape.exists);
      count += Number(active);
      shape.frame.style.stroke = active ? palette.active : shape.exists && !on ? palette.accent : palette.hairline;
      shape.frame.setAttribute("stroke-width", active ? "2.2" : "1");
      if (shape.fill) shape.fill.setAttribute("opacity", on && !active ? "0.45" : "1");
    });
    this.root.querySelector(".lb-step").textContent = on ? `Step ${step.toLocaleString("en")}: ${count} of ${this.data.plan.experts} experts active` : "";
  }

  choose() {
    for (const key in this.buttons) this.buttons[key].setAttribute("aria-pressed", String(key === this.chosen));
    if (this.data && this.data.plan) this.still(this.shownEvaluation ?? -1, true);
  }

  gridRows() {
    const { columns, labels } = this.data.plan, now = this.data.evaluations[this.shownEvaluation];
    /** @type {(string | number)[][]} */
    const rows = [["layer", "expert", "exists", "contribution", "coefficient", "active_share", "gradient", ...this.data.grids.map(({ name }) => name)]];
    this.shapes.forEach((shape, i) => rows.push([labels[Math.floor(i / columns)], (i % columns) + 1, Number(shape.exists),
      ...["contribution", "coefficient", "share", "gradient"].map((key) => (now && now[key][i] !== null ? now[key][i] : "")),
      ...this.data.grids.map(({ name }) => (now && now.grids[name] && now.grids[name][i] !== null ? now.grids[name][i] : ""))]));
    return rows;
  }

  // ---------------------------------------------------------------- similarity

  buildTiles() {
    const { rows, kept, labels } = this.data.plan;
    const most = Math.max(2, ...kept), across = rows > 12 ? 6 : 4, tile = rows > 12 ? 74 : 104, gap = 12, head = 16;
    this.tiles.svg.replaceChildren();
    this.tiles.size(across * (tile + gap) - gap, Math.ceil(rows / across) * (tile + gap + head));
    /** @type {{ r: number, i: number, j: number, squares: { square: SVGElement, tip: SVGElement }[] }[]} */
    this.pairs = [];
    /** @type {SVGElement[]} */
    this.heads = [];
    for (let r = 0; r < rows; r++) {
      const x0 = (r % across) * (tile + gap), y0 = Math.floor(r / across) * (tile + gap + head) + head, side = tile / most;
      const label = node("text", { x: x0, y: y0 - 5, class: "lb-quiet", "font-size": 11 }, labels[r]);
      this.tiles.svg.append(label, node("rect", { x: x0 + 0.5, y: y0 + 0.5, width: tile - 1, height: tile - 1, rx: 3, fill: "none", class: "lb-line" }));
      this.heads.push(label);
      for (let i = 0; i < kept[r]; i++) for (let j = 0; j < i; j++) {
        const squares = [[i, j], [j, i]].map(([a, b]) => { // both halves of the symmetric matrix
          const square = node("rect", { x: x0 + b * side + 0.5, y: y0 + a * side + 0.5, width: side - 1, height: side - 1, rx: 1, fill: "none" });
          const tip = node("desc", {});
          square.append(tip);
          this.tiles.svg.append(square);
          return { square, tip };
        });
        this.pairs.push({ r, i, j, squares });
      }
    }
  }

  /** @param {EvaluationMessage | null} now */
  paintTiles(now) {
    const { labels, kept } = this.data.plan, { dense, cosines: { reach, random } } = this.data;
    this.pairs.forEach((pair, k) => {
      const value = now && now.similarity ? now.similarity[k] : null;
      for (const { square, tip } of pair.squares) {
        square.setAttribute("fill", value === null || value === undefined ? "none" : diverging(this.palette, value / reach));
        tip.textContent = `Layer ${labels[pair.r]}, experts ${pair.i + 1} and ${pair.j + 1}\ncosine ${number(value)}`;
      }
    });
    let top = null;
    this.heads.forEach((label, r) => {
      const mean = now ? now.absolute[r] : null, other = dense ? dense.absolute[r] : null;
      if (mean !== null && (top === null || mean > top[0])) top = [mean, r];
      label.textContent = labels[r] + (kept[r] === 0 ? " · no expert" : kept[r] === 1 ? " · 1 expert" : mean === null ? "" : ` · ${mean.toFixed(2)}`) + (mean !== null && other !== null && other !== undefined ? ` / ${other.toFixed(2)}` : "");
    });
    /** @type {HTMLElement} */ (this.root.querySelector(".lb-dense")).hidden = !dense;
    this.root.querySelector(".lb-from").textContent = `−${reach}`;
    this.root.querySelector(".lb-to").textContent = `${reach}`;
    this.root.querySelector(".lb-random").textContent = random === null ? "" : `The two marks are the mean |cosine| of random experts, ${number(random, 2)}. `;
    /** @type {NodeListOf<HTMLElement>} */ (this.root.querySelectorAll(".lb-scale i")).forEach((mark, i) => {
      mark.hidden = random === null;
      mark.style.left = `${50 + (i ? 50 : -50) * Math.min(1, random / reach)}%`;
    });
    this.tiles.say(top ? `Most similar experts: layer ${labels[top[1]]}, mean |cosine| ${top[0].toFixed(2)}` : now ? "No layer has two experts" : "Expert similarity: no evaluation yet");
  }

  tileRows() {
    const now = this.data.evaluations[this.shownEvaluation];
    return [["layer", "expert", "other", "cosine"], ...this.pairs.map((pair, k) => [this.data.plan.labels[pair.r], pair.i + 1, pair.j + 1, now && now.similarity ? now.similarity[k] : ""])];
  }

  // ---------------------------------------------------------------- λ

  buildDrift() {
    const { rows, columns, labels } = this.data.plan;
    const pitch = rows > 24 ? 11 : 17, left = 62, width = 430;
    this.drift.svg.replaceChildren();
    this.drift.size(width, rows * pitch + 34);
    this.centre = left + (width - left) / 2;
    this.room = (width - left) / 2 - 26;
    const bottom = rows * pitch + 6;
    this.drift.svg.append(node("line", { x1: this.centre, x2: this.centre, y1: 2, y2: bottom, class: "lb-line" }));
    for (let r = 0; r < rows; r++) this.drift.svg.append(node("text", { x: left - 8, y: r * pitch + 13, class: "lb-quiet", "font-size": 11, "text-anchor": "end" }, labels[r]));
    /** @type {[number, SVGElement][]} */
    this.ticks = [-1, 0, 1].map((at) => {
      const text = node("text", { x: this.centre + at * this.room, y: bottom + 14, class: "lb-quiet", "font-size": 11, "text-anchor": "middle" });
      this.drift.svg.append(text);
      return [at, text];
    });
    /** @type {([SVGElement, SVGElement] | null)[]} dot and trail of each cell */
    this.dots = [];
    for (let i = 0; i < rows * columns; i++) {
      if (!this.keep[i]) { this.dots.push(null); continue; }
      const y = Math.floor(i / columns) * pitch + 9;
      const trail = node("line", { x1: this.centre, x2: this.centre, y1: y, y2: y, class: "lb-trail" });
      const dot = node("circle", { cx: this.centre, cy: y, r: 3.4, class: "lb-dot" });
      dot.append(node("desc", {}));
      this.drift.svg.append(trail, dot);
      this.dots.push([dot, trail]);
    }
  }

  /** @param {EvaluationMessage | null} now */
  paintDrift(now) {
    const { start, trains, labels, columns } = this.data.plan;
    const reach = this.data.tops.drift || 0.01;
    let best = null;
    this.dots.forEach((dot, i) => {
      if (!dot) return;
      const value = now ? now.coefficient[i] : start, x = this.centre + ((value - start) / reach) * this.room;
      dot[0].setAttribute("cx", String(x));
      dot[0].firstChild.textContent = `Layer ${labels[Math.floor(i / columns)]}, expert ${(i % columns) + 1}\nλ = ${number(value, 4)}, initially ${number(start)}`;
      dot[1].setAttribute("x2", String(x));
      if (best === null || Math.abs(value - start) > Math.abs(best[0] - start)) best = [value, i];
    });
    for (const [at, text] of this.ticks) text.textContent = number(start + at * reach, 4);
    this.drift.say(!trains ? `λ is not trained: every expert stays at ${number(start)}`
      : !now || best === null ? `λ of every expert starts at ${number(start)}`
      : `λ changed most in layer ${labels[Math.floor(best[1] / columns)]}, expert ${(best[1] % columns) + 1}: ${number(start)} → ${number(best[0], 4)}`);
  }

  driftRows() {
    const { columns, labels, start } = this.data.plan, now = this.data.evaluations[this.shownEvaluation];
    /** @type {(string | number)[][]} */
    const rows = [["layer", "expert", "start", "coefficient"]];
    this.dots.forEach((dot, i) => { if (dot) rows.push([labels[Math.floor(i / columns)], (i % columns) + 1, start, now ? now.coefficient[i] : start]); });
    return rows;
  }

  // ---------------------------------------------------------------- the images

  sampleImages(at) {
    const { truth, evaluations, run } = this.data;
    const holder = document.querySelector(`.lb-images[data-run="${run}"]`);
    const list = this.album.querySelector("ol");
    this.album.hidden = !truth.length || !holder;
    if (this.album.hidden) return;
    if (this.albumOf !== run) {
      this.albumOf = run;
      list.replaceChildren();
      holder.querySelectorAll("img").forEach((sample, i) => {
        const item = document.createElement("li"), image = document.createElement("img");
        image.src = sample.src;
        image.alt = truth[i];
        item.append(image, document.createElement("b"), document.createElement("span"));
        list.append(item);
      });
    }
    const now = at >= 0 && evaluations[at].predicted ? evaluations[at] : null, before = at > 0 && evaluations[at - 1].predicted ? evaluations[at - 1] : null;
    let correct = 0, flips = 0;
    /** @type {HTMLElement[]} */ ([...list.children]).forEach((item, i) => {
      const predicted = now ? now.predicted[i] : null, isCorrect = predicted === truth[i];
      const flip = Boolean(now && before && before.predicted[i] !== predicted);
      correct += Number(isCorrect && predicted !== null);
      flips += Number(flip);
      item.className = predicted === null ? "" : (isCorrect ? "correct" : "wrong") + (flip ? " flip" : "");
      item.children[1].textContent = predicted === null ? "–" : (isCorrect ? "✓ " : "✗ ") + predicted;
      item.children[2].textContent = predicted === null ? "" : `${Math.round(100 * now.confidence[i])} %` + (isCorrect ? "" : `, class: ${truth[i]}`) + (flip ? `; before: ${before.predicted[i]}` : "");
      item.title = predicted === null ? truth[i] : `Class ${truth[i]}, predicted ${predicted} with confidence ${Math.round(100 * now.confidence[i])} %` + (flip ? `, before ${before.predicted[i]}` : "");
    });
    this.album.querySelector(".lb-title").textContent = now
      ? `${correct} of ${truth.length} sample images correct ${now.when}` + (before ? `; ${flips || "no"} prediction${flips === 1 ? "" : "s"} changed since epoch ${before.epoch}` : "")
      : `${truth.length} sample images, predicted at every evaluation`;
  }

  close() {
    clearTimeout(this.beating);
    this.playing = false;
    this.tip.hide();
    for (const plot of [...Object.values(this.plots), ...Object.values(this.extra), ...Object.values(this.searched)]) plot.purge();
  }
}

/** @param {ComponentArguments<Uint8Array<ArrayBuffer>>} component */
export default function ({ data, parentElement }) {
  let bench = benches.get(parentElement);
  if (!bench) {
    bench = new Bench(parentElement);
    benches.set(parentElement, bench);
  }
  bench.update(data);
  return () => { bench.close(); benches.delete(parentElement); };
}
