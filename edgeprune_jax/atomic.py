"""Files that appear whole or not at all, so that an interrupted run leaves no half of one."""

import os
import secrets
from pathlib import Path


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file under another name in the same folder, then moves it into place."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    # Not `tempfile`: its files are private to the user, and stay so after the move.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
