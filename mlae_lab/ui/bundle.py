"""Components whose code travels once, not with every message.

Streamlit sends a component's html, css and js anew with every refresh: 45 kB for the live bench. Here the browser gets
a few lines that import one file from the lab's own server, named by its content, which it keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from streamlit.components.v2 import component

from mlae_lab.files import write_whole
from mlae_lab.locations import PACKAGE

_HERE = Path(__file__).parent
STATIC = PACKAGE / "static"
_STUB = """
const loaded = import(new URL("app/static/{name}", document.baseURI).href);
export default function (component) {{
  let close = null, closed = false;
  loaded.then((module) => {{
    if (closed) return;
    const holder = component.parentElement.querySelector("[data-part]");
    if (holder && !holder.firstElementChild) holder.innerHTML = module.inside;
    close = module.default(component);
  }})
    .catch((error) => {{
      component.parentElement.textContent = "{name} did not load from the lab's server: " + error.message;
    }});
  return () => {{ closed = true; if (close) close(); }};
}}
"""


def bundled(
    name: str, scripts: Sequence[str], html: str = "", css: str = "", markup: str = "", isolated: bool = False
) -> Callable[..., object]:
    """A component made of scripts of this folder, with its HTML and its rules for the page it stands on.

    name: unique in the lab. html, css: names of files of this folder, "" for none. The last script exports the
    component; the others are in front of it. If `static` cannot be written the code travels with every message.
    markup: HTML itself, in place of a file. isolated: in a shadow tree of its own, where no rule comes in or goes out;
    its own then travel with every message.
    """
    code = "".join((_HERE / script).read_text() for script in scripts)
    inside = markup or ((_HERE / html).read_text() if html else "")
    rules = (_HERE / css).read_text() if css else ""
    if rules and not isolated:
        code += (
            f'const rules = document.createElement("style");\nrules.textContent = {json.dumps(rules)};\n'
            "document.head.append(rules);\n"
        )
    try:
        code = _STUB.format(name=_kept(name, f"{code}export const inside = {json.dumps(inside)};\n"))
        inside = "<div data-part></div>" if inside else ""
    except OSError:
        pass
    # not isolated by default: Plotly writes its style sheet into the document, and so do these rules
    return component(
        f"mlae_lab_{name}",
        html=inside or None,
        css=(rules or None) if isolated else None,
        js=code,
        isolate_styles=isolated,
    )


def _kept(name: str, code: str) -> str:
    """The name of the file in `static` that holds the code; written once, and older ones removed."""
    file = STATIC / f"part-{name}-{hashlib.sha256(code.encode()).hexdigest()[:12]}.js"
    if not file.exists():
        write_whole(file, code)
        for old in STATIC.glob(f"part-{name}-*.js"):
            if old != file:
                with suppress(OSError):
                    old.unlink()
    return file.name
