"""A stage in several processes: one starts the others by torchrun, or a launcher has (torchrun, deepspeed).

Rank 0 writes, tracks and speaks. The others do their share in silence and leave their outputs in a folder that goes away.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import parents

SECONDS_TO_STOP = "900"  # for who is asked to: the end of a step, and a state saved; torchrun's own is 30
ALONE = ("prepare", "base", "label")  # a tiny model has no parts; a judge would be asked twice


def rank() -> int:
    """Of this process, as its launcher says; 0 where there is none."""
    return _number("RANK", 0)


def count() -> int:
    """How many processes a launcher (torchrun, deepspeed) says that there are; 1 where there is none."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, least: int) -> int:
    """What the launcher says, or where there is none the least; UserError where it says no number."""
    said = os.environ.get(name, str(least))
    if not said.isdecimal() or int(said) < least:
        raise UserError(f"{name} ({said}) must be a whole number of at least {least}: launchers set it")
    return int(said)


def silence() -> str:
    """What a rank above 0 says is not shown; where its outputs go."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (to the end)
    os.environ["TQDM_DISABLE"] = "1"
    folder = tempfile.mkdtemp(prefix="rlhf_rank_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def starts_others(config: Config, stage: str) -> bool:
    """Whether this process has to start those that do the work.

    Raises:
        UserError: a launcher has started several for a stage or an engine that is one.
    """
    launched, wanted = count(), config.engine.processes
    if stage in ALONE:
        if launched > 1:
            raise UserError(f"runs in one process, and a launcher has started {launched}: python stages/{stage}.py")
        return False
    if launched == 1 and "RANK" not in os.environ:
        return wanted > 1
    if launched > 1 and config.engine.name == "single":
        raise UserError(
            f"engine.name (single) is one process, and the launcher has started {launched} (WORLD_SIZE): choose "
            "engine=zero1, zero2, zero3 or zero3_offload"
        )
    if launched != wanted:
        raise UserError(
            f"engine.processes ({wanted}) is not what the launcher has started ({launched}, WORLD_SIZE): set "
            f"engine.processes={launched}"
        )
    return False


def start(script: Path, arguments: Sequence[str], wanted: int, output: Path) -> int:
    """Runs the same command in so many processes of this machine, and waits for them; their exit code.

    Where one of them ends with an error, torchrun ends the others. What a terminal sends comes to them through this process
    alone.
    """
    _check_gpus(wanted)
    launcher = [sys.executable, "-m", "rlhf.runtime.launch", "--standalone", f"--nproc_per_node={wanted}"]
    place = [] if "DVC_STAGE" in os.environ else [f"hydra.run.dir={output}"]
    command = [*launcher, str(script), *arguments, *place]
    others = subprocess.Popen(command, start_new_session=True, preexec_fn=parents.end_when_parent_does)
    try:
        code = others.wait()
        return code if code >= 0 else 128 - code
    except BaseException:
        others.terminate()
        others.wait()
        raise


def main(arguments: Sequence[str]) -> int:
    """torchrun, without its own account of a process that has failed, where that one has said why."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.disable(logging.CRITICAL)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SECONDS_TO_STOP)
    try:
        torchrun(list(arguments))
    except SignalException as error:  # it has passed it on to all of them
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failed = error.get_first_failure()
        if failed.exitcode >= 0:
            return failed.exitcode
        number = -failed.exitcode
        hint = ", as the kernel does where memory runs out" if number == signal.SIGKILL else ""
        print(f"process {rank} was ended by {signal.Signals(number).name}{hint}; the others were stopped", file=sys.stderr)
        return 128 + number
    return 0


def _check_gpus(wanted: int) -> None:
    """UserError where there are GPUs, and fewer than processes."""
    import torch

    there = torch.cuda.device_count()
    if os.environ.get("RLHF_DEVICE") != "cpu" and 0 < there < wanted:
        raise UserError(
            f"engine.processes ({wanted}) must be at most the number of GPUs ({there}): each process takes one. Or set "
            "RLHF_DEVICE=cpu"
        )


def without_local_rank(arguments: Sequence[str]) -> list[str]:
    """The command line without what DeepSpeed's launcher adds to it; LOCAL_RANK says the same."""
    if "LOCAL_RANK" not in os.environ:
        return list(arguments)
    return [argument for argument in arguments if not argument.startswith("--local_rank")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
