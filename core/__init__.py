"""Nouns and pure decisions: what a record, a project, a token and an error are. No I/O and no engine."""
