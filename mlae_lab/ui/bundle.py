"""Components whose code is sent once, not with every message.

Streamlit sends a component's html, css and js with every refresh: 45 kB for the live bench. Here the browser receives
a few lines that import one script from the lab's server, named by the hash of its content, and caches it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from streamlit.components.v2 import component

from mlae_lab.ui import served

_HERE = Path(__file__).parent
_STUB = """
const loaded = import(new URL("{address}", document.baseURI).href);
export default function (component) {{
  let close = null, closed = false;
  loaded.then((module) => {{
    if (closed) return;
    const holder = component.parentElement.querySelector("[data-part]");
    if (holder && !holder.firstElementChild) holder.innerHTML = module.content;
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
    """A component made of scripts of this folder, with its HTML and its style sheet.

    Args:
        name: Unique in the lab.
        scripts: Files of this folder, concatenated; the last one exports the component.
        html: A file of this folder, "" for none.
        css: A file of this folder, "" for none.
        markup: HTML itself, in place of a file.
        isolated: Use a shadow tree, so that no rule enters or leaves it; its style sheet is then sent with every
            message.
    """
    code = "".join((_HERE / script).read_text() for script in scripts)
    content = markup or ((_HERE / html).read_text() if html else "")
    rules = (_HERE / css).read_text() if css else ""
    if rules and not isolated:
        code += (
            f'const rules = document.createElement("style");\nrules.textContent = {json.dumps(rules)};\n'
            "document.head.append(rules);\n"
        )
    code += f"export const content = {json.dumps(content)};\n"
    digest = hashlib.sha256(code.encode()).hexdigest()[:12]
    address = served.address(f"{name}-{digest}.js", code.encode())
    # not isolated by default: Plotly writes its style sheet into the document
    return component(
        f"mlae_lab_{name}",
        html="<div data-part></div>" if content else None,
        css=(rules or None) if isolated else None,
        js=_STUB.format(name=name, address=address),
        isolate_styles=isolated,
    )
