"""Which part of the hub answers which address, and the parts that are no resource of the API."""

import json
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from perijove.db.core import bound
from perijove.db.spawner_states import save_state
from perijove.domain.launch import Status
from perijove.services.metrics import Metrics
from perijove.services.sessions import SigningIn, Visitor, open_session
from perijove.web.api.calls import Patience
from perijove.web.api.progress import LABEL
from perijove.web.asgi import Message
from tests.apis import ADMIN, ANN, TestApi, running_api
from tests.hubs import PATIENCE

pytestmark = pytest.mark.anyio


def sqlite(tmp_path: Path) -> str:
    """Return the URL of a fresh file."""
    return f"sqlite:///{tmp_path}/hub.db"


@pytest.mark.parametrize("base", ["/", "/jupyter/", "/@/space%20word/"])
async def test_addresses_lead_where_the_wire_says(tmp_path: Path, base: str) -> None:
    """The anonymous probes of the wire have their answers below any base path."""
    expected = [
        ("GET", "hub", 301, f"{base}hub/"),
        ("GET", "", 302, f"{base}hub/"),
        ("GET", "xyz?a=%20b", 302, f"{base}hub/xyz?a=%20b"),
        ("GET", "/evil.example/", 302, f"{base}hub//evil.example/"),
        ("GET", "user/ann", 301, f"{base}user/ann/"),
        ("GET", "user/ann/lab", 302, f"{base}hub/user/ann/lab"),
        ("GET", "services/none/", 302, f"{base}hub/services/none/"),
        ("GET", "hub/xyz", 404, None),
        ("GET", "hub/api/xyz", 404, None),
        ("GET", "hub/health", 200, None),
        ("HEAD", "hub/health", 200, None),
        ("GET", "hub/health/", 404, None),
        ("GET", "hub/api", 200, None),
        ("GET", "hub/api/", 200, None),
        ("HEAD", "hub/api/", 405, None),
        ("GET", "hub/api/users/", 404, None),
        ("OPTIONS", "hub/api/users", 200, None),
        ("POST", "user/ann/api/kernels", 403, None),
        ("POST", "hub/security/csp-report", 200, None),
    ]
    settings = {"base_path": base}
    async with running_api(sqlite(tmp_path), tmp_path, settings=settings, loops=False) as api:
        for method, path, status, location in expected:
            answer = await api.client.request(method, f"http://hub.test{base}{path}")
            assert answer.status_code == status, (method, path, answer.text[:200])
            assert answer.headers.get("location") == location, (method, path)
        outside = await api.client.get("/elsewhere")

    assert outside.status_code == (302 if base == "/" else 404)


async def test_base_path_stands_in_every_address_of_a_model(tmp_path: Path) -> None:
    """Addresses in models have the base path, and the origin where the public one is known."""
    settings = {"base_path": "/x/", "url": "https://hub.example.org/x/"}
    async with running_api(sqlite(tmp_path), tmp_path, settings=settings, loops=False) as api:
        headers = {"authorization": f"token {ANN}"}
        answer = await api.client.get("/x/hub/api/users/ann/server", headers=headers)

    server = answer.json()
    assert server["url"] == "/x/user/ann/"
    assert server["full_url"] == "https://hub.example.org/x/user/ann/"
    assert server["progress_url"] == "/x/hub/api/users/ann/server/progress"
    assert server["full_progress_url"] == (
        "https://hub.example.org/x/hub/api/users/ann/server/progress"
    )


async def test_version_is_for_everybody(tmp_path: Path) -> None:
    """The version needs no credentials and may be read by pages of any origin."""
    async with running_api(sqlite(tmp_path), tmp_path, loops=False) as api:
        answer = await api.call("GET", "", token=None)

    assert answer.json() == {"version": "6.1.1"}
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (f"token {ADMIN}", 200),
        (f"Bearer {ADMIN}", 200),
        (f"TOKEN {ADMIN}", 200),
        (f"basic {ADMIN}", 403),
        (f"token {ADMIN} x", 403),
        ("token", 403),
        ("token " + "x" * 5000, 403),
    ],
)
async def test_token_is_one_word_after_its_scheme(tmp_path: Path, value: str, status: int) -> None:
    """Both schemes work in any case; anything else is nobody's token."""
    async with running_api(sqlite(tmp_path), tmp_path, loops=False) as api:
        answer = await api.call("GET", "/user", token=None, headers={"authorization": value})

    assert answer.status_code == status


async def _cookie_of(api: TestApi, name: str) -> str:
    user_id = await api.hub.user(name)
    hub = api.hub.hub
    who = SigningIn(user_id=user_id, user_name=name, authenticator="test", visitor=Visitor())
    opened = await hub.database.write(
        bound(open_session, who, now=hub.clock.now(), lifetime=hub.settings.session_lifetime)
    )
    return opened.cookie


async def test_cookie_counts_for_a_navigation_and_not_for_another_sites_form(
    database_url: str, tmp_path: Path
) -> None:
    """A signed-in browser may open API addresses; a form elsewhere cannot act in its name."""
    async with running_api(database_url, tmp_path, loops=False) as api:
        cookie = {"cookie": f"jupyterhub-hub-login={await _cookie_of(api, 'ann')}"}
        opened = await api.call(
            "GET", "/user", token=None, headers={**cookie, "sec-fetch-mode": "navigate"}
        )
        forged = await api.call("POST", "/users/ann/server", token=None, headers=cookie)
        form = {**cookie, "content-type": "application/x-www-form-urlencoded"}
        posted = await api.call("POST", "/users/ann/server", token=None, headers=form)
        live = await api.hub.live()

    me = opened.json()
    assert (me["name"], me["token_id"]) == ("ann", None)
    assert me["session_id"]
    assert forged.json()["message"] == "'_xsrf' argument missing from POST"
    assert posted.status_code == 403
    assert live == []


async def test_metrics_count_what_the_database_knows(database_url: str, tmp_path: Path) -> None:
    """A scrape needs its scope, and shows the names that dashboards query."""
    async with running_api(database_url, tmp_path) as api:
        await api.hub.becomes(await api.hub.start("ann"), Status.READY)
        await api.call("GET", "/users/ann/server/progress", token=ANN)

        async def scrape(path: str, token: str) -> tuple[int, str]:
            headers = {"authorization": f"token {token}"}
            answer = await api.client.get(path, headers=headers)
            return answer.status_code, answer.text

        refused, page = await scrape("/hub/metrics", ANN)
        status, text = await scrape("/hub/metrics", ADMIN)
        also, _ = await scrape("/hub/api/metrics", ADMIN)

    assert refused == 403
    assert "<html" in page
    assert "read:metrics" in page
    assert (status, also) == (200, 200)
    assert "jupyterhub_running_servers 1.0" in text
    assert "jupyterhub_total_users 3.0" in text
    assert 'perijove_launches{status="ready"} 1.0' in text
    assert f'handler="{LABEL}"' in text


async def test_metrics_may_be_open(tmp_path: Path) -> None:
    """Where the configuration says so, a scrape needs nobody's token."""
    settings = {"authenticate_metrics": False}
    async with running_api(sqlite(tmp_path), tmp_path, settings=settings, loops=False) as api:
        answer = await api.client.get("/hub/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"


async def test_metrics_tell_how_long_a_platform_is_silent(tmp_path: Path) -> None:
    """Zero while it answers; the seconds of the silence, on any replica, when it does not."""
    settings = {"authenticate_metrics": False}
    async with running_api(sqlite(tmp_path), tmp_path, settings=settings, loops=False) as api:
        hub = api.hub.hub

        async def scrape() -> float | None:
            await api.client.get("/hub/metrics")
            labels = {"spawner": "memory"}
            return hub.metrics.registry.get_sample_value("perijove_spawner_silent_seconds", labels)

        assert await scrape() == 0
        since = hub.clock.now() - timedelta(minutes=4)
        await hub.database.write(bound(save_state, "memory", failing_since=since))
        silent = await scrape()
        assert silent is not None
        assert 240 <= silent < 240 + PATIENCE
        await hub.database.write(bound(save_state, "memory", failing_since=None))
        assert await scrape() == 0


def test_metrics_have_every_name_of_the_wire() -> None:
    """Dashboards made for JupyterHub find all they ask for."""
    names = {family.name for family in Metrics().registry.collect()}

    assert {
        "jupyterhub_request_duration_seconds", "jupyterhub_server_spawn_duration_seconds",
        "jupyterhub_server_stop_seconds", "jupyterhub_server_poll_duration_seconds",
        "jupyterhub_proxy_add_duration_seconds", "jupyterhub_proxy_delete_duration_seconds",
        "jupyterhub_proxy_poll_duration_seconds", "jupyterhub_check_routes_duration_seconds",
        "jupyterhub_running_servers", "jupyterhub_total_users", "jupyterhub_active_users",
        "jupyterhub_login_duration_seconds", "jupyterhub_logout_duration_seconds",
        "jupyterhub_hub_startup_duration_seconds", "jupyterhub_init_spawners_duration_seconds",
        "jupyterhub_event_loop_interval_seconds", "jupyterhub_csp_reports",
    } <= names  # fmt: skip


def test_every_start_and_stop_is_counted_under_known_labels() -> None:
    """An invented reason does not become a label."""
    metrics = Metrics()
    metrics.spawn("failure", 1.0, "exited")
    metrics.spawn("failure", 1.0, "because of ann")
    metrics.stop("success", 0.5)

    count = "jupyterhub_server_spawn_duration_seconds_count"
    labels = [{"status": "failure", "reason": reason} for reason in ("exited", "")]
    assert [metrics.registry.get_sample_value(count, each) for each in labels] == [1, 1]
    assert (
        metrics.registry.get_sample_value(
            "jupyterhub_server_stop_seconds_count", {"status": "success"}
        )
        == 1
    )


async def test_stream_ends_when_the_client_goes_away(database_url: str, tmp_path: Path) -> None:
    """A browser that closes the page leaves nothing running, and the line is logged."""
    patience = Patience(start=0, stop=0)
    async with running_api(database_url, tmp_path, loops=False, patience=patience) as api:
        await api.call("POST", "/users/ann/server", token=ANN)
        chunks: list[bytes] = []
        has_begun = anyio.Event()

        async def receive() -> Message:
            await has_begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            chunks.append(message.get("body", b""))
            if b"Server requested" in chunks[-1]:
                has_begun.set()

        path = "/hub/api/users/ann/server/progress"
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
            "query_string": b"", "scheme": "http", "client": None,
            "headers": [(b"authorization", f"token {ANN}".encode())],
        }  # fmt: skip
        with anyio.fail_after(PATIENCE):
            await api.app(scope, receive, send)

    assert chunks[1] == b"\n\n"
    assert json.loads(chunks[2].removeprefix(b"data: "))["message"] == "Server requested"
    assert api.lines()[-1]["path"] == path
