"""The page: one HTML document that brings everything it needs, for a first look at what arrives.

In:  the files of `api/page/`.   Out: `GET /` and `GET /{organization}/{project}`. Its script and style are inlined and
allowed by their hashes; nothing is loaded from anywhere, and what senders wrote is only ever shown as text.
"""

import base64
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files

import orjson
from fastapi import APIRouter, Response

from core.errors import NotFound
from core.projects import DEFAULT_PROJECT_NAME, ORGANIZATION, PROJECT_NAME_PATTERN


def page_routes(otlp_http_port: int) -> APIRouter:
    """The page of the default project, and that of each."""
    router = APIRouter()
    document = Document(otlp_http_port)

    @router.get("/")
    def home() -> Response:
        """The default project's page."""
        return document.of(DEFAULT_PROJECT_NAME)

    @router.get("/{organization}/{project}")
    def project_page(organization: str, project: str) -> Response:
        """A project's page; whether there is such a project, its queries are told."""
        if organization != ORGANIZATION or not PROJECT_NAME_PATTERN.fullmatch(project):
            raise NotFound(f"There is no page here; the default project's is at /{ORGANIZATION}/{DEFAULT_PROJECT_NAME}")
        return document.of(project)

    return router


class Document:
    """The page with its parts put in, made once."""

    def __init__(self, otlp_http_port: int) -> None:
        parts = files("api") / "page"
        style = (parts / "page.css").read_text("utf-8")
        script = (parts / "page.js").read_text("utf-8")
        html = (parts / "index.html").read_text("utf-8")
        self._html = html.replace("/*style*/", style).replace("/*script*/", script)
        self._settings = {"version": version("tailrace-server"), "otlpHttpPort": otlp_http_port}
        self._headers = {
            "content-security-policy": (
                f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self';"
                " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "cache-control": "no-cache",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }

    def of(self, project: str) -> Response:
        """The page of a project."""
        settings = orjson.dumps({**self._settings, "project": project}).decode().replace("<", "\\u003c")
        return Response(self._html.replace("/*settings*/", settings), headers=self._headers, media_type="text/html")


def _hash(text: str) -> str:
    """The source expression that allows an inline script or style (Content Security Policy, level 2)."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
