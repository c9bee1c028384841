"""Actions: what clients do beside asking: prepare, forget, cancel, renew, and set options of their session.

In:  an action's body, in the message the Flight or Flight SQL specification gives for it.   Out: the result's message.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pyarrow.flight as pf

from core.errors import BadQuery, Malformed
from flight.auth import Caller
from flight.handles import Handles
from flight.messages import (
    CANCELLED,
    CLOSED,
    INVALID_NAME,
    INVALID_VALUE,
    NOT_CANCELLABLE,
    CloseSessionResult,
    GetSessionOptionsResult,
    RenewFlightEndpointRequest,
    SessionOption,
    SessionOptionError,
    SessionOptionFault,
    SessionOptionValue,
    SetSessionOptionsRequest,
    SetSessionOptionsResult,
    TicketStatementQuery,
    decode,
    encode,
    unwrap,
)
from flight.sessions import Sessions, check


class Running:
    """The statements whose rows are being sent, by handle, so that they can be cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled: dict[bytes, list[threading.Event]] = {}

    @contextmanager
    def enter(self, handle: bytes) -> Generator[threading.Event]:
        """The event that says that a statement was cancelled, while the block lasts."""
        cancelled = threading.Event()
        with self._lock:
            self._cancelled.setdefault(handle, []).append(cancelled)
        try:
            yield cancelled
        finally:
            with self._lock:
                self._cancelled[handle].remove(cancelled)
                if not self._cancelled[handle]:
                    del self._cancelled[handle]

    def cancel(self, handle: bytes) -> bool:
        """Cancel the statement; whether it was running."""
        with self._lock:
            found = self._cancelled.get(handle, ())
            for cancelled in found:
                cancelled.set()
            return bool(found)


def cancel(info: bytes, handles: Handles, running: Running, caller: Caller) -> int:
    """Cancel the statement of a serialized FlightInfo; what became of it, as the specification counts."""
    try:
        endpoints = pf.FlightInfo.deserialize(info).endpoints
    except Exception as error:
        raise Malformed("This is not a FlightInfo") from error
    ran = False
    for endpoint in endpoints:
        handle = _handle(endpoint.ticket.ticket)
        handles.get(handle, caller.owner)
        ran = running.cancel(handle) or ran
        handles.remove(handle, caller.owner)
    return CANCELLED if ran or endpoints else NOT_CANCELLABLE


def renew(body: bytes, handles: Handles, caller: Caller) -> bytes:
    """Keep the handle of an endpoint; the endpoint."""
    endpoint = decode(RenewFlightEndpointRequest, body).endpoint or body
    try:
        ticket = pf.FlightEndpoint.deserialize(endpoint).ticket
    except Exception as error:
        raise Malformed("This is not a FlightEndpoint") from error
    handles.get(_handle(ticket.ticket), caller.owner)
    return endpoint


def set_options(body: bytes, sessions: Sessions, caller: Caller) -> bytes:
    """Set the options that make sense; the faults of the others."""
    right, faults = dict[str, str](), list[SessionOptionFault]()
    for option in decode(SetSessionOptionsRequest, body).session_options:
        try:
            name, value = check(option.key, option.value and option.value.string_value)
        except KeyError:
            faults.append(SessionOptionFault(option.key, SessionOptionError(INVALID_NAME)))
        except BadQuery:
            faults.append(SessionOptionFault(option.key, SessionOptionError(INVALID_VALUE)))
        else:
            right[name] = value
    sessions.change(caller.session, right)
    return encode(SetSessionOptionsResult(tuple(faults)))


def get_options(sessions: Sessions, caller: Caller) -> bytes:
    """The options of the session."""
    options = sessions.options(caller.session)
    return encode(
        GetSessionOptionsResult(
            tuple(SessionOption(name, SessionOptionValue(value)) for name, value in options.items())
        )
    )


def close_session(sessions: Sessions, caller: Caller) -> bytes:
    """Forget the options of the session."""
    sessions.close(caller.session)
    return encode(CloseSessionResult(CLOSED))


def _handle(ticket: bytes) -> bytes:
    match unwrap(ticket):
        case TicketStatementQuery(handle):
            return handle
        case _:
            raise Malformed("This is not a ticket of a statement")
