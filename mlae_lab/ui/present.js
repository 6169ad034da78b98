// @ts-check
// Presentation mode: large type, no sidebar, figures that fill the screen. F8, the button in the sidebar or `?present=1`
// start it, F8 or Escape leaves it; it lasts across pages until then. In it, → and Page Down (a presenter's remote control)
// go to the next step of the page, or else to the next figure, ← and Page Up back.

const KEY = "F8", STORED = "mlae_lab_present", CLASS = "lab-present";
const STOPS = ".lab-title, [role='figure'], .lb-box, [data-testid^='stBidiComponent']";
// the buttons of a page with steps: by their keys, those of a lesson by its own
const FORWARD = ".st-key-lab_next button:not(:disabled), [class*='st-key-lesson_']:is([class*='_answer'], [class*='_question']) button[kind='primary']";
const BACK = ".st-key-lab_back button:not(:disabled), [class*='st-key-lesson_'][class*='_back'] button";
/** @type {WeakMap<HTMLElement | ShadowRoot, () => void>} */
const closers = new WeakMap();

const isOn = () => document.documentElement.classList.contains(CLASS);

/** @param {boolean} on */
function present(on) {
  if (on === isOn()) return;
  document.documentElement.classList.toggle(CLASS, on);
  sessionStorage.setItem(STORED, on ? "on" : "off");
  if (!on) { // a reload does not start it again
    const url = new URL(location.href);
    url.searchParams.delete("present");
    if (url.href !== location.href) history.replaceState(history.state, "", url);
  }
  leaveButton().hidden = !on;
  window.dispatchEvent(new Event("lab-present")); // figures draw themselves again
  window.dispatchEvent(new Event("resize"));
}

/** The button that leaves the mode, for the mouse and for touch. */
function leaveButton() {
  let button = /** @type {HTMLButtonElement} */ (document.querySelector(".lab-leave"));
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.className = "lab-leave";
    button.textContent = "Leave (Esc)";
    button.addEventListener("click", () => present(false));
    document.querySelector(".stApp").append(button);
  }
  return button;
}

/** @param {number} by 1 or -1 */
function move(by) {
  const button = /** @type {HTMLButtonElement} */ (document.querySelector(by > 0 ? FORWARD : BACK));
  if (button) { button.click(); return; }
  const middle = innerHeight / 2;
  const stops = [...document.querySelectorAll(STOPS)].map((element) => ({ element, box: element.getBoundingClientRect() }))
    .filter(({ element, box }) => box.width > 100 && (box.height > 120 || element.matches(".lab-title")))
    .map(({ element, box }) => ({ element, at: box.top + Math.min(box.height, innerHeight) / 2 - middle }));
  const next = by > 0 ? stops.find(({ at }) => at > 20) : stops.reverse().find(({ at }) => at < -20);
  if (next) next.element.scrollIntoView({ block: next.element.getBoundingClientRect().height > innerHeight ? "start" : "center" });
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  if (event.key === KEY) { event.preventDefault(); present(!isOn()); return; }
  if (!isOn() || event.defaultPrevented) return;
  if (event.key === "Escape") { if (!document.querySelector(":popover-open, [role='dialog'], [role='listbox']")) present(false); return; }
  const target = /** @type {Element} */ (event.composedPath()[0]);
  if (document.querySelector(".tour") || (target instanceof Element && target.closest("input, textarea, select, [contenteditable='true'], [role='slider'], [role='grid'], [role='tablist'], [role='radiogroup']"))) return;
  const by = ["ArrowRight", "PageDown"].includes(event.key) ? 1 : ["ArrowLeft", "PageUp"].includes(event.key) ? -1 : 0;
  if (by) { event.preventDefault(); move(by); }
}

/** @param {ComponentArguments<null>} component */
export default function ({ parentElement }) {
  if (!closers.has(parentElement)) {
    const button = parentElement.querySelector("button"), click = () => present(true);
    button.addEventListener("click", click);
    document.addEventListener("keydown", pressed);
    closers.set(parentElement, () => { button.removeEventListener("click", click); document.removeEventListener("keydown", pressed); });
    const isLinked = new URLSearchParams(location.search).get("present") === "1";
    present(isLinked || sessionStorage.getItem(STORED) === "on");
  }
  return () => { closers.get(parentElement)(); closers.delete(parentElement); };
}
