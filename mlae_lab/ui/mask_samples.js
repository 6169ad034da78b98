// A hundred draws of the plan, beside what is set: cells that this draw keeps are filled; each layer's bar is the share
// of its experts that were drawn so far, its tick the share that the rates set; the curve is the mean so far.
const players = new WeakMap();
const DRAWS = 100, PER_SECOND = 6;

function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= (t + Math.imul(t ^ (t >>> 7), t | 61)) | 0;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

class Draws {
  constructor(parent) {
    this.root = parent.querySelector(".dr");
    this.canvas = this.root.querySelector("canvas");
    this.now = this.root.querySelector(".dr-now");
    this.play = this.root.querySelector('[data-act="play"]');
    this.again = this.root.querySelector('[data-act="again"]');
    this.seed = 1;
    this.playing = false;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.play.addEventListener("click", () => this.start());
    this.again.addEventListener("click", () => { this.seed++; this.reset(); this.start(); });
    this.watch = new ResizeObserver(() => this.show());
    this.watch.observe(this.root);
  }

  close() { clearTimeout(this.timer); this.watch.disconnect(); }

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
    this.last = null;
    this.hits = this.data.keep.map(() => 0);
    this.means = [];
    this.total = 0;
  }

  draw() {
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
    if (this.count >= DRAWS) { this.reset(); this.playing = true; } else this.playing = !this.playing;
    if (this.playing && this.calm.matches) { while (this.count < DRAWS) this.draw(); this.playing = false; } // no motion: the end at once
    this.show();
    this.tick();
  }

  tick() {
    clearTimeout(this.timer);
    if (!this.playing || !this.root.isConnected) return;
    this.timer = setTimeout(() => {
      this.draw();
      if (this.count >= DRAWS) this.playing = false;
      this.show();
      this.tick();
    }, 1000 / PER_SECOND);
  }

  words() {
    const { active, empty, keep } = this.data, experts = keep.flat().filter(Boolean).length;
    if (!this.random) return `No rate is set: every step draws the same ${experts} experts.`;
    const chance = `${(100 * empty).toFixed(1)} %`;
    if (!this.count) return `Expected: ${active.toFixed(1)} of ${experts} experts in a draw, and a layer without one in ${chance} of them.`;
    const drawn = this.last.flat().filter(Boolean).length;
    return `Draw ${this.count} of ${DRAWS}: ${drawn} experts. So far ${this.means[this.count - 1].toFixed(1)}, expected ${active.toFixed(1)}; ` +
      `a layer was empty in ${((100 * this.empty) / this.count).toFixed(0)} %, expected ${chance}.`;
  }

  show() {
    if (!this.data || !this.root.clientWidth) return;
    const { keep, rate, active } = this.data, rows = keep.length, columns = keep[0].length, paint = this.palette;
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
    const say = (words, x, y, colour = paint.quiet, align = "left") => { pen.fillStyle = colour; pen.textAlign = align; pen.fillText(words, x, y); };
    const from = left + 14, span = wide - from;
    say(this.count ? `draw ${this.count}` : "chance to be drawn", 0, 11);
    say(this.count ? `share drawn in ${this.count}` : "share that the rates set", from, 11);
    keep.forEach((row, r) => {
      const y = top + r * (high + gap);
      row.forEach((on, c) => {
        const x = c * cell, w = cell - gap, drawn = this.last ? this.last[r][c] : false;
        pen.lineWidth = 1;
        if (!on) { pen.strokeStyle = paint.hairline; pen.strokeRect(x + 0.5, y + 0.5, w - 1, high - 1); return; }
        pen.fillStyle = paint.accent;
        pen.globalAlpha = drawn ? 1 : this.last ? 0.16 : Math.max(0.16, 1 - rate[r][c]);
        pen.fillRect(x, y, w, high);
        pen.globalAlpha = 1;
      });
      const there = row.filter(Boolean).length;
      pen.fillStyle = paint.track;
      pen.fillRect(from, y, span, high);
      if (!there) return;
      const set = row.reduce((sum, on, c) => sum + (on ? 1 - rate[r][c] : 0), 0) / there;
      pen.fillStyle = paint.middle;
      pen.fillRect(from, y, span * (this.count ? this.hits[r] / (there * this.count) : set), high);
      pen.fillStyle = paint.ink;
      pen.fillRect(Math.min(wide - 2, from + span * set - 1), y - 1, 2, high + 2);
    });
    const most = Math.max(1, keep.flat().filter(Boolean).length), y0 = top + body + 26, at = (v) => y0 + graph - 4 - (v / most) * (graph - 12);
    say("experts drawn, mean so far", 0, y0 - 8);
    pen.strokeStyle = paint.hairline;
    pen.lineWidth = 1;
    for (const v of [0, most]) { pen.beginPath(); pen.moveTo(30, at(v)); pen.lineTo(wide, at(v)); pen.stroke(); say(String(v), 25, at(v) + 4, paint.quiet, "right"); }
    pen.setLineDash([4, 3]);
    pen.strokeStyle = paint.quiet;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(30, at(active));
    pen.lineTo(wide, at(active));
    pen.stroke();
    pen.setLineDash([]);
    say(`expected ${active.toFixed(1)}`, wide, at(active) + (active / most > 0.75 ? 14 : -5), paint.quiet, "right");
    if (this.means.length) {
      pen.strokeStyle = paint.accent;
      pen.lineWidth = 2;
      pen.beginPath();
      this.means.forEach((v, i) => { const x = 30 + ((i + 1) / DRAWS) * (wide - 34); if (i) pen.lineTo(x, at(v)); else pen.moveTo(x, at(v)); });
      pen.stroke();
      pen.fillStyle = paint.accent;
      pen.beginPath();
      pen.arc(30 + (this.count / DRAWS) * (wide - 34), at(this.means[this.count - 1]), 3, 0, 7);
      pen.fill();
    }
    const words = this.words();
    canvas.setAttribute("aria-label", `A random draw of the mask, and the share drawn in each layer. ${words}`);
    this.now.textContent = words;
    this.play.textContent = this.playing ? "Pause" : this.count && this.count < DRAWS ? "Go on" : this.calm.matches ? `Draw ${DRAWS}` : `Play ${DRAWS} draws`;
    for (const button of [this.play, this.again]) button.setAttribute("aria-disabled", String(!this.random));
    this.root.querySelector(".dr-seed").textContent = `seed ${this.seed}`;
  }
}

export default function ({ data, parentElement }) {
  let player = players.get(parentElement);
  if (!player) {
    player = new Draws(parentElement);
    players.set(parentElement, player);
  }
  player.open(data);
  return () => { player.close(); players.delete(parentElement); };
}
