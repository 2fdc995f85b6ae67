"""The server: its answers are the bundle's, its errors are JSON, and it takes no more than it can hold."""

import base64
import json
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from loopback import Waiting, first_line, form, on_loopback, png
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from fuzzed import fuzzed
from lenext.data import Dataset, decode, preprocess
from lenext.errors import UsageError
from lenext.run import Result
from lenext.ship.bundle import Bundle, load
from lenext.ship.explain import explain
from lenext.ship.serve import Limits, application
from tuxpaint import stamp_files

LIMITS = Limits(file_bytes=200_000, request_bytes=400_000, pixels=1_000_000, queue=50)
PICTURE = png(Image.effect_noise((20, 20), 60))


def client(bundle: Bundle, **options: Any) -> TestClient:
    return TestClient(application(bundle, **options), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def bundle(run: Result) -> Bundle:
    return load(run.bundle)


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> TestClient:
    return client(bundle, limits=LIMITS)


@pytest.fixture
def waiting(bundle: Bundle) -> Iterator[Waiting]:
    model = Waiting(bundle)
    yield model
    model.leave.set()


@pytest.fixture(scope="module")
def files(digits: Dataset, stamps: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Digits as the model knows them, and pictures in colour, with alpha and of all sizes, in two formats."""
    folder = tmp_path_factory.mktemp("pictures")
    contents = {f"digit {place}.png": digits.source.read(place) for place in range(12)}
    for number, path in enumerate(stamp_files()[:200:20]):
        contents[f"stamp {number}.png"] = path.read_bytes()
        Image.open(path).convert("RGB").save(folder / f"stamp {number}.jpg")
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return sorted(path for path in folder.iterdir() if path.stat().st_size < LIMITS.file_bytes)


def assert_as_predicted(bundle: Bundle, files: list[Path], found: list[dict[str, Any]], **options: Any) -> None:
    """It is what `Bundle.predict` says of the same files; probabilities differ by batch in the last bits."""
    for prediction, expected in zip(found, bundle.predict(files, **options), strict=True):
        assert (prediction["label"], prediction["abstained"]) == (expected.label, expected.abstained)
        assert prediction["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        assert prediction["probability"] == max(prediction["probabilities"])
        assert prediction["outlier"] == pytest.approx(expected.outlier, abs=0.02)
        assert prediction["error"] is None


# ---- what it answers ----


def test_one_file_at_a_time_gets_what_the_bundle_predicts(
    server: TestClient, bundle: Bundle, files: list[Path]
) -> None:
    replies = [server.post("/predict", files={"file": (path.name, path.read_bytes())}) for path in files]
    assert {reply.status_code for reply in replies} == {200}
    found = [prediction for reply in replies for prediction in reply.json()["predictions"]]
    assert [prediction["path"] for prediction in found] == [path.name for path in files]
    assert_as_predicted(bundle, files, found)


def test_many_files_in_a_form_are_answered_in_order(server: TestClient, bundle: Bundle, files: list[Path]) -> None:
    few = [path for path in files if path.stat().st_size < 10_000]
    assert len(few) > 20
    reply = server.post("/predict", files=[("any name", (path.name, path.read_bytes())) for path in few])
    document = reply.json()
    assert document["classes"] == list(bundle.classes)
    assert [prediction["path"] for prediction in document["predictions"]] == [path.name for path in few]
    assert_as_predicted(bundle, few, document["predictions"])


def test_json_with_base64_and_data_urls(server: TestClient, bundle: Bundle, files: list[Path]) -> None:
    texts = [base64.b64encode(path.read_bytes()).decode() for path in files[:3]]
    texts[1] = f"data:image/png;base64,{texts[1]}"
    found = server.post("/predict", json={"images": texts}).json()["predictions"]
    assert [prediction["path"] for prediction in found] == ["images[0]", "images[1]", "images[2]"]
    assert_as_predicted(bundle, files[:3], found)


def test_an_svm_is_served_alike(svm_run: Result, files: list[Path]) -> None:
    bundle = load(svm_run.bundle)
    reply = client(bundle).post("/predict", files=[("files", (path.name, path.read_bytes())) for path in files])
    assert_as_predicted(bundle, files, reply.json()["predictions"])


def test_it_abstains_as_predict_does(bundle: Bundle, files: list[Path]) -> None:
    reply = client(bundle, abstain=0.9).post("/predict", files=form(*(path.read_bytes() for path in files)))
    assert_as_predicted(bundle, files, reply.json()["predictions"], abstain=0.9)
    assert {prediction["abstained"] for prediction in reply.json()["predictions"]} == {True, False}


def test_a_precision_that_cannot_be_promised_is_refused_before_it_serves(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="abstain"):
        application(bundle, abstain=1.5)


def test_broken_pictures_have_their_errors_and_do_not_shift_the_others(server: TestClient, files: list[Path]) -> None:
    good = files[0].read_bytes()
    reply = server.post("/predict", files=form(b"", good, good[:60], good, b"<html>"))
    assert reply.status_code == 200
    errors = [prediction["error"] for prediction in reply.json()["predictions"]]
    assert [error is None for error in errors] == [False, True, False, True, False]
    assert errors[0] == "zero bytes"
    assert "truncated" in errors[2]
    assert "not an image" in errors[4]
    labels = [prediction["label"] for prediction in reply.json()["predictions"]]
    assert labels[0] is None
    assert labels[1] == labels[3]


@pytest.mark.parametrize("label", [None, "3"])
def test_where_the_model_looked_is_a_picture(
    label: str | None, server: TestClient, bundle: Bundle, files: list[Path]
) -> None:
    content = files[0].read_bytes()
    reply = server.post("/explain", files=form(content), params={"label": label} if label else {})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    expected = explain(bundle, preprocess(content, bundle.preprocess), label).overlay
    assert np.abs(decode(reply.content).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("sent", "label", "message"),
    [
        (form(PICTURE, PICTURE), "3", "given 2 pictures, accepted: one"),
        (form(b"hello"), "3", "not an image"),
        (form(PICTURE), "cat", "class 'cat': the model does not know it"),
    ],
)
def test_what_cannot_be_explained(sent: Any, label: str, message: str, server: TestClient) -> None:
    reply = server.post("/explain", files=sent, params={"label": label})
    assert (reply.status_code, reply.json()["status"]) == (422, 422)
    assert message in reply.json()["error"]


def test_pictures_that_wait_together_are_judged_together(bundle: Bundle, waiting: Waiting) -> None:
    app = application(waiting.inside(bundle))
    waiting.sizes.clear()
    waiting.leave.clear()
    with TestClient(app) as server, ThreadPoolExecutor(14) as pool:
        first = pool.submit(server.post, "/predict", files=form(PICTURE))
        wait_for(lambda: waiting.sizes == [1])
        others = [pool.submit(server.post, "/predict", files=form(PICTURE)) for _ in range(13)]
        wait_for(lambda: len(app.state.service.judge._waiting) == 13)
        waiting.leave.set()
        assert {call.result().status_code for call in [first, *others]} == {200}
    assert waiting.sizes == [1, 8, 4, 1]


# ---- what it refuses ----


def declared(width: int, height: int) -> bytes:
    """A PNG file that declares so many pixels, in a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


FORM = {"content-type": "multipart/form-data; boundary=x"}
JSON = {"content-type": "application/json"}
PART = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n%b\r\n--x'

REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no picture": ({"files": form(b"hello")}, 422, "0.png: not an image"),
    "several that are none": (
        {"files": form(b"hello", b"")},
        422,
        "0.png: not an image: starts with b'hello'; 1.png: zero",
    ),
    "cut off": ({"files": form(PICTURE[:100])}, 422, "truncated"),
    "a bomb": ({"files": form(declared(60_000, 60_000))}, 422, "too many pixels: 60000 x 60000 = 3,600,000,000, limit"),
    "beyond the server's limit": ({"files": form(declared(1001, 1000))}, 422, "limit 1,000,000"),
    "a large file": ({"files": form(bytes(200_001))}, 413, "a file is too large; accepted: up to 200,000 bytes"),
    "a large request": ({"files": form(*[bytes(150_000)] * 3)}, 413, "a request is too large; accepted: up to 400,000"),
    "without its length": ({"content": iter([bytes(90_000)] * 9), "headers": JSON}, 413, "a request is too large"),
    "many files": ({"files": form(*[PICTURE] * 51)}, 413, "too many pictures; accepted: up to 50 in a request"),
    "many in JSON": ({"json": {"images": [""] * 51}}, 413, "too many pictures; accepted: up to 50 in a request"),
    "large in JSON": ({"json": {"images": ["A" * 300_000]}}, 413, "images[0] is too large; accepted: up to 200,000"),
    "nothing": ({}, 415, "content type: given '', accepted: multipart/form-data, application/json"),
    "another form": ({"data": {"a": "b"}}, 415, "given 'application/x-www-form-urlencoded'"),
    "bare": ({"content": PICTURE, "headers": {"content-type": "image/png"}}, 415, "given 'image/png'"),
    "no boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        422,
        "not multipart/form-data",
    ),
    "no parts": ({"content": b"--x--\r\n", "headers": FORM}, 422, "no picture; accepted: one or more files"),
    "no end": ({"content": PART % PICTURE, "headers": FORM}, 422, "multipart/form-data without its end"),
    "no form": ({"content": PICTURE, "headers": FORM}, 422, "not multipart/form-data"),
    "no JSON": ({"content": b"{", "headers": JSON}, 422, "Invalid JSON"),
    "no text": ({"content": b'{"images": ["\xff"]}', "headers": JSON}, 422, "Invalid JSON"),
    "a list": ({"json": [1]}, 422, ""),
    "no images": ({"json": {}}, 422, "images: Field required"),
    "no image": ({"json": {"images": []}}, 422, "images: "),
    "another key": ({"json": {"images": ["AA=="], "top": 3}}, 422, "top: "),
    "a number": ({"json": {"images": ["", 3]}}, 422, "images.1: "),
    "no base64": ({"json": {"images": ["AA==", "%"]}}, 422, "images[1]: not base64: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_gets_an_error_in_json(name: str, server: TestClient) -> None:
    given, status, message = REFUSED[name]
    start = time.perf_counter()
    reply = server.post("/predict", **given)
    assert time.perf_counter() - start < 60  # of one that would hang
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.json().keys() == {"error", "status"}
    assert reply.json()["status"] == status
    assert message in reply.json()["error"]
    assert server.post("/predict", files=form(PICTURE)).status_code == 200
    assert server.app.state.service.gate.pictures == server.app.state.service.gate.bytes == 0


def test_broken_files_of_every_kind_are_answered_or_refused(server: TestClient) -> None:
    statuses: Counter[int] = Counter()
    for name, content in fuzzed(100, seed=2):
        reply = server.post("/predict", files={"file": (name, content)})
        statuses[reply.status_code] += 1
        assert reply.status_code == 200 or reply.json().keys() == {"error", "status"}
    assert statuses.keys() <= {200, 413, 422}
    assert min(statuses[200], statuses[422]) > 10


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/predict", 405)])
def test_addresses_that_are_none(method: str, path: str, status: int, server: TestClient) -> None:
    reply = server.request(method, path)
    assert (reply.status_code, reply.json()["status"]) == (status, status)


def test_a_picture_within_the_bundles_limit_and_beyond_the_servers(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(PICTURE)
    assert next(bundle.predict(tmp_path / "x.png")).error is None
    reply = client(bundle, limits=Limits(pixels=399)).post("/predict", files=form(PICTURE))
    assert (reply.status_code, reply.json()["error"]) == (422, "0.png: too many pixels: 20 x 20 = 400, limit 399")


def test_when_the_queue_is_full_one_is_told_when_to_come_again(bundle: Bundle, waiting: Waiting) -> None:
    app = application(waiting.inside(bundle), limits=Limits(queue=3))
    waiting.leave.clear()
    with TestClient(app) as server, ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(server.post, "/predict", files=form(*[PICTURE] * number)) for number in (1, 2)]
        wait_for(lambda: app.state.service.gate.pictures == 3)
        refused = server.post("/predict", files=form(PICTURE))
        assert refused.status_code == 503
        assert refused.json()["error"].startswith("too many pictures are waiting")
        assert int(refused.headers["retry-after"]) >= 1
        assert server.get("/health").status_code == 200
        waiting.leave.set()
        assert {call.result().status_code for call in inside} == {200}
        assert server.post("/predict", files=form(*[PICTURE] * 3)).status_code == 200


def test_what_takes_too_long_is_given_up(bundle: Bundle, waiting: Waiting) -> None:
    with TestClient(application(waiting.inside(bundle), limits=Limits(seconds=0.3))) as server:
        waiting.leave.clear()
        waiting.sizes.clear()
        first, second = (server.post("/predict", files=form(PICTURE)) for _ in range(2))
        assert (first.status_code, second.status_code) == (504, 504)
        assert first.json() == {"error": "answering took too long; accepted: up to 0.3 s", "status": 504}
        waiting.leave.set()
        assert server.post("/predict", files=form(PICTURE)).status_code == 200
    assert waiting.sizes == [1, 1]  # the second one was dropped


def test_an_error_of_ours_is_json_too_and_the_server_goes_on(bundle: Bundle, waiting: Waiting, caplog: Any) -> None:
    server = client(waiting.inside(bundle))
    waiting.scores = lambda images: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    reply = server.post("/predict", files=form(PICTURE))
    assert (reply.status_code, reply.json()) == (500, {"error": "internal error, please report it", "status": 500})
    assert "ZeroDivisionError" in caplog.text
    del waiting.scores
    assert server.post("/predict", files=form(PICTURE)).status_code == 200


# ---- who may ask ----


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/predict"), ("POST", "/explain"), ("GET", "/metadata"), ("GET", "/metrics")]
)
def test_with_an_api_key_nobody_gets_in_without_it(method: str, path: str, bundle: Bundle) -> None:
    server = client(bundle, api_key="schlüssel")
    for headers in ({}, {"X-API-Key": b"other"}, {"X-API-Key": ""}, {"Authorization": "Basic schl"}):
        reply = server.request(method, path, headers=headers)
        assert (reply.status_code, reply.json()["status"]) == (401, 401)
        assert "X-API-Key" in reply.json()["error"]
    for headers in ({"X-API-Key": "schlüssel".encode()}, {"Authorization": "Bearer schlüssel".encode()}):
        assert server.request(method, path, headers=headers).status_code in (200, 415)
    for path in ("/", "/docs", "/health", "/openapi.json"):
        assert server.get(path).status_code == 200


def test_the_key_is_asked_for_before_the_body_is_read(bundle: Bundle) -> None:
    with on_loopback(bundle, api_key="k", limits=LIMITS) as url, connected(url) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n" + head(JSON))
        assert first_line(connection) == "HTTP/1.1 401 Unauthorized"


# ---- what is seen on the wire only ----


def connected(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)


def head(headers: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


def test_a_request_is_refused_before_it_is_sent_or_as_it_comes(bundle: Bundle) -> None:
    with on_loopback(bundle, limits=LIMITS) as url:
        with connected(url) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n" + head(JSON))
            assert first_line(connection).startswith("HTTP/1.1 413 ")
        with connected(url) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 390000\r\n" + head(FORM))
            connection.sendall((PART % bytes(250_000))[:-5])  # a file that is too large, and the form goes on
            assert first_line(connection).startswith("HTTP/1.1 413 ")


def test_who_sends_too_slowly_is_given_up(bundle: Bundle) -> None:
    with on_loopback(bundle, limits=Limits(seconds=0.3)) as url, connected(url) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + head(FORM) + b"--x")
        assert first_line(connection) == "HTTP/1.1 408 Request Timeout"


def test_who_goes_away_leaves_nothing_behind(bundle: Bundle) -> None:
    with on_loopback(bundle) as url:
        for _ in range(3):
            with connected(url) as connection:
                connection.sendall(
                    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + head(FORM) + b"--x"
                )
    # it ended, which it does when nobody is in


# ---- what it tells of itself ----


def test_metadata_are_the_bundles(server: TestClient, bundle: Bundle) -> None:
    document = server.get("/metadata").json()
    for key in ("model", "preprocess", "classes", "metrics", "fingerprint"):
        assert document[key] == json.loads(json.dumps(bundle.metadata[key]))
    assert document["limits"]["file_bytes"] == LIMITS.file_bytes
    assert document["abstain"] is None


def test_metrics_count_what_was_asked(bundle: Bundle) -> None:
    server = client(bundle)
    server.post("/predict", files=form(PICTURE, b"hello", PICTURE))
    server.post("/predict", files=form(b"hello"))
    server.get("/nothing")
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    assert samples["lenext_requests_total", "/predict", "200"] == 1
    assert samples["lenext_requests_total", "/predict", "422"] == 1
    assert samples["lenext_requests_total", "404", "other"] == 1
    assert samples["lenext_request_seconds_count", "/predict"] == 2
    assert samples["lenext_pictures_total", "judged"] == 2
    assert samples["lenext_pictures_total", "unreadable"] == 2
    assert samples["lenext_batch_pictures_sum",] == 2
    assert samples["lenext_waiting_pictures",] == 0
    assert samples["process_resident_memory_bytes",] > 1e6


def test_every_answer_has_the_headers_that_protect_a_page(server: TestClient) -> None:
    for path in ("/", "/page.js", "/page.css", "/docs", "/health", "/nothing"):
        headers = server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_description_has_every_address_and_its_page_shows_them(server: TestClient) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/predict", "/explain", "/health", "/metadata", "/metrics"}
    assert set(paths["/predict"]["post"]["responses"]) == {"200", *map(str, (401, 408, 413, 415, 422, 500, 503, 504))}
    page = server.get("/docs").text
    for path in paths:
        assert path in page
    assert "http" not in page.replace("http://testserver/", "").replace("over HTTP", "")


def test_no_request_that_the_description_allows_makes_a_server_error(bundle: Bundle) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", application(bundle))
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:
        check = given(case=operation.as_strategy())(lambda case: assert_no_server_error(case))
        settings(max_examples=15, deadline=None, database=None, derandomize=True,
                 phases=[Phase.generate], suppress_health_check=list(HealthCheck))(check)()  # fmt: skip


def assert_no_server_error(case: Any) -> None:
    assert case.call().status_code < 500


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
