// @ts-check
// The grid of a method without a mask: one cell for each layer and whatever the method has there. Drawn into a figure
// of the live bench, and updated in place.

/**
 * @typedef {object} GridMessage
 * @property {string} name
 * @property {string} title
 * @property {string[]} rows labels
 * @property {string[]} columns labels
 * @property {string} axis what a column is
 * @property {string} note what the colour of a cell means
 * @property {number} low lowest value of the run, at most 0
 * @property {number} high largest size of a value of the run
 *
 * @typedef {{ fill: SVGElement, frame: SVGElement, stroke: SVGElement, text: SVGElement | null, tip: SVGElement }} Cell
 */

const NUMBERED = 8; // columns up to which a cell has room for its number

/** @param {number} value */
const exact = (value) => value.toLocaleString("en", Number.isInteger(value) ? {} : { maximumSignificantDigits: 4 });
/** @param {number} value */
const brief = (value) => Math.abs(value) >= 1e4 ? `${Math.round(value / 1000).toLocaleString("en")}k`
  : value.toLocaleString("en", Number.isInteger(value) ? {} : { maximumSignificantDigits: 2 });

class ValueGrid {
  /** @param {SvgFigure} figure that it is drawn into */
  constructor(figure) {
    this.figure = figure;
    /** @type {GridMessage | null} */
    this.grid = null;
    /** @type {(number | null)[] | null} */
    this.values = null;
    /** @type {Cell[]} */
    this.cells = [];
  }

  /** @param {GridMessage} grid */
  build(grid) {
    const { rows, columns } = grid, isNumbered = columns.length <= NUMBERED;
    const high = rows.length > 24 ? 16 : rows.length > 14 ? 20 : 26, left = 62, top = 4, gap = columns.length > 16 ? 2 : 3;
    const wide = Math.max(9, Math.min(isNumbered ? 72 : 30, Math.floor(430 / columns.length) - gap));
    const quiet = { class: "lb-quiet", "font-size": 11 }, svg = this.figure.svg;
    const end = left + columns.length * (wide + gap);
    svg.replaceChildren();
    this.figure.width = null; // another figure may have had this size
    this.figure.size(end + (isNumbered ? 4 : 34), top + rows.length * (high + gap) + 18);
    this.grid = grid;
    this.cells = [];
    /** @type {SVGElement[]} */
    this.counts = [];
    rows.forEach((label, r) => {
      const y = top + r * (high + gap);
      svg.append(node("text", { ...quiet, x: left - 8, y: y + high / 2 + 4, "text-anchor": "end" }, label));
      columns.forEach((_, c) => {
        const x = left + c * (wide + gap), box = { x: x + 0.75, y: y + 0.75, width: wide - 1.5, height: high - 1.5 };
        const frame = node("rect", { ...box, rx: 4, fill: "none", class: "lb-line", "stroke-width": 1 });
        const fill = node("rect", { x: x + 2.5, y: y + 2.5, width: wide - 5, height: high - 5, rx: 3, fill: "none" });
        const middle = x + wide / 2, half = Math.min(wide, high) * 0.27, centre = y + high / 2;
        const stroke = node("line", { x1: middle - half, y1: centre + half, x2: middle + half, y2: centre - half, class: "lb-absent" });
        const text = isNumbered ? node("text", { x: middle, y: centre + 3.8, "font-size": high < 20 ? 9 : 10.5, "text-anchor": "middle" }) : null;
        const tip = node("desc", {}), group = node("g", {});
        group.append(frame, fill, stroke, ...(text ? [text] : []), tip);
        svg.append(group);
        this.cells.push({ fill, frame, stroke, text, tip });
      });
      if (isNumbered) return;
      const count = node("text", { ...quiet, x: end + 6, y: y + high / 2 + 4 });
      svg.append(count);
      this.counts.push(count);
    });
    const under = top + rows.length * (high + gap) + 11, every = Math.ceil(columns.length / 16);
    columns.forEach((label, c) => {
      if (c % every === 0) svg.append(node("text", { ...quiet, x: left + c * (wide + gap) + wide / 2, y: under, "text-anchor": "middle" }, label));
    });
    svg.append(node("text", { ...quiet, x: left - 8, y: under, "text-anchor": "end" }, grid.axis));
  }

  /** The name of a cell: "layer 3, rank 5" or "layer 3, proj".
   * @param {number} i */
  place(i) {
    const { rows, columns, axis } = this.grid, column = columns[i % columns.length];
    return `layer ${rows[Math.floor(i / columns.length)]}, ${/^\d/.test(column) ? `${axis} ${column}` : column}`;
  }

  /** @param {(number | null)[] | null} values row by row, null for a cell without one; null before the first evaluation
   * @param {Palette} palette */
  paint(values, palette) {
    const { title, columns, low, high } = this.grid;
    this.values = values;
    /** @type {[number, number] | null} */
    let largest = null;
    let present = 0;
    this.cells.forEach((cell, i) => {
      const value = values ? values[i] : null, has = value !== null && value !== undefined;
      const share = has ? Math.sqrt(Math.abs(value) / high) : 0;
      if (has && (largest === null || value > largest[0])) largest = [value, i];
      present += Number(has);
      cell.frame.style.stroke = has ? palette.accent : palette.hairline;
      cell.fill.setAttribute("fill", !has ? "none" : low < 0 ? diverging(palette, value / high) : sequential(palette, share));
      cell.stroke.style.opacity = has || !values ? "0" : "";
      if (cell.text) {
        cell.text.textContent = has ? brief(value) : "";
        cell.text.setAttribute("fill", share > 0.7 ? palette.surface : palette.ink);
      }
      const place = this.place(i);
      cell.tip.textContent = `${place[0].toUpperCase()}${place.slice(1)}\n${has ? exact(value) : values ? "none" : "not evaluated yet"}`;
    });
    this.counts.forEach((count, r) => {
      const line = values ? values.slice(r * columns.length, (r + 1) * columns.length).filter((v) => v !== null).length : 0;
      count.textContent = values && present < this.cells.length ? String(line) : "";
    });
    const isEven = largest !== null && values.every((value) => value === null || value === largest[0]);
    this.figure.say(!values ? `${title}: not evaluated yet`
      : largest === null ? `${title}: none`
      : isEven ? `${title}: ${exact(largest[0])} everywhere`
      : `${title}: largest in ${this.place(largest[1])} (${exact(largest[0])})`);
    return values && present < this.cells.length ? `${present} of ${this.cells.length} cells in use` : "";
  }

  /** @returns {(string | number)[][]} */
  rows() {
    const { rows, columns, axis, name } = this.grid;
    return [["layer", axis, name], ...this.cells.map((_, i) => [rows[Math.floor(i / columns.length)], columns[i % columns.length],
      this.values && this.values[i] !== null ? this.values[i] : ""])];
  }
}
