"""Answers that were paid for, kept on disk and found again by what was asked: a file each, whole or not there."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf.errors import UserError

FOLDER = "RLHF_JUDGE_CACHE"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, how many tokens it counted (0 where it does not say), and why it ended ("" where it does not).
    `text` is None where it refused to answer; `refusal` then has its reason."""

    text: str | None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    refusal: str = ""
    finish_reason: str = ""

    @property
    def cut_off(self) -> bool:
        """Whether it ends where its tokens were used up."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of answers by the sha256 of their questions."""

    folder: Path

    def find(self, key: str) -> Answer | None:
        """A file that cannot be read is one that is not there."""
        with suppress(OSError, ValueError, TypeError, RecursionError):
            answer = Answer(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
            return answer if isinstance(answer.text, str) else None
        return None

    def keep(self, key: str, answer: Answer) -> None:
        """Not a refusal, which costs nothing: it is asked for again.

        Raises:
            UserError: it cannot be written.
        """
        if answer.text is None:
            return
        file = self.folder / f"{key}.json"
        half = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            half.write_text(json.dumps(asdict(answer), ensure_ascii=False), encoding="utf-8")
            half.replace(file)
        except OSError as error:
            with suppress(OSError):
                half.unlink()
            raise UserError(
                f"{file}: the judge's answer cannot be written ({error.strerror}): mend that, or name another folder with "
                f"{FOLDER}"
            ) from error


def store_of(root: Path) -> Store:
    """The folder that the environment names (`RLHF_JUDGE_CACHE`), or cache/judge of this checkout."""
    return Store(Path(os.environ.get(FOLDER) or root / "cache" / "judge"))
