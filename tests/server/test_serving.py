"""The door's work put together: it waits for a dying predecessor, says what it cannot have, and stops when told."""

import asyncio
import socket
import threading
from pathlib import Path

import httpx
import pytest

from core.errors import Refused
from server import serving
from server.serving import open_log, serve_doors
from server.settings import Settings
from storage.log import LogWriter
from storage.log_reader import LogReader
from tests.doors import BODY, PROTOBUF


def make(directory: Path, **given: int) -> Settings:
    """Settings with free ports, and the directories the supervisor would have made."""
    ports: dict[str, int] = {}
    for name in ("http_port", "otlp_http_port", "otlp_grpc_port"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[name] = free.getsockname()[1]
    settings = Settings(data=directory, **(ports | given))  # pyright: ignore[reportArgumentType]  # names of ports alone
    settings.run_directory.mkdir(parents=True)
    settings.operator_token_file.write_text("secret")
    return settings


def test_the_doors_serve_until_they_are_told_to_stop(tmp_path: Path) -> None:
    settings, ready, stop = make(tmp_path), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve_doors(settings, ready.set, stop)))
    thread.start()
    try:
        assert ready.wait(20)
        sent = httpx.post(
            f"http://127.0.0.1:{settings.http_port}/v1/traces", content=BODY, headers={"content-type": PROTOBUF}
        )
        assert sent.status_code == 200
        assert httpx.get(f"http://127.0.0.1:{settings.http_port}/v1/info").status_code == 200
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    reader = LogReader(settings.log_directory)
    assert [frame.body for frame in reader.read(reader.start, bytes_max=1 << 20)] == [BODY]
    reader.close()
    LogWriter(settings.log_directory, settings.log).close()


def test_a_port_that_is_taken_is_refused_and_the_log_is_let_go(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = make(tmp_path, http_port=taken.getsockname()[1])
        with pytest.raises(Refused, match="cannot be bound"):
            asyncio.run(serve_doors(settings, lambda: None, threading.Event()))
    LogWriter(settings.log_directory, settings.log).close()


def test_the_log_is_waited_for_while_another_door_lets_it_go(tmp_path: Path) -> None:
    settings = make(tmp_path)
    before = LogWriter(settings.log_directory, settings.log)
    timer = threading.Timer(0.3, before.close)
    timer.start()
    open_log(settings).close()
    timer.join()


def test_a_log_that_is_not_let_go_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LOCK_WAIT_S", 0.2)
    settings = make(tmp_path)
    with LogWriter(settings.log_directory, settings.log), pytest.raises(Refused, match="Another process"):
        open_log(settings)
