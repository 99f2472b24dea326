"""The first user of an installation, and the commands ``homeworld user …`` for whoever runs one.

The commands work on the store itself, beside running processes or without any. Invariant: a password is
printed once, or lies in a file for its owner's eyes; the store keeps its digest only.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from homeworld.model.errors import HomeworldError, InvalidError
from homeworld.model.names import new_id, new_secret
from homeworld.roles.ground import first_start, write_private
from homeworld.roles.options import DataDir, StoreUrl
from homeworld.store.store import Store, Transaction
from homeworld.store.users import User
from homeworld.store.users_secrets import hash_password, verify_password

_log = logging.getLogger("homeworld")
FIRST_USER = "admin@localhost"
_FIRST_USER_FILE = "first-user.json"

app = typer.Typer(no_args_is_help=True, help="Who can log in.")

Email = Annotated[str, typer.Argument(help="What the user logs in with.")]
PasswordStdin = Annotated[
    bool,
    typer.Option("--password-stdin", help="Read the password from standard input instead of making one."),
]


def make_first_user(store: Store, data_dir: Path, organization: str) -> None:
    """An administrator, where there is no user at all. The password is written to a file in the data
    directory before the user is made: a death in between leaves no user whose password nobody knows.
    """
    with store.read() as tx:
        if tx.users.any():
            return
    keep = data_dir / _FIRST_USER_FILE
    with first_start(data_dir):
        if not keep.exists():
            write_private(keep, json.dumps({"email": FIRST_USER, "password": new_secret(24)}) + "\n")
        kept = json.loads(keep.read_text())
        digest = hash_password(kept["password"])
        with store.write() as tx:
            known = tx.users.by_email(kept["email"])
            first = not tx.users.any()
            if first:
                found = tx.organizations.ensure(organization)
                user = tx.users.add(kept["email"], "Administrator", password_hash=digest)
                tx.members.add(found.id, user.id, "admin")
                _note(tx, user, "organization_membership.created", role="admin")
        if not first:
            # An API with another data directory was quicker: this file's password may be nobody's.
            if known is None or not verify_password(known.password_hash, kept["password"]):
                keep.unlink()
            return
    _log.info("the first user is %s; the password is in %s: keep it and delete the file", kept["email"], keep)


@contextmanager
def opened_store(data_dir: Path, url: str) -> Generator[Store]:
    """The store of an installation, for a command; what goes wrong ends it with one line.

    :param url: empty: that of ``homeworld up``.
    """
    folder = data_dir.expanduser().absolute()
    file = folder / "homeworld.db"
    try:
        if not url and not file.exists():
            raise InvalidError(f"there is no homeworld in {folder}; start it once, or name its --store")
        store = Store.open(url or f"sqlite:///{file}")
        try:
            yield store
        finally:
            store.close()
    except HomeworldError as error:
        typer.echo(f"homeworld: {error.message}", err=True)
        raise typer.Exit(1) from None


def _password(from_stdin: bool) -> str:
    return sys.stdin.readline().rstrip("\r\n") if from_stdin else new_secret(24)


def _known(tx: Transaction, email: str) -> User:
    user = tx.users.by_email(email)
    if user is None:
        raise InvalidError(f"there is no user {email}")
    return user


def _note(tx: Transaction, user: User, action: str, **metadata: object) -> None:
    """Tell the audit logs of the user's organizations what the operator did."""
    for organization_id in tx.members.organizations_of([user.id]).get(user.id, ()):
        tx.journal.audit(
            organization_id, None, action, ("user", user.id, user.email),
            audit_id=new_id(), metadata=metadata,
        )  # fmt: skip


@app.command()
def add(
    email: Email,
    name: Annotated[str, typer.Option(help="For display.")] = "",
    role: Annotated[str, typer.Option(help="admin or member.")] = "member",
    organization: Annotated[str, typer.Option(help="Where the user belongs.")] = "homeworld",
    password_stdin: PasswordStdin = False,
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """Add a user, or make one who is there already belong to another organization."""
    with opened_store(data_dir, store) as opened:
        password = _password(password_stdin)
        digest = hash_password(password)
        with opened.write() as tx:
            found = tx.organizations.by_name(organization)
            user, new = tx.users.by_email(email), False
            if user is None:
                user, new = tx.users.add(email, name, password_hash=digest), True
            tx.members.add(found.id, user.id, role)
            tx.journal.audit(
                found.id, None, "organization_membership.created", ("user", user.id, user.email),
                audit_id=new_id(), metadata={"role": role},
            )  # fmt: skip
    typer.echo(f"{user.email} belongs to {organization} as {role}")
    if new and not password_stdin:
        typer.echo(f"password (told once): {password}")


@app.command("set-password")
def set_password(
    email: Email,
    password_stdin: PasswordStdin = False,
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """Give a user another password; their browsers are logged out."""
    with opened_store(data_dir, store) as opened:
        password = _password(password_stdin)
        digest = hash_password(password)
        with opened.write() as tx:
            user = _known(tx, email)
            tx.users.set_password(user.id, digest)
            _note(tx, user, "user.changed_password")
    if not password_stdin:
        typer.echo(f"password (told once): {password}")


@app.command()
def disable(
    email: Email,
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """Let a user in no more; all of their sessions and tokens end."""
    with opened_store(data_dir, store) as opened, opened.write() as tx:
        user = _known(tx, email)
        tx.users.disable(user.id)
        _note(tx, user, "user.disabled")


@app.command()
def enable(
    email: Email,
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """Let a user in again. Sessions and tokens that ended stay so."""
    with opened_store(data_dir, store) as opened, opened.write() as tx:
        user = _known(tx, email)
        tx.users.enable(user.id)
        _note(tx, user, "user.enabled")


@app.command("log-out")
def log_out(
    email: Email,
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """End all of a user's sessions and tokens; they can log in again."""
    with opened_store(data_dir, store) as opened, opened.write() as tx:
        user = _known(tx, email)
        tx.users.log_out(user.id)
        _note(tx, user, "user.logged_out_everywhere")


@app.command("list")
def list_users(
    organization: Annotated[str, typer.Option(help="Of which organization.")] = "homeworld",
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """Show who belongs to an organization."""
    with opened_store(data_dir, store) as opened, opened.read() as tx:
        found = tx.organizations.by_name(organization)
        members = tx.members.all(found.id)
        users = tx.users.by_ids(member.user_id for member in members)
    for member in members:
        user = users[member.user_id]
        state = " (disabled)" if user.disabled_at else ""
        typer.echo(f"{user.email}\t{member.role}\t{user.name}{state}")
