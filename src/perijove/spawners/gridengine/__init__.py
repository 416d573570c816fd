"""Grid Engine: its commands, and how to read what they print."""
