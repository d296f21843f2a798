"""Stories that a model tells when it is asked nothing, as a file for `data=stories`:

python -m rlhf.models.storyteller DIR FILE --stories 3000 --temperature 0.8 --tokens 160 --seed 0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.data.stories import END
from rlhf.errors import UserError
from rlhf.models.generation import Decoding, generate
from rlhf.models.place import reading
from rlhf.models.tokens import complete_tokenizer, decode_response, pad_id

AT_ONCE = 256


def tell(folder: Path, stories: int, temperature: float, tokens: int, seed: int) -> list[str]:
    """Each from the model's first token on, until its end token or `tokens`.

    Where its generation config has several end tokens, the first is taken for the end of a story.
    """
    with reading(folder, None, "model"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=False, use_safetensors=True).eval()
    complete_tokenizer(tokenizer, str(folder))
    if tokenizer.bos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no first token (bos_token), and a story has to begin with something")
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    told = generate(
        model, [[tokenizer.bos_token_id]] * stories, Decoding(end, pad_id(tokenizer), tokens, AT_ONCE), temperature, seed
    )
    return [decode_response(tokenizer, one.response_ids) for one in told]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m rlhf.models.storyteller", description=__doc__)
    parser.add_argument("model", type=Path, help="a Hugging Face directory")
    parser.add_argument("file", type=Path, help="a new text file")
    parser.add_argument("--stories", type=int, required=True)
    parser.add_argument("--temperature", type=float, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="of one story, at most")
    parser.add_argument("--seed", type=int, required=True)
    asked = parser.parse_args(arguments)
    if asked.file.exists():
        raise UserError(f"{asked.file} is there already: give a new name")
    stories = tell(asked.model, asked.stories, asked.temperature, asked.tokens, asked.seed)
    asked.file.write_text(f"\n{END}\n".join(stories) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        raise SystemExit(str(error)) from None
