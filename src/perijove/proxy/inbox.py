"""What a client sent before its turn, and whether more is read from it."""

import asyncio


class Inbox:
    """Bytes that came too early; while there are any, no more are read."""

    __slots__ = ("_at", "_data", "_is_paused", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._data = b""
        self._at = 0
        self._is_paused = False

    def __bool__(self) -> bool:
        return bool(self._data)

    def hold(self, data: bytes, start: int) -> None:
        """Keep `data` from `start`, if there is any, and read no more until it is taken."""
        if start < len(data):
            if self._data:
                data, start = self._data[self._at :] + data[start:], 0
            self._data, self._at = data, start
            self.pause()

    def take(self) -> tuple[bytes, int]:
        """Return what is held and where it starts, and hold nothing; reading stays paused.

        A position instead of a copy: many small requests in one piece cost no more than few.
        """
        data, self._data = self._data, b""
        return data, self._at if data else 0

    def drop(self) -> None:
        """Forget what is held."""
        self._data = b""

    def pause(self) -> None:
        """Read no more."""
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless something is still held."""
        if self._is_paused and not self._data and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    @property
    def is_paused(self) -> bool:
        """Tell whether nothing is read."""
        return self._is_paused
