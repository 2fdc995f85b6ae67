"""What the tests share: real images, prepared once, one small trained run, and one browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from lenext.data import Dataset, prepare
from lenext.run import Result, train
from lenext.spec import Data
from tuxpaint import STAMPS

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return prepare(Data("digits"))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """LeNet-ReLU after a few epochs on digits: good enough to be right mostly."""
    return train("digits", model="lenet_relu", epochs=12, out=tmp_path_factory.mktemp("runs") / "lenet_relu")


@pytest.fixture(scope="session")
def svm_run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train("digits", model="svm_linear", out=tmp_path_factory.mktemp("runs") / "svm")


@pytest.fixture(scope="session")
def stamps() -> Path:
    """Debian's tuxpaint-stamps-default: colour pictures in category folders, many with alpha."""
    if not STAMPS.is_dir():
        pytest.skip("needs Debian's package tuxpaint-stamps-default")
    return STAMPS


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists() and not os.environ.get("CI"):
        pytest.skip("no Chromium at /usr/bin/chromium; apt-get install chromium")
    flags = (
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in flags])
        yield browser
        browser.close()
