"""`lenext pack`."""

import shlex
from pathlib import Path
from typing import Literal

from lenext.cli.console import Output, console, print_json


def pack(
    data: str,
    /,
    *,
    out: Path,
    encoding: Literal["keep", "jpeg", "raw"] = "keep",
    side: int | None = None,
    quality: int | None = None,
    max_bad: float = 0.1,
    output: Output = Output(),
) -> None:
    """Put images too many or too large for memory into a few large files, each checked on the way.

    Example: lenext pack pictures/ --out pictures.pack --encoding raw --side 256

    Parameters
    ----------
    data
        A name, a folder of class folders, a manifest, or tar shards.
    out
        The pack's folder; a pack that was stopped is continued.
    encoding
        keep the files as they are, encode them anew as jpeg, or store raw pixels.
    side
        Pixels that the shorter side is reduced to, with jpeg and raw; otherwise 256.
    quality
        Of jpeg, 1 to 100; otherwise 90.
    max_bad
        Share of files that cannot be used beyond which packing stops.
    """
    from lenext.cli.progress import Shown
    from lenext.data.pack import pack as put
    from lenext.report.text import plural, size

    with Shown() as observer:
        note = put(data, out, encoding=encoding, side=side, quality=quality, max_bad=max_bad, progress=observer.reading)
    if output.json:
        print_json({"pack": str(out), **note})
        return
    images, classes = plural(note["images"], "image"), plural(len(note["classes"]), "class", "classes")
    lines = [f"{out}: {images} in {classes}, {size(note['bytes'])} in {plural(len(note['parts']), 'part')}"]
    lines += [f"left out: {one['path']}: {one['problem']}" for one in note["left_out"]]
    lines.append(f"next    lenext train {shlex.quote(str(out))}")
    console().print("\n".join(lines), soft_wrap=True)
