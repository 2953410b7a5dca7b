"""Everything that is open for want of a GPU, checked and measured by one command in at most eight minutes.

    python -m benchmarks.gpu_check                            # on a GPU; writes gpu_check.json
    python -m benchmarks.gpu_check --root FOLDER --json FILE  # with the Penn Treebank for the epochs
    python -m benchmarks.gpu_check --only steps dropout
    python -m benchmarks.gpu_check --dry                      # on a CPU, at toy size, to see that it runs

Each part runs in a process of its own with a time of its own, so that none can take the others along, and what there is
stands in the file as soon as a part ends. What each part does, `benchmarks/gpu_parts.py` says. At the end stand the
figures beside what was asked for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.epoch_seconds import usual
from benchmarks.gpu_parts import PARTS, ROOT, Place
from benchmarks.machine import machine, versions
from lightning_sparse_rnn.commands.plain_errors import interruptible

__all__ = ["main", "verdicts"]

_RESULT = "RESULT "


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry", action="store_true", help="on the CPU, at toy size")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="some parts")
    parser.add_argument("--root", help="folder of the Penn Treebank (default: random text of its size)")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all parts together (default: 480)")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="where the results go")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        raise SystemExit("python -m benchmarks.gpu_check: torch sees no GPU here. Give --dry to see that it runs.")
    place = Place(given.dry, given.root, given.seconds)
    if given.part is not None:
        torch.manual_seed(0)
        print(_RESULT + json.dumps(PARTS[given.part][0](place)), flush=True)
        return
    result = {"machine": machine(place.setting.device, torch.get_num_threads()), "versions": versions()}
    result |= {"dry": given.dry, "size": asdict(place.setting.size), "parts": {}}
    began = time.monotonic()
    for name in given.only:
        left = given.seconds - (time.monotonic() - began)
        result["parts"][name] = found = run_part(name, given, min(left, PARTS[name][1]))
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name} ({time.monotonic() - began:.0f} s): {json.dumps(found)}", flush=True)
    said = ["A dry run: it runs, and its figures say nothing of a GPU."] if given.dry else verdicts(result["parts"])
    print("\n".join(said))


def run_part(name: str, given: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run one part in another process; what went wrong is part of the answer."""
    if seconds < 5:
        return {"error": "no time was left"}
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--part", name, "--seconds", str(seconds)]
    command += ["--dry"] if given.dry else []
    command += ["--root", given.root] if given.root else []
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        results = [line for line in ended.stdout.splitlines() if line.startswith(_RESULT)]
        if results:
            found: dict[str, Any] = json.loads(results[-1].removeprefix(_RESULT))
            return found
        return {"error": ended.stderr[-3000:], "said": ended.stdout[-3000:]}
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return {
            "error": f"took more than {seconds:.0f} s",
            "said": (said.decode() if isinstance(said, bytes) else said)[-3000:],
        }
    except Exception:
        return {"error": traceback.format_exc()[-3000:]}


def verdicts(parts: dict[str, Any]) -> list[str]:
    """Each figure that was asked for, with what was found, or that it is still open."""
    fused = "recorded, fused cells"
    steps, over = _at(parts, "steps", "milliseconds"), _at(parts, "steps", "over_dense")
    epochs = [_at(parts, "epochs", side, "seconds") for side in ("fused cells", "cuDNN")]
    seconds = [usual(each) for each in epochs if each]
    compact = _at(parts, "epochs", "compact checkpoints", "seconds")
    networks = parts.get("networks", {})
    slower = [_at(networks, name, "recorded_over_before") for name in ("highway", "ordered")]
    ratios = [_at(networks, name, "evaluation_over_training") for name in networks]
    asked = [
        ("a training step, ms", 5.0, min((steps or {}).get(side, 1e9) for side in ("recorded, cuDNN", fused))),
        ("ours over a dense loop", 0.75, min((over or {}).get(side, 1e9) for side in ("recorded, cuDNN", fused))),
        ("an epoch, s", 7.0, min(seconds, default=1e9)),
        ("RHN and ON-LSTM over their recurrences recorded alone", 1.0, max((r or 1e9 for r in slower), default=1e9)),
        ("evaluation over training, the largest", 0.5, max((r or 1e9 for r in ratios), default=1e9)),
    ]
    lines = [
        f"{what}: {found:.3g}, asked for at most {limit} ({'reached' if found <= limit else 'NOT reached'})"
        if found < 1e9
        else f"{what}: open (at most {limit} is asked for)"
        for what, limit, found in asked
    ]
    if steps and "recorded, cuDNN" in steps and fused in steps:
        better = "fused cells" if steps[fused] < steps["recorded, cuDNN"] else "cuDNN"
        lines.append(f"faster at this size: {better}; fused cells are chosen by `model.network.fused_cells=true`")
    best = [milliseconds for side, milliseconds in (steps or {}).items() if side.startswith("best recipe")]
    lines.append(f"a training step of the best recipe, ms: {_or_open(min(best, default=None))}")
    over = usual(compact) / usual(epochs[0]) if compact and epochs[0] else None
    lines.append(f"an epoch with compact checkpoints over one with dense ones: {_or_open(over)}")
    dropout = parts.get("dropout", {})
    for name, what in (("ours_fresh", "our dropout"), ("cudnn_fresh", "cuDNN's dropout between layers")):
        said = {True: "anew at each replay", False: "NOT anew at each replay", None: "open"}[dropout.get(name)]
        lines.append(f"{what} is drawn: {said}")
    rc = _at(parts, "tests", "rc")
    lines.append(f"tests: {'open' if rc is None else 'pass' if rc == 0 else 'FAIL'}")
    return lines


def _or_open(found: float | None) -> str:
    return "open" if found is None else f"{found:.3g}"


def _at(found: Any, *names: str) -> Any:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


if __name__ == "__main__":
    with interruptible():
        main()
