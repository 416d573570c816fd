"""A hub that dies, or is overtaken, before any question that a driver asks its platform."""

from collections import Counter
from collections.abc import Callable

import anyio


class Crash(BaseException):
    """Stands for the end of the hub: nothing catches it."""


class AtStep(Counter[str]):
    """What questions are counted in; something else happens before this task's n-th of them."""

    def __init__(self, step: int, happens: Callable[[], None]) -> None:
        super().__init__()
        self.left = step
        self.happens = happens
        self.task = anyio.get_current_task().id  # Watches have tasks of their own, and go on.

    def __setitem__(self, what: str, number: int) -> None:
        if anyio.get_current_task().id == self.task:
            self.left -= 1
            if self.left == 0:
                self.happens()
        super().__setitem__(what, number)


def die() -> None:
    """End the hub."""
    raise Crash
