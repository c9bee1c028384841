"""What a token opens: `GET /v1/info` for senders, `GET /v1/read-token-info` for askers (contract §2.4, §3.3)."""

from fastapi import APIRouter, Request

from api.auth import Access
from core.projects import Project, TokenKind


def project_routes(access: Access) -> APIRouter:
    """The two endpoints."""
    router = APIRouter()

    @router.get("/v1/info")
    def info(request: Request) -> dict[str, str]:
        """The project of a token; Logfire's SDK prints its URL at start."""
        project = access.any_project(request)
        return {"project_name": project.name, "project_url": project_url(request, project)}

    @router.get("/v1/read-token-info")
    def read_token_info(request: Request) -> dict[str, object]:
        """The project of a read token. Nothing is sold here: plans and caps are what Logfire's have none of."""
        project = access.project(request, TokenKind.READ)
        token = access.token(request)
        return {
            "organization_name": project.organization,
            "organization_id": project.organization,
            "project_name": project.name,
            "project_id": project.id,
            "project_url": project_url(request, project),
            "token_id": token and token.id,
            "expires_at": token and token.expires_at,
            "owner_user_id": None,
            "organization_subscription_plan": None,
            "organization_analytics_enabled": False,
            "spending_cap_reached_at": None,
            "billing_cycle_start": None,
            "billing_cycle_end": None,
        }

    return router


def project_url(request: Request, project: Project) -> str:
    """Where the page of a project is, on the address the client has used."""
    return f"{str(request.base_url).rstrip('/')}/{project.organization}/{project.name}"
