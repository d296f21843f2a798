"""The kernel of attention by architecture, device, precision and package, held to what transformers lets a class do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    XGLMConfig,
)

from rlhf.errors import UserError
from rlhf.models import attention
from rlhf.models.attention import attention_kernel
from rlhf.models.classifiers import register_classifier
from tests.models.test_architectures import GROUPED
from tests.models.tiny_models import engine_settings

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
FLASH = "flash_attention_2"
LLAMA = LlamaConfig(**GROUPED)
GRANITE = GraniteConfig(**GROUPED)
BLOOM = BloomConfig(hidden_size=16, n_layer=1, n_head=2)  # neither flash-attention nor sdpa
XGLM = XGLMConfig(d_model=16, num_layers=1, attention_heads=2, ffn_dim=24)
GPT_OSS = GptOssConfig(**GROUPED, head_dim=8, num_local_experts=2)  # needs flash-attention of a later version
KINDS = pytest.mark.parametrize("auto", [AutoModelForCausalLM, AutoModelForSequenceClassification])


def kernel(asked: str, settings: PretrainedConfig, auto: Any, device: torch.device, dtype: str) -> str | None:
    register_classifier(settings)
    return attention_kernel(engine_settings(attention=asked, dtype=dtype), device, auto, settings)


@pytest.fixture
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: request.param)


WITH = pytest.mark.parametrize("installed", [True], indirect=True)
WITHOUT = pytest.mark.parametrize("installed", [False], indirect=True)
FITS: Any = (CUDA, "bfloat16")
FITS_NOT = pytest.mark.parametrize("place", [(CPU, "bfloat16"), (CUDA, "float32"), (CPU, "float32")], ids=str)


@WITH
@KINDS
@pytest.mark.parametrize(
    ("settings", "expected"),
    [(LLAMA, FLASH), (GRANITE, FLASH), (BLOOM, None), (XGLM, None), (GPT_OSS, None)],
    ids=["llama", "granite", "bloom", "xglm", "gpt_oss"],
)
@pytest.mark.usefixtures("installed")
def test_auto_takes_flash_attention_where_the_class_has_it(
    settings: PretrainedConfig, expected: str | None, auto: Any
) -> None:
    assert kernel("auto", settings, auto, *FITS) == expected


@pytest.mark.parametrize("settings", [BLOOM, XGLM], ids=["bloom", "xglm"])
@KINDS
def test_transformers_refuses_flash_attention_for_a_class_without_it(settings: PretrainedConfig, auto: Any) -> None:
    register_classifier(settings)
    with pytest.raises(ValueError, match="does not support Flash Attention 2"):
        auto.from_config(settings, attn_implementation=FLASH)


@WITH
@KINDS
@FITS_NOT
@pytest.mark.usefixtures("installed")
def test_auto_leaves_the_choice_to_transformers_where_it_does_not_fit(place: Any, auto: Any) -> None:
    assert kernel("auto", LLAMA, auto, *place) is None


@WITHOUT
@KINDS
@pytest.mark.usefixtures("installed")
def test_auto_leaves_the_choice_to_transformers_where_it_is_not_installed(auto: Any) -> None:
    assert kernel("auto", LLAMA, auto, *FITS) is None


@pytest.mark.parametrize(("settings", "expected"), [(LLAMA, "sdpa"), (BLOOM, "eager")], ids=["llama", "bloom"])
@KINDS
def test_what_transformers_then_chooses_is_a_kernel_that_the_class_has(
    settings: PretrainedConfig, expected: str, auto: Any
) -> None:
    made = auto.from_config(settings, attn_implementation=kernel("auto", settings, auto, CPU, "float32"))
    assert made.config._attn_implementation == expected


@WITH
@pytest.mark.parametrize("asked", ["eager", "sdpa", FLASH])
@pytest.mark.usefixtures("installed")
def test_what_is_asked_for_is_taken(asked: str) -> None:
    assert kernel(asked, LLAMA, AutoModelForCausalLM, *FITS) == asked


@WITH
@FITS_NOT
@pytest.mark.usefixtures("installed")
def test_flash_attention_is_refused_where_it_does_not_fit(place: Any) -> None:
    said = f"engine.attention \\({FLASH}\\) needs a GPU and .* here are {place[0].type} and {place[1]}: set engine.attention"
    with pytest.raises(UserError, match=said):
        kernel(FLASH, LLAMA, AutoModelForCausalLM, *place)


@WITHOUT
@pytest.mark.usefixtures("installed")
def test_flash_attention_is_refused_where_it_is_not_installed() -> None:
    with pytest.raises(UserError, match="needs the package flash-attn: install it"):
        kernel(FLASH, LLAMA, AutoModelForCausalLM, *FITS)


@WITH
@KINDS
@pytest.mark.usefixtures("installed")
def test_flash_attention_is_refused_for_a_class_without_it(auto: Any) -> None:
    with pytest.raises(UserError, match="does not go with the architecture bloom"):
        kernel(FLASH, BLOOM, auto, *FITS)
