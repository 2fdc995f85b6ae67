"""The program that comes with an export: it prepares pictures and asks the model, without lenext, in a page.

It does what this one model needs: whoever writes it anew in another language has nothing to read past.
"""

import functools
import importlib.util
import uuid
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Literal

import jinja2

from lenext.data import Preprocess
from lenext.ship.engines import on_a_thread

Format = Literal["onnx", "openvino", "torch"]

FILE = "predict.py"
_IMPORTED: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def write_client(folder: Path, to: Format, settings: Preprocess) -> None:
    """Writes predict.py into the folder of an export, for pictures as `settings` has them."""
    templates = jinja2.Environment(
        autoescape=False,  # noqa: S701 - a program, of numbers and names that were checked when the bundle was read
        loader=jinja2.PackageLoader("lenext.ship", "."),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    text = templates.get_template("client.py.j2").render(
        asdict(settings),
        to=to,
        library=_IMPORTED[to],
        mode="L" if settings.channels == 1 else "RGB",
        method=f"Image.Resampling.{settings.interpolation.upper()}",
    )
    (folder / FILE).write_text(text, encoding="utf-8")


def read_client(folder: Path) -> ModuleType:
    """The client of the export in that folder, as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"lenext_client_{uuid.uuid4().hex}", folder / FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    on_a_thread(functools.partial(spec.loader.exec_module, module))
    return module
