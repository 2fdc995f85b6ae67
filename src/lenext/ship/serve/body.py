"""The pictures in a request: the files of a form, or JSON. What is too large is refused as soon as it shows."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lenext.ship.serve.gate import Visit
from lenext.ship.serve.limits import Limits


@dataclass(frozen=True)
class Picture:
    """A file as it was sent, and what it was called."""

    name: str
    content: bytes


class Pictures(BaseModel):
    """Pictures as JSON."""

    model_config = ConfigDict(extra="forbid")
    images: list[str] = Field(min_length=1, description="Picture files in base64, as they are or as data: URLs.")


# What of the description FastAPI cannot see, as the body is read by hand
DESCRIPTION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                },
            },
            "application/json": {"schema": Pictures.model_json_schema()},
        },
    },
}


async def read(request: Request, visit: Visit, limits: Limits) -> list[Picture]:
    """The pictures of `request`, in order; `visit` has a place for each of them.

    Raises HTTPException: 413 for what is too large or too many, 415 for another kind of content, 422 for what is not
    what it says it is, 503 where there is no room for it now.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    chunks = _chunks(request, visit, limits)
    if kind == b"multipart/form-data":
        pictures = await _from_form(chunks, parameters.get(b"boundary", b""), limits)
    elif kind == b"application/json":
        body = b"".join([chunk async for chunk in chunks])
        pictures = await asyncio.to_thread(_from_json, body, limits)
    else:
        raise HTTPException(
            415, f"content type: given {kind.decode('latin-1')!r}, accepted: multipart/form-data, application/json"
        )
    visit.take(pictures=len(pictures) - 1)
    return pictures


async def _chunks(request: Request, visit: Visit, limits: Limits) -> AsyncIterator[bytes]:
    """The body as it comes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.request_bytes:
        raise _too_large("a request", limits.request_bytes)
    async for chunk in request.stream():
        visit.take(size=len(chunk))
        if visit.bytes > limits.request_bytes:
            raise _too_large("a request", limits.request_bytes)
        yield chunk


async def _from_form(chunks: AsyncIterator[bytes], boundary: bytes, limits: Limits) -> list[Picture]:
    form = _Form(limits)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_header_field": form.header_name,
                "on_header_value": form.header_value,
                "on_header_end": form.end_header,
                "on_part_data": form.data,
                "on_part_end": form.end,
                "on_end": form.close,
            },
        )
        async for chunk in chunks:
            parser.write(chunk)
    except FormParserError as error:
        raise HTTPException(422, f"not multipart/form-data as its header says: {error}") from error
    if not form.closed:
        raise HTTPException(422, "multipart/form-data without its end")
    if not form.pictures:
        raise HTTPException(422, "no picture; accepted: one or more files")
    return form.pictures


class _Form:
    """The parts of a form, gathered while it is parsed. Each is a picture, whatever its field is called."""

    def __init__(self, limits: Limits) -> None:
        self.pictures: list[Picture] = []
        self.closed = False
        self._limits = limits

    def begin(self) -> None:
        if len(self.pictures) == self._limits.queue:
            raise _too_many(self._limits)
        self._content, self._disposition = bytearray(), b""
        self._name, self._value = bytearray(), bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if len(self._content) > self._limits.file_bytes:
            raise _too_large("a file", self._limits.file_bytes)

    def end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename") or options.get(b"name") or b""
        self.pictures.append(Picture(name.decode("utf-8", "replace"), bytes(self._content)))

    def close(self) -> None:
        self.closed = True


def _from_json(body: bytes, limits: Limits) -> list[Picture]:
    try:
        images = Pictures.model_validate_json(body).images
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise HTTPException(422, f"{place + ': ' if place else ''}{first['msg']}") from error
    if len(images) > limits.queue:
        raise _too_many(limits)
    return [_decoded(f"images[{number}]", image, limits) for number, image in enumerate(images)]


def _decoded(name: str, image: str, limits: Limits) -> Picture:
    if image.startswith("data:"):
        image = image.partition(";base64,")[2]
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, f"{name}: not base64: {error}") from error
    if len(content) > limits.file_bytes:
        raise _too_large(name, limits.file_bytes)
    return Picture(name, content)


def _too_large(what: str, limit: int) -> HTTPException:
    return HTTPException(413, f"{what} is too large; accepted: up to {limit:,} bytes")


def _too_many(limits: Limits) -> HTTPException:
    return HTTPException(413, f"too many pictures; accepted: up to {limits.queue} in a request")
