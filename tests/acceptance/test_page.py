"""The page in a real browser: waiting, then green with rows, and senders' text only ever as text."""

import subprocess
import tempfile
from pathlib import Path

import pytest
import requests

from tests.acceptance.servers import Server, running, wait_for
from tests.acceptance.test_crashes import spans_body

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


def dom(url: str) -> str:
    """The document as the browser has it after a few seconds."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             "--virtual-time-budget=5000", "--dump-dom", url],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    return done.stdout


def send(server: Server, name: str) -> None:
    body = spans_body(["a" * 16], name=name)
    headers = {"content-type": "application/json", "authorization": "local"}
    assert requests.post(f"{server.url}/v1/traces", data=body, headers=headers, timeout=20).status_code == 200


def test_the_page_waits_turns_green_and_shows_text_as_text(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        waiting = dom(server.url)
        assert 'data-state="waiting"' in waiting
        assert f"LOGFIRE_BASE_URL={server.url} LOGFIRE_TOKEN=local python app.py" in waiting
        send(server, HOSTILE)
        server.wait_for_rows("SELECT 1 FROM records", 1)
        green = dom(f"{server.url}/local/default")
        assert 'data-state="green"' in green
        assert "&lt;img src=x onerror=" in green
        assert "<title>Tailrace</title>" in green
        assert "<img" not in green


def test_the_page_asks_for_a_token_where_one_is_needed(tmp_path: Path) -> None:
    with running(tmp_path / "data", TAILRACE_REQUIRE_TOKENS="true") as server:
        wait_for(lambda: 'data-state="locked"' in dom(server.url), 30, lambda: "the page does not ask for a token")
