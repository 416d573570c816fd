"""
The pages on a real port, in every state, without anything that moves.

``python -m tests.e2e.gallery [PORT]`` serves them to look at: sign in as ann, max (twenty
servers), zoe (none) or admin, with the password it prints.
"""

import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio

from perijove.services.hub import Hub
from perijove.web.access_log import AccessLog
from perijove.web.app import create_app
from perijove.web.listen import serve
from tests.e2e.scenes import PASSWORD, gallery_hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A hub whose pages can be visited."""

    hub: Hub
    url: str
    """With the base path, ending in a slash."""


@asynccontextmanager
async def gallery(
    directory: Path, *, port: int = 0, settings: Mapping[str, Any] | None = None, **given: Any
) -> AsyncIterator[Gallery]:
    """Serve the pages until the block ends."""
    database_url = f"sqlite:///{directory / 'gallery.sqlite'}"
    with socket.create_server(("127.0.0.1", port)) as listener:
        async with (
            gallery_hub(database_url, directory, settings=settings, **given) as hub,
            anyio.create_task_group() as tasks,
        ):
            app = create_app(hub, access_log=AccessLog(hub.clock, as_json=True, stream=BytesIO()))
            started = anyio.Event()

            async def run() -> None:
                await serve(app, [listener], started=started.set)

            tasks.start_soon(run)
            await started.wait()
            origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Gallery(hub=hub, url=f"{origin}{hub.base_path}")
            tasks.cancel_scope.cancel()


async def _main(port: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with gallery(Path(directory), port=port) as shown:
            print(f"{shown.url}hub/login   password: {PASSWORD}", flush=True)
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_main, int(sys.argv[1]) if len(sys.argv) > 1 else 8808)
