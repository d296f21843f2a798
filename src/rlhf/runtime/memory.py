"""What a model that stands still says of examples, kept on disk and found again by content.

The key is a hash of all that the numbers depend on: the model's files, the code that reads it, the libraries, how it
computes, and the token ids themselves. Nothing has to be cleared when one of them changes, and a name never serves what
another content said. (joblib.Memory and diskcache were considered: both read pickles.)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rlhf import config
from rlhf.models.batching import Batching
from rlhf.models.tokens import Example
from rlhf.runtime import ranks
from rlhf.runtime.hashes import md5_of

PACKAGE = Path(__file__).resolve().parents[1]
CODE = ("models/*.py", "runtime/device.py")  # what reads a model, and how its bits are held still
NAME = "values"


@dataclass(frozen=True, slots=True)
class Memory:
    """A folder of remembered tensors, and what all of them depend on beside the examples and how they are batched."""

    folder: Path
    origin: str

    def recall(self, ask: partial[Tensor], examples: Sequence[Example], batching: Batching) -> Tensor:
        """What `ask(examples, batching)` gave before, bit for bit, or gives now; on the CPU.

        ask: a function of `models` bound to the model; its name is part of the question.
        """
        file = self.folder / f"{self._key(ask.func.__name__, examples, batching)}.safetensors"
        known = None
        with suppress(FileNotFoundError, SafetensorError):  # a file that cannot be read is one that is not there
            known = load(file.read_bytes())[NAME]
        if (shared := ranks.of_rank_0(known)) is not None:  # all of them ask, or none
            return shared
        values = ask(examples, batching).detach().cpu()
        if ranks.rank() == 0:
            with suppress(OSError):  # a help, and no more
                self.folder.mkdir(parents=True, exist_ok=True)
                # Jobs of a sweep write at once, and none reads half a file.
                half = file.with_name(f"{file.name}.{os.getpid()}")
                half.write_bytes(save({NAME: values}))
                half.replace(file)
        return values

    def _key(self, asked: str, examples: Sequence[Example], batching: Batching) -> str:
        question = [self.origin, asked, batching.pad_id, batching.tokens_per_micro_batch]
        digest = hashlib.sha256(json.dumps(question).encode())
        for example in examples:  # one at a time: all of them may be more than memory should hold twice
            digest.update(json.dumps([example.prompt_ids, example.response_ids]).encode())
        return digest.hexdigest()


def memory_of(folder: Path, model: Path, device: torch.device, engine: config.Engine) -> Memory:
    """The memory of what the model in this directory says on this device."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    libraries = [version(name) for name in ("torch", "transformers")]
    code = [md5_of(file) for pattern in CODE for file in sorted(PACKAGE.glob(pattern))]
    how = [engine.dtype, engine.threads, engine.attention, ranks.count()]
    return Memory(folder, json.dumps([md5_of(model), code, libraries, machine, *how]))
