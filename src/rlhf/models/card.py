"""The README.md of a model directory, as the Hugging Face hub shows it: what the model is and how to call it."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.models.adapters import FOLDER, has_adapter, merged, save_adapter
from rlhf.models.policy import save_policy
from rlhf.models.reward import save_reward_model
from rlhf.runtime import ranks

POLICY = """---
library_name: transformers
pipeline_tag: text-generation
---
# {title}

{about}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)
model = AutoModelForCausalLM.from_pretrained(DIRECTORY)
messages = [{{"role": "user", "content": "..."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```

`generate` samples at temperature {temperature:g}, as in training; pass `do_sample=False` for the likeliest answer.
"""

REWARD_MODEL = """---
library_name: transformers
pipeline_tag: text-classification
---
# {title}

{about}

A sequence classifier with one label. `logits` are the scores; the pipeline's own scores are
(`logits` - `reward_center`) / `reward_scale`, both in config.json (0 and 1 where they are absent).
"""


def write_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    title: str,
    about: str,
    *,
    max_response_tokens: int,
    temperature: float = 1.0,
) -> None:
    """`save_policy`, the card beside it, and the adapter, where there is one. temperature: of the policy's training, 1 where
    it has none. One process of several writes."""
    if ranks.rank():
        return
    save_policy(merged(model), tokenizer, directory, max_response_tokens, temperature)
    if has_adapter(model):
        save_adapter(model, directory / FOLDER)
    _write(directory, POLICY.format(title=title, about=about, temperature=temperature))


def write_reward_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path, about: str) -> None:
    """`save_reward_model`, the card beside it, and the adapter, where there is one. One process of several writes."""
    if ranks.rank():
        return
    save_reward_model(merged(model), tokenizer, directory)
    if has_adapter(model):
        save_adapter(model, directory / FOLDER)
    _write(directory, REWARD_MODEL.format(title="Reward model", about=about))


def _write(directory: Path, card: str) -> None:
    (directory / "README.md").write_text(card, encoding="utf-8")
