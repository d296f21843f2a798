"""What a judge is asked: a template of the user's, filled with a conversation and two ways to go on."""

from __future__ import annotations

from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlhf.errors import UserError
from rlhf.records import Message, Messages, messages_to_row

FIELDS = {"prompt", "response_a", "response_b"}
SAMPLE = (Message("user", "who ?"),)


def load_template(path: str | Path) -> Template:
    """The template at this path.

    Raises:
        UserError: there is no such file, it is no template, or it does not use exactly the fields that there are.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({_line(error)}), and labeler.template names it") from error
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        used = meta.find_undeclared_variables(environment.parse(text))
        template = environment.from_string(text)
    except TemplateError as error:
        raise UserError(f"{path}:{getattr(error, 'lineno', 1)}: is no template: {_line(error)}") from error
    if used != FIELDS:
        raise UserError(
            f"{path}: uses the fields {', '.join(sorted(used)) or 'none'}, and a judge's template uses exactly "
            f"{', '.join(sorted(FIELDS))}"
        )
    fill(template, path, SAMPLE, "i .", "you .")
    return template


def fill(template: Template, path: str | Path, prompt: Messages, response_a: str, response_b: str) -> str:
    """The question about these two responses, in this order."""
    try:
        return template.render(prompt=messages_to_row(prompt), response_a=response_a, response_b=response_b)
    except Exception as error:  # a template may compute, and fail in any way
        raise UserError(f"{path}: cannot be filled: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
