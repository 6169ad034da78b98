"""fcntl, which only POSIX systems have: elsewhere the lab ends with one sentence."""

from __future__ import annotations

import sys

try:
    import fcntl
except ImportError:
    print("mlae_lab: MLAE Lab runs on Linux and macOS; on Windows, install it in WSL 2", file=sys.stderr)
    raise SystemExit(2) from None

__all__ = ["fcntl"]
