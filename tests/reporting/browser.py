"""A headless Chromium that tests look at pages with, driven over a pipe by its own protocol; needs
no other package.

https://chromedevtools.github.io/devtools-protocol/, with `--remote-debugging-pipe`: JSON messages
that end in a zero byte, read by the browser from descriptor 3 and written to 4. What is evaluated
runs past the page's content policy, so a test can look at a page that allows no script but its own.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

SECONDS = 60  # for any answer; a browser on a busy machine is slow to start


def executable():
  """Path of a Chromium or Chrome; None where there is none."""
  names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
  return next((path for path in map(shutil.which, names) if path), None)


class Page:
  """One page of a browser that runs."""

  def __init__(self, process, reads, writes):
    self._process, self._reads, self._writes = process, reads, writes
    self._buffer, self._events, self._count, self._session = b"", [], 0, None
    target = self.send("Target.createTarget", url="about:blank")["targetId"]
    attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
    self._session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
      self.send(f"{domain}.enable")

  def send(self, method, **params):
    """Returns the answer to a command."""
    self._count += 1
    message = {"id": self._count, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._writes, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._receive()
      if answer.get("id") == self._count:
        assert "error" not in answer, answer
        return answer["result"]
      self._events.append(answer)

  def _receive(self):
    end = time.monotonic() + SECONDS
    while b"\0" not in self._buffer:
      ready, _, _ = select.select([self._reads], [], [], max(0, end - time.monotonic()))
      piece = os.read(self._reads, 1 << 20) if ready else b""
      assert piece, f"the browser gave no answer in {SECONDS} s, or has ended"
      self._buffer += piece
    message, _, self._buffer = self._buffer.partition(b"\0")
    return json.loads(message)

  def open(self, path, *, width=1280, height=900, dark=False, scripts=True, fragment=""):
    """Opens a file as a window of this size shows it, and waits until it is loaded; old events are
    forgotten."""
    self.send(
      "Emulation.setDeviceMetricsOverride",
      **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self.send("Emulation.setEmulatedMedia", features=[scheme])
    self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
    # From an empty page, so that a new fragment of the same file is a new load.
    for url in ("about:blank", path.as_uri() + fragment):
      self._events.clear()
      self.send("Page.navigate", url=url)
      while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
        self._events.append(self._receive())

  def evaluate(self, expression):
    """Returns the value of a JavaScript expression, which must be JSON."""
    answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    return answer["result"].get("value")

  def press(self, key, text=""):
    """Presses and releases a key, such as `Tab`."""
    codes = {"Tab": 9, "Enter": 13}
    at = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
    self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **at)
    self.send("Input.dispatchKeyEvent", type="keyUp", **at)

  def complaints(self):
    """What the browser logged since the page was opened: errors, refusals of its policy,
    exceptions."""
    self.evaluate("0")  # whatever was logged before is here when this is answered
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [event for event in self._events if event.get("method") in kinds]

  def requests(self):
    """The addresses that were asked for since the page was opened, without pictures within it."""
    sent = [e["params"] for e in self._events if e.get("method") == "Network.requestWillBeSent"]
    urls = [each["request"]["url"] for each in sent]
    return [url for url in urls if not url.startswith("data:image/")]

  def screenshot(self, whole=False):
    """Returns a PNG file of what the window shows, or of the whole page."""
    answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
    return base64.b64decode(answer["data"])


@contextlib.contextmanager
def started(folder):
  """A page of a new browser, which keeps its files in `folder`; both end with the context."""
  theirs_in, ours_out = os.pipe()
  ours_in, theirs_out = os.pipe()
  # Above 9, so that neither is in the way of the shell when it makes them 3 and 4.
  inherited = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
  command = [
    *("bash", "-c", f'exec "$@" 3<&{inherited[0]} 4>&{inherited[1]}', "bash", executable()),
    *(
      "--headless",
      "--remote-debugging-pipe",
      "--disable-gpu",
      "--no-first-run",
      "--hide-scrollbars",
    ),
    *("--disable-dev-shm-usage", "--disable-background-networking", f"--user-data-dir={folder}"),
    # As root, as in a container, Chromium has no sandbox; the pages are our own.
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
  ]
  process = subprocess.Popen(
    command, pass_fds=inherited, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  for fd in (theirs_in, theirs_out, *inherited):
    os.close(fd)
  try:
    yield Page(process, ours_in, ours_out)
  finally:
    process.terminate()
    process.wait(timeout=SECONDS)
    os.close(ours_in)
    os.close(ours_out)
