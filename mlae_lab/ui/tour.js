// @ts-check
// The tour: pages of text on the left, one diagram on the right. Each page switches parts of the diagram on and off, and
// the same 96 cells travel from the experts of a layer to the grid, to a ranking and to the similarity maps. All numbers
// were recorded (assets/tour.json).

/**
 * @typedef {object} TourStep
 * @property {string} name of the scene
 * @property {string} title
 * @property {string} text HTML
 * @property {string} formula HTML
 * @property {string} alt what the diagram shows
 *
 * @typedef {object} TourMessage
 * @property {TourStep[]} steps
 * @property {number} step from 0
 * @property {string} recording address of the recording
 * @property {boolean[][]} mask the fixed mask of the scene "mask"
 * @property {number} random mean |cos| of random experts
 * @property {string} close label of a button that closes the tour, "" for none
 *
 * @typedef {object} TourRecording
 * @property {number} rows
 * @property {number} columns
 * @property {number} epochs
 * @property {number} layer from 1
 * @property {{ inputs: number, outputs: number, w: number[][], delta: number[][], experts: number[][][] }} weights
 * @property {string[][]} steps active experts of each row, bits in hexadecimal
 * @property {[number, number][]} accuracy epoch and accuracy in percent
 * @property {number[][][]} contribution for each evaluation
 * @property {number[][]} coefficient
 * @property {number[][][]} similarity for each row, experts by experts
 * @property {Record<string, { seed: number, accuracy: number, similarity: number }[]>} arms
 *
 * @typedef {{ x: number, y: number, w: number, h: number, level?: number, kind?: string, round?: number, hidden?: boolean }} Box
 */

const WIDTH = 960, HEIGHT = 600;
const CELL = { w: 46, h: 31, gap: 6 };
const SENT_AFTER = 300; // ms: held arrow keys send one message
/** @type {WeakMap<HTMLElement | ShadowRoot, Tour>} */
const tours = new WeakMap();

class Tour {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    /** @type {HTMLElement} */
    this.root = parent.querySelector(".tour");
    this.svg = this.root.querySelector("svg");
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.paused = this.still; // the sampled masks, the only thing that moves on its own for long
    this.step = 0;
    /** @type {Set<number>} */
    this.sent = new Set();
    const on = (name, act) => this.root.querySelector(name).addEventListener("click", act);
    on(".tour-back", () => this.go(this.step - 1));
    on(".tour-next", () => this.go(this.step + 1));
    on(".tour-pause", () => { this.paused = !this.paused; this.pause(); });
    on(".tour-close", () => this.component.setTriggerValue("closed", true));
    this.pressed = (event) => this.key(event);
    document.addEventListener("keydown", this.pressed);
    this.resized = new ResizeObserver(() => this.size());
    this.resized.observe(this.svg);
  }

  close() {
    document.removeEventListener("keydown", this.pressed);
    this.resized.disconnect();
    clearInterval(this.timer);
    clearTimeout(this.pending);
  }

  /** @param {ComponentArguments<TourMessage>} component */
  open(component) {
    this.component = component;
    const data = component.data;
    this.data = data;
    this.palette = paletteOf(this.root);
    for (const name of ["accent", "active", "quiet", "hairline", "ink", "low", "high", "surface"]) this.root.style.setProperty("--" + name, this.palette[name]);
    if (data.step !== this.known) { // a link, or the echo of what was sent
      this.known = data.step;
      if (!this.sent.has(data.step)) this.step = data.step;
    }
    this.texts();
    if (this.recording) { this.build(); this.draw(); return; }
    this.loading = this.loading || fetch(new URL(data.recording, document.baseURI))
      .then((answer) => answer.json())
      .then((recording) => { this.recording = recording; this.build(); this.draw(); })
      .catch((error) => { this.root.querySelector(".tour-keys").textContent = "The diagram did not load from the lab's server: " + error.message; });
  }

  /** Arrow keys everywhere but where they mean something else; Page Up and Page Down, which presenters have, while presenting.
   * @param {KeyboardEvent} event */
  key(event) {
    if (!this.root.isConnected || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const target = /** @type {Element} */ (event.composedPath()[0]);
    if (target instanceof Element && target.closest("input, textarea, select, [contenteditable='true'], [role='slider'], [role='grid'], [role='tablist'], [role='radiogroup']")) return;
    const presenting = document.documentElement.classList.contains("lab-present");
    const by = event.key === "ArrowRight" || (presenting && event.key === "PageDown") ? 1 : event.key === "ArrowLeft" || (presenting && event.key === "PageUp") ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    this.go(this.step + by);
  }

  /** @param {number} step */
  go(step) {
    if (step < 0 || step >= this.data.steps.length || step === this.step) return;
    this.step = step;
    this.texts();
    if (this.recording) this.draw();
    clearTimeout(this.pending);
    this.pending = setTimeout(() => { this.sent.add(step); this.component.setStateValue("step", step); }, SENT_AFTER);
  }

  texts() {
    const { steps, close } = this.data, step = steps[this.step];
    const find = (name) => /** @type {HTMLElement} */ (this.root.querySelector(name));
    find("h2").textContent = step.title;
    find(".tour-formula").innerHTML = step.formula;
    find(".tour-body").innerHTML = step.text;
    find(".tour-count").textContent = `${this.step + 1} of ${steps.length}`;
    const bar = /** @type {HTMLProgressElement} */ (this.root.querySelector("progress"));
    bar.max = steps.length;
    bar.value = this.step + 1;
    /** @type {HTMLButtonElement} */ (this.root.querySelector(".tour-back")).disabled = this.step === 0;
    /** @type {HTMLButtonElement} */ (this.root.querySelector(".tour-next")).disabled = this.step === steps.length - 1;
    find(".tour-close").hidden = !close;
    find(".tour-close").textContent = close;
    this.pause();
    this.svg.setAttribute("aria-label", step.alt);
  }

  /** Letters have a readable size however narrow the diagram is. */
  size() {
    const width = this.svg.getBoundingClientRect().width || WIDTH;
    this.root.style.setProperty("--size", Math.min(30, Math.max(15, (13.5 * WIDTH) / width)) + "px");
  }

  // -------------------------------------------------------------- the diagram

  /** A matrix as an image: orange above 0, blue below, or one hue for values from 0.
   * @param {number[][]} values @param {number} limit @param {boolean} [oneHue] */
  heat(values, limit, oneHue) {
    const canvas = document.createElement("canvas"), n = values.length;
    canvas.width = canvas.height = n;
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    const [none, high, low] = [this.palette.track, oneHue ? this.palette.accent : this.palette.high, this.palette.low].map(rgb);
    values.flat().forEach((value, i) => {
      const share = Math.min(1, Math.abs(value) / limit), end = value < 0 && !oneHue ? low : high;
      none.forEach((from, k) => { image.data[4 * i + k] = from + (end[k] - from) * share; });
      image.data[4 * i + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  /** Draw what stands still; rebuilt when the theme changes. */
  build() {
    if (this.built === this.palette.surface) return;
    this.built = this.palette.surface;
    const { rows, columns, weights, layer, similarity } = this.recording;
    const map = (values, limit, x, y, side, oneHue) => `<image href="${this.heat(values, limit, oneHue)}" x="${x}" y="${y}" width="${side}" height="${side}" preserveAspectRatio="none"/>`;
    const spread = (values) => { const sorted = values.flat(3).map(Math.abs).sort((a, b) => a - b); return sorted[Math.floor(sorted.length * 0.98)] || 1; };
    const limit = spread(weights.w), small = spread(weights.experts);
    const middle = (x, y, text, strong) => `<text x="${x}" y="${y}" text-anchor="middle"${strong ? ' class="strong"' : ""}>${text}</text>`;
    const arrow = (x1, x2, y) => `<path class="line" d="M${x1} ${y}H${x2}m-9 -6l9 6l-9 6"/>`;
    const bar = (x, text) => `<rect x="${x}" y="150" width="22" height="260" rx="4" fill="var(--hairline)"/>${middle(x + 11, 445, text, true)}`;
    const parts = {
      weight: bar(120, "x") + arrow(165, 320, 280) + map(weights.w, limit, 340, 140, 280) + arrow(640, 795, 280) + bar(815, "y") +
        middle(480, 460, "W, frozen", true) + middle(480, 500, `${weights.outputs} × ${weights.inputs} numbers, a corner is shown`),
      update: map(weights.w, limit, 60, 160, 240) + middle(180, 440, "W, frozen", true) + middle(332, 292, "+", true) +
        map(weights.delta, spread(weights.delta), 364, 160, 240) + middle(484, 440, "ΔW, trained", true) + middle(638, 292, "=", true) +
        `<rect x="672" y="160" width="34" height="240" rx="3" fill="var(--accent)" fill-opacity=".75"/><rect x="722" y="160" width="180" height="34" rx="3" fill="var(--accent)" fill-opacity=".75"/>` +
        middle(689, 440, "B", true) + middle(812, 230, "A", true),
      parts: middle(150, 470, "ΔW", true) + map(weights.delta, spread(weights.delta), 50, 200, 200) + middle(280, 308, "=", true) +
        weights.experts.map((e, i) => { const box = this.partBox(i); return map(e, small, box.x, box.y, box.w) + middle(box.x + box.w / 2, box.y + box.h + 28, `b a<tspan dy="-6" font-size="70%">T</tspan>`); }).join(""),
      labels: [0, rows - 1].map((r) => { const box = this.gridBox(r, 0); return `<text x="${box.x - 14}" y="${box.y + 22}" text-anchor="end">${r ? rows : 1}</text>`; }).join("") +
        `<text x="${this.gridBox(0, 0).x - 14}" y="34" text-anchor="end">layer</text>` + middle(WIDTH / 2, 34, "eight experts") +
        `<text x="${this.gridBox(0, columns - 1).x + CELL.w + 18}" y="${this.gridBox(0, 0).y + 22}">near the image</text>` +
        `<text x="${this.gridBox(0, columns - 1).x + CELL.w + 18}" y="${this.gridBox(rows - 1, 0).y + 22}">near the answer</text>`,
      crosses: this.data.mask.flatMap((row, r) => row.map((kept, c) => { const box = this.gridBox(r, c); return kept ? "" : `<path class="line" stroke-opacity=".5" d="M${box.x + 4} ${box.y + box.h - 4}L${box.x + box.w - 4} ${box.y + 4}"/>`; })).join(""),
      curve: `<g class="curve"></g>`,
      ranking: `<path class="hair" d="M56 500H906"/>` + middle(WIDTH / 2, 545, "96 experts, the strongest first") + `<text x="56" y="60">contribution to the layer</text>`,
      maps: similarity.map((matrix, r) => { const box = this.mapBox(r); return map(matrix.map((row, i) => row.map((v, j) => (i === j ? 0 : Math.abs(v)))), this.topSimilarity(), box.x, box.y, box.w, true) + `<text x="${box.x}" y="${box.y - 7}">layer ${r + 1}</text>`; }).join(""),
      verdict: this.verdict(),
    };
    const order = ["weight", "update", "parts", "labels", "curve", "ranking", "maps", "verdict"];
    const group = (name) => `<g class="part" data-scene="${name}">${parts[name]}</g>`;
    const cells = Array.from({ length: rows * columns }, () => '<rect class="cell"/>').join("");
    this.svg.innerHTML = order.map(group).join("") + cells + group("crosses");
    /** @type {SVGRectElement[]} */
    this.cells = [...this.svg.querySelectorAll(".cell")].map((cell) => /** @type {SVGRectElement} */ (cell));
    this.layer = layer - 1;
    this.size();
  }

  topSimilarity() {
    const values = this.recording.similarity.flatMap((matrix) => matrix.flatMap((row, i) => row.filter((_, j) => j !== i).map(Math.abs))).sort((a, b) => a - b);
    return values[Math.floor(values.length * 0.97)] || 1;
  }

  /** @param {number} r @param {number} c @returns {Box} */
  gridBox(r, c, left = (WIDTH - 8 * CELL.w - 7 * CELL.gap) / 2) { return { x: left + c * (CELL.w + CELL.gap), y: 56 + r * (CELL.h + CELL.gap), w: CELL.w, h: CELL.h }; }
  /** @param {number} i @returns {Box} */
  partBox(i) { return { x: 316 + (i % 4) * 158, y: 96 + Math.floor(i / 4) * 216, w: 140, h: 140 }; }
  /** @param {number} r @returns {Box} */
  mapBox(r) { return { x: 130 + (r % 4) * 182, y: 40 + Math.floor(r / 4) * 188, w: 144, h: 144 }; }

  // two panels: similarity and accuracy of every run, runs of one seed are joined
  verdict() {
    const { arms } = this.recording;
    return this.panels().map(({ x, title, y, format, random }) => {
      const at = { dense: x + 70, masked: x + 250 };
      const lines = arms.dense.map((run, i) => `<path class="line" stroke-opacity=".55" d="M${at.dense} ${y(run)}L${at.masked} ${y(arms.masked[i])}"/>`).join("");
      const mean = (arm) => { const runs = arms[arm], m = { similarity: 0, accuracy: 0, seed: 0 }; for (const run of runs) { m.similarity += run.similarity / runs.length; m.accuracy += run.accuracy / runs.length; } return m; };
      const arm = (name) => arms[name].map((run) => `<circle cx="${at[name]}" cy="${y(run)}" r="7" fill="${name === "dense" ? "var(--quiet)" : "var(--accent)"}"/>`).join("") +
        `<text class="strong" x="${at[name] + (name === "dense" ? -16 : 16)}" y="${y(mean(name)) + 5}" text-anchor="${name === "dense" ? "end" : "start"}">${format(mean(name))}</text>` +
        `<text x="${at[name]}" y="530" text-anchor="middle">${name === "dense" ? "no mask" : "p = 0.5"}</text>`;
      const chance = random === undefined ? "" : `<path class="line" stroke-dasharray="4 4" d="M${x + 20} ${random}H${x + 300}"/><text x="${x + 300}" y="${random - 8}" text-anchor="end">random</text>`;
      return `<path class="hair" d="M${x + 20} 500H${x + 300}"/><text class="strong" x="${x + 20}" y="56">${title}</text>${lines}${arm("dense")}${arm("masked")}${chance}`;
    }).join("");
  }

  panels() {
    const runs = Object.values(this.recording.arms).flat();
    const top = Math.max(...runs.map((run) => run.similarity)) * 1.1;
    const low = Math.floor(Math.min(...runs.map((run) => run.accuracy)) / 5) * 5 - 5, high = Math.min(100, Math.ceil(Math.max(...runs.map((run) => run.accuracy)) / 5) * 5 + 5);
    const similar = (value) => 500 - (value / top) * 400;
    return [
      { x: 90, title: "mean |cos|", y: (run) => similar(run.similarity), format: (run) => run.similarity.toFixed(3), random: similar(this.data.random) },
      { x: 540, title: `accuracy, ${low} to ${high} %`, y: (run) => 500 - ((run.accuracy - low) / (high - low)) * 400, format: (run) => run.accuracy.toFixed(1) + " %", random: undefined },
    ];
  }

  draw() {
    const scene = this.data.steps[this.step].name;
    const shown = { weight: ["weight"], update: ["update"], parts: ["parts"], grid: ["labels"], coefficient: ["labels"], mask: ["labels", "crosses"],
      drop: ["labels"], train: ["curve"], ranking: ["ranking"], similarity: ["maps"], verdict: ["verdict"] }[scene];
    for (const part of this.svg.querySelectorAll(".part")) part.classList.toggle("on", shown.includes(/** @type {SVGGElement} */ (part).dataset.scene));
    clearInterval(this.timer);
    this.frame = 0;
    this.arrange(scene);
    const frames = { drop: this.recording.steps.length, train: this.recording.accuracy.length }[scene];
    if (!frames) return;
    if (this.still && scene === "train") { this.frame = frames - 1; this.arrange(scene); return; }
    this.timer = setInterval(() => {
      if (scene === "drop" && this.paused) return;
      if (scene === "train" && this.frame === frames - 1) { clearInterval(this.timer); return; }
      this.frame = (this.frame + 1) % frames;
      this.arrange(scene);
    }, scene === "train" ? 900 : 650);
  }

  /** The button that stops the sampled masks. */
  pause() {
    const button = /** @type {HTMLButtonElement} */ (this.root.querySelector(".tour-pause"));
    button.hidden = this.data.steps[this.step].name !== "drop";
    button.textContent = this.paused ? "Play" : "Pause";
  }

  /** Where each cell is in a scene.
   * @param {string} scene */
  arrange(scene) {
    const { rows, columns, contribution, coefficient, steps, arms, accuracy } = this.recording;
    const last = contribution[contribution.length - 1], top = Math.max(...contribution.flat(2));
    const level = (r, c, canvas = last) => 0.12 + 0.88 * Math.sqrt(canvas[r][c] / top);
    /** @type {number[]} */
    const place = [];
    if (scene === "ranking") last.flat().map((value, i) => [value, i]).sort((a, b) => b[0] - a[0]).forEach(([, i], k) => { place[i] = k; });
    const spread = Math.max(...coefficient.flat().map((v) => Math.abs(v - 1))) || 1;
    const [panel] = this.panels();
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        /** @type {Box} */
        let box = { ...this.gridBox(r, c), level: 0.85 };
        if (scene === "weight" || scene === "update") box = { x: scene === "weight" ? 470 : 474, y: 270, w: 20, h: 20, hidden: true };
        else if (scene === "parts") box = r === this.layer ? { ...this.partBox(c), level: 0 } : { ...this.gridBox(r, c), hidden: true };
        else if (scene === "coefficient") { const v = coefficient[r][c] - 1; box.level = 0.08 + (0.92 * Math.abs(v)) / spread; box.kind = v >= 0 ? "above" : "below"; }
        else if (scene === "mask" && !this.data.mask[r][c]) { box.level = 0; box.kind = "absent"; }
        else if (scene === "drop") { const on = (parseInt(steps[this.frame][r], 16) >> c) & 1; box.level = on ? 0.85 : 0.14; box.kind = on ? "active" : ""; }
        else if (scene === "train") box = { ...this.gridBox(r, c, 30), level: level(r, c, contribution[this.frame]) };
        else if (scene === "ranking") { const h = Math.max(2, (420 * last[r][c]) / top); box = { x: 58 + place[r * columns + c] * 8.8, y: 500 - h, w: 7, h, level: 0.85, round: 1 }; }
        else if (scene === "similarity") { const map = this.mapBox(r), side = map.w / columns; box = { x: map.x + c * side, y: map.y + c * side, w: side, h: side, level: level(r, c), round: 1, kind: "diagonal" }; }
        else if (scene === "verdict") box = { x: panel.x + 243, y: panel.y(arms.masked[0]) - 7, w: 14, h: 14, level: 0.05, round: 7 };
        const cell = this.cells[r * columns + c], style = cell.style;
        for (const [name, value] of [["x", box.x], ["y", box.y], ["width", box.w], ["height", box.h], ["rx", box.round === undefined ? 5 : box.round]]) style.setProperty(String(name), value + "px");
        style.setProperty("--level", (box.level || 0).toFixed(3));
        style.opacity = box.hidden ? "0" : "1";
        cell.setAttribute("class", "cell " + (box.kind || ""));
      }
    }
    if (scene === "train") this.curve(accuracy.slice(0, this.frame + 1));
  }

  /** @param {[number, number][]} points */
  curve(points) {
    const { epochs } = this.recording, x = (e) => 540 + (e / epochs) * 370, y = (a) => 470 - (a / 100) * 400;
    const grid = [0, 50, 100].map((v) => `<path class="hair" d="M540 ${y(v)}H910"/><text x="530" y="${y(v) + 5}" text-anchor="end">${v} %</text>`).join("");
    const [epoch, value] = points[points.length - 1];
    this.svg.querySelector(".curve").innerHTML = grid + `<text x="910" y="505" text-anchor="end">epoch ${epochs}</text><text x="540" y="505">0</text>` +
      `<text class="strong" x="540" y="46">Epoch ${epoch}: ${value.toFixed(1)} % correct</text>` +
      `<path d="${points.map(([e, a], i) => `${i ? "L" : "M"}${x(e)} ${y(a)}`).join("")}" fill="none" stroke="var(--accent)" stroke-width="4" stroke-linejoin="round"/>` +
      `<circle cx="${x(epoch)}" cy="${y(value)}" r="7" fill="var(--accent)"/>`;
  }
}

/** @param {ComponentArguments<TourMessage>} component */
export default function (component) {
  const { parentElement } = component;
  let tour = tours.get(parentElement);
  if (!tour) {
    tour = new Tour(parentElement);
    tours.set(parentElement, tour);
  }
  tour.open(component);
  return () => { tour.close(); tours.delete(parentElement); };
}
