// Small cards in named groups. Built once; later only the mark of the chosen one moves.
const strips = new WeakMap();

function made(tag, style, text) {
  const one = document.createElement(tag);
  one.className = style;
  if (text) one.textContent = text;
  return one;
}

function build(root, items, pick) {
  root.replaceChildren();
  const groups = new Map();
  for (const item of items) groups.set(item.group, [...(groups.get(item.group) || []), item]);
  for (const [name, members] of groups) {
    const group = made("div", "group"), shelf = made("div", "shelf");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", name);
    group.append(made("h3", "", name), shelf);
    group.classList.toggle("sentences", members.some((item) => item.line.length > 24));
    for (const item of members) {
      const card = made("button", "card");
      card.type = "button";
      card.dataset.id = item.id;
      const image = made("img", "");
      image.src = item.images[0];
      image.alt = "";
      const words = made("span", "words");
      words.append(made("span", "title", item.title), made("span", "line", item.line));
      card.append(image, words);
      card.addEventListener("click", () => pick(item.id));
      shelf.append(card);
    }
    root.append(group);
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".strip");
  let strip = strips.get(parentElement);
  if (!strip) strips.set(parentElement, (strip = {}));
  strip.pick = (id) => setTriggerValue("picked", id);
  const shown = JSON.stringify(data.items.map(({ chosen, ...rest }) => rest));
  if (strip.shown !== shown) {
    const inside = root.getRootNode().activeElement, focused = inside && inside.dataset ? inside.dataset.id : null;
    build(root, data.items, (id) => strip.pick(id));
    strip.shown = shown;
    if (focused) { const again = root.querySelector(`[data-id="${CSS.escape(focused)}"]`); if (again) again.focus(); }
  }
  const chosen = new Set(data.items.filter((item) => item.chosen).map((item) => item.id));
  for (const card of root.querySelectorAll(".card")) {
    card.classList.toggle("chosen", chosen.has(card.dataset.id));
    card.setAttribute("aria-pressed", String(chosen.has(card.dataset.id)));
  }
  return () => strips.delete(parentElement);
}
