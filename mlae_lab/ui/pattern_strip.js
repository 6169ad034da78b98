// @ts-check
// Small cards in named groups. Built once; after that only the mark of the chosen card moves.

/**
 * @typedef {{ id: string, title: string, line: string, images: string[], group: string, chosen: boolean }} PatternCard
 * @typedef {{ items: PatternCard[] }} StripMessage
 */

/** @type {WeakMap<HTMLElement | ShadowRoot, { shown?: string, pick?: (id: string) => void }>} */
const strips = new WeakMap();

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} style @param {string} [text]
 */
function element(tag, style, text) {
  const created = document.createElement(tag);
  created.className = style;
  if (text) created.textContent = text;
  return created;
}

/** @param {HTMLElement} root @param {PatternCard[]} items @param {(id: string) => void} pick */
function build(root, items, pick) {
  root.replaceChildren();
  /** @type {Map<string, PatternCard[]>} */
  const groups = new Map();
  for (const item of items) groups.set(item.group, [...(groups.get(item.group) || []), item]);
  for (const [name, members] of groups) {
    const group = element("div", "group"), shelf = element("div", "shelf");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", name);
    group.append(element("h3", "", name), shelf);
    group.classList.toggle("wide", members.some((item) => item.line.length > 24));
    for (const item of members) {
      const card = element("button", "card");
      card.type = "button";
      card.dataset.id = item.id;
      const image = element("img", "");
      image.src = item.images[0];
      image.alt = "";
      const labels = element("span", "labels");
      labels.append(element("span", "title", item.title), element("span", "line", item.line));
      card.append(image, labels);
      card.addEventListener("click", () => pick(item.id));
      shelf.append(card);
    }
    root.append(group);
  }
}

/** @param {ComponentArguments<StripMessage>} component */
export default function ({ data, parentElement, setTriggerValue }) {
  /** @type {HTMLElement} */
  const root = parentElement.querySelector(".strip");
  let strip = strips.get(parentElement);
  if (!strip) strips.set(parentElement, (strip = {}));
  strip.pick = (id) => setTriggerValue("picked", id);
  const shown = JSON.stringify(data.items.map(({ chosen, ...rest }) => rest));
  if (strip.shown !== shown) {
    const active = /** @type {Document | ShadowRoot} */ (root.getRootNode()).activeElement;
    const focused = active instanceof HTMLElement ? active.dataset.id : null;
    build(root, data.items, (id) => strip.pick(id));
    strip.shown = shown;
    if (focused) /** @type {HTMLElement} */ (root.querySelector(`[data-id="${CSS.escape(focused)}"]`))?.focus();
  }
  const chosen = new Set(data.items.filter((item) => item.chosen).map((item) => item.id));
  for (const card of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll(".card"))) {
    card.classList.toggle("chosen", chosen.has(card.dataset.id));
    card.setAttribute("aria-pressed", String(chosen.has(card.dataset.id)));
  }
  return () => strips.delete(parentElement);
}
