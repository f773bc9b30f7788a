"""A headless Chromium, spoken to as its own developer tools do."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "background-networking component-update sync quic gpu default-apps extensions dev-shm-usage".split()


class Page:
    """One tab; what it is told is JavaScript, and keys as a person would press them."""

    def __init__(self, socket):
        self.socket, self.count = socket, 0

    def call(self, method: str, **params):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv(timeout=180))).get("id") != self.count:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def js(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 180) -> None:
        """Until it is truthy."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never: {expression}\n{self.js('document.body.innerText')}"
            time.sleep(0.05)

    def click(self, label: str) -> None:
        """The button with that text, as soon as it can be pressed."""
        found = f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() == {label!r})"
        self.wait(f"{found} && !{found}.disabled")
        self.js(f"{found}.click()")

    def type(self, selector: str, text: str) -> None:
        """In place of what stands there; again, if the page was still being laid out and lost it."""
        found, end = f"document.querySelector({selector!r})", time.monotonic() + 180
        while self.js(f"{found}?.value") != text:
            assert time.monotonic() < end, f"{selector} takes no text"
            self.wait(f"{found} && !{found}.disabled && ({found}.focus(), {found}.select(), true)")
            self.call("Input.insertText", text=text)
        self.js("document.activeElement.blur()")

    def screenshot(self, file: Path, width: int, height: int, mobile: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        time.sleep(1)  # until the page has laid itself out anew
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Page]:
    """The page, 1280 wide; downloads go to `folder`, where the browser keeps its own things too."""
    own = folder / "profile"
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
    options = ["--headless", *root, "--remote-debugging-port=0", f"--user-data-dir={own}", "--no-first-run"]
    options += [f"--disable-{name}" for name in QUIET]
    browser = subprocess.Popen([CHROMIUM, *options, "about:blank"], stderr=subprocess.DEVNULL)
    try:
        port = _port(own / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tab = next(each for each in json.load(answer) if each["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            page = Page(socket)
            page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
            size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            page.call("Emulation.setDeviceMetricsOverride", **size)
            page.call("Page.navigate", url=url)
            yield page
    finally:
        browser.terminate()
        browser.wait(30)


def _port(file: Path, seconds: float = 180) -> int:
    """Where it listens; it writes that when it is ready."""
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text().count("\n")):
        assert time.monotonic() < end, "the browser does not start"
        time.sleep(0.05)
    return int(file.read_text().split()[0])
