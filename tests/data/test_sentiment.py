"""The rater that reviews teach: right about what it has not seen, the same every time, and to the bit when read again."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rlhf.data import sentiment
from rlhf.data.gold import RATER, load_gold, require_gold
from rlhf.data.sentiment import Review, Reviews, SentimentRater, learn, read_rater, read_reviews, write_rater
from rlhf.errors import UserError

GOOD = ["lovely", "warm", "funny", "brilliant", "moving", "fresh"]
BAD = ["dull", "cold", "boring", "stupid", "tired", "stale"]
PLAIN = ["film", "story", "actor", "scene", "music", "ending", "camera"]
REVIEWS = "sentiment_en/movie_reviews.zip"


def written(count: int, seed: int = 0) -> list[Review]:
    rng = Random(seed)
    kinds = [(i % 2 == 0, GOOD if i % 2 == 0 else BAD) for i in range(count)]
    return [Review(" ".join(rng.sample(PLAIN, 4) + rng.sample(words, 2)), positive) for positive, words in kinds]


@pytest.fixture(scope="module")
def rater() -> SentimentRater:
    return learn(written(200))[0]


def test_it_is_right_about_words_it_knows_and_undecided_about_none(rater: SentimentRater) -> None:
    def gold(text: str) -> float:
        return rater.rate("", text).gold

    assert gold("A lovely, WARM story.") > 0 > gold("A dull story: stale!")
    assert gold("lovely warm") > gold("lovely film") > gold("dull film") > gold("dull cold")
    assert gold("") == gold("xyzzy") == rater.bias


def test_the_prompt_is_no_part_of_what_is_rated(rater: SentimentRater) -> None:
    assert rater.rate("dull cold boring", "a scene") == rater.rate("lovely", "a scene")


def test_held_out_reviews_say_how_often_it_is_right() -> None:
    reviews = written(200)
    _, figures = learn(reviews)
    assert figures["held_out_accuracy"] == 1.0
    assert figures["reviews"] + figures["held_out_reviews"] == 200
    assert 0 < figures["held_out_reviews"] < 80
    rng = Random(1)
    guessed = [Review(review.text, rng.random() < 0.5) for review in reviews]
    assert learn(guessed)[1]["held_out_accuracy"] < 0.8


def test_accuracy_is_of_the_reviews_held_out_and_of_no_other() -> None:
    """Those held out say the opposite of their words: a rater that learned from the rest is wrong about all of them."""
    contrary = [Review(r.text, r.positive != sentiment._held_out(r)) for r in written(400)]
    _, figures = learn(contrary)
    assert figures["held_out_accuracy"] == 0.0
    assert figures["held_out_reviews"] == sum(map(sentiment._held_out, contrary))


def test_a_fifth_is_held_out() -> None:
    texts = {f"review {i}" for i in range(4000)}
    share = sum(sentiment._held_out(Review(text, True)) for text in texts) / len(texts)
    assert share == pytest.approx(0.2, abs=0.025)  # four standard errors


def test_a_word_counts_from_the_third_review_on() -> None:
    reviews = written(200)
    train = [i for i, review in enumerate(reviews) if not sentiment._held_out(review)]
    rare, known = "quixotic", "luminous"
    for word, count in ((rare, 2), (known, 3)):
        for i in train[:count]:
            reviews[i] = Review(f"{reviews[i].text} {word}", reviews[i].positive)
    learned = [review for review in reviews if not sentiment._held_out(review)]
    in_reviews = {word: sum(word in review.text for review in learned) for word in (rare, known)}
    assert in_reviews[rare] < 3 <= in_reviews[known], "a text with another word may be held out"
    words = learn(reviews)[0].words
    assert rare not in words
    assert known in words


def test_it_is_scikit_learns_own_log_odds(rater: SentimentRater) -> None:
    train = [review for review in written(200) if not sentiment._held_out(review)]
    vectorizer = TfidfVectorizer(binary=True, min_df=sentiment.MIN_REVIEWS)
    model = LogisticRegression(C=sentiment.INVERSE_REGULARISATION, max_iter=sentiment.MAX_ITERATIONS)
    model.fit(vectorizer.fit_transform([r.text for r in train]), [r.positive for r in train])
    texts = ["Lovely, lovely film!", "a dull story with warm music", "xyzzy", "stale stupid tired cold"]
    theirs = model.decision_function(vectorizer.transform(texts))
    np.testing.assert_allclose([rater.rate("", text).gold for text in texts], theirs, atol=1e-6)


def test_learning_again_and_reading_again_change_no_bit(rater: SentimentRater, tmp_path: Path) -> None:
    assert learn(written(200))[0] == rater
    write_rater(rater, tmp_path / RATER)
    assert read_rater(tmp_path / RATER) == rater
    write_rater(learn(written(200))[0], tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / RATER).read_bytes()


def test_what_prepare_left_says_who_the_gold_rater_is(rater: SentimentRater, tmp_path: Path) -> None:
    def find(stage: str, file: str) -> Path | None:
        return tmp_path / file if stage == "prepare" and (tmp_path / file).exists() else None

    assert load_gold(find) is None
    with pytest.raises(UserError, match=r"has no gold rater .* `dvc repro prepare`"):
        require_gold(find)
    write_rater(rater, tmp_path / RATER)
    assert require_gold(find) == load_gold(find) == rater


def folder_of(place: Path, **texts: bytes) -> Path:
    for name, text in texts.items():
        kind, _, number = name.partition("_")
        (place / "deep" / kind).mkdir(parents=True, exist_ok=True)
        (place / "deep" / kind / f"{number}.txt").write_bytes(text)
    return place


def test_a_folder_and_a_zip_file_of_it_hold_the_same_reviews(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "reviews", pos_1=b"good", neg_1=b"bad", pos_2=b"fine", other_1=b"neither")
    with zipfile.ZipFile(tmp_path / "reviews.zip", "w") as archive:
        for path in folder.rglob("*.txt"):
            archive.write(path, path.relative_to(folder))
    expected = [Review("bad", False), Review("good", True), Review("fine", True)]
    assert read_reviews(folder) == Reviews(expected, ignored=1)
    assert read_reviews(tmp_path / "reviews.zip") == read_reviews(folder)


def test_kinds_are_known_in_any_case_and_what_a_mac_packs_beside_is_no_review(tmp_path: Path) -> None:
    files = {
        "set/Pos/1.txt": b"good",
        "set/POS/2.TXT": b"fine",
        "set/neg/1.txt": b"bad",
        "__MACOSX/set/Pos/._1.txt": b"\x00\x05\x16\x07\xff",
        "__MACOSX/set/neg/4.txt": b"\xff",
        "set/neg/.hidden.txt": b"\xff",
        ".cache/neg/3.txt": b"\xff",
        "set/neg/1.html": b"\xff",
        "set/README.txt": b"\xff",
    }
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(content)
    (tmp_path / "x" / "set" / "neg" / "folder.txt").mkdir()
    found = read_reviews(tmp_path / "x.zip")
    assert {(review.text, review.positive) for review in found.found} == {("good", True), ("fine", True), ("bad", False)}
    assert (len(found.found), found.ignored) == (3, 2)
    assert read_reviews(tmp_path / "x") == found


def spoilt(path: Path, where: int, value: bytes) -> Path:
    """The zip file with other bytes from there on, counted from the header of its last entry in the directory."""
    content = bytearray(path.read_bytes())
    start = content.rfind(b"PK\x01\x02") + where
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def test_a_review_that_cannot_be_unpacked_is_named(tmp_path: Path) -> None:
    def complaint(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            read_reviews(path)
        about, _, rest = str(caught.value).partition(f"data.rater ({path}): pos/1.txt: cannot be read (")
        assert about == ""
        return rest

    def made() -> Path:
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("neg/1.txt", "bad")
            archive.writestr("pos/1.txt", "good " * 99)
        return tmp_path / "x.zip"

    mend = "): unpack the file with a program that can, and name the folder"
    assert complaint(spoilt(made(), 8, b"\x01\x00")) == "is encrypted" + mend
    assert complaint(spoilt(made(), 10, b"\x63\x00")).endswith("is packed in a way that Python does not know" + mend)
    assert complaint(spoilt(made(), 16, b"\x00\x00\x00\x00")).startswith("is broken: Bad CRC-32")
    path = made()
    content = bytearray(path.read_bytes())
    start = content.rfind(b"pos/1.txt", 0, content.rfind(b"PK\x01\x02")) + len(b"pos/1.txt")
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    assert complaint(path).startswith("is broken: Error -3 while decompressing")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, pos_1=b"good", neg_1=b"bad")
    (folder / "deep" / "pos" / "2.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"deep/pos/2\.txt: cannot be read \(No such file or directory\): remove it, or"):
        read_reviews(folder)


@pytest.mark.parametrize("words", ["{0}a {0}b", "这部电影很好看{0}。", "a b c {0}"])
def test_reviews_without_a_word_in_common_are_refused(words: str) -> None:
    reviews = [Review(words.format(chr(0x4E00 + i) * 2), i % 2 == 0) for i in range(60)]
    with pytest.raises(
        UserError, match=r"^data\.rater: no word stands in 3 of the \d\d reviews that are learned from\. Give"
    ):
        learn(reviews)


def test_what_is_wrong_with_reviews_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"data\.rater \(.*x\.zip\): no zip file"):
        read_reviews(tmp_path / "x.zip")
    with pytest.raises(UserError, match=r"data\.rater \(.*nowhere\): there is neither a file nor a folder"):
        read_reviews(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"there is no review neg/NAME\.txt in it"):
        read_reviews(folder_of(tmp_path / "one", pos_1=b"good"))
    with pytest.raises(UserError, match=r"deep/neg/1\.txt: not UTF-8 at byte 1: save the review as UTF-8"):
        read_reviews(folder_of(tmp_path / "latin", pos_1=b"good", neg_1=b"x\xe9"))
    with pytest.raises(UserError, match=r"2 reviews are too few"):
        learn([Review("good", True), Review("bad", False)])


@pytest.mark.skipif("RLHF_TRIAL_DATA" not in os.environ, reason="RLHF_TRIAL_DATA names no folder with movie reviews")
def test_real_reviews_teach_it_sentiment() -> None:
    reviews = read_reviews(Path(os.environ["RLHF_TRIAL_DATA"]) / REVIEWS)
    rater, figures = learn(reviews.found)
    assert (len(reviews.found), reviews.ignored) == (2000, 1)
    assert figures["reviews"] + figures["held_out_reviews"] == 2000
    assert figures["held_out_accuracy"] > 0.75
    glad, sad = "She was happy and loved her wonderful friends.", "He was bored. It was the worst, stupid waste."
    assert rater.rate("", glad).gold > 0 > rater.rate("", sad).gold
