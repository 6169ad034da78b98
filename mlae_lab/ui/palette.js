// @ts-check
// The lab's colours by meaning, for light and dark. Figures name a meaning ("@accent"), this file gives the colour.
/** @typedef {typeof PALETTES.light} Palette */
const PALETTES = {
  light: { surface: "#FAFAF7", raised: "#FFFFFF", ink: "#1B2328", quiet: "#5B6870", hairline: "#DDE2E0",
           accent: "#0F766E", faint: "#E3F0ED", middle: "#6FB3A8", active: "#D97706", warning: "#B45309", failure: "#B42318",
           lost: "#6D28D9", low: "#2B6CB0", high: "#C2570C", track: "#E7EAE6" },
  dark:  { surface: "#101418", raised: "#171D23", ink: "#E8EDEE", quiet: "#9AA7AE", hairline: "#2B343B",
           accent: "#2DD4BF", faint: "#16282A", middle: "#1F7F76", active: "#FBBF24", warning: "#F0A25B", failure: "#F58A80",
           lost: "#B79BF5", low: "#7AB2EE", high: "#F39A5A", track: "#222A31" },
};
/** The palette of the theme that an element is shown in.
 * @param {Element} element */
function paletteOf(element) {
  const background = getComputedStyle(element).getPropertyValue("--st-background-color").trim() || "#FFFFFF";
  const probe = document.createElement("span");
  probe.style.color = background;
  document.body.appendChild(probe);
  const channels = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  const dark = 0.299 * channels[0] + 0.587 * channels[1] + 0.114 * channels[2] < 128;
  return PALETTES[dark ? "dark" : "light"];
}
/** A copy of a value with the names of colours in it replaced; long rows of numbers are not copied.
 * @param {any} value @param {Palette} palette */
function paint(value, palette) {
  if (typeof value === "string") return value.startsWith("@") ? palette[value.slice(1)] || value : value;
  if (Array.isArray(value)) return value.length > 64 && typeof value[0] === "number" ? value : value.map((v) => paint(v, palette));
  if (value && typeof value === "object") {
    const painted = {};
    for (const name in value) painted[name] = paint(value[name], palette);
    return painted;
  }
  return value;
}
