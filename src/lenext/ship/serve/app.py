"""The application: which addresses there are, what each answers, and what becomes of errors."""

import asyncio
import dataclasses
import hmac
import importlib.metadata
import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lenext.errors import LenextError
from lenext.ship.bundle import Bundle
from lenext.ship.engines import choose, with_engine
from lenext.ship.predict import Prediction
from lenext.ship.serve import body, pages
from lenext.ship.serve.gate import Gate
from lenext.ship.serve.judge import Judge
from lenext.ship.serve.limits import Limits
from lenext.ship.serve.metrics import Metrics

Result = TypeVar("Result")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; script-src 'self'; "
    "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PROBLEMS = {
    401: "The API key is missing or another",
    408: "The request took too long to arrive",
    413: "A file or the request is too large, or there are too many files",
    415: "Neither a form nor JSON",
    422: "No picture in it can be read, or it is not what it says it is",
    500: "An error of ours",
    503: "Too many pictures are waiting, or the server is shutting down; Retry-After says when to come again",
    504: "Answering took too long",
}


class Answer(BaseModel):
    """The classes, and a prediction for each picture in order; what `lenext predict --json` prints."""

    classes: tuple[str, ...]
    predictions: list[Prediction]


class Problem(BaseModel):
    """What went wrong, and the status code. Every error looks like this."""

    error: str
    status: int


class Health(BaseModel):
    """That the server answers."""

    status: str


class Metadata(BaseModel):
    """The bundle's papers, and what the server accepts."""

    lenext: str
    model: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    metrics: dict[str, Any]
    fingerprint: str
    abstain: float | None
    engine: str
    limits: dict[str, float]


@dataclass(frozen=True)
class Service:
    """What answers the requests of an application."""

    bundle: Bundle
    api_key: str | None
    abstain: float | None
    engine: str
    limits: Limits
    metrics: Metrics
    judge: Judge
    gate: Gate


def build(bundle: Bundle, *, api_key: str | None, abstain: float | None, engine: str, limits: Limits) -> FastAPI:
    """See `lenext.ship.serve.application`."""
    metrics = Metrics()
    engine = choose(bundle, engine)
    judge = Judge(with_engine(bundle, engine), bundle, limits, metrics, abstain=abstain)
    judge.warm_up()
    gate = Gate(limits, pace=lambda: judge.pace)
    metrics.watch_waiting(lambda: gate.pictures)
    app = FastAPI(
        title=f"lenext: {bundle.metadata['model']['name']}",
        description="Says what is on pictures. Errors are JSON: `error` says what was given and what is accepted.",
        version=importlib.metadata.version("lenext"),
        docs_url=None,  # FastAPI's own pages fetch theirs from elsewhere
        redoc_url=None,
    )
    app.state.service = Service(bundle, api_key, abstain, engine, limits, metrics, judge, gate)
    app.include_router(_open)
    app.include_router(_guarded, dependencies=[Depends(_authorised)] if api_key else [])
    pages.add(app, bundle, limits, needs_key=api_key is not None, abstain=abstain)
    app.add_middleware(_Surroundings, metrics=metrics)
    app.add_exception_handler(AnyHTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(LenextError, _unusable)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


# Not plain functions, which FastAPI would call on a thread each time
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Using = Annotated[Service, Depends(_service)]


async def _authorised(
    service: Using,
    key: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> None:
    """Raises HTTPException (401) where neither header has the key. How long it takes tells nothing about the key."""
    assert service.api_key is not None
    given = key or (bearer.credentials if bearer else "")
    if not hmac.compare_digest(given.encode("latin-1"), service.api_key.encode()):
        raise HTTPException(401, "API key: missing or another than the server's; accepted: in the header X-API-Key, or "
                                 "Authorization: Bearer", {"WWW-Authenticate": "Bearer"})  # fmt: skip


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _PROBLEMS[status]} for status in statuses}


_open = APIRouter()
_guarded = APIRouter(responses=_problems(401, 500))


class _Png(Response):
    media_type = "image/png"


class _Text(Response):
    media_type = "text/plain"


@_open.get("/health", responses=_problems(503))
async def health(service: Using) -> Health:
    """Whether the server answers; 503 while it shuts down. Needs no API key."""
    if service.gate.closing:
        raise service.gate.turned_away("the server is shutting down")
    return Health(status="ok")


@_guarded.get("/metadata")
async def metadata(service: Using) -> Metadata:
    """The bundle's papers: model, classes, preprocessing, metrics; and what this server accepts."""
    papers = service.bundle.metadata
    return Metadata(
        lenext=importlib.metadata.version("lenext"),
        model=papers["model"],
        classes=service.bundle.classes,
        preprocess=papers["preprocess"],
        metrics=papers["metrics"],
        fingerprint=papers["fingerprint"],
        abstain=service.abstain,
        engine=service.engine,
        limits=dataclasses.asdict(service.limits),
    )


@_guarded.get("/metrics", response_class=_Text)
async def metrics(service: Using) -> Response:
    """Counts and times, in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@_guarded.post("/predict", response_model=Answer, responses=_problems(408, 413, 415, 422, 503, 504),
               openapi_extra=body.DESCRIPTION)  # fmt: skip
async def predict(request: Request, service: Using) -> Response:
    """What is on pictures: the class, and how sure the model is.

    One or many files in a form, whatever their fields are called, or JSON. A picture that cannot be read has an `error`
    in its prediction; where none can be read, the status is 422. Where the model does not know, `label` is null and
    `abstained` is true.
    """
    with service.gate.enter() as visit:
        pictures = await _within(service.limits.seconds, 408, body.read(request, visit, service.limits))
        waiting = [asyncio.wrap_future(service.judge.answer(picture)) for picture in pictures]
        predictions = await _within(service.limits.seconds, 504, asyncio.gather(*waiting))
    for prediction in predictions:
        service.metrics.picture("unreadable" if prediction.error else "abstained" if prediction.abstained else "judged")
    if all(prediction.error for prediction in predictions):
        raise HTTPException(422, "; ".join(f"{prediction.path}: {prediction.error}" for prediction in predictions))
    return JSONResponse({"classes": service.bundle.classes, "predictions": [vars(one) for one in predictions]})


@_guarded.post("/explain", response_class=_Png, responses=_problems(408, 413, 415, 422, 503, 504),
               openapi_extra=body.DESCRIPTION)  # fmt: skip
async def explain(
    request: Request,
    service: Using,
    label: Annotated[str | None, Query(description="The class to explain; otherwise the likeliest.")] = None,
) -> Response:
    """Where the model looked: the picture as the model sees it, what spoke for a class in colour. Takes one picture."""
    with service.gate.enter() as visit:
        pictures = await _within(service.limits.seconds, 408, body.read(request, visit, service.limits))
        if len(pictures) != 1:
            raise HTTPException(422, f"given {len(pictures)} pictures, accepted: one")
        future = asyncio.wrap_future(service.judge.explain(pictures[0], label))
        return _Png(await _within(service.limits.seconds, 504, future))


async def _within(seconds: float, status: int, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled after so many seconds. Raises HTTPException with `status` then."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise HTTPException(status, f"{_PROBLEMS[status].lower()}; accepted: up to {seconds:g} s") from error


class _Surroundings:
    """What every answer has: headers, its place in the metrics, and JSON where an error of ours was met."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
            await send(message)

        try:
            await self._app(scope, receive, send_more)
        except Exception:
            logging.getLogger("uvicorn.error").exception("internal error")
            if not status:
                await _problem(500, "internal error, please report it")(scope, receive, send_more)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.request(path, status, time.perf_counter() - start)


def _problem(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": error, "status": status}, status, headers)


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _problem(error.status_code, error.detail, error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _problem(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


async def _unusable(_: Request, error: Exception) -> Response:
    return _problem(422, str(error))


async def _gone(_: Request, __: Exception) -> Response:
    return _problem(400, "the request was broken off")
