"""A gold rater learned from reviews: how positive a text is (docs/stories.md)."""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import fsum, sqrt
from pathlib import Path, PurePosixPath
from typing import Any

from rlhf.errors import UserError

WORD = re.compile(r"\b\w\w+\b")  # what scikit-learn takes for a word
KINDS = ("pos", "neg")  # the folders of the reviews
ABOUT_FILES = "__MACOSX"  # what macOS packs beside files, under their own names
ENCRYPTED = 1  # the bit of a zip file's entry that says so
MIN_REVIEWS = 3  # a word in fewer says nothing of the next review
INVERSE_REGULARISATION = 10.0  # scikit-learn's C
MAX_ITERATIONS = 1000
HELD_OUT_SHARE = 0.2  # of the reviews, by a hash of their text
DECIMALS = 9  # of a weight: beyond them another processor may have other digits


@dataclass(frozen=True, slots=True)
class Review:
    text: str
    positive: bool


@dataclass(frozen=True, slots=True)
class Reviews:
    """Those found in one place, and how many files there are none; of hidden ones nothing is said."""

    found: list[Review]
    ignored: int


@dataclass(frozen=True, slots=True)
class Sentiment:
    """`gold`: the log-odds that a text is positive."""

    gold: float


@dataclass(frozen=True, slots=True)
class SentimentRater:
    """Logistic regression on the words of a text, each counted once (tf-idf with binary counts, rows of length 1).

    words: the inverse document frequency and the weight of each word.
    """

    bias: float
    words: dict[str, tuple[float, float]]

    def rate(self, prompt: str, response: str) -> Sentiment:
        """Of the response alone: a sad prompt makes no response sad."""
        known = [self.words[word] for word in {*WORD.findall(response.lower())} if word in self.words]
        length = sqrt(fsum(idf * idf for idf, _ in known))
        return Sentiment(self.bias + (fsum(idf * weight for idf, weight in known) / length if length else 0.0))


def read_reviews(path: Path) -> Reviews:
    """The texts `pos/*.txt` and `neg/*.txt` of a zip file or a folder, at whatever depth and in any case, in the order of
    their names. Hidden files, and what macOS packs beside files, are passed over.

    Raises:
        UserError: it is neither, a review cannot be read or is not UTF-8, or there are none of a kind.
    """
    if path.is_dir():
        reviews = _reviews_of(path, _files_in(path))
    elif path.exists():
        try:
            with zipfile.ZipFile(path) as archive:
                reviews = _reviews_of(path, _files_packed(archive))
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise UserError(f"data.rater ({path}): no zip file ({error}), and no folder") from error
    else:
        raise UserError(f"data.rater ({path}): there is neither a file nor a folder of this name")
    for kind in KINDS:
        if not any(review.positive == (kind == "pos") for review in reviews.found):
            raise UserError(f"data.rater ({path}): there is no review {kind}/NAME.txt in it, and both kinds are needed")
    return reviews


def learn(reviews: list[Review]) -> tuple[SentimentRater, dict[str, Any]]:
    """The rater that the reviews teach, and how often it is right about those held out.

    Raises:
        UserError: too few reviews to have both kinds among those learned from and those held out, or no word in enough.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train = [review for review in reviews if not _held_out(review)]
    held_out = [review for review in reviews if _held_out(review)]
    if any(len({review.positive for review in part}) < 2 for part in (train, held_out)):
        raise UserError(
            f"data.rater: {len(reviews)} reviews are too few: {len(train)} are learned from, {len(held_out)} held out, "
            "and each part needs positive and negative ones"
        )
    vectorizer = TfidfVectorizer(binary=True, min_df=MIN_REVIEWS)
    try:
        features = vectorizer.fit_transform([review.text for review in train])
    except ValueError as error:
        raise UserError(
            f"data.rater: no word stands in {MIN_REVIEWS} of the {len(train)} reviews that are learned from. Give more of "
            "them, in a language that puts spaces between words: where none are written, as in Chinese, put them there first"
        ) from error
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)
    model.fit(features, [review.positive for review in train])
    places = sorted(vectorizer.vocabulary_.items())
    words = {word: (_rounded(vectorizer.idf_[i]), _rounded(model.coef_[0, i])) for word, i in places}
    rater = SentimentRater(_rounded(model.intercept_[0]), words)
    right = [(rater.rate("", review.text).gold > 0) == review.positive for review in held_out]
    return rater, {
        "reviews": len(train),
        "held_out_reviews": len(held_out),
        "held_out_accuracy": sum(right) / len(right),
        "words": len(words),
    }


def write_rater(rater: SentimentRater, path: Path) -> None:
    row = {"bias": rater.bias, "words": rater.words}
    path.write_text(json.dumps(row, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read_rater(path: Path) -> SentimentRater:
    row = json.loads(path.read_text(encoding="utf-8"))
    return SentimentRater(row["bias"], {word: (idf, weight) for word, (idf, weight) in row["words"].items()})


def _reviews_of(path: Path, files: Iterator[tuple[str, Callable[[], bytes]]]) -> Reviews:
    shown = {name: read for name, read in files if not _is_hidden(name)}
    texts = [name for name in sorted(shown) if name.lower().endswith(".txt") and _kind(name) in KINDS]
    return Reviews([Review(_read(path, name, shown[name]), _kind(name) == "pos") for name in texts], len(shown) - len(texts))


def _files_in(folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The name of each file, and how to read it; a link that leads nowhere is a file that cannot be read."""
    for file in folder.rglob("*"):
        if not file.is_dir():
            yield file.relative_to(folder).as_posix(), file.read_bytes


def _files_packed(archive: zipfile.ZipFile) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for entry in archive.infolist():
        if not entry.is_dir():
            yield entry.filename, functools.partial(_unpacked, archive, entry)


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """ValueError that says why not."""
    if entry.flag_bits & ENCRYPTED:
        raise ValueError("is encrypted")
    try:
        return archive.read(entry)
    except NotImplementedError as error:
        raise ValueError("is packed in a way that Python does not know") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"is broken: {error}") from error


def _read(path: Path, name: str, read: Callable[[], bytes]) -> str:
    try:
        return read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"data.rater ({path}): {name}: not UTF-8 at byte {error.start}: save the review as UTF-8") from error
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        mend = (
            "remove it, or bring it again"
            if path.is_dir()
            else "unpack the file with a program that can, and name the folder"
        )
        raise UserError(f"data.rater ({path}): {name}: cannot be read ({reason}): {mend}") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == ABOUT_FILES for part in name.split("/"))


def _kind(name: str) -> str:
    return PurePosixPath(name).parent.name.lower()


def _held_out(review: Review) -> bool:
    digest = hashlib.sha256(review.text.encode()).digest()[:8]
    return int.from_bytes(digest, "big") / 2**64 < HELD_OUT_SHARE


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)
