// @ts-check
// Figures that the live bench draws itself as SVG: their colours, their nodes, and saving them.

/** @type {"http://www.w3.org/2000/svg"} */
const SVG = "http://www.w3.org/2000/svg";

/** @param {string} from @param {string} to colours as #RRGGBB @param {number} share of `to`, 0 to 1 */
function mix(from, to, share) {
  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.substr(at, 2), 16));
  const a = channels(from), b = channels(to);
  return "#" + a.map((v, i) => Math.round(v + (b[i] - v) * Math.min(1, Math.max(0, share))).toString(16).padStart(2, "0")).join("");
}

/** @param {Palette} palette @param {number} share 0 to 1 */
function sequential(palette, share) {
  return share < 0.5 ? mix(palette.faint, palette.middle, share * 2) : mix(palette.middle, palette.accent, share * 2 - 1);
}

/** @param {Palette} palette @param {number} value -1 to 1 */
function diverging(palette, value) {
  return value < 0 ? mix(palette.surface, palette.low, -value) : mix(palette.surface, palette.high, value);
}

/**
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name @param {Record<string, string | number>} attributes @param {string | number} [text]
 */
function node(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const key in attributes) element.setAttribute(key, String(attributes[key]));
  if (text !== undefined) element.textContent = String(text);
  return element;
}

const STYLED = ["fill", "fill-opacity", "stroke", "stroke-width", "opacity"];

/** A copy of a drawing whose colours and strokes are attributes, as its style sheet gives them here.
 * @param {SVGElement} drawing */
function styledCopy(drawing) {
  const copy = /** @type {SVGElement} */ (drawing.cloneNode(true)), copies = copy.querySelectorAll("*");
  drawing.querySelectorAll("*").forEach((element, i) => {
    const style = getComputedStyle(element), target = copies[i];
    target.removeAttribute("class");
    target.removeAttribute("style");
    for (const name of STYLED) target.setAttribute(name, style.getPropertyValue(name));
  });
  for (const about of copy.querySelectorAll("desc")) about.replaceWith(node("title", {}, about.textContent)); // shown by viewers
  return copy;
}

/** A text in lines of at most this width, in the font of the page and in that of a file, which has no web font.
 * @param {string} text @param {number} width in pixels @param {string} size weight and size of the font */
function wrapped(text, width, size) {
  const ruler = document.createElement("canvas").getContext("2d");
  const fits = (line) => ["Inter, sans-serif", "sans-serif"].every((family) => {
    ruler.font = `${size} ${family}`;
    return ruler.measureText(line).width <= width;
  });
  /** @type {string[]} */
  const lines = [];
  for (const word of text.split(/\s+/)) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && fits(longer)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

// What a drawing says about the part under the pointer: the text of its <desc>, at once and in all its lines.
class Tip {
  /** @param {HTMLElement} box @param {SVGElement[]} drawings */
  constructor(box, drawings) {
    this.box = box;
    for (const drawing of drawings) {
      drawing.addEventListener("pointermove", (e) => this.show(e));
      drawing.addEventListener("pointerleave", () => this.hide());
    }
  }

  /** @param {PointerEvent} event */
  show(event) {
    const part = /** @type {Element} */ (event.target);
    const about = part.querySelector(":scope > desc") || part.closest("g")?.querySelector(":scope > desc");
    this.box.hidden = !about;
    if (!about) return;
    this.box.textContent = about.textContent;
    const { width, height } = this.box.getBoundingClientRect(), page = this.box.offsetParent.getBoundingClientRect();
    const left = event.clientX + 14 + width < innerWidth ? event.clientX + 14 : event.clientX - 14 - width;
    const top = Math.min(innerHeight - height - 4, event.clientY + 14);
    this.box.style.left = `${Math.max(4, left) - page.left}px`;
    this.box.style.top = `${Math.max(4, top) - page.top}px`;
  }

  hide() { this.box.hidden = true; }
}

// A figure that the bench draws itself, with its title and the buttons that save it.
class SvgFigure {
  /** @param {HTMLElement} box @param {string} name of the saved file @param {() => (string | number)[][]} rows of the CSV file */
  constructor(box, name, rows) {
    this.box = box;
    this.name = name;
    this.rows = rows;
    this.title = box.querySelector(".lb-title");
    this.svg = box.querySelector("svg");
    const save = box.querySelector(".lb-save");
    for (const kind of ["PNG", "SVG", "CSV"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = kind;
      button.setAttribute("aria-label", `Save this figure as ${kind}`);
      button.addEventListener("click", () => this.save(kind));
      save.append(button);
    }
  }

  size(width, height) {
    if (this.width === width && this.height === height) return;
    this.width = width;
    this.height = height;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.style.maxWidth = width * 1.35 + "px";
  }

  say(title) {
    if (this.title.textContent !== title) this.title.textContent = title;
    this.svg.setAttribute("aria-label", title);
  }

  /** Marks the ends of the layers on the left: the first row is nearest to the input.
   * @param {number} top @param {number} bottom */
  axis(top, bottom) {
    const x = 10, quiet = { class: "lb-quiet", "font-size": 11 };
    this.svg.append(node("text", { ...quiet, transform: `translate(${x - 4} ${top + 2}) rotate(90)` }, "input"),
      node("line", { x1: x, x2: x, y1: top + 34, y2: bottom - 40, class: "lb-line" }),
      node("text", { ...quiet, transform: `translate(${x - 4} ${bottom - 2}) rotate(90)`, "text-anchor": "end" }, "output"));
  }

  /** The texts under the figure, which say what its colours and shapes mean; a scale of colours becomes " to ". */
  legend() {
    const lines = /** @type {HTMLElement[]} */ ([...this.box.querySelectorAll(".lb-step, .lb-formula, .lb-legend")]);
    return lines.map((line) => {
      const copy = /** @type {HTMLElement} */ (line.cloneNode(true));
      for (const hidden of copy.querySelectorAll("[hidden]")) hidden.remove();
      for (const scale of copy.querySelectorAll(".lb-scale")) scale.replaceWith(" to ");
      return copy.textContent.trim();
    }).filter(Boolean);
  }

  /** The figure as it is on the screen, with its title and its legend; a file has no style sheet.
   * @returns {{ drawing: SVGElement, width: number, height: number }} */
  drawing() {
    const palette = paletteOf(this.box), width = Math.max(380, this.width);
    const title = wrapped(this.title.textContent, width - 8, "600 14px");
    const legend = this.legend().flatMap((line) => wrapped(line, width - 8, "11px"));
    const scale = this.box.querySelector(".lb-scale");
    const top = 18 * title.length + 14, under = top + this.height + (scale ? 26 : 6), height = under + 15 * legend.length + 8;
    const drawing = node("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "Inter, sans-serif", "font-size": 11 });
    drawing.append(node("rect", { width, height, fill: palette.surface }));
    title.forEach((line, i) => drawing.append(node("text", { x: 4, y: 18 * (i + 1), fill: palette.ink, "font-size": 14, "font-weight": 600 }, line)));
    const figure = node("g", { transform: `translate(0 ${top})` });
    figure.append(...styledCopy(this.svg).childNodes);
    drawing.append(figure);
    if (scale) {
      const fade = node("linearGradient", { id: "scale" }), y = top + this.height + 4, left = 40;
      const end = (part) => this.box.querySelector(part).textContent;
      for (const [offset, name] of [[0, "low"], [0.5, "surface"], [1, "high"]]) fade.append(node("stop", { offset, "stop-color": palette[name] }));
      drawing.append(fade, node("rect", { x: left, y, width: 120, height: 10, fill: "url(#scale)", stroke: palette.hairline }));
      drawing.append(node("text", { x: left - 6, y: y + 9, "text-anchor": "end", fill: palette.quiet }, end(".lb-from")), node("text", { x: left + 126, y: y + 9, fill: palette.quiet }, end(".lb-to")));
      for (const mark of /** @type {NodeListOf<HTMLElement>} */ (scale.querySelectorAll("i:not([hidden])"))) {
        const at = left + 1.2 * parseFloat(mark.style.left);
        drawing.append(node("line", { x1: at, x2: at, y1: y - 2, y2: y + 12, stroke: palette.ink }));
      }
    }
    legend.forEach((line, i) => drawing.append(node("text", { x: 4, y: under + 15 * (i + 1) - 3, fill: palette.quiet }, line)));
    return { drawing, width, height };
  }

  save(kind) {
    if (kind === "CSV") return download(this.name + ".csv", this.rows().map((row) => row.join(",")).join("\n"), "text/csv");
    const { drawing, width, height } = this.drawing();
    const text = new XMLSerializer().serializeToString(drawing);
    if (kind === "SVG") return download(this.name + ".svg", text, "image/svg+xml");
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = width * 3;
      canvas.height = height * 3;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => download(this.name + ".png", blob));
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  }
}
