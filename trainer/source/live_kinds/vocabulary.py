"""Next tokens of a teacher in the loop."""

from trainer.batch import DrawnTarget, StatesTarget, TopTarget
from trainer.source.live_kinds.abc import LiveLayer, LiveTarget


def live_vocabulary(kept: LiveLayer) -> LiveTarget:
    """Likeliest tokens, draws or final states as they are, before any encoding."""
    entries = kept.entries
    shared = entries.place_P.clone(), entries.log_z_P.clone(), entries.gold_P.clone()
    if entries.top is not None:
        top = TopTarget(*shared, entries.top.ids_PK.clone(), entries.top.logp_PK.clone())
        return LiveTarget(top, entries.top.logp_PK)
    if entries.draws_Pn is not None:
        return LiveTarget(DrawnTarget(*shared, entries.draws_Pn.clone()), entries.log_z_P)
    assert entries.states_PD is not None
    return LiveTarget(StatesTarget(*shared, entries.states_PD.clone(), kept.selector.head), entries.states_PD)
