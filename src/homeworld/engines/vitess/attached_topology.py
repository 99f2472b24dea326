"""What a cluster of others is, read from what its vtctld prints. Pure.

Invariant: what homeworld could not follow is told by its name; nothing is left out in silence but shards and
replicas that do not serve, and snapshots.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from homeworld.engines.vitess.answers import list_of, number_of, object_of, text_of
from homeworld.engines.vitess.looks import canonical, short_alias
from homeworld.engines.vitess.moves_look import alias_of, rules_of, shards_of
from homeworld.model.attachments import SeenCluster, SeenKeyspace, SeenShard, SeenTablet
from homeworld.model.errors import InvalidError, UnavailableError
from homeworld.model.keyranges import KeyRange
from homeworld.model.names import check_schema_resource_name
from homeworld.model.vschema import parse

# Tablets with their types, by keyspace and shard.
Tablets: TypeAlias = dict[tuple[str, str], list[tuple[str, SeenTablet]]]
_SNAPSHOT = {"SNAPSHOT", "1"}
# Vitess prints a type as its name, or as its number where that is asked for.
_PRIMARY, _REPLICAS = {"PRIMARY", "1"}, {"REPLICA", "2", "RDONLY", "3"}


RULES = "routing rules"


def seen_of(
    keyspaces: object,
    tablets: object,
    shards: Mapping[str, object],
    vschemas: Mapping[str, object],
    rules: object,
    serving: Collection[str],
) -> SeenCluster:
    """The cluster. What cannot be followed is told beside it, and the rest goes on.

    :param keyspaces: what ``GetKeyspaces`` printed; ``tablets``: ``GetTablets``; ``rules``:
        ``GetRoutingRules``.
    :param shards: what ``FindAllShardsInKeyspace`` printed, by keyspace; ``vschemas``: ``GetVSchema``.
    :param serving: the aliases of the tablets that serve, as vtgate tells them: replicas that do not are left
        out.
    :raises UnavailableError: another shape than expected.
    """
    there = _tablets(tablets)
    found: list[SeenKeyspace] = []
    odd: dict[str, str] = {}
    for one in list_of(keyspaces):
        told = object_of(one)
        name = text_of(told.get("name"))
        if str(object_of(told.get("keyspace")).get("keyspace_type")) in _SNAPSHOT:
            continue
        try:
            found.append(_keyspace(name, object_of(vschemas[name]), shards_of(shards[name]), there, serving))
        except (InvalidError, UnavailableError) as error:
            odd[name] = error.message
    if not found and not odd:
        odd["keyspaces"] = "the cluster has none yet; make one in Vitess first"
    seen_rules: Mapping[str, str] | None = None
    try:
        seen_rules = rules_of(rules)
    except UnavailableError as error:
        odd[RULES] = error.message
    return SeenCluster(tuple(sorted(found, key=lambda keyspace: keyspace.name)), seen_rules, odd)


def _keyspace(
    name: str,
    told: Mapping[str, object],
    shards: Mapping[str, object],
    tablets: Tablets,
    serving: Collection[str],
) -> SeenKeyspace:
    check_schema_resource_name(name, "keyspace")
    bare = canonical(told)
    sharded = bool(bare.get("sharded", False))
    vschema = _usual(bare, sharded=sharded)
    parse(vschema)
    found = _serving(name, shards, tablets, serving)
    _check_ranges(name, [shard.name for shard in found], sharded=sharded)
    return SeenKeyspace(name, sharded, vschema, tuple(found))


def _usual(vschema: Mapping[str, object], *, sharded: bool) -> dict[str, object]:
    """A vschema with the parts that homeworld's own have even where they are empty."""
    if sharded:
        return {**vschema, "vindexes": vschema.get("vindexes", {}), "tables": vschema.get("tables", {})}
    return {**vschema, "tables": vschema.get("tables", {})}


def _tablets(answer: object) -> Tablets:
    """Tablets with their types, by keyspace and shard."""
    found: Tablets = {}
    for one in list_of(answer):
        told = object_of(one)
        keyspace, host = text_of(told.get("keyspace")), text_of(told.get("hostname"))
        tablet = SeenTablet(
            alias=alias_of(told.get("alias")),
            host=host,
            http_port=number_of(object_of(told.get("port_map")).get("vt")),
            mysql_host=text_of(told.get("mysql_hostname")) or host,
            mysql_port=number_of(told.get("mysql_port")),
            schema=text_of(told.get("db_name_override")) or f"vt_{keyspace}",
        )
        place = keyspace, text_of(told.get("shard"))
        found.setdefault(place, []).append((str(told.get("type")).upper(), tablet))
    return found


def _serving(
    keyspace: str,
    shards: Mapping[str, object],
    tablets: Tablets,
    serving: Collection[str],
) -> list[SeenShard]:
    """The serving shards of a keyspace in key order."""
    found: list[SeenShard] = []
    for name, record in shards.items():
        shard = object_of(object_of(record).get("shard"))
        if not shard.get("is_primary_serving"):
            continue
        place, alias = f"{keyspace}/{name}", alias_of(shard.get("primary_alias"))
        there = tablets.get((keyspace, name), [])
        primary = next((tablet for _, tablet in there if tablet.alias == alias), None)
        if not shard.get("primary_alias") or primary is None:
            raise UnavailableError(f"shard {place} has no primary now")
        replicas = [
            tablet
            for kind, tablet in there
            if kind in _REPLICAS and tablet is not primary and short_alias(tablet.alias) in serving
        ]
        replicas.sort(key=lambda tablet: tablet.alias)
        found.append(SeenShard(name, primary.schema, primary, tuple(replicas)))
    return sorted(found, key=lambda shard: KeyRange.parse(shard.name))


def _check_ranges(keyspace: str, names: list[str], *, sharded: bool) -> None:
    """Serving shards cover every keyspace id once.

    :raises InvalidError: not so.
    """
    if not sharded and len(names) > 1:
        raise InvalidError(
            f"keyspace {keyspace} is not sharded by its vschema and has {len(names)} serving shards; "
            "give it its vschema in Vitess first"
        )
    ranges = [KeyRange.parse(name) for name in names]
    starts, ends = [one.start for one in ranges], [one.end for one in ranges]
    if not names or [*starts, b""] != [b"", *ends]:
        raise InvalidError(
            f"the serving shards of keyspace {keyspace} do not cover all keyspace ids once: "
            f"{', '.join(names) or 'none'}"
        )
