"""Responses to label: K a prompt, evenly from every model, in the order of the prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlhf.config import PromptsPerSplit, TinyModel
from rlhf.labeling import sampling
from rlhf.labeling.pairs import preferences_of
from rlhf.labeling.sampling import Draw, Sampler, choose_prompts, draw, figures_of, progress_row
from rlhf.models.generation import Decoding
from rlhf.models.tiny import make_tokenizer
from rlhf.models.tokens import encode_response, end_id, pad_id
from rlhf.records import Message, Prompt, Ranking, Response, Responses
from tests.labeling.records import asked

WORDS = ["why", "how", "?", "because", "so", "."]
LIMIT = 5
TINY = TinyModel(
    tokenizer="words",
    vocabulary=32,
    hidden_size=16,
    layers=1,
    heads=2,
    intermediate_size=16,
    initializer_range=0.3,
)
PROMPTS = [Prompt((Message("user", text),), "train") for text in ("why ?", "how ?", "so why ?", "how so ?", "? ?")]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    tokenizer = make_tokenizer(WORDS, TINY, 32)

    def model(seed: int) -> PreTrainedModel:
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes)).eval()

    decoding = Decoding(end_id(tokenizer), pad_id(tokenizer), LIMIT)
    return Sampler({"base": model(0), "sft": model(1)}, tokenizer, 4, 32 - LIMIT, decoding, 1.0)


def texts(draws: list[Draw]) -> list[list[str]]:
    return [[response.text for response in responses.responses] for done in draws for responses in done.responses]


def test_every_prompt_gets_k_responses_evenly_from_every_model(sampler: Sampler) -> None:
    (done,) = draw(sampler, PROMPTS, seed=0)
    assert [responses.prompt for responses in done.responses] == [prompt.prompt for prompt in PROMPTS]
    for responses in done.responses:
        assert [response.model for response in responses.responses] == ["base", "base", "sft", "sft"]
    assert len({text for row in texts([done]) for text in row}) > len(PROMPTS)  # really sampled


def test_draws_repeat_with_the_seed_alone(sampler: Sampler) -> None:
    assert texts(list(draw(sampler, PROMPTS, seed=0))) == texts(list(draw(sampler, PROMPTS, seed=0)))
    assert texts(list(draw(sampler, PROMPTS, seed=0))) != texts(list(draw(sampler, PROMPTS, seed=1)))


def test_prompts_come_in_parts_that_fill_a_decoding_batch(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "RESPONSES_A_PART", 4)
    parts = list(draw(sampler, PROMPTS, seed=0))
    assert [part.prompts_done for part in parts] == [2, 4, 5]
    assert [progress_row(part)["step"] for part in parts] == [2, 4, 5]
    alone = list(draw(replace(sampler, policies={"sft": sampler.policies["sft"]}), PROMPTS[:2], seed=0))
    assert {len(part.responses) for part in alone} == {1}


def test_prompts_are_the_first_of_every_split() -> None:
    prompts = [Prompt(asked(f"{i} ?"), split) for i, split in enumerate(["test", "train", "train", "validation", "train"])]
    chosen = choose_prompts(prompts, PromptsPerSplit(train=2, validation=0, test=5))
    assert [prompt.prompt[0].content for prompt in chosen] == ["1 ?", "2 ?", "0 ?"]


def test_figures_by_hand() -> None:
    def answered(*said: tuple[str, bool]) -> Responses:
        return Responses(asked("why ?"), tuple(Response(text, ended, "sft") for text, ended in said), "train")

    first = Draw(1, [answered(("so .", True), ("so .", True))], response_tokens=6, truncated_prompts=1)
    second = Draw(2, [answered(("so .", True), ("because so so", False))], response_tokens=8, truncated_prompts=0)
    assert figures_of([first, second]) == {
        "ended": 3 / 4,
        "response_tokens": 14 / 4,
        "distinct_share": 3 / 4,
        "truncated_prompts": 1,
    }


def test_what_was_sampled_goes_on_as_it_is(sampler: Sampler) -> None:
    """Token ids pass from the sampling model to the models that learn from it: their text could be tokenized otherwise."""
    (done,) = draw(sampler, PROMPTS, seed=3)
    responses = done.responses[0].responses
    ranking = Ranking(done.responses[0].prompt, responses, tuple(range(len(responses))), "train", "gold")
    for preference in preferences_of(ranking):
        said = {response.text: response.token_ids for response in responses}
        assert preference.chosen_token_ids == said[preference.chosen]
        assert preference.rejected_token_ids == said[preference.rejected]
    for response in responses:
        assert response.token_ids is not None
        assert encode_response(sampler.tokenizer, response.text, True, response.token_ids) == list(response.token_ids)
        assert (response.token_ids[-1] == end_id(sampler.tokenizer)) == response.ended
