"""A cache of the theme message.

Streamlit writes the whole theme into a message at the start of every run of a script or fragment and searches all its
options for it: a third of the cost of a refreshed page (LOG.md). This module caches the message. The function is
private, so it is replaced only if its signature is the expected one.
"""

from __future__ import annotations

import inspect
from functools import wraps

from google.protobuf.message import Message
from streamlit.runtime import app_session

_PRIVATE = "_populate_theme_msg"


def remember_theme() -> bool:
    """Let the server compute its theme once per process; an edited theme needs a restart.

    Returns:
        Whether the cache is in place.
    """
    write = getattr(app_session, _PRIVATE, None)
    if getattr(write, "remembers", False):
        return True
    if write is None or list(inspect.signature(write).parameters) != ["msg", "section"]:
        return False
    known: dict[str, Message] = {}

    @wraps(write)
    def remembered(msg: Message, section: str = "theme") -> None:
        if section not in known:
            message = type(msg)()
            write(message, section)
            known[section] = message
        if known[section].ByteSize():  # merging an empty message would still set the field
            msg.MergeFrom(known[section])

    remembered.__dict__["remembers"] = True
    setattr(app_session, _PRIVATE, remembered)
    return True
