"""What is really drawn of a figure."""

from collections.abc import Callable

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


@pytest.fixture
def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Figure], dict[Text, Bbox]]:
    """A function that draws a figure and returns every text on it with its place in dots."""
    texts: dict[Text, Bbox] = {}

    def note(self: Text, renderer: RendererAgg) -> None:
        if self.get_visible() and self.get_text():
            texts[self] = self.get_window_extent(renderer)

    monkeypatch.setattr(Text, "draw", note)

    def draw(figure: Figure) -> dict[Text, Bbox]:
        texts.clear()
        FigureCanvasAgg(figure).draw()
        return dict(texts)

    return draw


@pytest.fixture
def assert_within(drawn_texts) -> Callable[[Figure], None]:
    """A function that asserts that no artist is cut off by the figure's border."""

    def check(figure: Figure) -> None:
        drawn_texts(figure)
        box = figure.get_tightbbox(figure.canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height

    return check
