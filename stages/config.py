"""Guards the settings: params.yaml must be what conf/ composes to, every value and every input fit for use.

python stages/config.py              stops with what differs, and the command that mends it
python stages/config.py --write      writes params.yaml anew from conf/
python stages/config.py --keep NAME  saves what params.yaml has of its own as conf/experiment/NAME.yaml
python stages/config.py --keep NAME --of sweeps/ppo/<time>/3   the same of a job of a sweep, or of a direct run
"""

from __future__ import annotations

import _checkout  # noqa: F401

import argparse
import sys
from pathlib import Path

from rlhf.runtime import guard, processes

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: argparse.Namespace) -> int:
    """Checks, writes or keeps; the output is one line that never changes, so that no stage after it goes stale."""
    if arguments.keep:
        print(f"wrote {guard.keep(ROOT, arguments.keep, arguments.of).relative_to(ROOT)}")
    elif arguments.write:
        guard.write(ROOT)
        print("wrote params.yaml")
    else:
        print(guard.check(ROOT))
        output = ROOT / "artifacts" / "config" / "guard.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("The settings are checked.\n", encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help="write params.yaml from conf/")
    choice.add_argument("--keep", metavar="NAME", help="save the settings of params.yaml as conf/experiment/NAME.yaml")
    parser.add_argument(
        "--of", metavar="DIR", type=Path, help="with --keep: of the run or the job of a sweep in this folder"
    )
    found = parser.parse_args()
    if found.of and not found.keep:
        parser.error("--of says whose settings --keep NAME saves")
    return found


if __name__ == "__main__":
    sys.exit(processes.attempt("config", lambda: main(parse())))
