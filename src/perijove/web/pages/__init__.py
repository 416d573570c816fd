"""The pages people meet: thin endpoints, views of plain values, templates."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from perijove.services.hub import Hub
from perijove.web.pages.routes import page_routes


def routes(hub: Hub) -> Sequence[BaseRoute]:
    """Return the routes of all pages; reads templates and catalogues, so call it at start."""
    return page_routes(hub)
