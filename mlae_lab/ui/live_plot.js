// One figure of a page.
const plots = new WeakMap();

export default function ({ data, parentElement }) {
  let plot = plots.get(parentElement);
  if (!plot) {
    plot = new Plot(parentElement.querySelector(".plot"));
    plots.set(parentElement, plot);
  }
  const palette = paletteOf(parentElement);
  plot.draw(JSON.parse(data.spec), data.spec + palette.surface, palette, data.plotly, data.name, data.alt);
  return () => { plot.purge(); plots.delete(parentElement); };
}
