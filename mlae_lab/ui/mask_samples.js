// @ts-check
// A hundred sampled masks of the plan: cells that are active in the sample are filled; each layer's bar is the share of
// its experts that were active so far, its tick the expected share; the curve is the running mean of active experts.

/** @typedef {{ keep: number[][], rate: number[][], active: number, empty: number }} SamplesMessage active: expected
 * experts in a sample; empty: probability that some layer has none */

/** @type {WeakMap<HTMLElement | ShadowRoot, Sampler>} */
const samplers = new WeakMap();
const SAMPLES = 100, PER_SECOND = 6;

class Sampler {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    /** @type {HTMLElement} */
    this.root = parent.querySelector(".ms");
    this.canvas = this.root.querySelector("canvas");
    this.now = this.root.querySelector(".ms-now");
    this.play = this.root.querySelector('[data-act="play"]');
    this.reseed = this.root.querySelector('[data-act="reseed"]');
    /** @type {SamplesMessage} */
    this.data = null;
    this.seed = 1;
    this.playing = false;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.play.addEventListener("click", () => this.start());
    this.reseed.addEventListener("click", () => { this.seed++; this.reset(); this.start(); });
    this.watch = new ResizeObserver(() => this.show());
    this.watch.observe(this.root);
  }

  close() { clearTimeout(this.timer); this.watch.disconnect(); }

  /** @param {SamplesMessage} data */
  open(data) {
    const shown = JSON.stringify(data);
    this.palette = paletteOf(this.root);
    if (shown !== this.shown) {
      this.shown = shown;
      this.data = data;
      this.random = data.rate.some((row) => row.some((p) => p > 0));
      if (!this.random) this.playing = false;
      this.reset();
    }
    this.show();
    this.tick();
  }

  reset() {
    this.next = mulberry32(this.seed);
    this.count = 0;
    this.empty = 0;
    /** @type {boolean[][] | null} the last sample */
    this.last = null;
    this.hits = this.data.keep.map(() => 0);
    /** @type {number[]} */
    this.means = [];
    this.total = 0;
  }

  sample() {
    const { keep, rate } = this.data;
    this.last = keep.map((row, r) => row.map((on, c) => Boolean(on) && this.next() >= rate[r][c]));
    const counts = this.last.map((row) => row.filter(Boolean).length);
    counts.forEach((n, r) => { this.hits[r] += n; });
    if (counts.some((n, r) => !n && keep[r].some(Boolean))) this.empty++;
    this.total += counts.reduce((a, b) => a + b, 0);
    this.count++;
    this.means.push(this.total / this.count);
  }

  start() {
    if (!this.random) return;
    if (this.count >= SAMPLES) { this.reset(); this.playing = true; } else this.playing = !this.playing;
    if (this.playing && this.calm.matches) { while (this.count < SAMPLES) this.sample(); this.playing = false; } // no animation: the last sample at once
    this.show();
    this.tick();
  }

  tick() {
    clearTimeout(this.timer);
    if (!this.playing || !this.root.isConnected) return;
    this.timer = setTimeout(() => {
      this.sample();
      if (this.count >= SAMPLES) this.playing = false;
      this.show();
      this.tick();
    }, 1000 / PER_SECOND);
  }

  summary() {
    const { active, empty, keep } = this.data, experts = keep.flat().filter(Boolean).length;
    if (!this.random) return `All drop rates are 0: the same ${experts} experts are active in every step.`;
    const expected = `${(100 * empty).toFixed(1)} %`;
    if (!this.count) return `Expected: ${active.toFixed(1)} of ${experts} experts active per step; an empty layer in ${expected} of the steps.`;
    const now = this.last.flat().filter(Boolean).length;
    return `Sample ${this.count} of ${SAMPLES}: ${now} active experts. Mean so far ${this.means[this.count - 1].toFixed(1)}, expected ${active.toFixed(1)}; ` +
      `samples with an empty layer ${((100 * this.empty) / this.count).toFixed(0)} %, expected ${expected}.`;
  }

  show() {
    if (!this.data || !this.root.clientWidth) return;
    const { keep, rate, active } = this.data, rows = keep.length, columns = keep[0].length, palette = this.palette;
    const wide = Math.min(this.root.clientWidth, 460), high = Math.max(4, Math.min(13, 340 / rows)), gap = rows > 30 ? 1 : 2;
    const left = 0.46 * wide, cell = Math.min(22, left / columns), top = 18, body = rows * (high + gap), graph = 74;
    const height = top + body + 26 + graph, ratio = window.devicePixelRatio || 1, canvas = this.canvas;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = wide + "px";
      canvas.style.height = height + "px";
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, height);
    pen.font = `11.5px ${getComputedStyle(this.root).fontFamily}`;
    pen.textBaseline = "alphabetic";
    /** @type {(text: string, x: number, y: number, colour?: string, align?: CanvasTextAlign) => void} */
    const say = (text, x, y, colour = palette.quiet, align = "left") => { pen.fillStyle = colour; pen.textAlign = align; pen.fillText(text, x, y); };
    const from = left + 14, span = wide - from;
    say(this.count ? `sample ${this.count}` : "probability 1 − p", 0, 11);
    say(this.count ? `active share in ${this.count}` : "expected active share", from, 11);
    keep.forEach((row, r) => {
      const y = top + r * (high + gap);
      row.forEach((on, c) => {
        const x = c * cell, w = cell - gap, active = this.last ? this.last[r][c] : false;
        pen.lineWidth = 1;
        if (!on) { pen.strokeStyle = palette.hairline; pen.strokeRect(x + 0.5, y + 0.5, w - 1, high - 1); return; }
        pen.fillStyle = palette.accent;
        pen.globalAlpha = active ? 1 : this.last ? 0.16 : Math.max(0.16, 1 - rate[r][c]);
        pen.fillRect(x, y, w, high);
        pen.globalAlpha = 1;
      });
      const experts = row.filter(Boolean).length;
      pen.fillStyle = palette.track;
      pen.fillRect(from, y, span, high);
      if (!experts) return;
      const set = row.reduce((sum, on, c) => sum + (on ? 1 - rate[r][c] : 0), 0) / experts;
      pen.fillStyle = palette.middle;
      pen.fillRect(from, y, span * (this.count ? this.hits[r] / (experts * this.count) : set), high);
      pen.fillStyle = palette.ink;
      pen.fillRect(Math.min(wide - 2, from + span * set - 1), y - 1, 2, high + 2);
    });
    const most = Math.max(1, keep.flat().filter(Boolean).length), y0 = top + body + 26, at = (v) => y0 + graph - 4 - (v / most) * (graph - 12);
    say("active experts, running mean", 0, y0 - 8);
    pen.strokeStyle = palette.hairline;
    pen.lineWidth = 1;
    for (const v of [0, most]) { pen.beginPath(); pen.moveTo(30, at(v)); pen.lineTo(wide, at(v)); pen.stroke(); say(String(v), 25, at(v) + 4, palette.quiet, "right"); }
    pen.setLineDash([4, 3]);
    pen.strokeStyle = palette.quiet;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(30, at(active));
    pen.lineTo(wide, at(active));
    pen.stroke();
    pen.setLineDash([]);
    say(`expected ${active.toFixed(1)}`, wide, at(active) + (active / most > 0.75 ? 14 : -5), palette.quiet, "right");
    if (this.means.length) {
      pen.strokeStyle = palette.accent;
      pen.lineWidth = 2;
      pen.beginPath();
      this.means.forEach((v, i) => { const x = 30 + ((i + 1) / SAMPLES) * (wide - 34); if (i) pen.lineTo(x, at(v)); else pen.moveTo(x, at(v)); });
      pen.stroke();
      pen.fillStyle = palette.accent;
      pen.beginPath();
      pen.arc(30 + (this.count / SAMPLES) * (wide - 34), at(this.means[this.count - 1]), 3, 0, 7);
      pen.fill();
    }
    const summary = this.summary();
    canvas.setAttribute("aria-label", `A sample of the mask, and the active share of each layer. ${summary}`);
    this.now.textContent = summary;
    this.play.textContent = this.playing ? "Pause" : this.count && this.count < SAMPLES ? "Continue" : this.calm.matches ? `Show ${SAMPLES} samples` : `Play ${SAMPLES} samples`;
    for (const button of [this.play, this.reseed]) button.setAttribute("aria-disabled", String(!this.random));
    this.root.querySelector(".ms-seed").textContent = `seed ${this.seed}`;
  }
}

/** @param {ComponentArguments<SamplesMessage>} component */
export default function ({ data, parentElement }) {
  let sampler = samplers.get(parentElement);
  if (!sampler) {
    sampler = new Sampler(parentElement);
    samplers.set(parentElement, sampler);
  }
  sampler.open(data);
  return () => { sampler.close(); samplers.delete(parentElement); };
}
