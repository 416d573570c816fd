"""Small files that must be whole, and still there after a power cut. All of it blocks."""

import json
import os
import secrets
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raise `ValueError` for anything else."""
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not hold an object")
    return found


def write_json(path: Path, value: object) -> None:
    """Replace `path`, mode 0600, as a whole and durably but for its name (see `sync`)."""
    write_text(path, json.dumps(value))


def write_text(path: Path, text: str) -> None:
    """Replace `path`, as `write_json` does."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)


def sync(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
