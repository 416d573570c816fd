"""What the tables of words are made of."""

from dataclasses import dataclass


def N_(message: str) -> str:
    """Mark a message for the catalogue; it is translated when it is shown."""
    return message


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a code means, and what one can do about it."""

    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """A `Sentence` in a person's language, filled in."""

    text: str
    advice: str = ""
    code: str = ""

    @property
    def whole(self) -> str:
        """Both, one after the other."""
        return f"{self.text} {self.advice}".strip()
