"""`tailrace serve`: everything, with one command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import BadSettings
from server.commands.errors import fail_politely
from server.lifecycle import PortBusy
from server.lifecycle import serve as run
from server.settings import read_settings
from server.supervisor import start_logging


@fail_politely()
def serve(
    *,
    data: Annotated[Path | None, typer.Option(help="Directory of everything that is kept.  [default: ./data]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.  [default: 127.0.0.1]")] = None,
    http_port: Annotated[int | None, typer.Option(help="UI, query API and OTLP.  [default: 8000]")] = None,
    otlp_http_port: Annotated[int | None, typer.Option(help="OTLP over HTTP.  [default: 4318]")] = None,
    otlp_grpc_port: Annotated[int | None, typer.Option(help="OTLP over gRPC.  [default: 4317]")] = None,
    flight_port: Annotated[int | None, typer.Option(help="Arrow Flight SQL.  [default: 32010]")] = None,
) -> None:
    """Start everything and run until Ctrl-C or SIGTERM; both drain first."""
    start_logging("supervisor")
    try:
        settings = read_settings(
            data=data, host=host, http_port=http_port, otlp_http_port=otlp_http_port,
            otlp_grpc_port=otlp_grpc_port, flight_port=flight_port,
        )  # fmt: skip
        run(settings, lambda line: print(line, flush=True))
    except (PortBusy, BadSettings) as error:
        print(error.message, file=sys.stderr)
        raise typer.Exit(2) from error
