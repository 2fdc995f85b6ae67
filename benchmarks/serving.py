"""A server under load: many clients at once, some of whose uploads are broken.

    python benchmarks/serving.py                          # resnet50, 32 clients for a minute
    python benchmarks/serving.py --model resnet18 --seconds 10

A bundle of the network with random weights is served by `lenext serve` in a process of its own, as it comes. The
clients send pictures of about 480 × 390 px as JPEG, one a request, each as soon as the one before is answered; of the
broken ones some are cut off, some no picture, empty, no form, or declare more pixels than anybody has. Counted after a
warm-up: answers by status, those that none of the stated ones explains, their times, pictures a second, and the
server's memory. `lenext bench infer` measures the same bundle in batches of 32 before and after, by the same engine.
"""

import argparse
import asyncio
import io
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch import nn

from lenext.classifier import ConvNet
from lenext.data import Preprocess
from lenext.ladder import published_shape
from lenext.models import build_model
from lenext.ship.bundle import Bundle
from lenext.spec import Data, Model, Run
from loader import picture
from results import write

LENEXT = Path(sys.executable).with_name("lenext")
PICTURES = 64
BATCH = 32


@dataclass(frozen=True)
class Request:
    """What is sent, and the status that it is to get."""

    content: bytes
    status: int


@dataclass(frozen=True)
class Reply:
    """What came of a request: 0 where the connection broke; when it was answered, and after how many seconds."""

    asked: Request
    status: int
    at: float
    seconds: float


def bundle_of(model: str, folder: Path) -> Path:
    """Random weights, but sure of one class: what bf16 leaves open would be asked again (`lenext.ship.engines`)."""
    shape = published_shape(model)
    network = build_model(Model(model), **shape)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[0] = 20.0
    middle = np.full(shape["channels"], 127.5, np.float32)
    classifier = ConvNet(
        network,
        tuple(map(str, range(shape["classes"]))),
        Preprocess(size=shape["size"], channels=shape["channels"], fit="crop"),
        mean=middle,
        std=np.full_like(middle, 64.0),
    )
    made = Bundle.create(
        classifier.eval(), Run(Data("random"), Model(model)), metrics={}, fingerprint="", golden_files=[jpeg(0)]
    )
    return made.save(folder / f"{model}.lenext")


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "JPEG", quality=88)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG file that declares 3.6 thousand million pixels."""
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


def post(file: bytes, kind: str = "multipart/form-data; boundary=frontier") -> bytes:
    body = (
        b'--frontier\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n--frontier--\r\n" % file
    )
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def requests(broken: float, seed: int) -> Iterator[Request]:
    files = [jpeg(number) for number in range(PICTURES)]
    good = [Request(post(file), 200) for file in files]
    bad = [Request(post(files[0][: len(files[0]) // 2]), 422), Request(post(b"<html>no picture</html>"), 422),
           Request(post(b""), 422), Request(post(bomb()), 422), Request(post(files[1], "image/jpeg"), 415)]  # fmt: skip
    draw = random.Random(seed)
    while True:
        yield draw.choice(bad if draw.random() < broken else good)


async def client(url: str, source: Iterator[Request], until: float, replies: list[Reply]) -> None:
    address = urlsplit(url)
    reader = writer = None
    while time.perf_counter() < until:
        asked, start, status = next(source), time.perf_counter(), 0
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
            assert reader is not None
            writer.write(asked.content)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
            status = int(head.split(maxsplit=2)[1])
        except (OSError, asyncio.IncompleteReadError):
            writer = None
        end = time.perf_counter()
        replies.append(Reply(asked, status, end, end - start))
        if status == 503:
            await asyncio.sleep(float(re.search(rb"retry-after: (\d+)", head)[1]))  # type: ignore[index]
    if writer is not None:
        writer.close()


async def load(
    url: str, pid: int, clients: int, broken: float, seconds: float
) -> tuple[list[Reply], list[list[float]]]:
    """The replies, and the server's memory: rows of the time and bytes."""
    source, replies, memory = requests(broken, seed=0), [], []
    until = time.perf_counter() + seconds
    running = asyncio.gather(*(client(url, source, until, replies) for _ in range(clients)))
    while not running.done():
        memory.append([time.perf_counter(), resident(pid)])
        await asyncio.wait([running], timeout=1)
    await running
    return replies, memory


def resident(pid: int) -> float:
    return 1024.0 * int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def bench_rate(path: Path) -> dict[str, Any]:
    ended = subprocess.run([LENEXT, "bench", "infer", path, "--batch", str(BATCH), "--repeats", "3", "--json"],
                           check=True, capture_output=True)  # fmt: skip
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def start(path: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """`lenext serve` of the bundle at `path` in a process of its own, and what it says once it serves."""
    process = subprocess.Popen([LENEXT, "serve", path, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")


def served(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    process, said = start(path)
    seconds = options.warm_up + options.seconds
    began = time.perf_counter()
    replies, memory = asyncio.run(load(said["url"], process.pid, options.clients, options.broken, seconds))
    process.terminate()
    code = process.wait(60)
    counted = [reply for reply in replies if options.warm_up <= reply.at - began < seconds]
    times = [reply.seconds for reply in counted if reply.status == 200]
    p50, p99 = (float(value) for value in np.quantile(times, (0.5, 0.99)))
    resident_bytes = [size for at, size in memory if at - began >= options.warm_up]
    return {
        "engine": said["engine"],
        "requests": len(counted),
        "statuses": dict(sorted(Counter(str(reply.status) for reply in counted).items())),
        "unexplained": sum(reply.status not in (reply.asked.status, 503) for reply in replies),
        "exit_code": code,
        "p50_ms": round(1000 * p50, 1),
        "p99_ms": round(1000 * p99, 1),
        "images_per_second": round(len(times) / options.seconds, 2),
        "memory_bytes_after_warm_up": resident_bytes[0],
        "memory_bytes_at_the_end": resident_bytes[-1],
        "memory_growth": round(resident_bytes[-1] / resident_bytes[0] - 1, 4),
        "memory_bytes_most": max(resident_bytes),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds before anything is counted")
    parser.add_argument("--broken", type=float, default=0.05, help="share of the uploads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = bundle_of(options.model, Path(folder))
        before = bench_rate(path)
        found = served(path, options)
        after = bench_rate(path)
    assert before["engine"] == found["engine"] == after["engine"]
    rates = [round(measured["images_per_second"], 2) for measured in (before, after)]
    write("serving", {
        "model": options.model,
        "clients": options.clients,
        "seconds": options.seconds,
        "broken_share": options.broken,
        **found,
        "bench_infer_images_per_second": rates,
        "ratio_to_bench_infer": round(found["images_per_second"] / statistics.mean(rates), 3),
    })  # fmt: skip
