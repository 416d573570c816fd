"""Loops that bring what is seen to what is wanted. Each looks at rows, never at messages."""
