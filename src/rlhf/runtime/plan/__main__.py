"""How much memory every stage will take, before anything is loaded: python -m rlhf.runtime.plan model=NAME key=value …"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.errors import UserError
from rlhf.runtime import processes, settings
from rlhf.runtime.plan import devices as machines


def main() -> int:
    parser = argparse.ArgumentParser("python -m rlhf.runtime.plan", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for a stage")
    parser.add_argument("--gpu", type=float, metavar="GIB", help="plan for GPUs with so much free, not for what is here")
    parser.add_argument("--gpus", type=int, metavar="N", help="so many of them (with --gpu); else one")
    asked = parser.parse_intermixed_args()
    config = settings.validate(settings.values_of(settings.compose(Path.cwd(), asked.overrides)))
    processes.keep_offline(config.reaches_hub)
    count = 1 if asked.gpus is None else asked.gpus
    if asked.gpu is None and asked.gpus is not None:
        raise UserError(f"--gpus ({count}) says how many GPUs, and not how large: add --gpu GIB, what each has free")
    if asked.gpu is not None and (asked.gpu <= 0 or count < 1):
        raise UserError(f"--gpu ({asked.gpu:g}) must be above 0 and --gpus ({count}) at least 1")
    # Imported here: it imports transformers, which a misspelt setting should not have to wait for.
    from rlhf.runtime.plan.plan import plan

    devices = machines.seen(config.data.source) if asked.gpu is None else machines.supposed(asked.gpu, count)
    print("\n".join(plan(config, devices)))
    return 0


if __name__ == "__main__":
    sys.exit(processes.attempt("plan", main))
