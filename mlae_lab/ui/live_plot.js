// One Plotly figure that is updated in place: nodes survive, zoom and hidden traces stay, nothing blinks.
let library = null;
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

function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const CSV_ICON = { width: 24, height: 24, path: "M3 4h18v3H3zM3 9h5v4H3zM10 9h11v4H10zM3 15h5v5H3zM10 15h11v5H10z" };
const SVG_ICON = { width: 24, height: 24, path: "M12 3v10l4-4 1.4 1.4L12 16 6.6 10.4 8 9l3 3V3zM4 19h16v2H4z" };
const states = new WeakMap();

export default function ({ data, parentElement }) {
  let state = states.get(parentElement);
  if (!state) {
    state = { node: parentElement.querySelector(".plot"), shown: null, version: 0, held: false, waiting: null };
    states.set(parentElement, state);
    // while a hand drags a zoom box, new data wait: a redraw in the middle would take the box away
    state.release = () => setTimeout(() => {
      state.held = false;
      if (state.waiting) { const late = state.waiting; state.waiting = null; draw(state, parentElement, late); }
    }, 80);
    state.node.addEventListener("pointerdown", () => { state.held = true; window.addEventListener("pointerup", state.release, { once: true }); }, true);
  }
  if (state.held) state.waiting = data;
  else draw(state, parentElement, data);
  return () => { if (window.Plotly) window.Plotly.purge(state.node); states.delete(parentElement); };
}

function options(state, Plotly) {
  // made once: Plotly starts a chart anew, zoom and all, whenever one of these objects or functions is another one
  state.options = state.options || {
    responsive: true, displaylogo: false, showTips: false, doubleClick: "reset",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d",
      { name: "Save as PNG", icon: Plotly.Icons.camera, click: (g) => Plotly.downloadImage(g, { format: "png", scale: 3, filename: state.name }) },
      { name: "Save as SVG", icon: SVG_ICON, click: (g) => Plotly.downloadImage(g, { format: "svg", filename: state.name }) },
      { name: "Save as CSV", icon: CSV_ICON, click: () => download(state.name + ".csv", csv(state.figure)) },
    ]],
  };
  return state.options;
}

function draw(state, parentElement, data) {
  const palette = paletteOf(parentElement);
  const key = data.spec + palette.surface;
  if (key === state.shown) return;
  state.shown = key;
  const version = ++state.version;
  const figure = paint(JSON.parse(data.spec), palette);
  state.figure = figure;
  state.name = data.name;
  state.node.style.height = figure.layout.height + "px";
  state.node.setAttribute("aria-label", data.alt);
  loadPlotly(data.plotly).then((Plotly) => {
    if (version === state.version) return Plotly.react(state.node, figure.data, figure.layout, options(state, Plotly));
  }).catch((error) => { state.node.textContent = "This chart needs plotly.js, which the lab's own server did not hand out: " + error.message; });
}
