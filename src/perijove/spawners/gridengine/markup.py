"""
Reading Grid Engine's XML, in which every person of the cluster has a hand.

Names, requests and contexts of jobs are people's own, and Grid Engine 8.1.9 writes their control
characters and broken UTF-8 as they are: one such job would make the answer about everybody's
jobs no XML at all. It never lets a ``<`` of theirs through, though.
"""

import re
from xml.etree import ElementTree as ET

from perijove.domain.errors import SpawnerTransient

Element = ET.Element

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""
_DECLARATION = "<!"
"""Begins what could declare entities; neither Grid Engine nor a person's text has it."""


def parse(text: str) -> Element:
    """
    Return the root of a complete document.

    Raises `SpawnerTransient` for anything else: half a document says nothing about what is
    missing in it. Entities cannot be declared, so that none expand.
    """
    if _DECLARATION in text:
        raise SpawnerTransient("Grid Engine's answer holds a declaration: not read")
    try:
        return ET.fromstring(_NO_XML.sub("\ufffd", text))  # noqa: S314 - no declarations
    except ET.ParseError as error:
        raise SpawnerTransient(f"Grid Engine's answer is no XML: {error}") from None


def text_of(element: Element, path: str) -> str:
    """Return the text at `path`; empty when there is none."""
    return (element.findtext(path) or "").strip()
