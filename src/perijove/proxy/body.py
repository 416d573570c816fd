"""Where a chunked body ends: the framing is checked, the bytes are passed on as they are.

Strict, because whatever two programs read differently is a way to smuggle: no whitespace
around sizes, no bare CR or LF, no control bytes, and no trailer field that would change the
meaning of the message. Nothing here does input or output.
"""

import re
from typing import Final

from perijove.proxy.fields import BadMessage
from perijove.proxy.head import BARE, END
from perijove.wire.control import SECRET_HEADER

MAX_LINE_BYTES: Final = 256
"""Longest line with the size of a chunk and its extensions."""

MAX_TRAILER_BYTES: Final = 8 * 1024

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15}+)(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?+\r\n")
_TRAILER = re.compile(
    rb"\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+\r\n"
)
_FORBIDDEN_TRAILER = re.compile(
    rb"\n(?:content[-_](?:length|type|encoding|range)|transfer[-_]encoding|host|connection|upgrade"
    rb"|te|trailer|keep-alive|expect|authorization|proxy-[a-z\-]++|cookie|set-cookie|forwarded"
    rb"|x[-_][a-z_\-]*+|sec-[a-z\-]++|" + re.escape(SECRET_HEADER.encode()) + rb"):",
    re.I,
)

_SIZE, _DATA, _TRAILER_PART, _DONE = range(4)


class ChunkedBody:
    """Follows a chunked body through pieces of any size, in time linear in their length."""

    __slots__ = ("_left", "_line", "_state")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._line = bytearray()

    @property
    def done(self) -> bool:
        """True when the whole body, trailer included, has been seen."""
        return self._state == _DONE

    def feed(self, data: bytes, start: int = 0) -> int:
        """Return where the body ends in `data`, its length if it goes on; raise `BadMessage`.

        Bytes before the returned position may be passed on.
        """
        position, end = start, len(data)
        while position < end and self._state != _DONE:
            if self._state == _DATA:
                position = self._skip_data(data, position, end)
            elif self._state == _SIZE:
                position = self._read_size(data, position, end)
            else:
                position = self._read_trailer(data, position, end)
        return position

    def _skip_data(self, data: bytes, position: int, end: int) -> int:
        """Pass over what is left of a chunk and of the CRLF after it (two bytes of `_left`)."""
        left = self._left
        take = min(left, end - position)
        first = max(left - 2, 0)
        if (
            take > first
            and data[position + first : position + take]
            != b"\r\n"[2 - (left - first) : 2 - (left - take)]
        ):
            raise BadMessage("chunk longer than its size")
        self._left = left - take
        if self._left == 0:
            self._state = _SIZE
        return position + take

    def _read_size(self, data: bytes, position: int, end: int) -> int:
        line_end = data.find(b"\n", position, position + MAX_LINE_BYTES) + 1
        if self._line or line_end == 0:
            self._gather_line(data[position : line_end or end])
            if line_end == 0:
                return end
            match = _SIZE_LINE.fullmatch(self._line)
        else:
            match = _SIZE_LINE.fullmatch(data, position, line_end)
        if match is None:
            raise BadMessage("bad chunk size line")
        size = int(match[1], 16)
        self._line.clear()
        if size:
            self._left = size + 2
            self._state = _DATA
        else:
            self._line += b"\r\n"
            self._state = _TRAILER_PART
        return line_end

    def _gather_line(self, piece: bytes) -> None:
        """Keep the start of a line; refuse it now if its end can no longer make it good."""
        line = self._line
        searched = max(0, len(line) - 1)
        line += piece
        if len(line) > MAX_LINE_BYTES:
            raise BadMessage("chunk line too long")
        if BARE.search(line, searched):
            raise BadMessage("bare control byte in chunk framing")

    def _read_trailer(self, data: bytes, position: int, end: int) -> int:
        """Gather the trailer, which starts with the line end of the last chunk."""
        line = self._line
        before = len(line)
        line += data[position : position + MAX_TRAILER_BYTES]
        found = line.find(END, max(0, before - 3))
        if found >= 0:
            del line[found + 4 :]
            self._state = _DONE
        elif len(line) > MAX_TRAILER_BYTES:
            raise BadMessage("trailer too long")
        if BARE.search(line, max(0, before - 1)):
            raise BadMessage("bare control byte in a trailer")
        if self._state == _DONE:
            if _TRAILER.fullmatch(line) is None:
                raise BadMessage("malformed trailer")
            if _FORBIDDEN_TRAILER.search(line):
                raise BadMessage("field not allowed in a trailer")
        return position + len(line) - before
