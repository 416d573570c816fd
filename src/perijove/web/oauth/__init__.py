"""The two endpoints of the OAuth 2 provider, below the API's prefix (wire §2.9)."""

from starlette.routing import BaseRoute, Route

from perijove.services.hub import Hub
from perijove.web.oauth.authorize import Authorize
from perijove.web.oauth.token import Token

__all__ = ["api_routes"]


def api_routes(hub: Hub) -> list[BaseRoute]:
    """Return the routes, as paths below ``B hub/api``."""
    return [
        Route("/oauth2/authorize", Authorize(hub), name="oauth-authorize"),
        Route("/oauth2/token", Token(hub), name="oauth-token"),
    ]
