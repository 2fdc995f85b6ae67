"""`lenext check`."""

from lenext.cli.console import Output, console, print_json


def check(data: str, /, *, output: Output = Output()) -> None:
    """Look at the images before anything else: what cannot be used, what is odd, what would leak.

    Example: lenext check pictures/

    Parameters
    ----------
    data
        A name (digits, fashion-mnist), a folder of class folders, or a CSV or Parquet manifest.
    """
    raise NotImplementedError
