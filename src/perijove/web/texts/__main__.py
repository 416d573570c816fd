"""
Keep the catalogues in step with the code: ``python -m perijove.web.texts update``.

Collects every message of code and templates, adds what is new to each ``.po`` file and drops
what is gone; then says what is still to be translated. ``check`` changes nothing and ends with
1 if a catalogue is not in step or not complete.
"""

import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from perijove.web.texts.catalogue import DIRECTORY, LANGUAGES, SOURCE

ROOT = Path(__file__).parents[1]
_METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
_OPTIONS = {"templates/**.html": {"trimmed": "true", "newstyle_gettext": "true"}}
_KEYWORDS = {
    "_": None,
    "N_": None,
    "gettext": None,
    "ngettext": (1, 2),
    "pgettext": ((1, "c"), 2),
}


def collect() -> Catalog:
    """Return all messages of code and templates, with where each is and what helps a translator."""
    catalogue = Catalog(project="perijove", charset="utf-8")
    found = extract_from_dir(
        ROOT,
        method_map=_METHODS,
        options_map=_OPTIONS,
        keywords=_KEYWORDS,
        comment_tags=("Translators:",),
        strip_comment_tags=True,
    )
    for path, _line, message, comments, context in sorted(found, key=lambda each: each[:2]):
        catalogue.add(message, None, [(path, 0)], auto_comments=comments, context=context)
    return catalogue


def load(language: str) -> Catalog:
    """Return a language's catalogue as it is in its file."""
    with path_of(language).open("rb") as file:
        return read_po(file, locale=language)


def path_of(language: str) -> Path:
    """Return the file of a language."""
    return DIRECTORY / f"{language}.po"


def update(language: str, messages: Catalog) -> Catalog:
    """Return a language's catalogue with the messages there are now, and no others."""
    catalogue = load(language)
    catalogue.update(messages, no_fuzzy_matching=True, update_header_comment=False)
    catalogue.obsolete.clear()
    return catalogue


def missing(catalogue: Catalog) -> Iterator[Message]:
    """Yield the messages without a translation."""
    for message in catalogue:
        forms = message.string if isinstance(message.string, (list, tuple)) else (message.string,)
        if message.id and not all(forms):
            yield message


def main(arguments: Sequence[str]) -> int:
    """Run ``update`` or ``check``."""
    if list(arguments) not in (["update"], ["check"]):
        sys.stderr.write("usage: python -m perijove.web.texts update|check\n")
        return 2
    messages, faults = collect(), 0
    for language in LANGUAGES:
        if language == SOURCE:
            continue
        catalogue = update(language, messages)
        if arguments[0] == "update":
            _write(language, catalogue)
        elif {key(each) for each in load(language)} != {key(each) for each in catalogue}:
            sys.stdout.write(f"{language}: not in step with the code\n")
            faults += 1
        for message in missing(catalogue):
            sys.stdout.write(f"{language}: not translated: {message.id!r}\n")
            faults += 1
    return 1 if faults and arguments[0] == "check" else 0


def key(message: Message) -> tuple[object, object]:
    """Return what tells one message from another."""
    return message.id, message.context


def _write(language: str, catalogue: Catalog) -> None:
    written = BytesIO()
    write_po(written, catalogue, width=100, include_lineno=False, sort_output=True)
    # Without dates: a file changes only when a text does.
    lines = [
        line for line in written.getvalue().splitlines(keepends=True) if b"-Date: " not in line
    ]
    path_of(language).write_bytes(b"".join(lines).lstrip())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
