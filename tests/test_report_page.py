"""The report in a real browser: it asks for nothing, and no part of it is wider than a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape
from pathlib import Path

import pytest

import peftselect
from peftselect.serving.report import report
from tests.test_run import arguments

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip
#: whom the browser asks by itself
ITS_MAKER = ("google.com", "googleapis.com", "gstatic.com", "gvt1.com")
#: a page with the report in a frame as wide as a phone (a window cannot be made that narrow), which says what it finds
FRAME = """<body><iframe id="phone" style="width: 390px; height: 800px; border: 0" srcdoc="{page}"></iframe><script>
onload = () => {{
  const phone = document.getElementById("phone"), page = phone.contentDocument
  const wide = [...page.querySelectorAll("body *")].filter(item =>
    item.getBoundingClientRect().right > 391 && !item.closest(".wide")).map(item => item.tagName)
  const boxes = [...page.querySelectorAll("figure")].map(figure => [...figure.querySelectorAll("text")]
    .map(text => text.getBoundingClientRect()).filter(box => box.width))
  const hidden = boxes.map(found => found.filter((a, i) => found.some((b, j) => i < j && a.left < b.right - 1
    && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)).length)
  const kept = [page.documentElement.scrollWidth, wide, hidden,
    phone.contentWindow.performance.getEntriesByType("resource").length]
  document.title = JSON.stringify(kept)
}}
</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def shown(page: str, folder: Path) -> tuple[int, list[str], list[int], list[str]]:
    """The page's width, what reaches beyond it, labels that lie on others by chart, and whom the page asks."""
    folder.mkdir()
    (folder / "frame.html").write_text(FRAME.format(page=escape(page)))
    log = folder / "net.json"
    assert CHROMIUM is not None
    own = [f"--user-data-dir={folder / 'browser'}", f"--log-net-log={log}", "--dump-dom"]
    command = [CHROMIUM, *FLAGS, *own, (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(.*?)</title>\s*</head>", done.stdout)
    assert found, done.stdout[-500:]
    width, wide, hidden, resources = json.loads(found[1])
    hosts = set(re.findall(r'"url":"(?:http|ws)s?://([^/"]+)', log.read_text()))
    asked = sorted(host for host in hosts if not host.endswith(ITS_MAKER))
    assert bool(resources) == bool(asked)
    return width, wide, hidden, asked


def test_the_report_is_readable_on_a_phone_and_asks_for_nothing(
    tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    order.pop("method")  # recommended: then the page shows every candidate
    page = report(peftselect.run(**order).output).read_text()
    width, wide, hidden, asked = shown(page, tmp_path / "page")
    assert (width, wide, asked) == (390, [], [])
    assert len(hidden) >= 4 and not any(hidden), "labels lie on one another"
    # the same questions of a page that is otherwise
    planted = '<p style="width: 700px">wide</p><img src="http://pictures.example/one.png">'
    width, wide, _, asked = shown(page.replace("</body>", f"{planted}</body>"), tmp_path / "planted")
    assert width > 390 and "P" in wide and asked == ["pictures.example"]
