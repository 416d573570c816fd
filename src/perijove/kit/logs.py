"""Logging set-up: structlog, colours on a terminal, JSON elsewhere, and no secret ever."""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

MASK = "●●●"
_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|secret|token$|api_key|authorization|cookie|_xsrf|^code$|keyring",
    re.IGNORECASE,
)
_SECRET_IN_TEXT = re.compile(
    r"(?i)((?:token|bearer)\s+|[?&](?:token|code|state|link|_xsrf|password|client_secret)=)"
    r"[^\s&\"']+"
)


def mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Replace values whose key, or whose text, looks like a secret."""
    for key, value in event.items():
        if key == "event":
            continue
        if _SECRET_KEY.search(key):
            event[key] = MASK
        elif isinstance(value, str) and len(value) > 8:
            event[key] = _mask_text(value)
    return event


def _mask_text(text: str) -> str:
    return _SECRET_IN_TEXT.sub(rf"\1{MASK}", text)


def _mask_traceback(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:
    if isinstance(event.get("exception"), str):
        event["exception"] = _mask_text(event["exception"])
    return event


def _write_traceback(out: TextIO, error: Any) -> None:
    """Write a traceback without the values of variables, which may be secrets."""
    lines = "".join(traceback.format_exception(*error))
    out.write("\n" + _mask_text(lines))


def is_console(style: str) -> bool:
    """Tell whether log lines of a style are for people."""
    return style == "console" or (style == "auto" and sys.stderr.isatty())


def configure(*, style: str = "auto", level: str = "info", program: str = "hub") -> None:
    """
    Set up structlog and the standard library's logging for this process.

    `style`: ``json``, ``console``, or ``auto`` (colours when standard error is a terminal).
    """
    number = getattr(logging, level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask,
    ]
    if is_console(style):
        last: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=_write_traceback)]
    else:
        last = [
            structlog.processors.format_exc_info,
            _mask_traceback,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(program=program)
    handler = _ToStructlog()
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


class _ToStructlog(logging.Handler):
    """Hands what libraries log to structlog, so that there is one stream in one form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.log(record.levelno, "library", text=record.getMessage(), exc_info=record.exc_info)


def _to_json(event: Any, **_options: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
