"""Replacing a keyspace's vschema, whoever asks: the API or ``ALTER VSCHEMA`` on a gateway.

Whoever replaces one first has it judged; tables that it would place anew are kept still and empty
(``model.ports.Placements``) while it is stored. Invariants: a stored vschema is one that a gateway can
honour, together with the branch's other vschemas; a table that holds rows stays placed as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeworld.model import vschema
from homeworld.model.errors import ConflictError, InvalidError
from homeworld.model.vschema_placement import placed_anew
from homeworld.store.keyspaces import Keyspace
from homeworld.store.store import Transaction


@dataclass(frozen=True, slots=True)
class Judged:
    """A vschema that may be stored while the tables that it would place anew are kept empty.

    :param tables: their names; empty: no row would be looked for elsewhere.
    """

    keyspace_id: str
    wanted: vschema.VSchema
    tables: tuple[str, ...]


def judge_vschema(
    tx: Transaction, keyspace: Keyspace, wanted: vschema.VSchema, base: vschema.VSchema | None = None
) -> Judged:
    """Hold a wanted vschema against the keyspace.

    :param base: what it was made from, where it was made by an edit.
    :raises InvalidError: it does not fit the keyspace, or the branch's other vschemas; all reasons together.
    :raises ConflictError: the vschema is not ``base`` any more: the edit of another would be undone.
    """
    now = vschema.parse(keyspace.vschema)
    if base is not None and base != now:
        raise ConflictError(f"the vschema of keyspace {keyspace.name} was changed meanwhile; send it again")
    _check_no_move(tx, keyspace, now, wanted)
    if wanted.sharded != keyspace.sharded:
        kind = "sharded" if keyspace.sharded else "not sharded"
        raise InvalidError(f"keyspace {keyspace.name} is {kind}; its vschema must say the same")
    others = {
        other.name: vschema.parse(other.vschema) for other in tx.keyspaces.of_branch(keyspace.branch_id)
    }
    found = vschema.problems(keyspace.name, wanted, others=others)
    if found:
        raise InvalidError("; ".join(found))
    # Where there is one shard every row is on it, however it is placed.
    tables = placed_anew(now, wanted) if keyspace.shard_count > 1 else ()
    return Judged(keyspace.id, wanted, tables)


def replace_vschema(
    tx: Transaction, keyspace: Keyspace, judged: Judged, base: vschema.VSchema | None = None
) -> Keyspace:
    """Store the vschema; the keyspace as it is then. Its tables are kept empty until gateways serve it.

    :raises InvalidError: it fits no more.
    :raises ConflictError: the keyspace or its vschema is another by now.
    """
    again = judge_vschema(tx, keyspace, judged.wanted, base)
    if again.keyspace_id != judged.keyspace_id or not set(again.tables) <= set(judged.tables):
        raise ConflictError(f"the vschema of keyspace {keyspace.name} was changed meanwhile; send it again")
    return tx.keyspaces.update(keyspace.id, vschema=judged.wanted.render())


def _check_no_move(
    tx: Transaction, keyspace: Keyspace, now: vschema.VSchema, wanted: vschema.VSchema
) -> None:
    """How the rows of a moving table are placed, and its ids given out, stays as it was when the move began.

    :raises InvalidError: a workflow that is not over moves a table whose entry would change.
    """
    active = tx.workflows.active_on([keyspace.branch_id]).get(keyspace.branch_id)
    if active is None or keyspace.id not in {active.source_keyspace_id, active.target_keyspace_id}:
        return
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
