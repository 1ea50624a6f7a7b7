"""A JupyterLab on the loopback interface and a page of a real browser in it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def chromium() -> str | None:
    """The system's Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@dataclass
class Lab:
    """A running server.

    Attributes:
        url: with a slash at its end.
        token: that a page has to give.
    """

    url: str
    token: str

    def address(self, notebook: str) -> str:
        """Where a notebook of the server's folder opens, in a fresh workspace."""
        return f"{self.url}lab/workspaces/{secrets.token_hex(4)}/tree/{notebook}?token={self.token}"


@contextmanager
def serve(folder: Path, dark: bool = False) -> Iterator[Lab]:
    """Run JupyterLab on a folder, on 127.0.0.1 with a token; it is stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, home = secrets.token_hex(16), folder / ".jupyter"
    _write_settings(home / "settings", dark)
    variables = {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            lab = Lab(f"http://127.0.0.1:{port}/", token)
            _wait_for(lab, server, home / "server.log")
            yield lab
        finally:
            server.terminate()
            server.wait(30)


def _write_settings(folder: Path, dark: bool) -> None:
    theme = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
    for name, values in {**_SETTINGS, "apputils-extension/themes": theme}.items():
        file = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")


def _wait_for(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{lab.url}api?token={lab.token}", timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-2000:]}")


@dataclass
class Page:
    """A page, and what went wrong in it.

    Attributes:
        page: Playwright's.
        errors: of the console and of scripts.
        outside: addresses on other machines that were asked for.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@contextmanager
def browse(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """A page of the system's Chromium.

    Raises:
        RuntimeError: there is none.
    """
    from playwright.sync_api import sync_playwright

    executable = chromium()
    if executable is None:
        raise RuntimeError("no Chromium is installed.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        found = Page(page)
        page.on("console", lambda m: found.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda request: _note_outside(found, request.url))
        try:
            yield found
        finally:
            browser.close()


def _note_outside(found: Page, url: str) -> None:
    local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:", "about:")
    if not url.startswith(local):
        found.outside.append(url)


def open_notebook(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook and wait until its kernel is idle."""
    page.page.goto(lab.address(name))
    page.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.page.wait_for_selector("#jp-main-statusbar >> text=/\\| Idle/", timeout=60_000)


def run_all(page: Page, timeout_seconds: float = 180) -> None:
    """Run all cells and wait until none is waiting or running."""
    page.page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    page.page.wait_for_function(
        "() => { const p = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
        ".map(e => e.textContent); return p.length && p.every(t => /\\[\\d+\\]/.test(t)); }",
        timeout=1000 * timeout_seconds,
    )
