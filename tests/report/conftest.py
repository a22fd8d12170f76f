"""A real browser for the few tests that need one."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=3000",
)


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """Return a function: page text, address hash -> the document after its script has run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the page's script cannot be run")

    def run(page: str, address: str = "") -> str:
        path = tmp_path / "report.html"
        path.write_text(page, encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [
            browser,
            *_FLAGS,
            profile,
            "--window-size=1400,1000",
            "--dump-dom",
            f"{path.as_uri()}#{address}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    return run
