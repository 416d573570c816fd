"""The URL map of the pages (wire §4.1)."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from perijove.services.hub import Hub
from perijove.web.pages import admin, environments, home, pending, signin, spawning, tokens, volumes
from perijove.web.pages.assets import send
from perijove.web.pages.door import Endpoint, Handler, for_everyone, for_people
from perijove.web.pages.errors import show_error
from perijove.web.pages.look import look_of, own_path
from perijove.web.pages.preferences import set_preferences

_ANY: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def page_routes(hub: Hub) -> Sequence[BaseRoute]:
    """Return them all, the most particular first."""
    look = look_of(hub)

    async def static(request: Request) -> Response:
        return look.assets.answer(request, request.path_params["name"])

    async def logo(request: Request) -> Response:
        return send(request, look.assets.logo)

    def at(path: str, handle: Handler, *methods: str) -> Route:
        return _route(hub, path, for_people(hub, handle), *methods)

    def whose(path: str, handle: Handler, *methods: str) -> list[Route]:
        endpoint = for_people(hub, handle)
        ends = ("", "/{user}", "/{user}/{server}")
        return [_route(hub, f"{path}{end}", endpoint, *methods) for end in ends]

    return [
        at("", home.front_door),
        at("home", home.show_home),
        at("new", home.show_new),
        at("new", home.take_new, "POST"),
        *whose("spawn", spawning.show_options),
        *whose("spawn", spawning.take_options, "POST"),
        *whose("spawn-pending", pending.show_pending),
        *whose("server/{verb}", home.confirm),
        *whose("server/{verb}", home.act, "POST"),
        at("user-redirect/{path:path}", pending.redirect_to_mine),
        at("token", tokens.show_tokens),
        at("token", tokens.take_token, "POST"),
        at("token/revoke", tokens.revoke, "POST"),
        at("token/sessions", tokens.end_sessions, "POST"),
        at("environments", environments.show),
        at("environments", environments.take, "POST"),
        at("environments/{id}", environments.show_one),
        at("environments/{id}", environments.act, "POST"),
        at("environments/{id}/lock", environments.download),
        at("password", signin.show_password),
        at("password", signin.take_password, "POST"),
        at("data", volumes.show_mine),
        at("data/{volume}/{verb}", volumes.confirm),
        at("data/{volume}/{verb}", volumes.act, "POST"),
        at("admin", admin.show_admin),
        at("admin/data", volumes.show_all),
        *_in_its_place(hub),
        *_for_strangers(hub),
        _route(hub, "logo", logo),
        _route(hub, "static/{name}", static),
    ]


def _for_strangers(hub: Hub) -> list[Route]:
    return [
        _route(hub, "login", for_everyone(hub, signin.show_login)),
        _route(hub, "login", for_everyone(hub, signin.take_login, checks_xsrf=False), "POST"),
        _route(hub, "logout", for_everyone(hub, home.leave)),
        _route(hub, "logout", for_everyone(hub, home.leave_and_stop), "POST"),
        _route(hub, "preferences", for_everyone(hub, set_preferences)),
        _route(hub, "error/{code:int}", for_everyone(hub, show_error)),
    ]


def _in_its_place(hub: Hub) -> list[Route]:
    endpoint = for_people(hub, pending.show_in_its_place, tokens=True)
    return [
        Route(f"{hub.hub_prefix}user/{{user}}/{{path:path}}", endpoint, methods=_ANY),
        Route(f"{hub.hub_prefix}user/{{user}}", _with_slash, methods=["GET"]),
    ]


async def _with_slash(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{own_path(request)}/{query}", 301)


def _route(hub: Hub, path: str, endpoint: Endpoint, *methods: str) -> Route:
    return Route(f"{hub.hub_prefix}{path}", endpoint, methods=list(methods or ("GET",)))
