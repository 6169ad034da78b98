// The two cookies of a browser: who it is and, on a network, that it knows the password. Streamlit reads cookies but
// cannot set them. Two first tabs at once make two ids: the one that is in the cookie already wins and is reported.
const SHAPE = /^[A-Za-z0-9_-]{16,64}$/;
const DAY = 86400;
const reported = new WeakMap();

function read(name) {
  for (const part of document.cookie.split("; ")) if (part.startsWith(name + "=")) return part.slice(name.length + 1);
  return "";
}

function write(name, value, days) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${value}; path=/; max-age=${days * DAY}; SameSite=Strict${secure}`;
}

export default function ({ data, parentElement, setStateValue }) {
  const settle = () => {
    const there = read("mlae_lab_visitor");
    if (SHAPE.test(there) && there !== data.visitor) {
      if (reported.get(parentElement) !== there) setStateValue("found", there);
      reported.set(parentElement, there);
      return false;
    }
    write("mlae_lab_visitor", data.visitor, 365);
    if (data.login) write("mlae_lab_login", data.login, 30);
    return true;
  };
  // a second look: another tab may have written its own between this tab's reading and writing
  const later = settle() ? setTimeout(settle, 500) : null;
  return () => clearTimeout(later);
}
