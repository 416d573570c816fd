"""`Catalogues`: all languages, each read once. `Texts`: one language, and its formats."""

import gettext
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_decimal

from perijove.web.texts.pseudo import PseudoTranslations

SOURCE: Final = "en"
"""The language the code and the templates are written in."""
PSEUDO: Final = "xx"
"""Shows every translated text in brackets, so that a text that is not stands out."""
LANGUAGES: Final[Mapping[str, str]] = {
    "en": "English",
    "fr": "Français",
    "es": "Español",
    "pt": "Português",
}
"""What a person can choose, in each language's own words."""
_SPOKEN: Final = (*LANGUAGES, PSEUDO)
DIRECTORY: Final = Path(__file__).parents[2] / "locale"
"""Where the catalogues are: ``<language>.po``, the source itself, nothing compiled."""

_SIZES: Final = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_DECIMAL_SIZES: Final = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6))
_DURATIONS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Texts:
    """One language for one person: translates, and writes values the way it is done there."""

    language: str
    translations: gettext.NullTranslations
    locale: Locale
    zone: tzinfo = UTC

    def at(self, zone: tzinfo) -> "Texts":
        """Return the same language with times in `zone`."""
        return replace(self, zone=zone)

    def gettext(self, message: str, **params: Any) -> str:
        """Translate `message` and fill its ``%(name)s``."""
        return self.translations.gettext(message) % params

    def pgettext(self, context: str, message: str, **params: Any) -> str:
        """Translate `message` as meant in `context`."""
        return self.translations.pgettext(context, message) % params

    def ngettext(self, one: str, many: str, count: float, **params: Any) -> str:
        """Translate the form that `count` takes in this language; ``%(count)s`` is it, written."""
        # By the language's own rule for parts of one, which gettext's whole numbers cannot ask.
        is_one = self.locale.plural_form(count) == "one"
        form = self.translations.ngettext(one, many, 1 if is_one else 2)
        return form % {"count": self.number(count), **params}

    def number(self, value: float) -> str:
        """Write a number with at most two decimals."""
        return str(format_decimal(value, format="#,##0.##", locale=self.locale))

    def cores(self, count: float) -> str:
        """Write ``4 cores``."""
        return self.ngettext("%(count)s core", "%(count)s cores", count)

    def gpus(self, count: int) -> str:
        """Write ``2 GPUs``."""
        return self.ngettext("%(count)s GPU", "%(count)s GPUs", count)

    def size(self, size_bytes: int) -> str:
        """Write ``16 GiB``: the largest unit that keeps the number above one; ``4 GB`` if round."""
        for unit, factor in _DECIMAL_SIZES:
            if size_bytes >= factor and size_bytes % factor == 0:
                return self._with_unit(size_bytes // factor, self.size_unit(unit))
        for unit, factor in _SIZES:
            if size_bytes >= factor:
                return self._with_unit(size_bytes / factor, self.size_unit(unit))
        return self._with_unit(size_bytes, self.size_unit("B"))

    def _with_unit(self, count: float, unit: str) -> str:
        return f"{self.number(count)}\N{NO-BREAK SPACE}{unit}"

    def size_unit(self, unit: str) -> str:
        """Write the sign of a unit of size: octets in French."""
        names = {
            "B": self.pgettext("unit", "B"),
            "KiB": self.pgettext("unit", "KiB"),
            "MiB": self.pgettext("unit", "MiB"),
            "GiB": self.pgettext("unit", "GiB"),
            "TiB": self.pgettext("unit", "TiB"),
            "MB": self.pgettext("unit", "MB"),
            "GB": self.pgettext("unit", "GB"),
            "TB": self.pgettext("unit", "TB"),
        }
        return names[unit]

    def duration(self, seconds: float) -> str:
        """Write ``2 h 5 min``: the two largest units, whole ones, ``0 s`` at least."""
        left = max(0, round(seconds))
        parts: list[str] = []
        for unit, length in _DURATIONS:
            count, rest = divmod(left, length)
            if count:
                parts.append(self._with_unit(count, self.duration_unit(unit)))
                left = rest
            if len(parts) == 2 or (parts and not count):
                break
        return " ".join(parts) or self._with_unit(0, self.duration_unit("s"))

    def duration_unit(self, unit: str) -> str:
        """Write the sign of a unit of time."""
        names = {
            "d": self.pgettext("unit", "d"),
            "h": self.pgettext("unit", "h"),
            "min": self.pgettext("unit", "min"),
            "s": self.pgettext("unit", "s"),
        }
        return names[unit]

    def when(self, at: datetime, now: datetime) -> str:
        """Write an instant shortly: only the time if it is today's, in 24 hours everywhere."""
        there, today = at.astimezone(self.zone), now.astimezone(self.zone).date()
        time = f"{there:%H:%M}"
        if there.date() == today:
            return time
        pattern = "d MMM" if there.year == today.year else "d MMM y"
        return f"{format_date(there, pattern, locale=self.locale)}, {time}"

    def listing(self, parts: Iterable[str]) -> str:
        """Join facts that stand side by side."""
        return " · ".join(part for part in parts if part)

    def choose(self, by_language: Mapping[str, str] | str, fallback: str = "") -> str:
        """Pick this language's text of what an administrator wrote, else English, else any."""
        if isinstance(by_language, str):
            return by_language or fallback
        for language in (self.language, SOURCE):
            if text := by_language.get(language):
                return text
        return next(iter(by_language.values()), fallback)


class Catalogues:
    """Every language the hub speaks; a language's file is read when it is first asked for."""

    def __init__(self) -> None:
        self._texts: dict[str, Texts] = {}

    def warm(self) -> None:
        """Read all files now; in a thread, so that no person waits for it."""
        for language in _SPOKEN:
            self.get(language)

    def get(self, language: str) -> Texts:
        """Return the texts of `language`, English for one we do not speak."""
        language = language if language in _SPOKEN else SOURCE
        if language not in self._texts:
            texts = _load(language)
            _warm(texts)
            self._texts[language] = texts
        return self._texts[language]

    def choose(self, *wishes: str, accept_language: str = "") -> Texts:
        """Return the first wish that we speak, else the browser's best, else English."""
        for wish in wishes:
            if wish in _SPOKEN:
                return self.get(wish)
        for wish in _by_quality(accept_language):
            if wish in LANGUAGES:
                return self.get(wish)
        return self.get(SOURCE)


def _load(language: str) -> Texts:
    if language == SOURCE:
        return Texts(language, gettext.NullTranslations(), Locale.parse(SOURCE))
    if language == PSEUDO:
        return Texts(language, PseudoTranslations(), Locale.parse(SOURCE))
    # It takes as long to import as a language to read: not before a person needs one.
    from babel.messages.mofile import write_mo  # noqa: PLC0415
    from babel.messages.pofile import read_po  # noqa: PLC0415

    with (DIRECTORY / f"{language}.po").open("rb") as file:
        catalogue = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Texts(language, gettext.GNUTranslations(compiled), Locale.parse(language))


def _warm(texts: Texts) -> None:
    """Make Babel read the locale's file now."""
    now = datetime.now(UTC)
    texts.when(now - timedelta(days=2), now)
    texts.number(1)


def _by_quality(header: str) -> list[str]:
    """Return the primary languages of an ``Accept-Language`` header, best first."""
    weighted: list[tuple[float, str]] = []
    for part in header[:500].split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality or 1)
        except ValueError:
            continue
        if weight > 0:
            weighted.append((-weight, tag.split("-")[0].lower()))
    return [tag for _, tag in sorted(weighted, key=lambda pair: pair[0])]
