// Cards to choose from: an image, a title, a line, a word. One of them may be chosen.
const shelves = new WeakMap();

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
    card.className = "card" + (item.chosen ? " chosen" : "") + (item.muted ? " muted" : "");
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
    frame.classList.toggle("one", item.images.length === 1);
    const title = document.createElement("div");
    title.className = "title";
    title.textContent = item.title;
    const line = document.createElement("div");
    line.className = "line";
    line.textContent = item.line || "";
    if (item.images.length) card.append(frame);
    card.append(title, line);
    if (item.word) {
      const word = document.createElement("div");
      word.className = "word " + (item.tone || "");
      word.textContent = item.word;
      card.append(word);
    }
    card.addEventListener("click", () => pick("picked", item.id));
    grid.append(card);
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const shelf = parentElement.querySelector(".cards");
  const shown = JSON.stringify(data);
  const old = shelves.get(parentElement);
  if (old && old.shown === shown) { old.pick = setTriggerValue; return; }
  const state = { shown, pick: setTriggerValue };
  shelves.set(parentElement, state);
  const inside = shelf.getRootNode().activeElement;
  const focused = inside && inside.dataset ? inside.dataset.id : null;
  draw(shelf, data, (name, id) => state.pick(name, id));
  if (focused) { const again = shelf.querySelector(`[data-id="${CSS.escape(focused)}"]`); if (again) again.focus(); }
  return () => shelves.delete(parentElement);
}
