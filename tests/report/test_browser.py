"""The page in a real browser: nothing is wider than a phone, nor cut on a screen, and nothing goes wrong."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.commands.report import main

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0",
]  # fmt: skip
# A window cannot be as narrow as a phone everywhere; a frame can, and has the page's own media queries.
MEASURE = """<!doctype html><body><iframe id="phone" style="width:390px;height:800px;border:0" srcdoc="PAGE"></iframe>
<iframe id="screen" style="width:1300px;height:800px;border:0" srcdoc="PAGE"></iframe>
<pre id="found"></pre><script>
onload = () => {
  const page = document.getElementById("phone").contentDocument;
  const wide = [...page.querySelectorAll("body *")].filter(
    each => !each.closest("table, svg") && each.getBoundingClientRect().right > 390.5).map(each => each.tagName);
  const flat = [...page.querySelectorAll("svg")].filter(
    each => each.getBoundingClientRect().width < 300 || each.getBoundingClientRect().height < 60);
  const screen = document.getElementById("screen").contentDocument;
  const cut = [...screen.querySelectorAll(".two .scroll, .beside .scroll")].filter(
    each => each.scrollWidth > each.clientWidth);
  const widths = new Set([...screen.querySelectorAll("svg")].map(
    each => Math.round(100 * each.getBoundingClientRect().width / each.viewBox.baseVal.width)));
  document.getElementById("found").textContent = JSON.stringify([page.documentElement.scrollWidth, wide.join(" "),
    flat.length, page.querySelectorAll("svg").length, cut.length, widths.size]);
}</script>"""


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document after its scripts, and what the browser's console says."""
    assert BROWSER is not None
    command = [BROWSER, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium: the page was not looked at in a browser")
def test_it_fits_a_phone_and_the_console_stays_empty(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", "selfish", 1, 90.0)
    make_run(tmp_path / "runs" / "b", "a_method_with_a_name_that_is_long_and_has_no_place_to_break" * 2, 1, 95.0)
    make_run(tmp_path / "runs" / "c", "selfish", 1, 99.0, sparsity=0.9)
    main([str(tmp_path / "runs"), "--output", str(tmp_path)])
    page = tmp_path / "report.html"
    shown, console = browse(page, tmp_path / "profile")
    assert console == []
    assert "Lowest test perplexity on ptb: 90.00" in shown
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.replace("PAGE", html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    shown, console = browse(frame, tmp_path / "profile")
    assert console == []
    found = re.search(r'<pre id="found">\[(\d+),"(.*?)",(\d+),(\d+),(\d+),(\d+)\]</pre>', shown)
    assert found is not None
    assert int(found[1]) <= 390
    assert found[2] == ""
    assert int(found[3]) == 0
    assert int(found[4]) > 8
    assert int(found[5]) == 0  # tables that share a line are not cut
    assert int(found[6]) == 1  # texts have one size in all figures
