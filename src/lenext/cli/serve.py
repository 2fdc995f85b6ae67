"""`lenext serve`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lenext.cli.console import Output, print_json


def serve(
    bundle: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: Annotated[str | None, Parameter(env_var="LENEXT_API_KEY")] = None,
    abstain: float | None = None,
    engine: str = "auto",
    max_file: str = "20MB",
    max_request: str = "50MB",
    max_pixels: str = "50M",
    timeout: str = "30s",
    queue: int = 256,
    batch: int = 32,
    output: Output = Output(),
) -> None:
    """Answer over HTTP what is on pictures: a page for people, an interface for programs.

    Example: lenext serve best.lenext --port 8080

    Parameters
    ----------
    bundle
        A .lenext file; its golden images are verified first.
    host
        Address to listen at. Others than this machine reach it at 0.0.0.0.
    port
        0 takes one that is free.
    api_key
        Wanted from everybody in the header X-API-Key or as Authorization: Bearer. Others on this machine cannot see
        it in the environment variable.
    abstain
        The share of answers that shall be right, such as 0.99: it says "I don't know" where it is not sure enough.
    engine
        What computes the scores: torch, torch_bf16, onnxruntime, openvino, openvino_bf16, openvino_mixed; or the
        fastest of those that agree with the bundle, which is measured once.
    max_file
        Bytes that a picture's file may have.
    max_request
        Bytes that a request may have.
    max_pixels
        Pixels that a picture may have; it is not decoded if it has more.
    timeout
        Time to receive a request, and again to answer it.
    queue
        Pictures that may wait; whoever comes then is told when to come again.
    batch
        Pictures that are judged together at most, when so many wait.
    """
    from lenext.errors import UsageError
    from lenext.ship.bundle import load
    from lenext.ship.serve import Limits, application, check_libraries, listen
    from lenext.ship.serve import serve as answer
    from lenext.spec import parse_amount, parse_seconds

    check_libraries()
    if api_key is not None and not api_key:
        raise UsageError("api_key: given an empty one, accepted: one or more characters, or none at all")
    limits = Limits(
        file_bytes=int(parse_amount(max_file, unit="B") or 0),
        request_bytes=int(parse_amount(max_request, unit="B") or 0),
        pixels=int(parse_amount(max_pixels) or 0),
        seconds=parse_seconds(timeout) or 0,
        queue=queue,
        batch=batch,
    )
    with listen(host, port) as listening:
        address, port = listening.getsockname()[:2]
        url = f"http://{f'[{address}]' if ':' in address else address}:{port}/"
        if not (api_key or address.startswith("127.") or address == "::1"):
            print(f"whoever reaches {url} may use it; --api-key keeps others out", file=sys.stderr)
        model = load(bundle, verify=True)
        app = application(model, api_key=api_key, abstain=abstain, engine=engine, limits=limits)
        answer(app, listening, ready=lambda: _print(url, app.state.service.engine, output))


def _print(url: str, engine: str, output: Output) -> None:
    if output.json:
        print_json({"url": url, "engine": engine})
    else:
        print(f"page       {url}\ninterface  {url}docs\nengine     {engine}\nCtrl+C ends it")
    sys.stdout.flush()
