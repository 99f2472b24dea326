"""What ``homeworld engine attach`` does: a Vitess cluster that is there already becomes a database.

Works on the store itself, beside running processes or without any, for whoever runs homeworld: so no caller
of the API ever names an address that homeworld would ask. Order: how the cluster is reached is written down,
everything is checked, then one transaction makes the database; where any of it fails, or the process dies
before the transaction, there is no database, and at most a folder that nobody reads.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import typer

from homeworld.engines.vitess import binaries
from homeworld.engines.vitess.attached import AttachedClusters, servers_of
from homeworld.engines.vitess.attached import in_the_clear as clear
from homeworld.engines.vitess.attached_checks import hints, reasons
from homeworld.engines.vitess.attachments import Address, Attachment, Attachments, Certificates, Login
from homeworld.model.attachments import SeenCluster
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.names import new_id
from homeworld.roles.users import opened_store
from homeworld.store.adoption import attach as store_attached
from homeworld.store.store import Store

SERVED_SECONDS = 60.0
_FAR = (
    "rows and passwords would go to other machines without TLS: {}. Where you trust the network between, say "
    "--in-the-clear"
)
_LOOK_SECONDS = 0.25


def logins_in(text: str) -> tuple[Login, Login]:
    """The accounts for vtgate and for the tablets' servers.

    :raises InvalidError: the text is not ``{"vtgate": {"user": …, "password": …}, "mysql": {…}}``.
    """
    wanted = 'the logins must be {"vtgate": {"user": ..., "password": ...}, "mysql": {the same}}'
    try:
        told = cast("dict[str, dict[str, Any]]", json.loads(text))
        found = [Login(str(told[name]["user"]), str(told[name]["password"])) for name in ("vtgate", "mysql")]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"{wanted}: {error!r}") from error
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as it was typed.

    :param logins: a file, or ``-`` for standard input.
    """

    database: str
    vtctld: str
    vtgate: str
    vtgate_http: str
    logins: str
    vtctld_ca: Path | None
    vtctld_cert: Path | None
    vtctld_key: Path | None
    vtctld_server_name: str
    in_the_clear: bool
    default_keyspace: str
    organization: str


def attach_cluster(wish: Wish, data_dir: Path, store: str) -> None:
    """Attach it; one line for each thing to know. What is wrong ends the command with one line.

    :param store: the store's URL; empty: that of ``homeworld up``.
    """
    with opened_store(data_dir, store) as opened, ExitStack() as undo:
        gate, owner = logins_in(sys.stdin.read() if wish.logins == "-" else _text_of(wish.logins))
        addresses = {
            name: Address.parse(text, name)
            for name, text in (
                ("--vtctld", wish.vtctld),
                ("--vtgate", wish.vtgate),
                ("--vtgate-http", wish.vtgate_http),
            )
        }
        certificates = _certificates(wish.vtctld_ca, wish.vtctld_cert, wish.vtctld_key)
        found = Attachment(
            branch_id=new_id(),
            vtctld=addresses["--vtctld"],
            tls=certificates is not None,
            server_name=wish.vtctld_server_name,
            vtgate=addresses["--vtgate"],
            vtgate_http=addresses["--vtgate-http"],
            gate=gate,
            owner=owner,
            in_the_clear=wish.in_the_clear,
        )
        folder = data_dir.expanduser().absolute() / "vitess"
        attachments = Attachments(folder / "attached")
        clusters = AttachedClusters(attachments, binaries.client, folder)
        binaries.client()
        _check_new(opened, wish.organization, wish.database)
        if far := clear(found, None):
            raise InvalidError(_FAR.format(", ".join(far)))
        undo.callback(_forget, opened, attachments, found.branch_id)
        attachments.write(found, certificates)
        seen = clusters.look(found.branch_id)
        if far := clear(found, seen):
            raise InvalidError(_FAR.format(", ".join(far[:4])))
        _check_not_there(opened, attachments, found, seen)
        if why := list(reasons(clusters, found, seen)):
            raise InvalidError("the cluster cannot be attached: " + "; ".join(why))
        for hint in hints(found, seen):
            typer.echo(f"homeworld: {hint}", err=True)
        clusters.remember(found.branch_id, seen)
        with opened.write() as tx:
            store_attached(
                tx,
                tx.organizations.by_name(wish.organization).id,
                wish.database,
                found.branch_id,
                seen,
                default_keyspace=wish.default_keyspace,
            )
            tx.journal.audit(
                tx.organizations.by_name(wish.organization).id, None, "database.attached",
                ("database", tx.branches.get(found.branch_id).database_id, wish.database), audit_id=new_id(),
            )  # fmt: skip
        undo.pop_all()
        shards = sum(len(keyspace.shards) for keyspace in seen.keyspaces)
        typer.echo(f"{wish.database} is attached: {len(seen.keyspaces)} keyspaces, {shards} shards")
        _await_served(opened, found.branch_id)


def _text_of(file: str) -> str:
    try:
        return Path(file).read_text()
    except (OSError, ValueError) as error:
        raise InvalidError(f"--logins {file} cannot be read: {error}") from error


def _certificates(ca: Path | None, certificate: Path | None, key: Path | None) -> Certificates | None:
    if (certificate is None) != (key is None):
        raise InvalidError("--vtctld-cert and --vtctld-key go together")
    if ca is None and certificate is not None:
        raise InvalidError("--vtctld-cert needs --vtctld-ca, or vtctld could be anybody")
    return None if ca is None else Certificates(ca, certificate, key)


def _check_new(store: Store, organization: str, database: str) -> None:
    """Hold what is known before anybody is asked anything.

    :raises InvalidError: no such organization, or the name is taken.
    """
    with store.read() as tx:
        try:
            organization_id = tx.organizations.by_name(organization).id
        except NotFoundError:
            raise InvalidError(f"there is no organization {organization}") from None
        with suppress(NotFoundError):
            tx.databases.by_name(organization_id, database)
            raise InvalidError(f"a database named {database} already exists")


def _check_not_there(store: Store, others: Attachments, found: Attachment, seen: SeenCluster) -> None:
    """Hold that no database is this cluster already, by whatever address it was named.

    :raises InvalidError: one is.
    """
    servers = {(one.alias, one.host, one.port) for one in servers_of(found.branch_id, seen)}
    for branch_id in others.branch_ids():
        if branch_id == found.branch_id:
            continue
        theirs = {(one.alias, one.host, one.port) for one in others.get(branch_id).servers}
        with store.read() as tx, suppress(NotFoundError):
            branch = tx.branches.get(branch_id)
            if branch.deleted_at is None and servers & theirs:
                name = tx.databases.get(branch.database_id).name
                raise InvalidError(f"the cluster is database {name} already")


def _forget(store: Store, attachments: Attachments, branch_id: str) -> None:
    """What was written down goes, unless the database is there: a commit whose answer was lost counts."""
    try:
        with store.read() as tx:
            tx.branches.get(branch_id)
    except NotFoundError:
        attachments.forget(branch_id)


def _await_served(store: Store, branch_id: str) -> None:
    """Wait until a running homeworld serves it, and say so; not for ever, as none need run."""
    deadline, why = time.monotonic() + SERVED_SECONDS, ""
    while time.monotonic() < deadline:
        with store.read() as tx:
            if tx.followings.behind(branch_id) is None:
                typer.echo("it is served")
                return
            why = tx.followings.get(branch_id).error
        time.sleep(_LOOK_SECONDS)
    typer.echo(f"homeworld: it is not served yet: {why or 'does homeworld run?'}", err=True)
