"""Sparse teachers of some levels in one folder, beside the scores that chose what they lack.

``OUT`` holds the scores, if the teacher was scored, and a folder for each level; all of it is of one teacher and one
ranking. What is there already and is what was asked for stays as it is; anything else is refused and left alone.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hskcache.disk import require_space, writing_to
from hskcache.errors import DamageError, MismatchError
from hskcache.locks import WRITING
from hskcache.sparsity.artifact import INFO, SCORES, ScoreInfo, files_of, record_of, save_scores
from hskcache.sparsity.checkpoint import SPARSITY, LevelInfo, read_info, write_checkpoint
from hskcache.sparsity.levels import Ranking, level_name
from hskcache.sparsity.ranked import Ranked, kind_of
from hskcache.sparsity.subjects import SUBJECTS, AnyScores, Subject
from hskcache.store.files import TEMPORARY_SUFFIX, write_atomic
from hskcache.teacher.load import Teacher

_LEVEL = re.compile(r"s[0-9]{1,2}")
# Names of what is not whole yet: a level's folder, and the files of scores as write_atomic calls them.
_PARTIAL = re.compile(rf"({_LEVEL.pattern}|scores\.(json|safetensors)\.[0-9a-f]+){re.escape(TEMPORARY_SUFFIX)}")
_WEIGHTS = "*.safetensors"
_SINCE = "the last whole sparse teacher"
# A tokenizer, a configuration and a record stand beside the weights.
_BESIDE_BYTES = 10_000_000


@dataclass(frozen=True)
class SparseTeacher:
    """A sparse teacher in its folder, and whether it was there already."""

    info: LevelInfo
    folder: Path
    was_there: bool


def check_out(teacher: Teacher, ranking: Ranking, levels: Sequence[int], out: Path) -> None:
    """Raise unless sparse teachers can be written, whatever they will lack; remove what a kill left half done.

    Raises MismatchError if ``out`` holds something else, or sparse teachers of another teacher or ranking; DamageError
    if a sparse teacher there is not whole; CacheError if the disk is too small.
    """
    entries = sorted(path for path in out.iterdir() if path.name != WRITING) if out.exists() else []
    partial = [path for path in entries if _PARTIAL.fullmatch(path.name)]
    infos = _infos(out)
    names = {path.name for path in entries} - {path.name for path in partial}
    if names and not infos and not names & {INFO, SCORES}:
        raise MismatchError(f"{out} holds {min(names)} and no sparse teacher; give a new or an empty folder with --out")
    asked: dict[str, Any] = {"kind": kind_of(ranking)} | ({} if ranking.scope is None else {"scope": ranking.scope})
    asked |= {"method": ranking.method, "balance": ranking.balance, "seed": ranking.seed}
    asked |= {"teacher": {"weights_sha256": teacher.info.weights_sha256}}
    for percent, info in infos.items():
        _refuse_other(out / level_name(percent), info, asked)
    for path in partial:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    num_levels = len(set(levels) - infos.keys())
    each = sum(tensor.nbytes for tensor in teacher.model.state_dict().values()) + _BESIDE_BYTES
    what = f"{num_levels} sparse teachers may need"
    require_space(out, num_levels * each, what, "ask for fewer levels with --sparsity")


def stored_scores(out: Path, info: ScoreInfo) -> tuple[AnyScores, ScoreInfo] | None:
    """The scores in ``out``, if there are any; then they are those of the same pass.

    Raises MismatchError if they are of another pass, DamageError if they are not as they were written.
    """
    if not (out / INFO).exists():
        return None
    if (difference := record_of(out).difference(info)) is not None:
        key, there, wanted = difference
        raise MismatchError(
            f"{out} holds scores with {key} {_short(there)} and these would have {_short(wanted)}; give another --out, "
            f"or --scores {out} to use those"
        )
    return SUBJECTS[info.kind].load(out)


def keep_scores(out: Path, scores: AnyScores, info: ScoreInfo) -> ScoreInfo:
    """Save scores in ``out``. Raises CacheError if the folder cannot be written."""
    with writing_to(out, _SINCE):
        return save_scores(out, scores, info)


def earlier_scores(path: Path, teacher: Teacher, out: Path, subject: Subject) -> tuple[AnyScores, ScoreInfo]:
    """Scores of an earlier pass.

    ``teacher``: whose they must be; ``out``: where no others may be. Raises MismatchError if there are none, they are
    of another teacher, or other scores are in ``out``; DamageError if they are not as they were written.
    """
    scores, info = subject.load(path)
    if info.teacher.weights_sha256 != teacher.info.weights_sha256:
        raise MismatchError(
            f"{path} holds scores of another teacher, {info.teacher.name}, whose weights are not those of "
            f"{teacher.info.name}; give that teacher, or score this one"
        )
    if (out / INFO).exists() and record_of(out).sha256 != info.sha256:
        raise MismatchError(f"{out} holds other scores than {path}; give another --out")
    return scores, info


def copy_scores(path: Path, out: Path) -> None:
    """Put scores of an earlier pass beside the sparse teachers made of them, unless they are there.

    Raises CacheError if the folder cannot be written.
    """
    if (out / INFO).exists():
        return
    with writing_to(out, _SINCE):
        for name, file in zip((SCORES, INFO), files_of(path), strict=True):
            write_atomic(out / name, file.read_bytes())


def write_levels(
    ranked: Ranked, levels: Sequence[int], out: Path, on_level: Callable[[], None] | None = None
) -> list[SparseTeacher]:
    """Write the sparse teachers of some levels that are not there yet, each as an ordinary checkpoint.

    ``ranked``: the teacher, whose weights are as they were afterwards; ``levels``: percents; ``out``: the folder of
    their folders ``s30``; ``on_level``: called after each level, those that were there included. Raises MismatchError
    if a level of other scores is there; nothing is written; DamageError if one that is there is not whole; nothing is
    written; CacheError if the folder cannot be written; levels before are whole.
    """
    there = _infos(out)
    for percent, info in there.items():
        _refuse_other(out / level_name(percent), info, ranked.at(percent).info.identity)
    done = []
    for percent in levels:
        zeros, info = ranked.at(percent)
        folder = out / level_name(percent)
        if percent not in there:
            with writing_to(out, _SINCE):
                write_checkpoint(ranked.teacher, zeros, info, folder)
        done.append(SparseTeacher(info, folder, percent in there))
        if on_level is not None:
            on_level()
    return done


def _infos(out: Path) -> dict[int, LevelInfo]:
    """Records of the levels that are in ``out``."""
    folders = sorted(path for path in out.glob("s*") if _LEVEL.fullmatch(path.name))
    infos = {}
    for folder in folders:
        if not (folder / SPARSITY).is_file():
            raise MismatchError(f"{folder} is there and holds no {SPARSITY}; give another --out")
        if not any(folder.glob(_WEIGHTS)):
            raise DamageError(f"{folder} lacks its weights, {_WEIGHTS}; delete it and run the same command again")
        infos[int(folder.name[1:])] = read_info(folder)
    return infos


def _refuse_other(folder: Path, info: LevelInfo, wanted: dict[str, Any]) -> None:
    """Refuse a level that is not as wanted in one of the keys of :attr:`SparsityInfo.identity`."""
    there = info.identity
    for key, value in wanted.items():
        if there.get(key) != value:
            raise MismatchError(
                f"{folder} is there with {key} {_short(there.get(key))} and this command gives {_short(value)}; give "
                "another --out, or delete it"
            )


def _short(value: Any) -> str:
    return f"{value!s:.60}"
