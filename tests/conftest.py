"""What every test starts from: one thread, the same examples each time, and no time limit on a property's example."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

settings.register_profile("rlhf", deadline=None, derandomize=True, max_examples=60, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rlhf"))
torch.set_num_threads(1)
