"""The HTTP API, put together: queries, what a token opens, health, and the page."""

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from api.auth import Access
from api.errors import plain_error
from api.health import Health
from api.page import page_routes
from api.projects import project_routes
from api.query import Engine, query_routes
from api.schemas import schema_routes
from core.errors import TailraceError
from storage.keys import Keys


def create_app(keys: Keys, engine: Engine, health: Callable[[], Health], *, otlp_http_port: int) -> FastAPI:
    """The application. Paths are matched as they stand: clients differ by trailing slashes."""
    app = FastAPI(title="Tailrace", version=version("tailrace-server"), redirect_slashes=False, docs_url=None,
                  redoc_url=None, openapi_url=None)  # fmt: skip
    access = Access(keys)

    @app.get("/v1/health")
    def health_of_parts() -> Response:
        """200 when everything works, if slowly; 503 naming the part that does not."""
        now = health()
        body = {"status": now.status, "version": app.version, "parts": now.parts}
        return JSONResponse(body, 503 if now.status == "unavailable" else 200)

    app.include_router(project_routes(access))
    app.include_router(query_routes(access, engine))
    app.include_router(schema_routes(access))
    app.include_router(page_routes(otlp_http_port))
    app.add_exception_handler(TailraceError, plain_error)
    return app
