"""The command line: turns arguments into a call and prints the result. Nothing is decided here."""

import gc

_COLLECT_EVERY = (50_000, 20, 100)
"""Python looks for cycles after so many objects, and then more rarely. We make many objects and
few cycles: at its own pace that is a fifth of a hub's work, and a tenth of its start."""


def main() -> None:
    """Run the command that the arguments name; exits with 0, 1 (failed) or 2 (wrong usage)."""
    gc.set_threshold(*_COLLECT_EVERY)
    from perijove.cli.app import app

    app(prog_name="perijove")
