"""The feed of commits: the flow tells the flight process what every statement from now on has to see.

A notice that nobody hears is no loss: who comes later reads the newest versions anyway.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as pf

NOTICE_S = 1.0
"""How long a notice may take before it is given up."""

_log = logging.getLogger(__name__)


def announce_commit(socket: Path, epoch: int, versions: Mapping[str, int]) -> None:
    """Tell of an epoch and the Delta version of each table that holds it. Never raises when nobody listens."""
    if not socket.exists():
        return
    payload = json.dumps({"epoch": epoch, "versions": versions}).encode()
    try:
        with pf.FlightClient(f"grpc+unix://{socket}") as client:
            list(client.do_action(pf.Action("committed", payload), pf.FlightCallOptions(timeout=NOTICE_S)))
    except (pf.FlightError, pa.ArrowException, OSError) as error:
        _log.debug("epoch %d was not heard: %s", epoch, error)
