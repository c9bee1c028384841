"""Errors on the way out over HTTP: their status, and the bodies Logfire's clients read (contract §3.1).

In:  an error of ours.   Out: problem details (RFC 9457) for who accepts them, else the older body.
"""

import math
from typing import Any

import orjson
from fastapi import Request, Response

from core.errors import (
    BadQuery,
    Exists,
    Forbidden,
    NotFound,
    Overloaded,
    Refused,
    StatementLimit,
    TailraceError,
    Unauthenticated,
    Unavailable,
)

PROBLEM = "application/problem+json"
STATUS: dict[type[TailraceError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Exists: 409,
    Overloaded: 429,
    Unavailable: 503,
    Refused: 400,
    TailraceError: 500,
}
"""The status of an error is that of the first of its classes found here."""
CODES: dict[type[TailraceError], str] = {
    BadQuery: "sql_syntax",
    StatementLimit: "statement_limit",
    Overloaded: "rate_limited",
    Unavailable: "unavailable",
    Unauthenticated: "unauthenticated",
    Forbidden: "forbidden",
    TailraceError: "error",
}


def status_of(error: TailraceError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def query_error(request: Request, error: TailraceError) -> Response:
    """The answer to a query that failed, in the shape its sender reads."""
    status = status_of(error)
    headers = {"vary": "accept", **retry_after(error)}
    details = _details(error)
    older: dict[str, Any] = {"error": "invalid query" if status == 400 else error.message, "details": details}
    if PROBLEM not in request.headers.get("accept", ""):
        body = {"detail": orjson.dumps(older).decode()} if request.url.path == "/v1/query" else older
        return Response(orjson.dumps(body), status, headers, media_type="application/json")
    problem: dict[str, Any] = {
        "type": f"{str(request.base_url).rstrip('/')}/-/errors/query-error",
        "title": "The query failed",
        "status": status,
        "detail": error.message,
        "error_code": details["code"],
        "error_category": details["error_type"],
        "retryable": isinstance(error, Unavailable),
        "error_details": details,
    }
    if isinstance(error, Unavailable):
        problem["retry_after"] = math.ceil(error.retry_after_s)
    return Response(orjson.dumps(problem), status, headers, media_type=PROBLEM)


def plain_error(_: Request, error: Exception) -> Response:
    """The answer to any other request that failed."""
    assert isinstance(error, TailraceError)
    headers = retry_after(error)
    return Response(orjson.dumps({"detail": error.message}), status_of(error), headers, media_type="application/json")


def retry_after(error: TailraceError) -> dict[str, str]:
    """The header that says when to try again, for errors that pass."""
    return {"retry-after": str(math.ceil(error.retry_after_s))} if isinstance(error, Unavailable) else {}


def _details(error: TailraceError) -> dict[str, Any]:
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    category = "ServerError" if isinstance(error, Unavailable) else "UserError"
    details: dict[str, Any] = {"error_type": category, "kind": "Error", "code": code, "message": error.message}
    if isinstance(error, BadQuery) and error.line is not None:
        place = {"line": error.line, "column": error.column}
        details["span"] = {"start": place, "end": place}
    return details
