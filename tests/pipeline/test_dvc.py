"""What runs again when something changes, and what DVC's other commands make of the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from rlhf.runtime import settings
from rlhf.runtime.outputs import numbers
from tests.pipeline.clone import STAGES, Clone, clone, contents
from tests.pipeline.conftest import SMOKE, Smoke


def test_with_nothing_to_do_nothing_runs(shared: Clone) -> None:
    done = shared.dvc("repro")
    assert (done.ran, set(done.skipped)) == ([], {"config", *STAGES})
    assert done.stdout.endswith("Data and pipelines are up to date.\n")


def test_a_stage_is_reproduced_with_what_it_needs_alone(shared: Clone) -> None:
    done = shared.dvc("repro", "sft")
    assert (done.ran, done.skipped) == ([], ["config", "prepare", "base", "sft"])


def test_a_changed_setting_runs_what_depends_on_it_and_changed_back_or_applied_nothing(copy: Clone) -> None:
    before, old = copy.md5s(), contents(copy.artifact())
    changed = copy.dvc("exp", "run", "--name", "careful", "-S", SMOKE, "-S", "ppo.kl_ctl=0.2")
    after, new = copy.md5s(), contents(copy.artifact())
    assert changed.ran == ["config", "ppo", "evaluate"]
    assert {stage for stage in before if before[stage] != after[stage]} == {"ppo", "evaluate"}
    assert copy.params()["ppo"]["kl_ctl"] == 0.2
    assert experiments(copy)["careful"]["params"]["params.yaml"]["data"]["ppo"]["kl_ctl"] == 0.2

    assert copy.dvc("exp", "run", "-S", SMOKE).ran == []
    assert (copy.md5s(), contents(copy.artifact())) == (before, old)

    copy.dvc("exp", "apply", "careful")
    assert (copy.md5s(), contents(copy.artifact())) == (after, new)
    assert copy.dvc("repro").ran == []


def experiments(clone: Clone) -> dict[str, Any]:
    """The data of each experiment of this commit, by name, as `dvc exp show` has them."""
    shown = json.loads(clone.dvc("exp", "show", "--json").stdout)
    revisions = [one for entry in shown for experiment in entry.get("experiments") or [] for one in experiment["revs"]]
    return {revision["name"]: revision["data"] for revision in revisions}


@pytest.mark.parametrize(
    ("override", "untouched"),
    [
        ("seed=1", set()),
        ("model.tiny.hidden_size=40", {"prepare"}),
        ("labeler.temperature=1.5", {"prepare", "base", "sft", "sample"}),
    ],
)
def test_a_changed_setting_makes_stale_what_depends_on_it(shared: Clone, override: str, untouched: set[str]) -> None:
    params = shared.root / "params.yaml"
    kept = params.read_bytes()
    try:
        params.write_text(OmegaConf.to_yaml(settings.compose(shared.root, [SMOKE, override])), encoding="utf-8")
        stale = set(json.loads(shared.dvc("status", "--json").stdout))
    finally:
        params.write_bytes(kept)
    assert with_what_follows(shared, stale) - {"config"} == set(STAGES) - untouched


def with_what_follows(clone: Clone, stages: set[str]) -> set[str]:
    """These stages and those that read what they make."""
    pipeline = yaml.safe_load((clone.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    reads = {
        name: {dep.split("/")[1] for dep in entry["deps"] if dep.startswith("artifacts/")}
        for name, entry in pipeline.items()
    }
    found = stages - {"config"}
    while more := {name for name, makers in reads.items() if makers & found} - found:
        found |= more
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "rerun"), [("seed=1", list(STAGES)), ("model.tiny.hidden_size=40", [s for s in STAGES if s != "prepare"])]
)
def test_a_changed_setting_runs_all_that_depends_on_it(copy: Clone, override: str, rerun: list[str]) -> None:
    assert copy.dvc("exp", "run", "-S", SMOKE, "-S", override).ran == ["config", *rerun]


def test_one_changed_byte_of_the_raw_data_is_noticed(copy: Clone) -> None:
    table = copy.root / copy.params()["data"]["path"]
    text, before = table.read_bytes(), copy.md5s()
    assert text.startswith(b"# ")
    table.write_bytes(b"#!" + text[2:])
    assert copy.dvc("repro", "prepare").ran == ["config", "prepare"]
    assert copy.md5s()["prepare"] != before["prepare"]


def test_metrics_and_plots_are_shown(shared: Clone) -> None:
    (summary,) = json.loads(shared.dvc("metrics", "show", "--json").stdout)[""]["data"]
    assert summary == "artifacts/evaluate/summary.json"
    of_stages = [f"artifacts/{stage}/metrics.json" for stage in STAGES]
    shown = json.loads(shared.dvc("metrics", "show", "--json", *of_stages).stdout)[""]["data"]
    assert set(shown) == set(of_stages)
    for path, metrics in shown.items():
        assert numbers(metrics["data"]) == numbers(json.loads((shared.root / path).read_text(encoding="utf-8")))

    said = shared.dvc("plots", "show").stdout.strip()
    page = Path(said.removeprefix("file://"))
    html = page.read_text(encoding="utf-8")
    assert page == shared.root / "dvc_plots" / "index.html"
    plots = yaml.safe_load((shared.root / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    assert all(f"artifacts/{stage}/curve.csv" in str(plots) for stage in STAGES)
    for plot in plots:
        (name,) = plot if isinstance(plot, dict) else [Path(plot).name]
        assert name in html
    assert shared.git("status", "--porcelain") == ""


def test_a_queued_experiment_runs_elsewhere_and_can_be_applied(copy: Clone) -> None:
    before = contents(copy.artifact())
    copy.dvc("exp", "run", "--queue", "--name", "quick", "-S", SMOKE, "-S", "evaluate.bootstrap_samples=50")
    assert experiments(copy)["quick"]["params"]["params.yaml"]["data"]["evaluate"]["bootstrap_samples"] == 50
    done = copy.dvc("exp", "run", "--run-all")
    assert done.ran == ["config", "evaluate"]
    assert contents(copy.artifact()) == before
    assert copy.git("status", "--porcelain") == ""

    shown = experiments(copy)["quick"]["metrics"]
    assert list(shown) == ["artifacts/evaluate/summary.json"]
    committed = json.loads(copy.artifact("evaluate", "metrics.json").read_text(encoding="utf-8"))
    assert shown["artifacts/evaluate/summary.json"]["data"]["ppo"]["gold_score"] == committed["ppo"]["gold_score"]
    copy.dvc("exp", "apply", "quick")
    figures = json.loads(copy.artifact("evaluate", "metrics.json").read_text(encoding="utf-8"))
    assert figures["ppo"]["gold_score"] == committed["ppo"]["gold_score"]
    assert figures["ppo"]["gold_interval"] != committed["ppo"]["gold_interval"]


def test_what_was_pushed_is_pulled_by_another_clone_which_runs_nothing(copy: Clone, tmp_path: Path) -> None:
    copy.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    copy.dvc("push")
    copy.commit("A remote")
    other = clone(copy.root, tmp_path / "other", copy.home)
    assert not other.artifact().exists()
    other.dvc("pull")
    assert contents(other.artifact()) == contents(copy.artifact())
    done = other.dvc("repro")
    assert (done.ran, set(done.skipped)) == ([], {"config", *STAGES})
    assert other.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_another_clone_ends_with_the_same_bytes(smoke: Smoke, tmp_path: Path) -> None:
    other = clone(smoke.clone.root, tmp_path / "another place", smoke.clone.home)
    other.git("checkout", "--quiet", smoke.commit)
    done = other.dvc("exp", "run", "-S", SMOKE)
    assert done.ran == ["config", *STAGES]
    assert other.md5s() == smoke.clone.md5s()
    assert contents(other.artifact()) == contents(smoke.clone.artifact())
