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
