"""`tailrace demo`: real telemetry from the real Logfire SDK, for a first look."""

from pathlib import Path
from typing import Annotated

import typer

from server.clients import Target
from server.commands.errors import fail_politely
from server.settings import read_settings


@fail_politely()
def demo(
    *,
    url: Annotated[str | None, typer.Option(help="Base URL; default http://127.0.0.1:8000.")] = None,
    token: Annotated[str | None, typer.Option(help="Write token; on the server's machine none is needed.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to send.")] = 20.0,
    data: Annotated[Path | None, typer.Option(help="Data directory of the server on this machine.")] = None,
) -> None:
    """Send web requests, nested spans, exceptions, logs, metrics, agent runs, evaluations and costs."""
    from agents.demo import run_demo  # noqa: PLC0415  # the demo's SDKs are an extra

    settings = read_settings(data=data)
    base_url = url or f"http://{settings.host}:{settings.http_port}"
    print(f"Sending for {seconds:.0f} s to {base_url}: web requests, agent runs, evaluations, metrics …", flush=True)
    visits = run_demo(base_url, Target.of(settings, None, token, None).token or "local", seconds=seconds)
    print(f"Sent {visits} visits of a small shop. Look at {base_url}, or ask:")
    print('  tailrace query "SELECT kind, level, count(*) FROM records GROUP BY ALL ORDER BY 3 DESC"')
