"""The configuration sections of the hub itself."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from perijove.kit.config import Duration, Section


def _base_path(value: str) -> str:
    if not value.startswith("/") or "//" in value or any(c in value for c in "?#\\ \t"):
        raise ValueError("must be a path such as / or /jupyter/, percent-encoded as in URLs")
    if any(part in (".", "..") for part in value.split("/")):
        raise ValueError("must not hold . or .. as a part")
    return value if value.endswith("/") else value + "/"


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") == host.endswith("]") == (":" in host)
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise ValueError("must be an address, host:port")
    if not bracketed:
        raise ValueError("must have brackets around an IPv6 host: [::1]:8000")
    return value


def _optional_address(value: str) -> str:
    return _address(value) if value else value


class FileToken(Section):
    """An API token given by the configuration, for services and scripts."""

    name: str
    """Shown as the token's note."""
    token: SecretStr
    """8 to 64 characters; stored hashed."""
    user: str | None = None
    """The user it acts for; made if need be. Either this or `service`."""
    service: str | None = None
    """The service it belongs to; made if need be. Either this or `user`."""
    scopes: list[str] = ["inherit"]
    """What it may do, at most; `inherit` is all its owner may do."""

    @model_validator(mode="after")
    def _one_owner(self) -> "FileToken":
        if (self.user is None) == (self.service is None):
            raise ValueError(f"token {self.name!r} needs either user or service")
        if not 8 <= len(self.token.get_secret_value()) <= 64:
            raise ValueError(f"token {self.name!r} must have 8 to 64 characters")
        return self


class RoleSection(Section):
    """A role of the configuration (wire §3.6)."""

    name: str
    """3 to 255 characters, lower case."""
    description: str = ""
    """Shown to people."""
    scopes: list[str] = []
    """What it allows."""
    users: list[str] = []
    """Who has it."""
    groups: list[str] = []
    """Groups whose members have it."""
    services: list[str] = []
    """Services that have it."""


class HubSection(Section):
    """The hub: addresses, state, and who may do what."""

    bind: Annotated[str, AfterValidator(_address)] = "127.0.0.1:8000"
    """The public address, `host:port`: the proxy's, under `perijove run`."""
    url: str = ""
    """The public URL, if the hub stands behind another proxy; must end with `base_path`."""
    base_path: Annotated[str, AfterValidator(_base_path)] = "/"
    """Path below which everything lives, percent-encoded as in URLs."""
    api_bind: Annotated[str, AfterValidator(_optional_address)] = ""
    """`host:port` on which servers reach the hub; default: loopback and a port chosen once."""
    proxy_bind: Annotated[str, AfterValidator(_optional_address)] = ""
    """`host:port` on which proxies on other machines reach the hub; needs the next two as well.
    By default they reach it by unix sockets in `data_dir`."""
    proxy_url: str = ""
    """Where they find it, such as `"http://hub:8082"`; all hubs of an installation together."""
    proxy_secret: SecretStr = SecretStr("")
    """What they prove themselves with, 32 characters at least. It crosses the network as it is:
    keep others out of that network. Best given as `PERIJOVE__HUB__PROXY_SECRET`."""
    database: SecretStr = SecretStr("")
    """SQLAlchemy URL, `sqlite:////path` or `postgresql://…`; default: a file in `data_dir`."""
    data_dir: Path = Path("data")
    """Where keys, the SQLite file, sockets, and the local spawner's homes live; mode 0700."""
    admins: list[str] = ["admin"]
    """User names that are administrators."""
    tokens: list[FileToken] = []
    """API tokens for services and scripts."""
    roles: list[RoleSection] = []
    """Roles besides the built-in ones."""
    groups: dict[str, list[str]] = {}
    """Members of groups, beside those an authenticator gives; who is listed no more is none."""
    after_login: Literal["form", "default-server", "running-server"] = "running-server"
    """Where a person lands: the options form, the default server (started if need be), or the
    running server if there is one and the form otherwise."""
    logout_stops_servers: bool = False
    """Log Out leads to a page that lists the running servers and stops them on request."""
    title: str = "Perijove"
    """The site's name, on every page."""
    links: dict[str, str] = {}
    """Links for people: `account` (how to get one), `allocations` (how to get computing time),
    `status`, `help`, and any further ones."""
    logo: Path | None = None
    """An image to show instead of ours."""
    colours: list[str] = Field(default=[], max_length=2)
    """The site's one or two colours, such as `#14506e`."""
    footer: str = ""
    """A line of text under every page."""
    session_lifetime: Duration = Field(default="14 d", validate_default=True)
    """How long a sign-in lasts."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """How log lines look; `auto`: colours on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    authenticate_metrics: bool = True
    """Whether `/hub/metrics` needs a token with `read:metrics`."""

    @model_validator(mode="after")
    def _proxies_find_here(self) -> "HubSection":
        secret = self.proxy_secret.get_secret_value()
        if self.proxy_bind and not self.proxy_url:
            raise ValueError("proxy_bind needs proxy_url, where proxies find it")
        if self.proxy_url and not re.fullmatch(r"http://[^/?#@\s]+", self.proxy_url):
            raise ValueError("proxy_url must be http://host:port and nothing after it")
        if self.proxy_url and not re.fullmatch(r"[!-~]{32,256}", secret):
            raise ValueError("proxy_url needs proxy_secret: 32 to 256 characters without spaces")
        return self

    @model_validator(mode="after")
    def _url_leads_here(self) -> "HubSection":
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.url and not self.url.endswith(self.base_path):
            raise ValueError(f"url must end with base_path, {self.base_path}")
        return self


class LifecycleSection(Section):
    """Limits of the life cycle that hold for all spawners; policies may be stricter."""

    max_busy: Duration = Field(default="24 h", validate_default=True)
    """How long busy kernels may keep a server that nobody uses alive."""
    reporting_period: Duration = Field(default="5 min", validate_default=True)
    """How often servers report activity; an idle limit below it is raised to it."""
    orphan_grace: Duration = Field(default="15 min", validate_default=True)
    """How long something on a platform that no record knows is left alone before it is ended."""
    takeover: Duration = Field(default="20 s", validate_default=True)
    """After how long another hub takes over the work of one that died (PostgreSQL)."""
    events_kept: Duration = Field(default="90 d", validate_default=True)
    """How long the events of a launch are kept after its end."""
