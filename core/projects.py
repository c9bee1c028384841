"""Projects and the tokens that open them."""

import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import sha256

from core.errors import Refused

ORGANIZATION = "local"
DEFAULT_PROJECT_NAME = "default"
DEFAULT_PROJECT_ID = "00000000-0000-4000-8000-000000000000"
PROJECT_NAME_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # the SDK's own rule
PROJECT_NAME_CHARS_MAX = 64
TOKEN_PREFIX = "pylf_v1_local_"  # noqa: S105  # a prefix, not a secret
TOKEN_SECRET_CHARS = 44


class TokenKind(Enum):
    """What a token opens: `write` sends telemetry, `read` asks queries."""

    WRITE = "write"
    READ = "read"


class Asker(Enum):
    """Who asks, as far as limits go: `reader` has a read token, `operator` the secret of this machine's server."""

    READER = "reader"
    OPERATOR = "operator"
    ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant: rows of one project are never seen from another."""

    id: str
    """UUID, and the value of the `project_id` partition column."""
    name: str
    organization: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the secret itself is never kept."""

    id: str
    project_id: str
    kind: TokenKind
    prefix: str
    """The first characters, for display."""
    description: str
    """What it is for, in its maker's words."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def check_project_name(name: str) -> str:
    """The name itself, or `Refused` with the rule it breaks."""
    if len(name) > PROJECT_NAME_CHARS_MAX or not PROJECT_NAME_PATTERN.fullmatch(name):
        raise Refused(
            f"{name!r} is not a project name: use at most {PROJECT_NAME_CHARS_MAX} lower-case letters and"
            " digits, with single hyphens between them"
        )
    return name


def mint_token() -> str:
    """A new token: the prefix Logfire clients recognise and 44 random letters and digits (~262 bits)."""
    alphabet = string.ascii_letters + string.digits
    return TOKEN_PREFIX + "".join(secrets.choice(alphabet) for _ in range(TOKEN_SECRET_CHARS))


def hash_token(secret: str) -> str:
    """How a token is stored: sha256 of its text, hex. The secret has enough entropy to need no salt."""
    return sha256(secret.encode()).hexdigest()


def owner_of(project: Project, token: str | None) -> str:
    """Whose a statement is: the project's with this token, of which it holds a digest."""
    return f"{project.id} {hash_token(token or '')}"


def display_prefix(secret: str) -> str:
    """The part of a token that may be shown."""
    return secret[: len(TOKEN_PREFIX) + 4]


def bearer(header: str | None) -> str | None:
    """The token in an Authorization header, or None when there is none.

    Clients spell it three ways: the raw token, `Bearer <token>` and `bearer <token>`.
    """
    if header is None:
        return None
    text = header.strip()
    scheme, _, rest = text.partition(" ")
    if scheme.lower() == "bearer":
        text = rest.strip()
    return text or None
