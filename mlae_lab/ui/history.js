// @ts-check
// One entry in the browser's history for each view. Streamlit adds an entry for every change of an address; pages write
// what is edited (the mask, settings, switches) into their address, so Back would land on one page several times.

const VIEW = ["run", "view", "a", "b", "runs", "look", "study", "new"]; // the parameters that say which view an address opens

/** Whether two addresses open the same view. The Experts page adds its run and view to an address that names none.
 * @param {URL} from @param {URL} to */
function isSameView(from, to) {
  const completes = from.pathname.endsWith("/experts");
  return from.pathname === to.pathname && VIEW.every((name) =>
    from.searchParams.get(name) === to.searchParams.get(name) || (completes && !from.searchParams.has(name)));
}

if (!window.hasOneEntryPerView) {
  window.hasOneEntryPerView = true;
  const push = history.pushState.bind(history);
  history.pushState = (state, title, url) => {
    const same = url && isSameView(new URL(location.href), new URL(url, location.href));
    if (same) history.replaceState(state, title, url);
    else push(state, title, url);
  };
}

