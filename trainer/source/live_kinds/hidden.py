"""Hidden states of a teacher in the loop."""

import numpy as np
import torch

from hskcache.store.fields import layer_name
from trainer.batch import HiddenTarget
from trainer.source.live_kinds.abc import LiveLayer, LiveTarget


def live_hidden(kept: LiveLayer) -> LiveTarget:
    """States as they are, before any encoding."""
    selector, entries, rows = kept.selector, kept.entries, kept.rows
    kept_B, device = rows.kept_B[selector.name], entries.positions_P.device
    begin = torch.from_numpy(np.repeat(np.arange(len(kept_B)) * rows.input_ids_BL.shape[1], kept_B))
    prefix = f"{layer_name(kept.layer or 0)}/"
    shared = {
        name.removeprefix(prefix): tensor for name, tensor in selector.constants.items() if name.startswith(prefix)
    }
    columns = shared["columns"].long() if "columns" in shared else entries.columns_PW
    target = HiddenTarget(
        index_P=begin.to(device) + entries.positions_P,
        values_PW=entries.values_PW.clone(),
        columns=None if columns is None else columns.clone(),
        width=selector.field.width,
        mean_D=shared.get("mean"),
        basis_WD=shared.get("basis"),
    )
    return LiveTarget(target, entries.values_PW)
