"""`lenext serve` as a process: what it prints, what it refuses, and how it ends."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lenext.cli import main
from lenext.data import Dataset
from lenext.run import Result
from lenext.ship.bundle import load

COMMAND = Path(sys.executable).with_name("lenext")


@contextlib.contextmanager
def serving(*words: str | Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Within, ``lenext serve`` answers: the process, and its address."""
    process = subprocess.Popen(
        [COMMAND, "serve", *words, "--engine", "torch", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        document = "".join(iter(lambda: process.stdout.readline(), "}\n")) + "}"
        yield process, json.loads(document)["url"]
    finally:
        process.kill()
        process.communicate()


def asked(url: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> tuple[int, Any, dict[str, str]]:
    """Status, content and headers of an answer; with a body, of POST."""
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, body, dict(headers)), timeout=60)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        content, kind = reply.read().decode(), reply.headers["content-type"]
        return reply.status, json.loads(content) if kind == "application/json" else content, dict(reply.headers)


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
BODY = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
)


def test_at_sigterm_it_answers_who_is_in_and_nobody_else(run: Result, digits: Dataset) -> None:
    body = BODY % digits.source.read(0)
    with serving(run.bundle) as (process, url):
        assert asked(f"{url}health")[:2] == (200, {"status": "ok"})
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as connection:
            connection.sendall(HEAD % len(body) + body[:100])
            while "lenext_waiting_pictures 1.0" not in asked(f"{url}metrics")[1]:
                pass
            process.send_signal(signal.SIGTERM)
            while asked(f"{url}health")[0] != 503:
                pass
            status, document, headers = asked(f"{url}predict", body, FORM)
            assert (status, document["status"]) == (503, 503)
            assert "shutting down" in document["error"]
            assert int(headers["retry-after"]) >= 1
            assert process.poll() is None
            connection.sendall(body[100:])
            with connection.makefile("rb") as reply:
                assert reply.readline() == b"HTTP/1.1 200 OK\r\n"
                found = json.loads(reply.read().partition(b"\r\n\r\n")[2])
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert found["predictions"][0]["label"] in load(run.bundle).classes


def test_the_key_may_come_from_the_environment_and_ctrl_c_ends_it(run: Result) -> None:
    with serving(run.bundle, "--host", "localhost", LENEXT_API_KEY="key") as (process, url):
        assert asked(f"{url}metadata")[0] == 401
        status, document, _ = asked(f"{url}metadata", headers={"X-API-Key": "key"})
        assert (status, document["classes"]) == (200, list("0123456789"))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


WRONG = {
    "none.lenext --port 0": (3, "none.lenext: no such file"),
    "none.lenext --port 70000": (2, "port: given 70000, accepted: 0 to 65535"),
    "none.lenext --host 192.0.2.1": (2, "cannot listen at 192.0.2.1, port 8000"),
    "none.lenext --host nowhere.invalid": (2, "cannot listen at nowhere.invalid, port 8000"),
    "none.lenext --port 0 --max-file large": (2, "given 'large' as an amount, accepted: 5000B"),
    "none.lenext --port 0 --max-pixels 0": (2, "pixels: given 0, accepted: more than 0"),
    "none.lenext --port 0 --max-file 60MB": (2, "file_bytes: given 60,000,000, accepted: up to the 50,000,000"),
    "none.lenext --port 0 --queue 0": (2, "queue: given 0, accepted: more than 0"),
    "none.lenext --port 0 --timeout soon": (2, "given 'soon' as a duration"),
    "none.lenext --port 0 --api-key=": (2, "api_key: given an empty one"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_served_is_told_in_a_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = WRONG[words]
    assert ended(words.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lenext: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_port_that_is_taken(run: Result, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert ended([str(run.bundle), "--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err


def test_without_the_libraries_it_says_what_to_install(
    run: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "fastapi" else found(name))
    assert ended([str(run.bundle)]) == 2
    assert "serving needs fastapi: pip install 'lenext[serve]'" in capsys.readouterr().err


def ended(words: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(["serve", *words])
    return int(left.value.code or 0)
