// @ts-check
// One figure of a page.
/** @typedef {{ spec: string, alt: string, name: string, plotly: string }} PlotMessage spec: Plotly JSON */

/** @type {WeakMap<HTMLElement | ShadowRoot, Plot>} */
const plots = new WeakMap();

/** @param {ComponentArguments<PlotMessage>} component */
export default function ({ data, parentElement }) {
  let plot = plots.get(parentElement);
  if (!plot) {
    plot = new Plot(parentElement.querySelector(".plot"));
    plots.set(parentElement, plot);
  }
  const palette = paletteOf(plot.node);
  plot.draw(JSON.parse(data.spec), data.spec + palette.surface, palette, data.plotly, data.name, data.alt);
  return () => { plot.purge(); plots.delete(parentElement); };
}
