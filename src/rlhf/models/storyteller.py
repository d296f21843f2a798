"""Stories that a model tells when it is asked nothing, as a file for `data=stories`:

python -m rlhf.models.storyteller DIR FILE --stories 3000 --temperature 0.8 --tokens 160 --seed 0
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.data.stories import END
from rlhf.errors import UserError
from rlhf.models.generation import Decoding, check_cache, generate
from rlhf.models.place import reading
from rlhf.models.policy import refuse_missing
from rlhf.models.tokens import decode_response, end_id, load_tokenizer, pad_id

AT_ONCE = 256
SEEDS = 2**63  # more than torch takes


@dataclass(frozen=True, slots=True)
class Told:
    """A story, and whether it ended before the limit."""

    text: str
    ended: bool


def tell(folder: Path, stories: int, temperature: float, tokens: int, seed: int) -> list[Told]:
    """Each from the model's first token on, until one of the end tokens of its generation config, or `tokens`.

    Raises:
        UserError: the folder holds no model, or one that is not whole, begins with no token, or has a shorter context.
    """
    tokenizer = load_tokenizer(folder)
    if tokenizer.bos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no first token (bos_token), and a story has to begin with something")
    model = _load(folder, tokens)
    ends = _ends(model, tokenizer)
    decoding = Decoding(ends[0], pad_id(tokenizer), tokens, AT_ONCE)
    told = generate(model, [[tokenizer.bos_token_id]] * stories, decoding, temperature, seed)
    cut = [_to_first(ends, one.response_ids) for one in told]
    return [Told(decode_response(tokenizer, ids), ids[-1] in ends) for ids in cut]


def _load(folder: Path, tokens: int) -> PreTrainedModel:
    with reading(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    model, found = loaded
    refuse_missing(folder, found["missing_keys"])
    check_cache(folder, model)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and tokens >= context:
        raise UserError(f"--tokens ({tokens}) must be below the context of {folder}, {context} tokens")
    whole: PreTrainedModel = model.eval()
    return whole


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The first of them is what sampling stops at; at another one a story is cut afterwards."""
    ends: Any = model.generation_config.eos_token_id
    if ends is None or ends == []:
        return [end_id(tokenizer)]
    return list(ends) if isinstance(ends, list) else [ends]


def _to_first(ends: Collection[int], ids: list[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids, start=1) if token in ends), len(ids))]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m rlhf.models.storyteller", description=__doc__)
    parser.add_argument("model", type=Path, help="a Hugging Face directory")
    parser.add_argument("file", type=Path, help="a new text file")
    parser.add_argument("--stories", type=int, required=True, help="how many, at least 1")
    parser.add_argument("--temperature", type=float, required=True, help="of sampling, above 0; 1: the model as it is")
    parser.add_argument("--tokens", type=int, required=True, help="of one story, at most")
    parser.add_argument("--seed", type=int, required=True, help="of the random numbers: the same one tells the same stories")
    asked = parser.parse_args(arguments)
    _check(asked)
    told = tell(asked.model, asked.stories, asked.temperature, asked.tokens, asked.seed)
    with asked.file.open("x", encoding="utf-8") as file:
        file.write(f"\n{END}\n".join(story.text for story in told) + "\n")
    ended = sum(story.ended for story in told)
    print(f"{asked.file}: {len(told)} stories, {ended} ended, {len(told) - ended} cut off at {asked.tokens} tokens")


def _check(asked: argparse.Namespace) -> None:
    """UserError for what would otherwise be found out when all is told."""
    for name in ("stories", "tokens"):
        if getattr(asked, name) < 1:
            raise UserError(f"--{name} ({getattr(asked, name)}) must be at least 1")
    if not (math.isfinite(asked.temperature) and asked.temperature > 0):
        raise UserError(f"--temperature ({asked.temperature}) must be a finite number above 0, or all stories are one")
    if not 0 <= asked.seed < SEEDS:
        raise UserError(f"--seed ({asked.seed}) must be at least 0 and below 2**63")
    if asked.file.exists():
        raise UserError(f"{asked.file} is there already: give a new name")
    if not asked.file.parent.is_dir():
        raise UserError(f"{asked.file}: there is no folder {asked.file.parent}: make it first")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"storyteller: {error}") from None
