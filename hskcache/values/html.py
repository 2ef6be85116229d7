"""A cache as a notebook shows it."""

from html import escape
from typing import TYPE_CHECKING

from hskcache import units
from hskcache.counted import counted
from hskcache.describe import DESCRIPTIONS
from hskcache.values.columns import Shape, origins

if TYPE_CHECKING:
    from hskcache.values.values import DecodedRows


def table(cache: "DecodedRows") -> str:
    """Fields with their columns and sizes as HTML; what a stranger named is escaped."""
    request = cache.manifest.request
    teacher, data = request.teacher, request.data
    about = (
        f"<b>{escape(cache.name)}</b>: {counted(cache.num_rows, 'row')} of {escape(data.name)}, "
        f"by {escape(teacher.name)} "
        f"({escape(teacher.model_type)}, {counted(teacher.num_layers, 'layer')}, width {teacher.width}), "
        f"id <code>{cache.id[:12]}</code>"
    )
    rows, columns = [], origins(cache.fields)
    for name, field in cache.fields.items():
        own = [f"{column} {_shape(one.shape)}" for column, one in columns.items() if one.field == name]
        cells = (
            escape(name),
            escape(DESCRIPTIONS[field.kind].told(field)),
            "<br>".join(map(escape, own)),
            units.human_bytes(cache.manifest.field_bytes(name)),
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{title}</th>" for title in ("field", "what", "columns", "bytes"))
    return f"<div>{about}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _shape(shape: Shape) -> str:
    return f"[{', '.join('·' if size is None else str(size) for size in shape)}]"
