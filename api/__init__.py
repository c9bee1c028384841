"""The HTTP door: health, info, the query API and the page."""
