"""Identifiers: row ids that a replay makes again, and the digest of a request."""

from hashlib import blake2b

from core.telemetry import Signal

DIGEST_BYTES = 16


def row_span_id(position: int, index: int) -> str:
    """The span_id (16 hex digits) of a log or span-event row, from where it stands in the log.

    A replay of the same frame makes the same ids. `position` is the frame's byte offset, `index` the
    row's number within the frame.
    """
    return blake2b(position.to_bytes(8, "big") + index.to_bytes(8, "big"), digest_size=8).hexdigest()


def request_digest(project_id: str, signal: Signal, body: bytes) -> bytes:
    """blake2b-128 of (project, signal, decompressed body): equal for a client's retry, however compressed."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    digest.update(f"{project_id}\0{signal.value}\0".encode())
    digest.update(body)
    return digest.digest()
