"""The lab's theme, put into words once.

Streamlit writes the whole theme into a message at the start of every run of a script or fragment, and looks through all
its options for it: a third of what a watched page cost the server (LOG.md). The words are remembered here. They lie
behind a private function, so nothing is touched where that is not as it was found.
"""

from __future__ import annotations

import inspect
from functools import wraps

from google.protobuf.message import Message
from streamlit.runtime import app_session

_PRIVATE = "_populate_theme_msg"


def remember_theme() -> bool:
    """Let the server write its theme once per process; whether it does. A theme that is edited needs a new start."""
    write = getattr(app_session, _PRIVATE, None)
    if getattr(write, "remembers", False):
        return True
    if write is None or list(inspect.signature(write).parameters) != ["msg", "section"]:
        return False
    known: dict[str, Message] = {}

    @wraps(write)
    def remembered(msg: Message, section: str = "theme") -> None:
        if section not in known:
            made = type(msg)()
            write(made, section)
            known[section] = made
        if known[section].ByteSize():  # to merge nothing would still say that the part is there
            msg.MergeFrom(known[section])

    remembered.__dict__["remembers"] = True
    setattr(app_session, _PRIVATE, remembered)
    return True
