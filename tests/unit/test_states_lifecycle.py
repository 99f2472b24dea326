"""Each state by each trigger of the life of databases, branches, keyspaces and servers."""

from __future__ import annotations

import pytest

from homeworld.model.errors import TransitionRefusedError
from homeworld.model.machine import Kind
from homeworld.model.states.lifecycle import LIFECYCLE, Life, LifeTrigger, life_row

ALLOWED = {
    (Life.PENDING, LifeTrigger.MADE): Life.READY,
    (Life.PENDING, LifeTrigger.DELETE): Life.DELETING,
    (Life.READY, LifeTrigger.DELETE): Life.DELETING,
    (Life.DELETING, LifeTrigger.GONE): Life.DELETED,
}


@pytest.mark.parametrize("state", list(Life))
@pytest.mark.parametrize("trigger", list(LifeTrigger))
def test_each_state_and_trigger(state: Life, trigger: LifeTrigger) -> None:
    if (state, trigger) in ALLOWED:
        assert life_row(state, trigger).to is ALLOWED[state, trigger]
        return
    with pytest.raises(TransitionRefusedError):
        life_row(state, trigger)


def test_only_deletion_is_asked_and_it_is_stamped() -> None:
    for row in LIFECYCLE.rows:
        assert (row.kind is Kind.ASKED) == (row.trigger is LifeTrigger.DELETE)
        assert row.stamps == (("deleted_at",) if row.kind is Kind.ASKED else ())
    assert LIFECYCLE.terminal == {Life.DELETED}
