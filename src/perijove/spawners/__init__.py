"""Drivers that start servers on a platform: one contract, one package for each platform."""
