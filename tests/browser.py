"""Chromium without a window, driven over its debugging pipe: no driver, no package, real input.

The browser's protocol (https://chromedevtools.github.io/devtools-protocol) is JSON ended by a zero
byte, on file descriptors 3 and 4 of the browser.

    python tests/browser.py runs/joint/report.html FOLDER    # pictures of a report, to look at
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 60.0
BECOME = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str:
    """The browser's path. Without one a test fails in CI and is skipped elsewhere."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no Chromium here: apt-get install chromium"
        )
    return found


class Page:
    """One page of a browser of its own. `troubles` collects errors, `requests` what it loads."""

    def __init__(self, width: int = 1280, height: int = 900):
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        pipes = os.pipe(), os.pipe()
        # Out of the way of 3 and 4, which the browser's ends become in the process of its own.
        (to_browser, self._out), (self._in, from_browser) = (
            tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipe) for pipe in pipes
        )
        for end in (*pipes[0], *pipes[1]):
            os.close(end)
        self._process = subprocess.Popen(
            [sys.executable, "-c", BECOME, str(to_browser), str(from_browser), find_browser()]
            + ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            + ["--remote-debugging-pipe", f"--user-data-dir={self._home.name}", "--hide-scrollbars"]
            + ["--disable-background-networking", "--no-first-run", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._count, self._session = b"", 0, None
        self.troubles: list[str] = []
        self.requests: list[str] = []
        target = next(
            t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_S)
        os.close(self._out)
        os.close(self._in)
        self._home.cleanup()

    def call(self, method: str, **parameters: Any) -> dict:
        """A command of the protocol; returns its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self.call("Page.navigate", url=Path(path).absolute().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def resize(self, width: int, height: int, scale: float = 1, mobile: bool = False) -> None:
        """The size of the page in CSS pixels; `mobile` is a phone's viewport."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=mobile,
        )  # fmt: skip

    def dark(self, on: bool = True) -> None:
        """Whether the reader prefers a dark scheme."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Until two frames were drawn."""
        self.run("new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(f)))")

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        codes |= {"PageUp": 33, "PageDown": 34, " ": 32, "Tab": 9}
        same = {"key": key, "code": "Space" if key == " " else key}
        same |= {"windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **same)
        if key == " ":
            self.call("Input.dispatchKeyEvent", type="char", text=" ")
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)
        self.settle()

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, move it over the others and let go."""
        x, y = places[0]
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **held)
        for x, y in places[1:]:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **held)
        self.call(
            "Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **held | {"buttons": 0}
        )
        self.settle()

    def click(self, selector: str) -> None:
        """The middle of an element, scrolled to first."""
        self.drag(self.place(selector))

    def place(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """A position within an element, given as shares of its sides, in CSS pixels."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f"return [b.x, b.y, b.width, b.height] }})(document.querySelector({selector!r}))"
        )
        return box[0] + across * box[2], box[1] + down * box[3]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What is seen as a PNG; `whole`: all of the page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser is gone"
            self._rest += piece
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.troubles.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.troubles.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded":
            self.troubles.append(json.dumps(parameters["entry"]))


def photograph(report: Path, folder: Path) -> None:
    """The whole page on a desktop, dark too, and on a phone; the case browser by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    with Page() as page:
        page.open(report)
        page.wait(
            "!document.getElementById('browser') || document.querySelectorAll('canvas').length"
        )
        page.settle()
        page.screenshot(folder / "desktop.png", whole=True)
        page.run("document.getElementById('browser')?.scrollIntoView()")
        page.settle()
        page.screenshot(folder / "browser.png")
        page.dark()
        page.settle()
        page.screenshot(folder / "dark.png", whole=True)
        page.dark(False)
        page.resize(390, 844, scale=2, mobile=True)
        page.settle()
        page.screenshot(folder / "phone.png", whole=True)


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), Path(sys.argv[2]))
