"""Progress bars in the output of a notebook's cell: one display that is replaced, for which no widgets are needed."""

import io
import threading
import time
from typing import Any

from IPython.display import display
from rich.console import Console
from rich.progress import Progress

_COLUMNS, _INTERVAL_S = 100, 0.25


class NotebookBars(Progress):
    """Bars that appear with the first step and are drawn anew a few times a second."""

    def __init__(self, *columns: Any) -> None:
        super().__init__(*columns, console=_console(), auto_refresh=False, disable=True)
        self._mutex = threading.Lock()
        self._display: Any = None
        self._next_s = 0.0

    def update(self, *args: Any, **changes: Any) -> None:
        """Change a task, see :class:`rich.progress.Progress`."""
        super().update(*args, **changes)
        self._show()

    def advance(self, *args: Any, **changes: Any) -> None:
        """Advance a task, see :class:`rich.progress.Progress`."""
        super().advance(*args, **changes)
        self._show()

    def stop(self) -> None:
        """Show the end; nothing where nothing was done."""
        super().stop()
        self._show(is_last=True)

    def _show(self, is_last: bool = False) -> None:
        with self._mutex:
            if not any(task.completed for task in self.tasks) or (time.monotonic() < self._next_s and not is_last):
                return
            self._next_s = time.monotonic() + _INTERVAL_S
            data = _drawn(self.get_renderable())
            if self._display is None:
                self._display = display(data, raw=True, display_id=True)
            else:
                self._display.update(data, raw=True)


def _console() -> Console:
    return Console(file=io.StringIO(), record=True, width=_COLUMNS, force_jupyter=False)


def _drawn(bars: Any) -> dict[str, str]:
    """The bars as text and as HTML."""
    console = _console()
    console.print(bars)
    html = console.export_html(inline_styles=True, clear=False, code_format="<pre>{code}</pre>")
    return {"text/plain": console.export_text(), "text/html": html}
