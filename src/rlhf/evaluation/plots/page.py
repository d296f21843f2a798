"""frontier.html: every point with its settings under the pointer, in one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.evaluation.names import shown_method
from rlhf.evaluation.plots.frontier import across, distance
from rlhf.evaluation.plots.style import COLOURS
from rlhf.evaluation.standings import Standing
from rlhf.evaluation.statistics import Interval

HOVER = "<br>".join(
    [
        "<b>%{customdata[0]}</b>",
        "score %{y:.2f}",
        "KL %{customdata[1]:.2f} nats",
        "win rate %{customdata[2]:.2f}<extra></extra>",
    ]
)


def write_page(found: Sequence[Standing], judge: str, path: Path) -> None:
    """Buttons choose the axis (KL or its root) and, where there are two, whose score is shown; rings are the judge's."""
    import plotly.graph_objects as go

    methods = list(dict.fromkeys(standing.point.method for standing in found))
    page = go.Figure([go.Scatter(**_trace([s for s in found if s.point.method == method], method)) for method in methods])
    by_method = [[s for s in found if s.point.method == method] for method in methods]
    axes = {
        "√KL": {"x": [_distances(of) for of in by_method], "error_x": [_ends(_across(of)) for of in by_method]},
        "KL": {
            "x": [[s.kl.mean for s in of] for of in by_method],
            "error_x": [_ends([s.kl for s in of]) for of in by_method],
        },
    }
    scores = {f"{judge} score": "judged"} | ({"reward model's score": "reward"} if judge == "gold" else {})
    page.update_layout(
        template="simple_white",
        title={
            "text": f"What each method buys with its KL (rings: no other has a higher {judge} score at no more KL)",
            "y": 0.97,
        },
        margin={"t": 130},
        xaxis_title="√KL from SFT, nats a response (best of n: at most)",
        yaxis_title=f"{judge} score, 95 % intervals",
        updatemenus=[
            _buttons([_button(name, [x, {"xaxis.title.text": f"{name} from SFT, nats"}]) for name, x in axes.items()], 0.0),
            _buttons(
                [_button(name, [_heights(by_method, of), {"yaxis.title.text": name}]) for name, of in scores.items()], 0.2
            ),
        ],
    )
    page.write_html(path, include_plotlyjs=True, div_id="frontier", config={"displaylogo": False})


def _trace(of_method: Sequence[Standing], method: str) -> dict[str, Any]:
    colour = COLOURS.get(method, COLOURS["ppo"])
    return {
        "name": shown_method(method),
        "mode": "markers",
        "x": _distances(of_method),
        "error_x": _ends(_across(of_method)),
        "y": [standing.judged.mean for standing in of_method],
        "error_y": _ends([standing.judged for standing in of_method]),
        "marker": {"color": colour, "size": 9, "line": {"width": _rings(of_method), "color": "black"}},
        "customdata": [[_named(s), s.kl.mean, s.win_rate.mean] for s in of_method],
        "hovertemplate": HOVER,
    }


def _named(standing: Standing) -> str:
    return "<br>".join([shown_method(standing.point.method), *(f"{k} = {v}" for k, v in standing.point.setting.items())])


def _rings(of_method: Sequence[Standing]) -> list[int]:
    return [2 if standing.pareto else 0 for standing in of_method]


def _distances(of_method: Sequence[Standing]) -> list[float]:
    return [distance(standing.kl.mean) for standing in of_method]


def _across(of_method: Sequence[Standing]) -> list[Interval]:
    return [across(standing.kl) for standing in of_method]


def _ends(intervals: Sequence[Interval]) -> dict[str, Any]:
    down, up = ([interval.arms[side] for interval in intervals] for side in (0, 1))
    return {"type": "data", "symmetric": False, "array": list(up), "arrayminus": list(down), "thickness": 1}


def _heights(by_method: Sequence[Sequence[Standing]], figure: str) -> dict[str, Any]:
    intervals = [[getattr(standing, figure) for standing in of] for of in by_method]
    rings = [_rings(of) if figure == "judged" else [0] * len(of) for of in by_method]
    return {
        "y": [[interval.mean for interval in of] for of in intervals],
        "error_y": [_ends(of) for of in intervals],
        "marker.line.width": rings,
    }


def _button(label: str, change: list[dict[str, Any]]) -> dict[str, Any]:
    return {"label": label, "method": "update", "args": change}


def _buttons(buttons: list[dict[str, Any]], place: float) -> dict[str, Any]:
    return {"type": "buttons", "direction": "right", "buttons": buttons, "x": place, "y": 1.12, "xanchor": "left"}
