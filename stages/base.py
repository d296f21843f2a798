"""The model to start from: a tiny one trained here from nothing, or a pretrained one made complete."""

from __future__ import annotations

import _checkout  # noqa: F401

from rlhf.runtime.stage import stage

if __name__ == "__main__":
    stage(__file__)  # leaves

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import TinyModel
from rlhf.data.files import read_documents, read_records
from rlhf.errors import UserError
from rlhf.models.batching import Batching
from rlhf.models.card import write_policy
from rlhf.models.folder import check_model
from rlhf.models.policy import context_of, fit_to_tokenizer, load_policy
from rlhf.models.tiny import make_model, make_tokenizer
from rlhf.models.tokens import load_tokenizer, pad_id, prompt_room
from rlhf.records import Demonstration
from rlhf.runtime.engine import make_engine
from rlhf.runtime.run import Run
from rlhf.training.loop import LoopState, Passes
from rlhf.training.sft import document_examples, train_sft


def main(run: Run) -> None:
    """Trains a model or takes one, sees to its end and pad tokens and chat template, and writes a plain model directory."""
    settings = run.config.model
    if settings.tiny:
        tokenizer, model = train(run, settings.tiny)
    else:
        check_model(settings, run.config.data.max_response_tokens)
        place, revision = settings.place
        tokenizer = load_tokenizer(place, revision, settings.chat_template)
        model = fit_to_tokenizer(load_policy(place, run.device, run.config.engine, revision), tokenizer)
        context = context_of(model, settings.max_tokens)
        prompt_room(context, run.config.data.max_response_tokens)
        if settings.max_tokens > context:
            run.say(
                f"takes {context} tokens, which the model was made for, though model.max_tokens is {settings.max_tokens}"
            )
        run.curve([])
    about = "What supervised fine-tuning starts from: not taught to answer."
    write_policy(
        model, tokenizer, run.output / "model", "Base model", about, max_response_tokens=run.config.data.max_response_tokens
    )
    sizes = {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(tokenizer)}
    run.finish(sizes | {"context_tokens": context_of(model, settings.max_tokens)} | (run.rows[-1] if run.rows else {}))
    run.log_model(run.output / "model")


def train(run: Run, tiny: TinyModel) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Makes a tokenizer and a model, and reads the corpus `base.epochs` times."""
    config, base = run.config, run.config.base
    corpus = run.read("prepare", "corpus.jsonl")
    documents = read_documents(corpus)
    if not documents:
        raise UserError(
            f"{corpus.relative_to(run.root)} has no document to train a model on: `dvc repro prepare` makes it anew"
        )
    demonstrations = read_records(run.read("prepare", "demonstrations.jsonl"), Demonstration)
    texts = [text for d in demonstrations for text in (d.completion, *(message.content for message in d.prompt))]
    tokenizer = make_tokenizer([*documents, *texts], tiny, config.model.max_tokens)
    model = make_model(tokenizer, tiny, config.model.max_tokens, run.seed("weights"), run.device)

    examples = document_examples(documents, tokenizer, config.model.max_tokens)
    first = int(len(examples) * base.held_out_share)
    held_out, read = examples[:first], examples[first:]
    passes = Passes(base.epochs, base.documents_per_step, base.eval_every_steps, run.seed("rows"))
    batching = Batching(pad_id(tokenizer), config.engine.tokens_per_micro_batch)
    steps = passes.steps(len(read))
    alone = config.engine.model_copy(update={"name": "single", "processes": 1})
    engine = make_engine(model, base.lr, base.warmup_share, steps, config.optimizer, alone)
    state = LoopState(engine)
    run.follow_to_end(train_sft(state, read, held_out, passes, batching), steps, state)
    return tokenizer, model
