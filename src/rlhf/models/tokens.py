"""From messages to token ids and back, and the only maker of masks.

A prompt is what the tokenizer's chat template says, with the opening of the answer; a response is the text's own ids
and, where it ended, the tokenizer's end token. The two are tokenized apart and joined as ids, so the boundary between
them never depends on the response.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf.errors import UserError
from rlhf.models.place import named, reading
from rlhf.records import Messages, messages_to_row

# `Human:` and `Assistant:` turns, as in Bai et al. 2022; each answer ends with the end token, which is what stops a model.
PLAIN_CHAT_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '\\n\\nHuman: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '\\n\\nAssistant: ' + message['content'] + eos_token }}"
    "{% else %}{{ '\\n\\n' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Example:
    """The token ids of one prompt and of one response to it, without padding."""

    prompt_ids: list[int]
    response_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples as tensors: (B, P) left-padded prompts, (B, R) right-padded responses; masks are True on real tokens."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device) for t in (self.prompt_ids, self.prompt_mask, self.response_ids, self.response_mask)))


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pads examples to one shape. Masks come from lengths, never from ids: a pad id in a text is a token like any other."""
    prompt_lengths = torch.tensor([len(e.prompt_ids) for e in examples])
    response_lengths = torch.tensor([len(e.response_ids) for e in examples])
    width, length = int(prompt_lengths.max()), int(response_lengths.max())
    prompts = [[pad_id] * (width - len(e.prompt_ids)) + e.prompt_ids for e in examples]
    responses = [e.response_ids + [pad_id] * (length - len(e.response_ids)) for e in examples]
    return Batch(
        prompt_ids=torch.tensor(prompts, dtype=torch.long).view(len(examples), width),
        prompt_mask=torch.arange(width) >= (width - prompt_lengths)[:, None],
        response_ids=torch.tensor(responses, dtype=torch.long).view(len(examples), length),
        response_mask=torch.arange(length) < response_lengths[:, None],
    )


def load_tokenizer(
    path: str | Path, revision: str | None = None, chat_template: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory (or hub id), made complete: see `complete_tokenizer`.

    chat_template: in place of the tokenizer's own, or of the plain one; Jinja, as transformers renders it.
    """
    tokenizer = read_tokenizer(path, revision)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return complete_tokenizer(tokenizer, named(path, revision))


def read_tokenizer(path: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer as it is."""
    with reading(path, revision, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(path), revision=revision, trust_remote_code=False
        )
    return tokenizer


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Gives a tokenizer a chat template and a pad token (distinct from its end token) where it has none.

    Raises:
        UserError: it has no end token; nothing could then say where a response stops.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name}: the tokenizer has no end token (eos_token); set one in its tokenizer_config.json")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"  # the latter is what is written to disk
    return tokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages, max_tokens: int) -> tuple[list[int], bool]:
    """The ids of a conversation up to the answer, at most `max_tokens`, and whether it had to be cut.

    A prompt that is too long loses whole turns on its left (a system message stays), then tokens on its left.
    """
    ids = _render(tokenizer, messages)
    if len(ids) <= max_tokens:
        return ids, False
    system = messages[:1] if messages[0].role == "system" else ()
    turns = messages[len(system) :]
    while len(ids) > max_tokens and len(turns) > 1:
        turns = turns[1:]
        with suppress(UserError):  # a template may refuse a conversation that opens with an answer: then that goes as well
            ids = _render(tokenizer, system + turns)
    return ids[len(ids) - min(max_tokens, len(ids)) :], True


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    return encode_conversation(tokenizer, messages, add_generation_prompt=True)


def encode_conversation(tokenizer: PreTrainedTokenizerBase, messages: Messages, add_generation_prompt: bool) -> list[int]:
    """The ids of what the chat template says. A special token that a text spells is that text: no turn can be forged."""
    how = {"add_generation_prompt": add_generation_prompt, "return_dict": True}
    special = _special_of(tokenizer)
    if any(special.in_(message.content) for message in messages):
        if special.has_spelling:
            how["sanitize_control_tokens"] = True
        messages = tuple(replace(message, content=special.made_plain(message.content)) for message in messages)
    return list(apply_template(tokenizer, messages, **how)["input_ids"])


@dataclass(frozen=True, slots=True)
class _Special:
    """The special tokens of a tokenizer; whether it has other tokens for the same text; and what stands for no token."""

    tokens: tuple[str, ...]
    has_spelling: bool
    unknown: str

    def in_(self, text: str) -> bool:
        return any(token in text for token in self.tokens)

    def made_plain(self, text: str) -> str:
        """The text with the unknown token for special ones that cannot be told from it: one that knows whole words only."""
        for token in () if self.has_spelling else self.tokens:
            text = text.replace(token, self.unknown)
        return text


@lru_cache(maxsize=8)
def _special_of(tokenizer: PreTrainedTokenizerBase) -> _Special:
    tokens = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokens}
    spelled = {token: tokenizer.encode(token, add_special_tokens=False, split_special_tokens=True) for token in tokens}
    has_spelling = not any(ids[token] in spelled[token] for token in tokens)
    return _Special(tokens, has_spelling, str(tokenizer.unk_token or ""))


def apply_template(tokenizer: PreTrainedTokenizerBase, messages: Messages, **how: Any) -> Any:
    """transformers' `apply_chat_template`; UserError where the template refuses the conversation."""
    try:
        return tokenizer.apply_chat_template(messages_to_row(messages), **how)
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise UserError(f"the tokenizer's chat template refuses a conversation of the roles {roles}: {error}") from error


def prompt_room(context: int, max_response_tokens: int) -> int:
    """How many tokens of a prompt fit beside the longest response; UserError where none does."""
    if context <= max_response_tokens:
        raise UserError(
            f"data.max_response_tokens ({max_response_tokens}) must be below the context of {context} tokens: "
            "no room is left for a prompt"
        )
    return context - max_response_tokens


def encode_response(
    tokenizer: PreTrainedTokenizerBase, text: str, ended: bool = True, token_ids: Sequence[int] | None = None
) -> list[int]:
    """The ids of a response; the end token is one of them where the response ended, and never because its text spells it.

    token_ids: what was sampled, where that is known: a text may be tokenized in another way than a model said it.

    Raises:
        UserError: the ids are of another tokenizer.
    """
    if token_ids is not None:
        if decode_response(tokenizer, token_ids) != text:
            raise UserError(
                f"a response's token ids do not spell its text {text[:40]!r} with this tokenizer: another model sampled it. "
                "Sample and label anew with this one: `dvc repro label`"
            )
        return list(token_ids)
    special = _special_of(tokenizer)
    if special.in_(text):
        ids = list(tokenizer.encode(special.made_plain(text), add_special_tokens=False, split_special_tokens=True))
    else:
        ids = list(tokenizer.encode(text, add_special_tokens=False))
    return [*ids, end_id(tokenizer)] if ended else ids


def decode_response(tokenizer: PreTrainedTokenizerBase, response_ids: Sequence[int]) -> str:
    """The text of a response, without its end token or other special tokens."""
    return str(tokenizer.decode(list(response_ids), skip_special_tokens=True)).strip()


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end token of every stage: the tokenizer's."""
    assert isinstance(tokenizer.eos_token_id, int)
    return tokenizer.eos_token_id


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    assert isinstance(tokenizer.pad_token_id, int)
    return tokenizer.pad_token_id


def filler_id(tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """What fills short rows up before a causal model reads them: the pad token, or the end token where the model's table of
    so many rows has none for the pad token that the tokenizer was given."""
    return pad_id(tokenizer) if pad_id(tokenizer) < rows else end_id(tokenizer)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The responses to one prompt as examples that share the prompt's ids, and whether the prompt was cut to fit."""

    examples: list[Example]
    truncated: bool


def fit(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, responses: Iterable[list[int]], max_tokens: int
) -> Fitted | None:
    """Prompt and responses within the context of `max_tokens`; None where a response leaves no room for its prompt.

    The prompt gives way, the same for all responses, so that they are compared on equal terms.
    """
    answers = list(responses)
    room = max_tokens - max(len(ids) for ids in answers)
    if room < 1 or any(not ids for ids in answers):
        return None
    prompt_ids, truncated = encode_prompt(tokenizer, prompt, room)
    return Fitted([Example(prompt_ids, ids) for ids in answers], truncated)


def same_tokens(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, our_name: str, their_name: str) -> None:
    """UserError unless both tokenizers give the same ids to the same text: ids pass between models without being decoded."""
    if ours.get_vocab() != theirs.get_vocab() or end_id(ours) != end_id(theirs) or pad_id(ours) != pad_id(theirs):
        raise UserError(
            f"{our_name} and {their_name} have different tokenizers ({len(ours)} and {len(theirs)} tokens, end tokens "
            f"{ours.eos_token} and {theirs.eos_token}): they come from different base models; `dvc repro` makes both again"
        )
