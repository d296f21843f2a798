"""An independent implementation, TRL 1.12, where it is installed; docs/parity.md says what it agrees on and what not."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import huggingface_hub
import pytest

from tests.parity.their_ppo import Update, run_their_update

TRL = "1.12.0"
NEEDED = f"parity needs trl=={TRL}: pip install -e '.[parity]'"


def theirs(module: str) -> ModuleType:
    """A module of TRL; the test is skipped without it, as its numbers are those of one version."""
    trl = pytest.importorskip("trl", reason=NEEDED)
    if trl.__version__ != TRL:
        pytest.skip(f"{NEEDED} (found {trl.__version__})")
    return pytest.importorskip(module, reason=NEEDED)


@pytest.fixture(scope="package", autouse=True)
def offline() -> Iterator[None]:
    """TRL's trainers report each use over the network, unless told not to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield


@pytest.fixture(scope="package")
def ppo_trainer() -> ModuleType:
    return theirs("trl.experimental.ppo.ppo_trainer")


@pytest.fixture(scope="package")
def dpo_trainer() -> ModuleType:
    return theirs("trl.trainer.dpo_trainer")


@pytest.fixture(scope="package")
def reward_trainer() -> ModuleType:
    return theirs("trl.trainer.reward_trainer")


@pytest.fixture(scope="package")
def filled(ppo_trainer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Update:
    """Their update on responses that all run to the limit."""
    return run_their_update(ppo_trainer, tmp_path_factory.mktemp("filled"), ends=False)


@pytest.fixture(scope="package")
def ended(ppo_trainer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Update:
    """Their update on responses of which some end before the limit."""
    return run_their_update(ppo_trainer, tmp_path_factory.mktemp("ended"), ends=True)


@pytest.fixture(scope="package")
def undiscounted(ppo_trainer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Update:
    """The same with lambda 1, the k3 estimator and a penalty for a response that did not end."""
    changes = {"lam": 1.0, "kl_estimator": "k3", "kl_coef": 0.0, "missing_eos_penalty": 1.5}
    return run_their_update(ppo_trainer, tmp_path_factory.mktemp("undiscounted"), ends=True, **changes)
