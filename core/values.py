"""Values as senders spell them: the conversions that rows and SQL functions share."""


def real(value: object) -> float | None:
    """A number, also one that was sent as text; else None. `NaN` and `Infinity` are spelled so in attributes."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
