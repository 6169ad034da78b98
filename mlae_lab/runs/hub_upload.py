"""Upload a folder of an export to the Hugging Face Hub through its own library.

The library finds the endpoint (HF_ENDPOINT) and the login (HF_TOKEN, `hf auth login`); the lab neither asks for a token
nor keeps one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlae_lab.core.sanitize import one_line
from mlae_lab.errors import LabError

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


class UploadError(LabError):
    """An upload that did not happen; its text says why."""


def require_repository(name: str) -> None:
    """Raise UploadError unless a text is USER/NAME."""
    if not _REPOSITORY.fullmatch(name):
        raise UploadError(f"{name[:60]!r} is not a repository of the Hub: write USER/NAME")


def upload(folder: Path, repository: str, private: bool, message: str) -> str:
    """Create a model repository if it is missing and upload a folder to it in one commit. Returns its address.

    Args:
        folder: All its files are sent.
        repository: USER/NAME.
        private: Whether a new repository is private; one that exists stays as it is.
        message: Of the commit.

    Raises:
        UploadError: There is no login, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    require_repository(repository)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    login = "set HF_TOKEN or run `hf auth login` with a token that may write"
    if not api.token and not _stored_token():
        raise UploadError(f"there is no login for the Hub: {login}")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(
            repository,
            [
                CommitOperationAdd(path.relative_to(folder).as_posix(), path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ],
            commit_message=message,
        )
    except LocalTokenNotFoundError:
        raise UploadError(f"there is no login for the Hub: {login}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = one_line(getattr(error, "server_message", None) or "")[:200]
        remedy = login if status in (401, 403) else reason if status == 400 and reason else "try again later"
        raise UploadError(f"the Hub refuses the upload to {repository} (status {status}): {remedy}") from None
    except Exception as error:  # no connection is an exception of httpx or requests, by the library's version
        raise UploadError(f"the upload to {repository} failed ({one_line(str(error))[:200]}): try again") from None
    return f"{api.endpoint}/{repository}"


def _stored_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()
