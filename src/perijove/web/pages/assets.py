"""Style sheet, script and drawings: read once, compressed once, named by what they hold."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from perijove.domain.errors import ConfigError, NotFound
from perijove.services.sections import HubSection
from perijove.web.pages.colours import site_css

_DIRECTORY: Final = Path(__file__).parents[1] / "static"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
_LARGEST_LOGO: Final = 2**20
_FOREVER: Final = "public, max-age=31536000, immutable"
_AN_HOUR: Final = "public, max-age=3600"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file as it is sent."""

    body: bytes = field(repr=False)
    compressed: bytes = field(repr=False)
    content_type: str
    version: str

    @classmethod
    def of(cls, body: bytes, content_type: str) -> "Asset":
        """Prepare a file's bytes for sending."""
        return cls(
            body=body,
            compressed=gzip.compress(body, mtime=0),
            content_type=content_type,
            version=hashlib.sha256(body).hexdigest()[:10],
        )


class Assets:
    """All that pages refer to. Reads files: build it at start, not in a request."""

    def __init__(self, settings: HubSection, hub_prefix: str) -> None:
        self._prefix = hub_prefix
        self._by_name = {
            path.name: Asset.of(path.read_bytes(), _TYPES[path.suffix])
            for path in _DIRECTORY.iterdir()
        }
        if settings.colours:
            css = site_css(settings.colours).encode()
            self._by_name["site.css"] = Asset.of(css, _TYPES[".css"])
        self.logo = _logo(settings.logo) if settings.logo else self._by_name["logo.svg"]

    def url(self, name: str) -> str:
        """Return the address of an asset; it changes whenever the asset does."""
        return f"{self._prefix}static/{name}?v={self._by_name[name].version}"

    @property
    def logo_url(self) -> str:
        """The address of the site's logo."""
        return f"{self._prefix}logo?v={self.logo.version}"

    def answer(self, request: Request, name: str) -> Response:
        """Send an asset by name; raises `NotFound`."""
        if name not in self._by_name:
            raise NotFound(f"no file {name[:60]!r}")
        return send(request, self._by_name[name])


def send(request: Request, asset: Asset) -> Response:
    """Send an asset, compressed where the browser can read that."""
    etag = f'"{asset.version}"'
    headers = {
        "Cache-Control": _FOREVER if request.query_params.get("v") == asset.version else _AN_HOUR,
        "ETag": etag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed, headers=headers, media_type=asset.content_type)
    return Response(asset.body, headers=headers, media_type=asset.content_type)


def _logo(path: Path) -> Asset:
    content_type = _TYPES.get(path.suffix.lower())
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"hub.logo: {path} cannot be read: {error.strerror}") from None
    if content_type is None or not content_type.startswith("image/"):
        raise ConfigError(f"hub.logo: {path} must be an .svg, .png, .jpg or .webp image")
    if len(body) > _LARGEST_LOGO:
        raise ConfigError(f"hub.logo: {path} has {len(body)} bytes, the limit is {_LARGEST_LOGO}")
    return Asset.of(body, content_type)
