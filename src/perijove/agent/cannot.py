"""Why a job brings no server up: the codes, and the exit statuses that tell them to accounting."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXITS = {
    "home-missing": 78,  # this and the next are said by job.sh
    "python-too-old": 79,
    "spec-unreadable": 80,
    "hub-unreachable": 81,
    "cannot-reach": 82,
    "host-refused": 83,
    "port-refused": 84,
    "port-range-full": 85,
    "port-taken": 86,
    "job-mismatch": 87,
    "code-refused": 88,
    "command-missing": 89,
    "module-failed": 90,
    "environment-missing": 91,
    "container-failed": 92,
    "setup-failed": 93,
    "home-full": 94,
    "wrapper-failed": 95,
    "second-job": 96,  # another job of this launch was faster
    "cancelled": 97,  # nobody wants the launch any more
}
"""The exit status of a job that could not start its server, by the code of the reason."""


class Cannot(Exception):
    """The job cannot start its server; `words` are those of the node's own programs."""

    def __init__(self, code: str, words: str = "", **params: "Any") -> None:
        super().__init__(f"{code}: {words}" if words else code)
        self.code = code
        self.words = words
        self.params = params
