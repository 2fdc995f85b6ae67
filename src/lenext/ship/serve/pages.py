"""The page for people and the description of the interface, each whole: nothing is fetched from elsewhere."""

import importlib.resources
from typing import Any

import jinja2
from fastapi import FastAPI, Request, Response

from lenext.ship.bundle import Bundle
from lenext.ship.serve.limits import Limits


def add(app: FastAPI, bundle: Bundle, limits: Limits, *, needs_key: bool, abstain: float | None) -> None:
    """Adds ``/``, ``/docs`` and what they consist of."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("lenext.ship.serve", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = templates.get_template("page.html.j2").render(
        bundle=bundle, metadata=bundle.metadata, limits=limits, needs_key=needs_key, abstain=abstain
    )
    files = importlib.resources.files("lenext")
    # The look of the reports: a file of theirs, no code
    style = files.joinpath("report/style.css").read_text() + files.joinpath("ship/serve/page.css").read_text()
    script = files.joinpath("ship/serve/page.js").read_text()
    _add(app, "/", page, "text/html")
    _add(app, "/page.css", style, "text/css")
    _add(app, "/page.js", script, "text/javascript")

    async def docs(request: Request) -> Response:
        described: dict[str, Any] = app.openapi()
        text = templates.get_template("docs.html.j2").render(api=described, base=request.base_url, limits=limits)
        return Response(text, media_type="text/html")

    app.add_api_route("/docs", docs, include_in_schema=False)


def _add(app: FastAPI, path: str, content: str, media_type: str) -> None:
    async def get() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    app.add_api_route(path, get, include_in_schema=False)
