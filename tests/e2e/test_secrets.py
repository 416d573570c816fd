"""No secret in any log line, file, database, page, command line or URL, whatever people do."""

from contextlib import closing
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.e2e.site import ADMIN_TOKEN, PASSWORD, PATIENCE, a_site, wait_for
from tests.e2e.test_singleuser import signed_in

pytestmark = [pytest.mark.needs("lab"), pytest.mark.timeout(300)]

WRONG = "a-password-that-was-wrong"


def command_lines() -> str:
    """Return the command line of every process of this machine."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines += process.cmdline()
        except psutil.Error:
            continue
    return "\n".join(lines)


def test_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    """After sign-ins, tokens, a start, the OAuth round trip and failures nothing has leaked."""
    with a_site(tmp_path, extra='log_level = "debug"') as site:
        secrets = {"admin token": ADMIN_TOKEN, "password": PASSWORD, "wrong password": WRONG}
        urls: list[str] = []
        pages: list[str] = []
        site.start_server()
        (server,) = site.servers()
        secrets["server token"] = server.environ()["JUPYTERHUB_API_TOKEN"]
        status, made = site.api("POST", "/users/admin/tokens", {"note": "leak"})
        assert status == 201
        secrets["new token"] = made["token"]
        site.api("GET", "/user", token=made["token"])
        site.api("GET", "/users/admin?token=" + made["token"])
        refused = httpx2.Client(base_url=site.url, timeout=PATIENCE)
        with closing(refused):
            refused.get("/hub/login")
            form = {"username": "admin", "password": WRONG, "_xsrf": refused.cookies["_xsrf"]}
            assert refused.post("/hub/login", data=form).status_code == 403
        with closing(signed_in(site)) as client:
            for path in ("/user/admin/lab", "/hub/home", "/hub/token", "/hub/admin", "/hub/spawn"):
                answer = client.get(path)
                pages.append(answer.text if path.startswith("/hub") else "")
                urls += [str(hop.url) for hop in (*answer.history, answer)]
            # The session id beside it is none: it names a session and opens nothing (wire §1.7).
            secrets["login cookie"] = client.cookies["jupyterhub-hub-login"]
        lines = command_lines()
        site.api("DELETE", "/users/admin/server")
        wait_for(lambda: not site.servers(), what="the end")
        site.stop()

        said = {"output": site.output, "URLs": "\n".join(urls), "pages": "\n".join(pages)}
        said["command lines"] = lines
        key = (tmp_path / "data/keyring").read_text().split()[1]
        secrets["key"] = key
        for file in (tmp_path / "data").rglob("*"):
            if file.is_file() and file.name != "keyring" and "homes" not in file.parts:
                said[str(file.relative_to(tmp_path))] = file.read_bytes().decode(errors="replace")
        assert any("log" in where for where in said)
        leaks = [
            (what, where)
            for what, secret in secrets.items()
            for where, text in said.items()
            if secret in text
        ]
        assert leaks == []
