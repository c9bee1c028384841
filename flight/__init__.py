"""The Arrow door: a Flight SQL server."""
