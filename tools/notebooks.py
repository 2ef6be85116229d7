"""Run the notebooks that ship and store what they show, without paths, times and paces.

``python tools/notebooks.py FOLDER`` writes them there, without FOLDER in their place. Each runs in an empty folder, by
the kernel of this Python.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbclient
import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "data" / "notebooks"
# Times and paces of bars, which are behind their counts.
# tqdm's complaint of an environment without ipywidgets, which our own bars do not need.
_NO_WIDGETS = re.compile(r"^.*IProgress not found.*\n.*autonotebook.*\n", re.MULTILINE)
_PACE = re.compile(r"(?<=\d/\d)(\d*)[^\n<]*")


def executed(path: Path) -> NotebookNode:
    """A notebook as it is after all its cells have run, with stable outputs. Raises CellExecutionError if one fails."""
    book = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(book, timeout=300, resources=resources, coalesce_streams=True).execute()
        for cell in book.cells:
            cell.metadata = {}
            for output in cell.get("outputs", ()):
                _steady(output, str(Path(folder).resolve()))
            if "outputs" in cell:
                cell.outputs = [one for one in cell.outputs if one.get("text") != ""]
    book.metadata.pop("widgets", None)
    book.metadata.language_info = {"name": "python"}
    return book


def _steady(output: NotebookNode, folder: str) -> None:
    """Take the folder out of an output, and the paces of bars, which are left as text."""
    output.pop("transient", None)
    if output.output_type == "stream":
        output.text = _NO_WIDGETS.sub("", output.text).replace(f"{folder}/", "")
    if output.output_type == "display_data":
        output.data = {"text/plain": _PACE.sub(r"\1", output.data["text/plain"]).rstrip()}
    for kind, shown in output.get("data", {}).items():
        output.data[kind] = shown.replace(f"{folder}/", "") if isinstance(shown, str) else shown


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOKS
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(executed(path), target / path.name)
        print(target / path.name)
