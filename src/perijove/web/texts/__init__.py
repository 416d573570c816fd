"""
The words people read, and how numbers, sizes, durations and times are written for them.

English is the source: it stands in the code and the templates, and the catalogues below
``locale/`` give the other languages. What the hub stores are codes and parameters, never a
sentence; `sentences` makes the sentence when somebody looks.
"""

from perijove.web.texts.catalogue import LANGUAGES, PSEUDO, SOURCE, Catalogues, Texts

__all__ = ["LANGUAGES", "PSEUDO", "SOURCE", "Catalogues", "Texts"]
