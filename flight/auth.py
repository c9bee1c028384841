"""Who asks: the project behind the credentials of a Flight call (system.md D13).

In:  the headers of a call: Bearer, the bare token, or Basic with the token as the password.   Out: the project, or an
error that Flight clients understand. A handshake with Basic is answered with the token to bear from then on.
"""

import base64
import binascii
import logging
from collections.abc import Generator
from contextlib import contextmanager

import pyarrow.flight as pf

from core.errors import BadQuery, Cancelled, Forbidden, TailraceError, Unauthenticated, Unavailable
from core.projects import Asker, Project, TokenKind, bearer, owner_of
from flight.sessions import COOKIE, cookie_of, new_cookie
from storage.keys import Keys

PROJECT_HEADER = "tailrace-project"
"""Names the project to ask, for those who may ask several: the operator."""
KEY = "access"

_log = logging.getLogger(__name__)


class Caller(pf.ServerMiddleware):
    """Who makes this call."""

    def __init__(self, project: Project, asker: Asker, owner: str, session: str, answer: dict[str, str]) -> None:
        self.project = project
        self.asker = asker
        self.owner = owner
        """Who may use what this call makes."""
        self.session = f"{self.owner} {session}"
        """Names the session; good with these credentials alone."""
        self._answer = answer

    def sending_headers(self) -> dict[str, list[str] | list[bytes]]:
        """The token to bear from now on, after Basic; the cookie of a session that begins."""
        return {name: [value] for name, value in self._answer.items()}


class Gate(pf.ServerMiddlewareFactory):
    """Looks at every call before anything else does."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def start_call(self, info: pf.CallInfo, headers: dict[str, list[str] | list[bytes]]) -> Caller:
        """The caller, or FlightUnauthenticatedError."""
        values = {name.lower(): value[0] for name, value in headers.items() if value and isinstance(value[0], str)}
        authorization = values.get("authorization")
        with flight_errors():
            basic = _basic(authorization)
            token = bearer(authorization) if basic is None else basic
            project = self._keys.project_for(token, TokenKind.READ, project_name=values.get(PROJECT_HEADER))
        cookie = cookie_of(values.get("cookie"))
        answer = {} if basic is None else {"authorization": f"Bearer {basic or 'local'}"}
        if cookie is None and info.method == pf.FlightMethod.DO_ACTION:
            cookie = new_cookie()
            answer["set-cookie"] = f"{COOKIE}={cookie}"
        return Caller(project, self._keys.asker(token), owner_of(project, token), cookie or "", answer)


class Handshake(pf.ServerAuthHandler):
    """Lets handshakes through: the gate has looked at their headers already."""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        """Nothing is left to ask."""

    def is_valid(self, token: bytes) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]  # the stubs say bool, the library wants the peer's name
        """Nobody is turned away here."""
        return b""


def caller_of(context: pf.ServerCallContext) -> Caller:
    """Who makes a call."""
    caller = context.get_middleware(KEY)
    assert isinstance(caller, Caller)
    return caller


@contextmanager
def flight_errors() -> Generator[None]:
    """Turn our errors into Flight's. Any other error would show its traceback to the client, so none leaves."""
    try:
        yield
    except pf.FlightError:
        raise
    except Exception as error:  # noqa: BLE001  # none may leave
        raise to_flight(error) from None


def to_flight(error: Exception) -> pf.FlightError:
    """The Flight error for an error; what is not ours to tell is an internal one."""
    match error:
        case BadQuery() if error.line is not None:
            return pf.FlightServerError(f"{error.message} (line {error.line}, column {error.column})")
        case Unauthenticated():
            return pf.FlightUnauthenticatedError(error.message)
        case Forbidden():
            return pf.FlightUnauthorizedError(error.message)
        case Cancelled():
            return pf.FlightCancelledError(error.message)
        case Unavailable():
            return pf.FlightUnavailableError(error.message)
        case TailraceError():
            return pf.FlightServerError(error.message)
        case _:
            _log.error("a call failed", exc_info=error)
            return pf.FlightInternalError("The server made a mistake; its log says which")


def _basic(authorization: str | None) -> str | None:
    """The password of Basic credentials, None when they are of another kind. ADBC sends base64 without padding."""
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthenticated("The Basic credentials cannot be read") from None
    return text.partition(":")[2]
