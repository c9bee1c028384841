"""The families of error every door understands.

`Refused`: the same input will be refused again; the sender must change something (HTTP 4xx).
`Unavailable`: the same input will be welcome later; the sender should retry (HTTP 429 or 503).
Our own mistakes are `assert`s. A class's docstring is its message unless one is given.
"""


class TailraceError(Exception):
    """Something went wrong."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """The sentence a person reads."""
        return str(self.args[0])


class Refused(TailraceError):
    """The request was refused; sending it again unchanged will not help."""


class Unavailable(TailraceError):
    """The service cannot take this now; try again later."""

    def __init__(self, message: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds the sender should wait before the next try."""


class Malformed(Refused):
    """The body is not what its content type says."""


class TooLarge(Refused):
    """The body is larger than this server accepts."""


class UnsupportedMedia(Refused):
    """The content type or encoding is not one this server reads."""


class Unauthenticated(Refused):
    """The token is missing, unknown, revoked or expired; make one with `tailrace token create`."""


class Forbidden(Refused):
    """This token may not do that."""


class NotFound(Refused):
    """There is no such thing."""


class Exists(Refused):
    """There is already one of that name."""


class BadSettings(Refused):
    """A setting is not usable."""


class BadQuery(Refused):
    """The SQL statement was refused."""

    def __init__(self, message: str = "", *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        """Line of the fault, counted from 1; None when unknown."""
        self.column = column
        """Column of the fault, counted from 1; None when unknown."""


class StatementLimit(Refused):
    """The statement used more time, memory or output than its limit."""


class Cancelled(Refused):
    """The statement was cancelled."""


class Overloaded(Unavailable):
    """Too much work is waiting; try again shortly."""


class DiskFull(Unavailable):
    """The disk is nearly full; free some space or lower the retention."""
