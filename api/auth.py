"""Who asks over HTTP: the project behind a request's token (system.md D13)."""

from fastapi import Request

from core.projects import Asker, Project, Token, TokenKind, bearer, owner_of
from storage.keys import Keys

PROJECT_HEADER = "tailrace-project"
"""Names the project, for those who may ask several: the operator, and the page of a project."""


class Access:
    """Looks at the token of each request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def project(self, request: Request, kind: TokenKind) -> Project:
        """The project this request may do that in. Raises Unauthenticated, Forbidden or NotFound."""
        name = request.headers.get(PROJECT_HEADER)
        return self._keys.project_for(_token(request), kind, project_name=name)

    def any_project(self, request: Request) -> Project:
        """The project of this request's token, whatever it opens. Raises Unauthenticated."""
        return self._keys.any_project_for(_token(request))

    def owner(self, request: Request, project: Project) -> str:
        """Whose statements a request's are, as the Flight door counts them: the project's with this token."""
        return owner_of(project, _token(request))

    def asker(self, request: Request) -> Asker:
        """Who asks, as far as limits go."""
        return self._keys.asker(_token(request))

    def token(self, request: Request) -> Token | None:
        """What is known of this request's token."""
        return self._keys.known(_token(request))


def _token(request: Request) -> str | None:
    return bearer(request.headers.get("authorization"))
