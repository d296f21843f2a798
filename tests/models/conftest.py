"""A policy and a classifier of either architecture, and a tokenizer, for every test that asks for one."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tests.models.tiny_models import make_classifier, make_policy, words_tokenizer


@pytest.fixture
def policy(architecture: str) -> PreTrainedModel:
    return make_policy(architecture)


@pytest.fixture
def classifier(architecture: str) -> PreTrainedModel:
    return make_classifier(architecture)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return words_tokenizer("one two three four five six seven eight nine ten yes no . , ? I do n't know be brief")
