// @ts-check
// Plotly figures that are updated in place: nodes survive, zoom and hidden traces stay, nothing blinks.

/** @type {Promise<PlotlyLibrary> | null} */
let library = null;
/** Plotly, loaded at the first call.
 * @param {string} url @returns {Promise<PlotlyLibrary>} */
function loadPlotly(url) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  if (!library) {
    library = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(url, document.baseURI).href;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => { library = null; reject(new Error("plotly.js did not load")); };
      document.head.appendChild(script);
    });
  }
  return library;
}

/** The data of a figure as CSV.
 * @param {PlotlyFigure} figure */
function csv(figure) {
  const lines = ["series,x,y,value"];
  const cell = (v) => (v === null || v === undefined ? "" : /[",\n]/.test(String(v)) ? '"' + String(v).replaceAll('"', '""') + '"' : v);
  for (const trace of figure.data) {
    if (trace.z) {
      trace.z.forEach((row, j) => row.forEach((z, i) => {
        if (z !== null && z !== undefined) lines.push([cell(trace.name), cell(trace.x ? trace.x[i] : i + 1), cell(trace.y ? trace.y[j] : j + 1), z].join(","));
      }));
    } else if (trace.y && trace.meta !== "decoration") {
      trace.y.forEach((y, i) => lines.push([cell(trace.name), cell(trace.x ? trace.x[i] : i), cell(y), ""].join(",")));
    }
  }
  return lines.join("\n");
}

/** @param {string} name @param {string | Blob} content @param {string} [type] MIME type of a text */
function download(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const CSV_ICON = { width: 24, height: 24, path: "M3 4h18v3H3zM3 9h5v4H3zM10 9h11v4H10zM3 15h5v5H3zM10 15h11v5H10z" };
const SVG_ICON = { width: 24, height: 24, path: "M12 3v10l4-4 1.4 1.4L12 16 6.6 10.4 8 9l3 3V3zM4 19h16v2H4z" };

const LARGER = 1.5; // type in presentation mode
const FRAME = 110; // pixels around a figure that fills the screen
const isPresented = () => document.documentElement.classList.contains("lab-present");
/** A figure with larger type, in presentation mode: its fonts and margins, and tiny labels between them.
 * @param {any} value @param {string} [name] of the attribute */
function enlarged(value, name = "") {
  if (Array.isArray(value)) return value.length > 64 && typeof value[0] === "number" ? value : value.map((v) => enlarged(v));
  if (!value || typeof value !== "object") return value;
  const larger = {};
  for (const key in value) {
    const inner = value[key];
    const scales = typeof inner === "number" && ((/font$/.test(name) && key === "size") || (name === "margin" && key !== "pad"));
    larger[key] = scales ? Math.round(inner * LARGER) : enlarged(inner, key);
  }
  return larger;
}

class Plot {
  /** One figure.
   * @param {HTMLElement} node that holds nothing else */
  constructor(node) {
    /** @type {PlotlyNode} */
    this.node = node;
    /** @type {PlotlyFigure} */
    this.figure = null;
    this.version = 0;
    this.held = false;
    this.hidden = new Set(); // names of traces that a click on the label at the end of the line has hidden
    // while the user drags a zoom box, new data wait: a redraw would remove the box
    /** @type {Parameters<Plot["draw"]> | null} */
    this.waiting = null;
    /** @type {Parameters<Plot["draw"]> | null} */
    this.last = null;
    this.release = () => setTimeout(() => {
      this.held = false;
      if (this.waiting) { const next = this.waiting; this.waiting = null; this.draw(...next); }
    }, 80);
    this.again = () => { if (this.last && this.node.isConnected) { this.shown = null; this.draw(...this.last); } };
    window.addEventListener("lab-present", this.again);
    node.addEventListener("pointerdown", () => { this.held = true; window.addEventListener("pointerup", this.release, { once: true }); }, true);
  }

  /** Save what is on the screen, on the surface of the page: letters of the dark theme are not readable on white.
   * @param {PlotlyLibrary} Plotly @param {PlotlyNode} chart @param {{ format: string, scale?: number }} options */
  save(Plotly, chart, options) {
    const { clientWidth: width, clientHeight: height } = chart;
    const layout = { ...chart.layout, paper_bgcolor: this.palette.surface, width, height };
    return Plotly.downloadImage({ data: chart.data, layout }, { ...options, width, height, filename: this.name });
  }

  /** Created once: Plotly resets a chart and its zoom whenever one of these objects or functions changes.
   * @param {PlotlyLibrary} Plotly */
  options(Plotly) {
    this.config = this.config || {
      responsive: true, displaylogo: false, showTips: false, doubleClick: "reset",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d",
        { name: "Save as PNG", icon: Plotly.Icons.camera, click: (g) => this.save(Plotly, g, { format: "png", scale: 3 }) },
        { name: "Save as SVG", icon: SVG_ICON, click: (g) => this.save(Plotly, g, { format: "svg" }) },
        { name: "Save as CSV", icon: CSV_ICON, click: () => download(this.name + ".csv", csv(this.figure), "text/csv") },
      ]],
    };
    return this.config;
  }

  /**
   * @param {PlotlyFigure} figure with named colours @param {string} key changes when the figure or the palette does
   * @param {Palette} palette @param {string} url of plotly.js @param {string} name of saved files @param {string} alt
   */
  draw(figure, key, palette, url, name, alt) {
    if (this.held) { this.waiting = [figure, key, palette, url, name, alt]; return; }
    if (key === this.shown) return;
    this.last = [figure, key, palette, url, name, alt];
    this.shown = key;
    const version = ++this.version;
    this.palette = palette;
    this.figure = isPresented() ? enlarged(paint(figure, palette)) : paint(figure, palette);
    this.name = name;
    this.fit();
    this.node.style.height = this.figure.layout.height + "px";
    this.node.setAttribute("aria-label", alt);
    const { title } = this.figure.layout;
    this.node.classList.toggle("titled", Boolean(title && title.text)); // its tool bar is at the bottom, see page.css
    loadPlotly(url).then((Plotly) => {
      if (version !== this.version) return null;
      return Promise.resolve(Plotly.react(this.node, this.traces(), { ...this.figure.layout }, this.options(Plotly))).then(() => this.listen(Plotly)); // a copy: relayout changes it
    }).catch((error) => { this.node.textContent = "The chart cannot be drawn because plotly.js did not load from the lab's server: " + error.message; });
  }

  // images keep their aspect ratio: the height of a figure with `layout.meta.fit` follows from its width
  fit() {
    const layout = this.figure.layout, fit = layout.meta && layout.meta.fit;
    if (isPresented() && !fit) layout.height = Math.max(layout.height, innerHeight - FRAME); // fills the screen
    const room = fit ? this.node.clientWidth - layout.margin.l - layout.margin.r : 0;
    const most = fit && (isPresented() ? fit.most * LARGER : fit.most);
    if (room > 0) layout.height = Math.round(Math.min(room / fit.across, most) * fit.down + layout.margin.t + layout.margin.b);
  }

  traces() { return this.figure.data.map((trace) => (this.hidden.has(trace.name) ? { ...trace, visible: "legendonly" } : trace)); }

  /** @param {PlotlyLibrary} Plotly */
  listen(Plotly) {
    if (this.listening) return;
    this.listening = true;
    this.node.on("plotly_clickannotation", ({ annotation }) => {
      if (!annotation.name) return;
      if (!this.hidden.delete(annotation.name)) this.hidden.add(annotation.name);
      const chart = this.node;
      Plotly.restyle(chart, { visible: chart.data.map((trace) => (this.hidden.has(trace.name) ? "legendonly" : true)) });
    });
  }

  purge() {
    window.removeEventListener("lab-present", this.again);
    if (window.Plotly) window.Plotly.purge(this.node);
  }
}
