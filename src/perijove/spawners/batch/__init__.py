"""Sessions as jobs of a batch system: one layer; a scheduler adds its commands and parsers."""
