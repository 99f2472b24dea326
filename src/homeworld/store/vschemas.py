"""Replacing a keyspace's vschema, whoever asks: the API or ``ALTER VSCHEMA`` on a gateway.

Invariant: a stored vschema is one that a gateway can honour, together with the branch's other vschemas.
"""

from __future__ import annotations

from homeworld.model import vschema
from homeworld.model.errors import InvalidError
from homeworld.store.keyspaces import Keyspace
from homeworld.store.store import Transaction


def replace_vschema(tx: Transaction, keyspace: Keyspace, wanted: vschema.VSchema) -> Keyspace:
    """Store the vschema; the keyspace as it is then.

    :raises InvalidError: it does not fit the keyspace, or the branch's other vschemas; all reasons together.
    """
    _check_no_move(tx, keyspace, wanted)
    if wanted.sharded != keyspace.sharded:
        kind = "sharded" if keyspace.sharded else "not sharded"
        raise InvalidError(f"keyspace {keyspace.name} is {kind}; its vschema must say the same")
    others = {
        other.name: vschema.parse(other.vschema) for other in tx.keyspaces.of_branch(keyspace.branch_id)
    }
    found = vschema.problems(keyspace.name, wanted, others=others)
    if found:
        raise InvalidError("; ".join(found))
    return tx.keyspaces.update(keyspace.id, vschema=wanted.render())


def _check_no_move(tx: Transaction, keyspace: Keyspace, wanted: vschema.VSchema) -> None:
    """How the rows of a moving table are placed, and its ids given out, stays as it was when the move began.

    :raises InvalidError: a workflow that is not over moves a table whose entry would change.
    """
    active = tx.workflows.active_on([keyspace.branch_id]).get(keyspace.branch_id)
    if active is None or keyspace.id not in {active.source_keyspace_id, active.target_keyspace_id}:
        return
    now = vschema.parse(keyspace.vschema)
    changed = [
        table.name
        for table in tx.progress.tables_of([active.id])
        if _placed(now, table.name) != _placed(wanted, table.name)
    ]
    if changed:
        raise InvalidError(
            f"workflow {active.number} is moving {', '.join(changed)}; their vschema entries cannot change "
            "before it is over"
        )


def _placed(found: vschema.VSchema, table: str) -> object:
    """A table's entry with the vindexes that it names."""
    entry = found.tables.get(table)
    if entry is None:
        return None
    return entry, tuple(found.vindexes.get(bound.name) for bound in entry.column_vindexes)
