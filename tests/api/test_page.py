"""The page brings everything it needs and allows nothing else."""

import base64
import re
from hashlib import sha256

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.errors import plain_error
from api.page import page_routes
from core.errors import TailraceError


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(page_routes(4318))
    app.add_exception_handler(TailraceError, plain_error)
    return TestClient(app)


def test_the_policy_allows_exactly_what_is_inlined(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (inlined,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(sha256(inlined.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_nothing_is_loaded_from_elsewhere(client: TestClient) -> None:
    text = client.get("/").text
    links = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)|url\(([^)]*)\)|@import", text)
    assert [link for link in links if not link[0].startswith("data:")] == []
    assert not re.search(r"\son\w+\s*=", text), "no inline handlers"
    assert "innerHTML" not in text


def test_each_project_has_a_page_and_nothing_else_does(client: TestClient) -> None:
    assert '"project":"shop-2"' in client.get("/local/shop-2").text
    for path in ("/elsewhere/shop", "/local/Not_A_Name", "/local/%3Cscript%3E"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "<script" not in answer.text
