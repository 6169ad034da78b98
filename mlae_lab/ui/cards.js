// @ts-check
// Cards to choose from: images, a title, a line and a status. One of them may be chosen.

/**
 * @typedef {{ id: string, title: string, line: string, images: string[], word: string, tone: string, group: string,
 *   chosen: boolean }} CardMessage
 * @typedef {{ items: CardMessage[], label: string, size: "small" | "large" }} CardsMessage
 */

/** @type {WeakMap<HTMLElement | ShadowRoot, { shown: string, pick: (name: string, value: unknown) => void }>} */
const shelves = new WeakMap();

/** @param {HTMLElement} shelf @param {CardsMessage} data @param {(id: string) => void} pick */
function draw(shelf, data, pick) {
  shelf.replaceChildren();
  let group = null, grid = null;
  for (const item of data.items) {
    if (item.group !== group || !grid) {
      group = item.group;
      if (group) {
        const title = document.createElement("h3");
        title.textContent = group;
        shelf.append(title);
      }
      grid = document.createElement("div");
      grid.className = "shelf " + data.size;
      grid.setAttribute("role", "group");
      grid.setAttribute("aria-label", group || data.label);
      shelf.append(grid);
    }
    const card = document.createElement("button");
    card.type = "button";
    card.className = "card" + (item.chosen ? " chosen" : "");
    card.setAttribute("aria-pressed", String(Boolean(item.chosen)));
    card.dataset.id = item.id;
    const frame = document.createElement("div");
    frame.className = "image";
    for (const source of item.images) {
      const image = document.createElement("img");
      image.src = source;
      image.alt = "";
      frame.append(image);
    }
    frame.classList.toggle("single", item.images.length === 1);
    const title = document.createElement("div");
    title.className = "title";
    title.textContent = item.title;
    const line = document.createElement("div");
    line.className = "line";
    line.textContent = item.line || "";
    if (item.images.length) card.append(frame);
    card.append(title, line);
    if (item.word) {
      const status = document.createElement("div");
      status.className = "word " + (item.tone || "");
      status.textContent = item.word;
      card.append(status);
    }
    card.addEventListener("click", () => pick(item.id));
    grid.append(card);
  }
}

/** @param {ComponentArguments<CardsMessage>} component */
export default function ({ data, parentElement, setTriggerValue }) {
  /** @type {HTMLElement} */
  const shelf = parentElement.querySelector(".cards");
  const shown = JSON.stringify(data);
  const old = shelves.get(parentElement);
  if (old && old.shown === shown) { old.pick = setTriggerValue; return; }
  const state = { shown, pick: setTriggerValue };
  shelves.set(parentElement, state);
  const active = /** @type {Document | ShadowRoot} */ (shelf.getRootNode()).activeElement;
  const focused = active instanceof HTMLElement ? active.dataset.id : null;
  draw(shelf, data, (id) => state.pick("picked", id));
  if (focused) /** @type {HTMLElement} */ (shelf.querySelector(`[data-id="${CSS.escape(focused)}"]`))?.focus();
  return () => shelves.delete(parentElement);
}
