"""A language nobody speaks: every translated text stands in brackets and wears accents."""

import gettext
import re
from typing import Final

_ACCENTS: Final = str.maketrans("aceinosuyACEINOSUY", "àçéîñôšûýÀÇÉÎÑÔŠÛÝ")
_KEPT: Final = re.compile(r"%\(\w+\)[sd]|%%|<[^>]+>|&\w+;")
"""Placeholders, tags and entities, which must come through untouched."""


class PseudoTranslations(gettext.NullTranslations):
    """Translates into ``⟦Šîgñ îñ⟧``; what shows without brackets was not translated."""

    def gettext(self, message: str) -> str:
        """Return `message` in brackets."""
        plain, kept = _KEPT.split(message), [*_KEPT.findall(message), ""]
        pairs = zip(plain, kept, strict=True)
        return f"⟦{''.join(text.translate(_ACCENTS) + hold for text, hold in pairs)}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Return the English form of `n` in brackets."""
        return self.gettext(msgid1 if n == 1 else msgid2)

    def pgettext(self, context: str, message: str) -> str:
        """Return `message` in brackets."""
        return self.gettext(message)

    def npgettext(self, context: str, msgid1: str, msgid2: str, n: int) -> str:
        """Return the English form of `n` in brackets."""
        return self.ngettext(msgid1, msgid2, n)
