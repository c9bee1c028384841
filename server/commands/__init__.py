"""The commands of `tailrace`, one module each; server/__main__.py puts them together."""
