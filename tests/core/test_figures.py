"""Figures that can be read: legends beside what is drawn, confusion matrices with numbers."""

import pytest
import torch

from recipes.core.figures import covers, draw_confusion, legend_name, new_figure, tidy


@pytest.mark.parametrize("kind", ["curve", "bars", "points", "areas"])
def test_a_legend_on_what_is_drawn_is_moved_below(kind: str) -> None:
    figure, axes = new_figure()
    panel = axes[0, 0]
    if kind == "curve":
        panel.plot([0, 1], [0, 1], label="loss")
    elif kind == "bars":
        panel.bar([0, 1, 2], [1, 1, 1], label="accuracy")
    elif kind == "points":
        panel.scatter(torch.linspace(0, 1, 30), torch.linspace(0, 1, 30), label="pictures")
    else:
        panel.broken_barh([(0, 1)], (0, 1), label="loads")
    panel.legend(loc="center")
    figure.draw_without_rendering()
    assert covers(panel.get_legend().get_window_extent(), panel)
    tidy(figure)
    figure.draw_without_rendering()
    box = panel.get_legend().get_window_extent()
    assert not covers(box, panel)
    assert box.y1 <= panel.get_window_extent().y0


def test_a_legend_in_free_room_stays() -> None:
    figure, axes = new_figure()
    axes[0, 0].plot([0, 1], [0, 1], label="loss")
    legend = axes[0, 0].legend(loc="upper left")
    assert tidy(figure).axes[0].get_legend() is legend


HISTORY = [
    {"epoch": 1, "loss": 2.0, "lr": 0.1, "seconds": 3.0, "accuracy": 0.5},
    {"epoch": 2, "loss": 1.0, "lr": 0.1, "seconds": 3.0, "accuracy": 0.7},
]


def test_empty_panels_show_the_history() -> None:
    figure, axes = new_figure(1, 4)
    axes[0, 0].set(title="what was not compared", ylim=(5, 6))
    axes[0, 1].plot([0, 1], [0, 1])
    tidy(figure, HISTORY)
    first, second, third, _ = axes[0]
    assert [line.get_ydata().tolist() for line in first.lines] == [[2.0, 1.0]]
    assert (first.get_title(), first.get_legend_handles_labels()[1]) == ("", ["loss"])
    assert first.get_ylim()[0] <= 1
    assert [line.get_ydata().tolist() for line in second.lines] == [[0, 1]]
    assert [line.get_ydata().tolist() for line in third.lines] == [[0.5, 0.7]]
    assert figure.axes == [first, second, third]  # nothing is left for a fourth
    assert figure.get_figwidth() == 12
    figure.draw_without_rendering()
    assert third.get_position().x1 > 0.98


def test_empty_panels_repeat_no_curve() -> None:
    figure, axes = new_figure(2, 2)
    axes[0, 0].plot([1, 2], [row["loss"] for row in HISTORY])
    axes[0, 0].set_xlabel("epoch")
    tidy(figure, HISTORY)
    shown = [[line.get_ydata().tolist() for line in one.lines] for one in axes.flat]
    assert shown == [[[2.0, 1.0]], [[0.5, 0.7]], [], []]
    assert [one.axison for one in axes.flat] == [True, True, False, False]
    assert all(tick == round(tick) for tick in axes[0, 0].get_xticks()), "epochs are whole"


def test_legends_name_what_is_drawn() -> None:
    figure, axes = new_figure(1, 3)
    for panel, points in zip(axes[0], ([0, 1], [], []), strict=True):
        panel.axhline(0.5)
        panel.plot(points, points, label="one")
        panel.plot([], [], label="other")
        panel.legend()
    axes[0, 2].text(0, 0, "a sentence")
    tidy(figure)
    named = [[text.get_text() for text in one.get_legend().get_texts()] if one.get_legend() else [] for one in axes[0]]
    assert named == [["one"], [], ["one", "other"]]


def test_names_are_drawn_as_they_are() -> None:
    """With dollar signs, which would make formulas, and an underscore, with which legends would leave them out."""
    figure, axes = new_figure()
    name, panel = "_under_$100_to_$200", axes[0, 0]
    panel.plot([1, 1000], [0, 1], label=legend_name(name))
    panel.set(xscale="log", title=name)
    panel.set_yticks([0], [name])
    panel.legend()
    tidy(figure).draw_without_rendering()
    texts = [panel.title, panel.get_yticklabels()[0], *panel.get_legend().get_texts()]
    assert [text.get_text().strip() for text in texts] == [name] * 3
    assert not any(text.get_parse_math() for text in texts)
    assert all(text.get_parse_math() for text in panel.get_xticklabels())  # 10^3


def test_confusions_are_numbers() -> None:
    _, axes = new_figure()
    draw_confusion(axes[0, 0], torch.tensor([[8, 2], [0, 5]]), ["cat", "a long name"])
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes[0, 0].texts}
    assert texts == {(0, 0): "8", (0, 1): "2", (1, 1): "5"}
    assert [tick.get_text() for tick in axes[0, 0].get_yticklabels()] == ["cat", "1"]
