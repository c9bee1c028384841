"""A Flight server without the rest, until stdin ends; it prints its port when it is ready.

`python -m benchmarks.serve_lake DIRECTORY` serves a lake as Tailrace does; with an Arrow file instead it is a plain
pyarrow server that sends the file's batches, whatever it is asked: the limit to compare with.
"""

import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as pf

from core.clock import SystemClock
from flight.server import open_flight
from flight.settings import FlightSettings
from query.engine import open_engine
from query.settings import QuerySettings
from storage.keys import open_keys


class Plain(pf.FlightServerBase):
    """Sends the same batches each time."""

    def __init__(self, file: str) -> None:
        super().__init__("grpc://127.0.0.1:0")
        with pa.ipc.open_file(file) as reader:
            self._schema = reader.schema
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]

    def do_get(self, context: pf.ServerCallContext, ticket: pf.Ticket) -> pf.RecordBatchStream:
        """The batches."""
        return pf.RecordBatchStream(pa.RecordBatchReader.from_batches(self._schema, self._batches))


def main() -> None:
    """Serve."""
    if sys.argv[1].endswith(".arrow"):
        with Plain(sys.argv[1]) as server:
            print(server.port, flush=True)
            sys.stdin.read()
    else:
        serve(Path(sys.argv[1]))


def serve(lake: Path) -> None:
    """Serve a lake."""
    with tempfile.TemporaryDirectory(prefix="tailrace-", dir=lake.parent) as name:
        run = Path(name)
        ledger = f"sqlite+aiosqlite:///{run / 'ledger.sqlite3'}"
        with (
            open_keys(ledger, open_to_all=True, operator_token=None, clock=SystemClock()) as keys,
            open_engine(lake, run, QuerySettings()) as engine,
            open_flight(
                engine, keys, FlightSettings(), address=("127.0.0.1", 0), inner_socket=run / "flight.sock"
            ) as port,
        ):
            while engine.state() != "ready":
                time.sleep(0.05)
            print(port, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main()
