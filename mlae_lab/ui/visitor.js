// @ts-check
// The cookies of a browser: its visitor id, whether it has seen the tour and, on a network, its login. Streamlit reads cookies but cannot set them.
// Two tabs that open at once create two ids: the id that is already in the cookie wins and is reported to Python.

/** @typedef {{ visitor: string, login: string | null, tour: boolean }} VisitorMessage tour: whether it was offered and closed */

const SHAPE = /^[A-Za-z0-9_-]{16,64}$/;
const DAY = 86400;
/** @type {WeakMap<HTMLElement | ShadowRoot, string>} */
const reported = new WeakMap();

/** @param {string} name */
function read(name) {
  for (const part of document.cookie.split("; ")) if (part.startsWith(name + "=")) return part.slice(name.length + 1);
  return "";
}

/** @param {string} name @param {string} value @param {number} days */
function write(name, value, days) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${value}; path=/; max-age=${days * DAY}; SameSite=Strict${secure}`;
}

/** @param {ComponentArguments<VisitorMessage>} component */
export default function ({ data, parentElement, setStateValue }) {
  const settle = () => {
    const stored = read("mlae_lab_visitor");
    if (SHAPE.test(stored) && stored !== data.visitor) {
      if (reported.get(parentElement) !== stored) setStateValue("stored", stored);
      reported.set(parentElement, stored);
      return false;
    }
    write("mlae_lab_visitor", data.visitor, 365);
    if (data.tour) write("mlae_lab_tour", "seen", 365);
    if (data.login) write("mlae_lab_login", data.login, 30);
    return true;
  };
  // checked a second time: another tab may write its id between this tab's read and write
  const check = settle() ? setTimeout(settle, 500) : null;
  return () => clearTimeout(check);
}
