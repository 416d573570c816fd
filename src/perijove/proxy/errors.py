"""The pages a person or a program gets when there is no response to relay.

The hub makes them, in the person's language and with what it knows; while it is away, or when
many fail at once, our own are used. It is told the path only: a query may hold a code or a token.
"""

import hashlib
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec

from perijove.proxy.control import Answer, ControlClient, HubAway
from perijove.proxy.head import RequestHead

FETCH_SECONDS: Final = 3.0
CACHE_SECONDS: Final = 2.0
MAX_CACHED: Final = 64
MAX_FETCHES: Final = 4

_RELAYED = (b"content-type", b"content-language", b"content-security-policy", b"vary")
_PASSED_ON = ("Accept", "Accept-Language", "Cookie")
_LANGUAGE = re.compile(r"\s*([a-zA-Z]{2})(?:-[a-zA-Z0-9]+)*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*")

# Title and text for each status, by language. The hub's own pages say more.
_TEXTS: Final = {
    "en": {
        404: ("Nothing here", "No server answers at this address."),
        503: (
            "The server does not answer",
            "It may be starting, have ended, or be very busy. Try again in a moment.",
        ),
    },
    "fr": {
        404: ("Rien ici", "Aucun serveur ne répond à cette adresse."),
        503: (
            "Le serveur ne répond pas",
            "Il démarre peut-être, s\u2019est arrêté ou est très occupé. "
            "Réessayez dans un instant.",
        ),
    },
    "es": {
        404: ("Aquí no hay nada", "Ningún servidor responde en esta dirección."),
        503: (
            "El servidor no responde",
            "Puede estar arrancando, haber terminado o estar muy ocupado. "
            "Vuelva a intentarlo en un momento.",
        ),
    },
    "pt": {
        404: ("Nada aqui", "Nenhum servidor responde neste endereço."),
        503: (
            "O servidor não responde",
            "Pode estar a iniciar, ter terminado ou estar muito ocupado. "
            "Tente novamente dentro de momentos.",
        ),
    },
}
_RELOAD: Final = {"en": "Reload", "fr": "Recharger", "es": "Recargar", "pt": "Recarregar"}

_HTML = """<!DOCTYPE html>
<html lang="{language}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title></head>
<body style="font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; \
padding: 0 1rem">
<main><h1>{title}</h1><p>{text}</p><p><a href="">{reload}</a></p></main>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole response of the proxy's own."""

    status: int
    content_type: bytes
    body: bytes
    fields: bytes = b""

    def response(self, *, with_body: bool, close: bool) -> bytes:
        """Return the response's bytes."""
        return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b%b\r\n%b" % (
            self.status,
            HTTPStatus(self.status).phrase.encode(),
            self.content_type,
            len(self.body),
            b"Cache-Control: no-store\r\n",
            self.fields,
            b"Connection: close\r\n" if close else b"",
            self.body if with_body else b"",
        )


def refusal(status: int, reason: str) -> Page:
    """Return the answer to a request that is not HTTP as we take it: for a programmer."""
    body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
    return Page(status, b"text/plain; charset=utf-8", body)


class ErrorPages:
    """Pages from the hub, kept for a moment, or our own."""

    def __init__(self, hub: ControlClient | None, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._cache: dict[bytes, tuple[float, Page]] = {}
        self._fetches = 0
        self._away_until = float("-inf")

    def find(self, status: int, request: RequestHead) -> Page | None:
        """Return a page at once, or None if it is worth asking the hub."""
        now = self._clock()
        kept = self._cache.get(_key(status, request))
        if kept is not None and now - kept[0] < CACHE_SECONDS:
            return kept[1]
        if self._hub is None or now < self._away_until or self._fetches >= MAX_FETCHES:
            return own_page(status, request)
        return None

    async def fetch(self, status: int, request: RequestHead) -> Page:
        """Return the hub's page, or our own if the hub has none to give soon."""
        assert self._hub is not None
        path = quote(request.path, safe="/")
        passed_on = tuple(
            (name, b"; ".join(values) if name == "Cookie" else b", ".join(values))
            for name in _PASSED_ON
            if (values := request.values(name.lower().encode()))
        )
        self._fetches += 1
        try:
            answer = await self._hub.request(
                "GET", f"/error/{status}?url={path}", seconds=FETCH_SECONDS, fields=passed_on
            )
            page = _relayed(status, answer)
        except HubAway:
            self._away_until = self._clock() + CACHE_SECONDS
            return own_page(status, request)
        finally:
            self._fetches -= 1
        while len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[_key(status, request)] = (self._clock(), page)
        return page


def own_page(status: int, request: RequestHead) -> Page:
    """Return a page that needs no hub: JSON for programs, else HTML in the person's language."""
    if wants_json(request):
        title, text = _texts("en", status)
        body = msgspec.json.encode({"status": status, "message": f"{title}. {text}"})
        return Page(status, b"application/json", body)
    language = preferred_language(request)
    title, text = map(html.escape, _texts(language, status))
    body = _HTML.format(
        language=language, title=title, text=text, reload=_RELOAD[language]
    ).encode()
    language_field = b"Content-Language: %b\r\n" % language.encode()
    return Page(status, b"text/html; charset=utf-8", body, language_field)


def _texts(language: str, status: int) -> tuple[str, str]:
    texts = _TEXTS[language]
    return texts.get(status, texts[503])


def wants_json(request: RequestHead) -> bool:
    """Tell whether a program asks: by the path, or by what it accepts."""
    if b"api" in request.path.split(b"/"):
        return True
    accepted = b", ".join(request.values(b"accept")).lower()
    return b"application/json" in accepted and b"text/html" not in accepted


def preferred_language(request: RequestHead) -> str:
    """Return the best of our languages for a request; English if none is asked for."""
    accepted = b",".join(request.values(b"accept-language")).decode("latin-1")
    best, best_quality = "en", 0.0
    for item in accepted.split(",")[:20]:
        match = _LANGUAGE.fullmatch(item)
        if match is not None and match[1].lower() in _TEXTS:
            quality = float(match[2] or 1)
            if quality > best_quality:
                best, best_quality = match[1].lower(), quality
    return best


def _relayed(status: int, answer: Answer) -> Page:
    if answer.status not in (200, status):
        raise HubAway(f"status {answer.status} for an error page")
    fields = b"".join(
        b"%b: %b\r\n" % (name.title(), value)
        for name in _RELAYED[1:]
        for value in answer.head.values(name)
    )
    content_type = answer.head.values(_RELAYED[0]) or [b"text/html; charset=utf-8"]
    return Page(status, content_type[0], answer.body, fields)


def _key(status: int, request: RequestHead) -> bytes:
    """Return what the hub's page depends on, digested: cookies are not kept."""
    digest = hashlib.blake2b(b"%d %b" % (status, request.path), digest_size=16)
    for name in _PASSED_ON:
        for value in request.values(name.lower().encode()):
            digest.update(b"\0%b\0%b" % (name.encode(), value))
    return digest.digest()
