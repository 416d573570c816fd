"""The command line: turns arguments into a call and prints the result. Nothing is decided here."""

from perijove.cli.app import app


def main() -> None:
    """Run the command that the arguments name; exits with 0, 1 (failed) or 2 (wrong usage)."""
    app(prog_name="perijove")
