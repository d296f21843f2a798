"""A gold rater learned from reviews: how positive a text is (docs/stories.md)."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from math import fsum, sqrt
from pathlib import Path
from typing import Any

from rlhf.errors import UserError

WORD = re.compile(r"\b\w\w+\b")  # what scikit-learn takes for a word
KINDS = ("neg", "pos")  # the folders of the reviews
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


def read_reviews(path: Path) -> list[Review]:
    """The texts `pos/*.txt` and `neg/*.txt` of a zip file or a folder, at whatever depth, in the order of their names.

    Raises:
        UserError: it is neither, a text is not UTF-8, or there are none of a kind.
    """
    found = {name: read for name, read in _texts(path).items() if name.endswith(".txt") and _kind(name) in KINDS}
    reviews = []
    for name in sorted(found):
        try:
            reviews.append(Review(found[name].decode("utf-8"), _kind(name) == "pos"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: {name}: not UTF-8 at byte {error.start}") from error
    for kind, positive in (("pos", True), ("neg", False)):
        if not any(review.positive == positive for review in reviews):
            raise UserError(f"data.rater ({path}): there is no review {kind}/NAME.txt in it, and both kinds are needed")
    return reviews


def learn(reviews: list[Review]) -> tuple[SentimentRater, dict[str, Any]]:
    """The rater that the reviews teach, and how often it is right about those held out.

    Raises:
        UserError: too few reviews to have both kinds among those learned from and those held out.
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
    features = vectorizer.fit_transform([review.text for review in train])
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


def _texts(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*.txt")}
    if not path.exists():
        raise UserError(f"data.rater ({path}): there is neither a file nor a folder of this name")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if name.endswith(".txt")}
    except zipfile.BadZipFile as error:
        raise UserError(f"data.rater ({path}): no zip file ({error}), and no folder") from error


def _kind(name: str) -> str:
    return Path(name).parent.name


def _held_out(review: Review) -> bool:
    digest = hashlib.sha256(review.text.encode()).digest()[:8]
    return int.from_bytes(digest, "big") / 2**64 < HELD_OUT_SHARE


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)
