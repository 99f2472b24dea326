"""Clusters that others run, as the store has them: what was seen of one becomes rows.

Invariants: what is stored of such a cluster's keyspaces, shards and servers is something that was seen of it;
a keyspace whose shards are others than before is another keyspace; nothing that a workflow needs goes, and
while one is not over the rules and vschemas are its own to change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from homeworld.model.agreement import Agreement, merged
from homeworld.model.attachments import SeenCluster, SeenKeyspace, server_id
from homeworld.model.engines import EngineKind
from homeworld.model.errors import InvalidError
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import Flavor
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.provision import DEFAULT_BRANCH
from homeworld.store.store import Transaction
from homeworld.store.workflows import Workflow


@dataclass(frozen=True, slots=True)
class Changes:
    """What of the store is not as it was seen.

    :param made: keyspaces that are not stored.
    :param gone: stored ones that are not there, or with other shards.
    :param placed: stored keyspaces whose servers are others, with how they were seen.
    :param vschemas: stored keyspaces whose vschema others have changed, with what it is.
    :param rules: the names whose routing rules others have changed.
    """

    made: tuple[SeenKeyspace, ...]
    gone: tuple[Keyspace, ...]
    placed: tuple[tuple[Keyspace, SeenKeyspace], ...]
    vschemas: tuple[tuple[Keyspace, Mapping[str, object]], ...]
    rules: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.made or self.gone or self.placed or self.vschemas or self.rules)


def compare(
    branch_id: str,
    keyspaces: Sequence[Keyspace],
    shards: Sequence[Shard],
    rules: Mapping[str, str],
    seen: SeenCluster,
    agreed: Agreement,
) -> Changes:
    """What has to be stored. Pure.

    :param keyspaces: the branch's. ``shards``: theirs, each keyspace's in key order.
    """
    there = {keyspace.name: keyspace for keyspace in seen.keyspaces}
    stored: dict[str, Keyspace] = {}
    gone: list[Keyspace] = []
    of: dict[str, list[Shard]] = {}
    for shard in shards:
        of.setdefault(shard.keyspace_id, []).append(shard)
    for keyspace in keyspaces:
        if keyspace.name in seen.odd:
            continue  # nobody can say now
        found = there.get(keyspace.name)
        same = found is not None and (found.sharded, [(one.name, one.schema) for one in found.shards]) == (
            keyspace.sharded,
            [(one.name, one.schema_name) for one in of.get(keyspace.id, ())],
        )
        if same:
            stored[keyspace.name] = keyspace
        else:
            gone.append(keyspace)
    left = {keyspace.name for keyspace in keyspaces} - {keyspace.name for keyspace in gone}
    placed = [
        (keyspace, there[name])
        for name, keyspace in stored.items()
        if [(one.primary_server_id, list(one.replica_server_ids)) for one in of[keyspace.id]]
        != list(_places(branch_id, there[name]))
    ]
    theirs = agreed.changed_vschemas({name: there[name].vschema for name in stored})
    ours = agreed.changed_vschemas({name: keyspace.vschema for name, keyspace in stored.items()})
    changed = frozenset[str]() if seen.rules is None else agreed.changed_rules(seen.rules)
    return Changes(
        made=tuple(one for one in seen.keyspaces if one.name not in left),
        gone=tuple(gone),
        placed=tuple(placed),
        vschemas=tuple((stored[name], there[name].vschema) for name in sorted(theirs - ours)),
        rules=changed - agreed.changed_rules(rules),
    )


def _places(branch_id: str, keyspace: SeenKeyspace) -> list[tuple[str, list[str]]]:
    return [
        (
            server_id(branch_id, shard.primary.alias),
            [server_id(branch_id, tablet.alias) for tablet in shard.replicas],
        )
        for shard in keyspace.shards
    ]


def attach(
    tx: Transaction,
    organization_id: str,
    name: str,
    branch_id: str,
    seen: SeenCluster,
    *,
    default_keyspace: str = "",
    actor_id: str | None = None,
) -> Database:
    """A ready database with its one branch, which is what was seen.

    :param branch_id: of a branch that is not there yet.
    :param default_keyspace: where statements go that name none; empty: the one of the database's name, else
        the first that is not sharded, else the first.
    :raises InvalidError: the name is not valid or taken, there is no such keyspace, or something of the
        cluster cannot be followed.
    """
    for what, why in sorted(seen.odd.items()):
        raise InvalidError(f"{what}: {why}")
    region_id = tx.regions.default().id
    replicas = max(len(shard.replicas) for keyspace in seen.keyspaces for shard in keyspace.shards)
    database = tx.databases.create(
        organization_id,
        name,
        region_id,
        Flavor.MYSQL,
        engine=EngineKind.ATTACHED,
        replicas=replicas,
        actor_id=actor_id,
    )
    branch = tx.branches.create(
        database.id,
        DEFAULT_BRANCH,
        region_id,
        production=True,
        is_default=True,
        branch_id=branch_id,
        actor_id=actor_id,
    )
    default = _default(name, default_keyspace, seen)
    for keyspace in seen.keyspaces:
        _make(tx, branch, keyspace, is_default=keyspace.name == default)
    rules = seen.rules or {}
    tx.routes.replace_rules(branch.id, rules)
    alike = Agreement({keyspace.name: keyspace.vschema for keyspace in seen.keyspaces}, rules)
    tx.followings.agree(branch.id, alike.fields())
    row = life_row(Life.PENDING, LifeTrigger.MADE)
    tx.branches.transition(branch.id, Life.PENDING, row, actor_id=actor_id)
    return tx.databases.transition(database.id, Life.PENDING, row, actor_id=actor_id)


def _default(database: str, asked: str, seen: SeenCluster) -> str:
    names = [keyspace.name for keyspace in seen.keyspaces]
    if asked and asked not in names:
        raise InvalidError(f"the cluster has no keyspace {asked}; it has {', '.join(names)}")
    if asked or database in names:
        return asked or database
    return next((keyspace.name for keyspace in seen.keyspaces if not keyspace.sharded), names[0])


def differs(tx: Transaction, branch: Branch, seen: SeenCluster) -> bool:
    """Whether what is stored of an attached branch is not what was seen."""
    return bool(_compared(tx, branch, seen))


def _agreed(tx: Transaction, branch: Branch) -> Agreement:
    return Agreement.stored(tx.followings.get(branch.id).agreed)


def _compared(tx: Transaction, branch: Branch, seen: SeenCluster) -> Changes:
    keyspaces = [one for one in tx.keyspaces.of_branch(branch.id) if one.state is Life.READY]
    shards = tx.keyspaces.shards_of([keyspace.id for keyspace in keyspaces])
    rules = tx.routes.rules(branch.id)
    return compare(branch.id, keyspaces, shards, rules, seen, _agreed(tx, branch))


def adopt(tx: Transaction, branch: Branch, seen: SeenCluster, *, version: int | None) -> bool:
    """Store what was seen of an attached branch; whether anything was stored. Servers that no shard stands on
    any more stay in the store until the branch goes: a tablet that comes back has the server of before.

    :param version: of the branch's routes before it was looked at: where something was stored since, or is on
        its way to the cluster (None), vschemas and rules may be older than what was given.
    """
    fresh = (
        version is not None
        and tx.followings.version(branch.id) == version
        and tx.followings.behind(branch.id) is None
    )
    changes = _compared(tx, branch, seen)
    workflow = tx.workflows.active_on([branch.id]).get(branch.id)
    used = _used(workflow)
    done = False
    for keyspace, found in changes.placed:
        _place(tx, branch.id, keyspace, found)
        done = True
    going = [keyspace for keyspace in changes.gone if keyspace.id not in used]
    for keyspace in going:
        for trigger in (LifeTrigger.DELETE, LifeTrigger.GONE):
            state = tx.keyspaces.get(keyspace.id).state
            tx.keyspaces.transition(keyspace.id, state, life_row(state, trigger))
        done = True
    stays = {keyspace.name for keyspace in changes.gone if keyspace.id in used}
    made = [found for found in changes.made if found.name not in stays]
    for found in made:
        was_default = any(one.is_default for one in going if one.name == found.name)
        _make(tx, branch, found, is_default=was_default)
        done = True
    if going or made:
        _have_default(tx, branch)
    agreed = _agreed(tx, branch).with_vschemas({found.name: found.vschema for found in made})
    if fresh:
        for keyspace, vschema in changes.vschemas:
            if keyspace.id not in used:
                tx.keyspaces.update(keyspace.id, vschema=vschema)
                agreed = agreed.with_vschemas({keyspace.name: vschema})
                done = True
        names = frozenset[str]()
        if not tx.workflows.unsettled_on(branch.id):
            names = changes.rules - _own_names(tx, workflow, changes.rules)
        if names and seen.rules is not None:
            tx.routes.replace_rules(branch.id, merged(tx.routes.rules(branch.id), seen.rules, names))
            agreed = agreed.with_rules(seen.rules, names)
            done = True
    if done:
        tx.followings.agree(branch.id, agreed.fields())
    return done


def _have_default(tx: Transaction, branch: Branch) -> None:
    """Where the default keyspace went, another one is it: the first that is not sharded, else the first."""
    ready = [one for one in tx.keyspaces.of_branch(branch.id) if one.state is Life.READY]
    if ready and not any(keyspace.is_default for keyspace in ready):
        tx.keyspaces.be_default(next((one for one in ready if not one.sharded), ready[0]).id)


def _used(workflow: Workflow | None) -> frozenset[str | None]:
    """The ids of the keyspaces that a workflow needs."""
    if workflow is None:
        return frozenset()
    return frozenset({workflow.source_keyspace_id, workflow.target_keyspace_id, workflow.global_keyspace_id})


def _own_names(tx: Transaction, workflow: Workflow | None, names: Collection[str]) -> frozenset[str]:
    """Of these names of routing rules, those that a workflow moves."""
    if workflow is None:
        return frozenset()
    tables = {table.name for table in tx.progress.tables_of([workflow.id])}
    return frozenset(name for name in names if name.partition("@")[0].rpartition(".")[2] in tables)


def _make(tx: Transaction, branch: Branch, seen: SeenKeyspace, *, is_default: bool) -> None:
    keyspace = tx.keyspaces.create(
        branch.id,
        seen.name,
        shards=len(seen.shards),
        sharded=seen.sharded,
        is_default=is_default,
        replicas=max(len(shard.replicas) for shard in seen.shards),
        vschema=seen.vschema,
        named=[(shard.name, shard.schema) for shard in seen.shards],
    )
    _place(tx, branch.id, keyspace, seen)
    tx.keyspaces.transition(keyspace.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))


def _place(tx: Transaction, branch_id: str, keyspace: Keyspace, seen: SeenKeyspace) -> None:
    """Let the keyspace stand on the servers that it was seen on."""
    places = _places(branch_id, seen)
    follows: dict[str, str | None] = {}
    for primary_id, replica_ids in places:
        follows[primary_id] = None
        follows |= dict.fromkeys(replica_ids, primary_id)
    known = tx.servers.by_ids(follows)
    for each, primary_id in sorted(follows.items(), key=lambda one: one[1] is not None):
        if each not in known:
            tx.servers.create(branch_id, Flavor.MYSQL, replica_of=primary_id, server_id=each)
            tx.servers.transition(each, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))
    for each in known:
        tx.servers.follow(each, follows[each])
    shards = tx.keyspaces.shards(keyspace.id)
    tx.keyspaces.place_all(keyspace.id, {one.id: place for one, place in zip(shards, places, strict=True)})
