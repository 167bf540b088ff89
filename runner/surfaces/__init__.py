"""Recorded surfaces: recipes and files. Records nothing (`runner.recording` does)."""
