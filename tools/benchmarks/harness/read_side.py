"""One side of ``tools/bench read``, in a process and with a Python of its own: ``write`` a folder, or read it.

``python read_side.py write SIDE RECORDS FOLDER`` writes the records, rows of a structured array in a .npy file, as the
library's documentation has it. ``python read_side.py read SIDE FOLDER BATCH_SIZE EPOCHS`` goes through shuffled batches
of tensors and prints for each epoch the seconds of CPU of the whole process, the first from opening on, as JSON.

Nothing of hskcache is imported but by the side that measures it, so that a Python without it can run this.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

Batches = Callable[[int], Iterable[Any]]


def _records(path: str) -> Any:
    return np.load(path, mmap_mode="r")


def _row(row: Any) -> dict[str, Any]:
    return {name: np.array(row[name]) for name in row.dtype.names}


def _orders(num_rows: int, batch_size: int, epoch: int) -> Iterator[Any]:
    order = np.random.default_rng(epoch).permutation(num_rows)
    return iter(np.split(order, range(batch_size, num_rows, batch_size)))


def write_memmap(records: str, folder: Path) -> None:
    """Fixed records, one after the other."""
    np.save(folder / "records.npy", _records(records))


def read_memmap(folder: Path, batch_size: int) -> Batches:
    """A fancy index a batch, nothing checked."""
    rows = _records(str(folder / "records.npy"))
    names = rows.dtype.names

    def epoch(number: int) -> Iterator[Any]:
        for order in _orders(len(rows), batch_size, number):
            batch = rows[order]
            yield {name: torch.from_numpy(batch[name]) for name in names}

    return epoch


def read_memmap_float32(folder: Path, batch_size: int) -> Batches:
    """The same with states widened to float32, which losses are computed in."""
    epoch = read_memmap(folder, batch_size)
    return lambda number: (
        {name: one.float() if one.dtype == torch.float16 else one for name, one in batch.items()}
        for batch in epoch(number)
    )


def write_h5py(records: str, folder: Path) -> None:
    """A contiguous data set an array, which is the layout that h5py has by default."""
    import h5py

    rows = _records(records)
    with h5py.File(folder / "records.h5", "w") as file:
        for name in rows.dtype.names:
            file.create_dataset(name, data=rows[name])


def read_h5py(folder: Path, batch_size: int) -> Batches:
    """A list of ascending rows a data set and batch, as h5py takes them."""
    import h5py

    file = h5py.File(folder / "records.h5", "r")
    sets = {name: file[name] for name in file}

    def epoch(number: int) -> Iterator[Any]:
        for order in _orders(len(next(iter(sets.values()))), batch_size, number):
            rows = np.sort(order)
            yield {name: torch.from_numpy(one[rows]) for name, one in sets.items()}

    return epoch


def write_datasets(records: str, folder: Path) -> None:
    """Arrow files of arrays of fixed shape."""
    from datasets import Array2D, Array3D, Dataset, Features, Sequence, Value

    rows = _records(records)

    def feature(kind: Any) -> Any:
        base, shape = kind.base, kind.shape
        if len(shape) > 1:
            return {2: Array2D, 3: Array3D}[len(shape)](shape=shape, dtype=base.name)
        return Sequence(Value(base.name), length=shape[0]) if shape else Value(base.name)

    features = Features({name: feature(rows.dtype.fields[name][0]) for name in rows.dtype.names})
    Dataset.from_generator(lambda: map(_row, rows), features=features, cache_dir=str(folder / "made")).save_to_disk(
        str(folder / "rows")
    )


def read_datasets(folder: Path, batch_size: int) -> Batches:
    """A list of rows a batch, in the format torch."""
    from datasets import load_from_disk

    rows = load_from_disk(str(folder / "rows")).with_format("torch")
    return lambda number: (rows[order.tolist()] for order in _orders(len(rows), batch_size, number))


def write_litdata(records: str, folder: Path) -> None:
    """Chunks of 64 MB, the rows in their order."""
    rows = _records(records)
    import_module("litdata").optimize(
        fn=_LitRow(records), inputs=list(range(len(rows))), output_dir=str(folder), chunk_bytes="64MB", num_workers=1
    )


class _LitRow:
    def __init__(self, records: str) -> None:
        self.path = records
        self.rows: Any = None

    def __call__(self, index: int) -> dict[str, Any]:
        self.rows = _records(self.path) if self.rows is None else self.rows
        return _row(self.rows[index])


def read_litdata(folder: Path, batch_size: int) -> Batches:
    """StreamingDataset and StreamingDataLoader, shuffled, in this process."""
    litdata = import_module("litdata")
    rows = litdata.StreamingDataset(str(folder), shuffle=True)
    loader = litdata.StreamingDataLoader(rows, batch_size=batch_size, num_workers=0)
    return lambda _: loader


def _streaming() -> Any:
    """MosaicML Streaming, which imports torchvision: a wheel for CUDA beside a torch without it lacks two operators."""
    if torch.version.cuda is None and "streaming" not in sys.modules:
        library: Any = torch.library
        operators = library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return import_module("streaming")


def write_mds(records: str, folder: Path) -> None:
    """MDS of arrays whose types and shapes are declared, which is the smallest form."""
    rows = _records(records)

    def column(kind: Any) -> str:
        base, shape = kind.base, kind.shape
        return f"ndarray:{base.name}:{','.join(map(str, shape))}" if shape else "int"

    columns = {name: column(rows.dtype.fields[name][0]) for name in rows.dtype.names}
    with _streaming().MDSWriter(out=str(folder), columns=columns) as out:
        for row in map(_row, rows):
            out.write({name: value if columns[name] != "int" else int(value) for name, value in row.items()})


def read_mds(folder: Path, batch_size: int) -> Batches:
    """StreamingDataset and StreamingDataLoader, shuffled, in this process."""
    streaming = _streaming()
    rows = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
    loader = streaming.StreamingDataLoader(rows, batch_size=batch_size, num_workers=0)
    return lambda _: loader


def read_hskcache(folder: Path, batch_size: int, residency: str) -> Batches:
    """The loader of whichever hskcache is found first, verified and decoded."""
    from hskcache.cache import open_cache
    from trainer.loading import KnowledgeLoader

    # As a command of ours begins; other commits do not know it.
    with suppress(ModuleNotFoundError):
        import_module("hskcache.allocator").keep_freed_memory()
    cache = open_cache(folder)
    residencies: Any = residency
    loader = KnowledgeLoader(cache, batch_size=batch_size, residency=residencies)
    return lambda _: loader


WRITERS: dict[str, Callable[[str, Path], None]] = {
    "memmap": write_memmap,
    "h5py": write_h5py,
    "datasets": write_datasets,
    "litdata": write_litdata,
    "mds": write_mds,
}
IMPORTED = {
    "h5py": "h5py",
    "datasets": "datasets",
    "litdata": "litdata",
    "host": "trainer.loading",
    "stream": "trainer.loading",
}
READERS: dict[str, Callable[[Path, int], Batches]] = {
    "memmap": read_memmap,
    "memmap-float32": read_memmap_float32,
    "h5py": read_h5py,
    "datasets": read_datasets,
    "litdata": read_litdata,
    "mds": read_mds,
    "host": lambda folder, batch_size: read_hskcache(folder, batch_size, "host"),
    "stream": lambda folder, batch_size: read_hskcache(folder, batch_size, "stream"),
}


def read(side: str, folder: str, batch_size: str, epochs: str) -> None:
    """Print the seconds of CPU and the batches of each epoch."""
    torch.set_num_threads(1)
    # Imports are not timed.
    if side == "mds":
        _streaming()
    elif side in IMPORTED:
        import_module(IMPORTED[side])
    seconds, counts = [], []
    start = time.process_time()
    batches = READERS[side](Path(folder), int(batch_size))
    for epoch in range(int(epochs)):
        counts.append(sum(1 for _ in batches(epoch)))
        seconds.append(time.process_time() - start)
        start = time.process_time()
    print(json.dumps({"seconds": seconds, "batches": counts}))


if __name__ == "__main__":
    verb, side, *words = sys.argv[1:]
    if verb == "write":
        WRITERS[side](words[0], Path(words[1]))
    else:
        read(side, *words)
