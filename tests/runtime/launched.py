"""The environment of a process that a test starts several of."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "DS_ACCELERATOR")


def environment(extensions: Path) -> dict[str, str]:
    """Nothing said of ranks, and a place of its own for what DeepSpeed might want to build."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    ours = {"TORCH_EXTENSIONS_DIR": str(extensions), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return kept | ours | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
