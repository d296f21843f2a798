"""Imported before all else by every stage: whose code it runs, and on how many threads its libraries start.

The package beside the script comes first, for the stage and for its children: a clone may have an environment that knows
another checkout, and a queued experiment runs in a copy of the repository with the environment of the original.

Thread pools read these variables when they are made, some of them at import. One thread each, whatever the caller says:
the order of a sum depends on it. torch gets its own number later, from engine.threads.

Python's collector looks for garbage among all that is imported, where there is none, for an eighth of the imports' time
when it looks as often as it would.

The import has no name that is used, hence its noqa, and a section of its own before the standard library's
(pyproject.toml), hence its place.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parents[1] / "src")
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
NEW_OBJECTS = 10_000  # before it looks among them

sys.path.insert(0, SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")]))
os.environ.update(dict.fromkeys(POOLS, "1"))
gc.set_threshold(NEW_OBJECTS)
