"""What is measured of texts and scores (SPEC section 6): plain functions.

The text measures are here to be seen failing beside the gold score: rules over words cannot judge a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log

from rapidfuzz.distance import LCSseq


def rouge_l(candidate: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words (Lin 2004, with β = 1); 0 where they share none."""
    common = LCSseq.similarity(candidate, reference)
    return 2 * common / (len(candidate) + len(reference)) if common else 0.0


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams over all n-grams of these lists of words (Li et al. 2016), n 1 or 2; 0 where there are none."""
    grams = [gram for text in texts for gram in (text if n == 1 else pairwise(text))]
    return len(set(grams)) / len(grams) if grams else 0.0


def best_of_n_kl_bound(n: int) -> float:
    """log n − (n − 1) / n, nats: the most that the best of n samples can differ from the policy they came from."""
    return log(n) - (n - 1) / n


def share_closed(score: float, start: float, perfect: float) -> float:
    """How much of the way from `start` to `perfect` a score has come: 1 is perfect, below 0 is a step back."""
    return (score - start) / (perfect - start) if perfect > start else 0.0
