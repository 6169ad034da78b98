// @ts-check
// The replay of a recorded run: the grid shows the experts that are active in each step and their contributions, next to
// the accuracy curve. Everything shown was recorded; only the fade between two evaluations is interpolated.

/**
 * The recording, assets/first_run.json.
 * @typedef {object} Recording
 * @property {string} id
 * @property {number} rows
 * @property {number} columns
 * @property {number} epochs
 * @property {number} seconds that the replay takes
 * @property {number} baseline accuracy of guessing, in percent
 * @property {string} caption
 * @property {string[][]} steps active experts of each row, bits in hexadecimal
 * @property {{ epoch: number, accuracy: number }[]} evaluations
 * @property {number[][][]} contribution of each expert, for each evaluation
 */

/** @type {WeakMap<HTMLElement | ShadowRoot, Player>} */
const players = new WeakMap();

class Player {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    /** @type {HTMLElement} */
    this.root = parent.querySelector(".replay");
    this.button = parent.querySelector("button");
    /** @type {HTMLElement} */
    this.grid = parent.querySelector(".grid");
    this.svg = parent.querySelector("svg");
    this.label = parent.querySelector(".now");
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.button.addEventListener("click", () => { this.playing = !this.playing; this.last = null; this.dress(); });
    this.position = 0;
    /** @type {Recording} */
    this.data = null;
    this.frame = (time) => this.tick(time);
  }

  /** @param {Recording} data */
  open(data) {
    const same = this.data && this.data.id === data.id;
    this.data = data;
    this.palette = paletteOf(this.root);
    if (!same) {
      this.build();
      this.position = this.playing ? 0 : data.steps.length;
    }
    this.root.querySelector(".caption").textContent = data.caption;
    this.colours();
    this.dress();
    this.show();
    cancelAnimationFrame(this.request);
    this.request = requestAnimationFrame(this.frame);
  }

  build() {
    const { rows, columns } = this.data;
    this.grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    this.grid.replaceChildren();
    /** @type {HTMLElement[]} */
    this.cells = [];
    for (let i = 0; i < rows * columns; i++) {
      const cell = document.createElement("i");
      this.cells.push(cell);
      this.grid.append(cell);
    }
    this.top = Math.max(...this.data.contribution.flat(2));
  }

  colours() {
    this.root.style.setProperty("--accent", this.palette.accent);
    this.root.style.setProperty("--active", this.palette.active);
    this.root.style.setProperty("--quiet", this.palette.quiet);
    this.root.style.setProperty("--hairline", this.palette.hairline);
  }

  dress() {
    this.button.textContent = this.playing ? "Pause" : "Play";
    this.button.setAttribute("aria-label", this.playing ? "Pause the recording" : "Play the recording");
  }

  /** @param {number} time in milliseconds */
  tick(time) {
    if (!this.root.isConnected) return;
    if (this.playing && this.last !== null && this.last !== undefined) {
      const total = this.data.steps.length;
      this.position += ((time - this.last) / 1000) * (total / this.data.seconds);
      if (this.position > total + total * 0.18) this.position = 0; // pause on the last frame, then repeat
      const step = Math.floor(this.position);
      if (step !== this.shownStep) this.show();
    }
    this.last = time;
    this.request = requestAnimationFrame(this.frame);
  }

  show() {
    const { steps, evaluations, contribution, rows, columns, epochs } = this.data;
    const total = steps.length, step = Math.min(total - 1, Math.floor(this.position));
    this.shownStep = Math.floor(this.position);
    const done = this.position >= total;
    const epoch = Math.min(epochs, (Math.min(this.position, total) / total) * epochs);
    const before = evaluations.filter((e) => e.epoch <= epoch + 1e-9).length; // evaluations already made
    const from = before > 0 ? contribution[before - 1] : null;
    for (let r = 0; r < rows; r++) {
      const bits = parseInt(steps[step][r], 16);
      for (let c = 0; c < columns; c++) {
        const cell = this.cells[r * columns + c];
        const active = done || (bits >> c) & 1;
        const level = from ? from[r][c] / this.top : 0;
        cell.style.setProperty("--level", (0.1 + 0.9 * Math.sqrt(level)).toFixed(3));
        cell.className = active ? (done ? "on" : "on active") : "on dropped";
      }
    }
    const w = 320, h = 150, x = (e) => 34 + (e / epochs) * (w - 44), y = (a) => 12 + (1 - a / 100) * (h - 34);
    const seen = evaluations.slice(0, before);
    const last = seen[seen.length - 1];
    const path = seen.map((e, i) => (i ? "L" : "M") + x(e.epoch).toFixed(1) + " " + y(e.accuracy).toFixed(1)).join(" ");
    const line = (v) => `<line x1="34" x2="${w - 10}" y1="${y(v)}" y2="${y(v)}" stroke="var(--hairline)"/><text x="28" y="${y(v) + 4}" text-anchor="end">${v}</text>`;
    const baseline = this.data.baseline;
    this.svg.innerHTML = `<g font-size="11" fill="var(--quiet)">${line(0)}${line(50)}${line(100)}` +
      `<line x1="34" x2="${w - 10}" y1="${y(baseline)}" y2="${y(baseline)}" stroke="var(--quiet)" stroke-dasharray="2 3"/>` +
      `<text x="34" y="${h - 4}">epoch 0</text><text x="${w - 10}" y="${h - 4}" text-anchor="end">${epochs}</text></g>` +
      `<path d="${path}" fill="none" stroke="var(--accent)" stroke-width="2.5" stroke-linejoin="round"/>` +
      (last ? `<circle cx="${x(last.epoch)}" cy="${y(last.accuracy)}" r="4" fill="var(--accent)"/>` : "");
    this.label.textContent = last
      ? `Epoch ${Math.floor(epoch)}: accuracy ${last.accuracy.toFixed(1)} %`
      : `Epoch 0: not evaluated yet, guessing gives ${baseline.toFixed(1)} %`;
  }
}

/** @param {ComponentArguments<Recording>} component */
export default function ({ data, parentElement }) {
  let player = players.get(parentElement);
  if (!player) {
    player = new Player(parentElement);
    players.set(parentElement, player);
  }
  player.open(data);
  return () => { cancelAnimationFrame(player.request); players.delete(parentElement); };
}
