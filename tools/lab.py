"""A notebook server on the loopback interface and a page of a real browser in it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
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
# The numbers of cells that have run; of others it is what compares as no number.
_PROMPTS = """[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
.map(e => e.textContent.replace(/[^0-9*]/g, ''))"""
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
    with _program(folder, "jupyterlab", ["--LabApp.extension_manager=readonly"], dark) as lab:
        yield lab


@contextmanager
def serve_notebook(folder: Path) -> Iterator[Lab]:
    """The same with Jupyter Notebook."""
    with _program(folder, "notebook", []) as lab:
        yield lab


@contextmanager
def serve_voila(path: Path) -> Iterator[Lab]:
    """The same with Voila, which shows this notebook alone."""
    # Voila cannot load what Notebook adds to JupyterLab, and says so in the console.
    denied = "--VoilaConfiguration.extension_denylist=@jupyter-notebook/lab-extension"
    with _program(path.parent, "voila", [path.name, denied]) as lab:
        yield lab


@contextmanager
def _program(
    folder: Path, module: str, arguments: Sequence[str], dark: bool = False
) -> Iterator[Lab]:
    """Run a module that serves notebooks; it is stopped at the end."""
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
    place = [f"--token={token}", "--Voila.ip=127.0.0.1"] if module == "voila" else [
        "--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    command = [sys.executable, "-m", module, "--no-browser", f"--port={port}", *place, *arguments]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **variables}, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            lab = Lab(f"http://127.0.0.1:{port}/", token)
            _wait_for(lab, server, home / "server.log")
            yield lab
        finally:
            _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        # Its kernels are stopped by then; at times a thread of AnyIO's is left that never ends.
        server.kill()
        server.wait()


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
        except urllib.error.HTTPError:
            # Voila has nothing at this address, and says so: it is there.
            return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError(f"The server did not start:\n{log.read_text(errors='replace')[-2000:]}")


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
def browse(
    width: int = 1280, height: int = 900, dark: bool = False, flags: Sequence[str] = ()
) -> Iterator[Page]:
    """A page of the system's Chromium; ``flags`` are given to it beside the usual ones.

    Raises:
        RuntimeError: there is none.
    """
    from playwright.sync_api import sync_playwright

    executable = chromium()
    if executable is None:
        raise RuntimeError("no Chromium is installed.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=[*CHROMIUM_FLAGS, *flags]
        )
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


def no_kernel(page: Page) -> None:
    """Wait for a notebook that says of no kernel, and leave it without one."""
    page.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.page.click(".jp-Dialog .jp-mod-reject", timeout=60_000)
    page.page.wait_for_selector(".jp-Dialog", state="detached")


def run_all(page: Page, timeout_seconds: float = 180) -> None:
    """Run all cells and wait until none is waiting or running."""
    before = page.page.evaluate(f"() => Math.max(0, ...({_PROMPTS}).map(t => parseInt(t) || 0))")
    page.page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    page.page.wait_for_function(
        f"(before) => {{ const p = {_PROMPTS}; return p.length && p.every(t => t > before); }}",
        arg=before,
        timeout=1000 * timeout_seconds,
    )
