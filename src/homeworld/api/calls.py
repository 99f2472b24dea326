"""One API call: who calls, on what, in which transaction.

Invariant: no handler sees a resource before the caller was authenticated, the path resolved within the
caller's organization, and the operation's scope held; all of it in the transaction that the handler uses.
Resources of other organizations do not exist for the caller. Nothing here touches a server.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

from fastapi import Depends, Request

from homeworld.api.errors import InvalidBearerError
from homeworld.api.limits import Limits
from homeworld.api.scopes import SCOPES, Scope
from homeworld.model.accesses import DATABASE_ADMIN
from homeworld.model.addresses import Network
from homeworld.model.engines import NO_VITESS, EngineKind, no_servers
from homeworld.model.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from homeworld.model.inspection import Definition, Inspection, ServerConnection, TableFacts
from homeworld.model.names import new_id
from homeworld.model.ports import Placements, Preconditions, ServerStatus
from homeworld.model.sizes import Host
from homeworld.model.topology import BackendRole, Flavor
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.store.keyspaces import Keyspace
from homeworld.store.store import Store, Transaction
from homeworld.store.tenants import Actor, Organization
from homeworld.store.tokens import Bearer

if TYPE_CHECKING:
    from homeworld.api.login_oidc import Oidc

T = TypeVar("T")

_log = logging.getLogger(__name__)
# What can be no resource's name or id is not looked up: databases differ in what they make of it.
_LOOKS_LIKE_A_NAME = re.compile(r"^[\w.-]{1,64}$", re.ASCII)


def _nothing() -> None:
    """Nobody wants to hear."""


class Unlooked:
    """Placements where no server can be asked: what would need a look is refused."""

    @contextmanager
    def still(self, keyspace_id: str, tables: Sequence[str]) -> Generator[None]:
        """See :class:`~homeworld.model.ports.Placements`."""
        if tables:
            raise UnavailableError(
                f"keyspace {keyspace_id}: nobody here can look whether {', '.join(tables)} hold rows"
            )
        yield

    def check(self, keyspace_id: str, vschema: Mapping[str, object]) -> None:
        """Nobody but the store judges."""


class Uninspected:
    """Inspection where no server can be asked."""

    def host(self) -> Host:
        """The smallest host."""
        return Host(cpus=1, memory_mb=1024)

    def status(self, server_id: str) -> ServerStatus:  # noqa: ARG002 - the port\'s signature
        """See :class:`~homeworld.model.inspection.Inspection`."""
        raise _nobody()

    def restarts(self, server_id: str) -> int:  # noqa: ARG002 - the port\'s signature
        """See :class:`~homeworld.model.inspection.Inspection`."""
        raise _nobody()

    def definitions(self, keyspace_id: str) -> Sequence[Definition]:  # noqa: ARG002 - the port\'s signature
        """See :class:`~homeworld.model.inspection.Inspection`."""
        raise _nobody()

    def facts(self, keyspace_id: str) -> Sequence[TableFacts]:  # noqa: ARG002 - the port\'s signature
        """See :class:`~homeworld.model.inspection.Inspection`."""
        raise _nobody()

    def connections(self, server_id: str) -> Sequence[ServerConnection]:  # noqa: ARG002 - the port\'s signature
        """See :class:`~homeworld.model.inspection.Inspection`."""
        raise _nobody()

    def kill(self, server_id: str, number: int, *, query: bool) -> None:  # noqa: ARG002 - the port\'s signature
        """See :class:`~homeworld.model.inspection.Inspection`."""
        raise _nobody()


def _nobody() -> UnavailableError:
    return UnavailableError("nobody here can ask servers")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the composition root decides.

    :param preconditions: judges a workflow before it is made.
    :param placements: keeps tables empty while a vschema places them anew.
    :param inspection: looks at servers.
    :param flavor: of databases whose request names none.
    :param engine: of databases whose request names none.
    :param missing_engines: tells those that no database can have here, and why.
    :param public_url: how clients reach this API, without a path; empty: as each request came in.
    :param gateway_address: host or ``host:port`` where branches are reached, told in passwords and branches.
    :param http_address: the same for clients that speak HTTPS, told in passwords; empty: none is told apart.
    :param dashboard_url: where ``html_url`` fields lead; empty: the public URL.
    :param replicas: of each shard of databases whose request names no number.
    :param routes_changed: called after a change that gateways should know before the client goes on;
        returns once they do. What it raises of UnavailableError is logged, for the change is stored and the
        gateways take it with the next one.
    :param lag_limit_seconds: how far behind a workflow may be for a switch to be asked.
    :param settle_seconds: for what is asked of a workflow to be in force at every gateway before it is
        answered, where its state says at once that it is; 0: nobody does it here.
    :param webhook_networks: to which webhooks may be sent although they are not public.
    :param requests_per_minute: of each credential; 0: any number.
    :param failures_per_minute: wrong credentials from each address, in each process; 0: any number.
    :param one_of_several: whether other processes serve the same API, and count requests, too.
    :param sso: the identity provider that users may come by.
    """

    preconditions: Preconditions
    placements: Placements = field(default_factory=Unlooked)
    inspection: Inspection = field(default_factory=Uninspected)
    flavor: Flavor = Flavor.MYSQL
    engine: EngineKind = EngineKind.LOCAL
    missing_engines: Callable[[], Mapping[EngineKind, str]] = lambda: NO_VITESS
    public_url: str = ""
    gateway_address: str = "127.0.0.1"
    http_address: str = ""
    dashboard_url: str = ""
    replicas: int = 0
    routes_changed: Callable[[], None] = _nothing
    lag_limit_seconds: float = 10.0
    settle_seconds: float = 0.0
    webhook_networks: tuple[Network, ...] = ()
    requests_per_minute: int = 0
    failures_per_minute: int = 0
    one_of_several: bool = False
    sso: Oidc | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """A request as far as calls need it: the credentials are not checked yet."""

    authorization: str
    base_url: str
    remote_ip: str
    path: str
    query: str


@dataclass(frozen=True, slots=True)
class Path:
    """The resources that a request's path names; what it does not name is None."""

    organization: str | None = None
    database: str | None = None
    branch: str | None = None
    keyspace: str | None = None


@dataclass(slots=True)
class Call:
    """An authorized call inside its transaction."""

    tx: Transaction
    caller: Caller
    settings: Settings
    scope: Scope
    bearer_: Bearer | None = None
    organization_: Organization | None = None
    database_: Database | None = None
    branch_: Branch | None = None
    keyspace_: Keyspace | None = None
    audits: list[tuple[str, tuple[str, str, str], Mapping[str, object]]] = field(
        default_factory=list[tuple[str, tuple[str, str, str], Mapping[str, object]]]
    )

    @property
    def now(self) -> datetime:
        """The transaction's time."""
        return self.tx.work.now

    @property
    def bearer(self) -> Bearer:
        """Who calls."""
        return _named(self.bearer_)

    @property
    def user_id(self) -> str | None:
        """The user who calls; None where a service token does."""
        return self.bearer.user_id

    @property
    def actor_id(self) -> str:
        """The caller as an actor."""
        return self.bearer.actor_id

    @property
    def organization(self) -> Organization:
        """The organization that the path names."""
        return _named(self.organization_)

    @property
    def database(self) -> Database:
        """The database that the path names."""
        return _named(self.database_)

    @property
    def branch(self) -> Branch:
        """The branch that the path names."""
        return _named(self.branch_)

    @property
    def keyspace(self) -> Keyspace:
        """The keyspace that the path names."""
        return _named(self.keyspace_)

    def require(self, *, production: bool, role: BackendRole | None = None) -> None:
        """Hold the operation's scope.

        :param role: of the password concerned; None: not known yet, so a reader's access is enough for now.
        :raises ForbiddenError: the token lacks it.
        """
        wanted = self.scope.wanted(production=production)
        if production and role in {None, BackendRole.READER}:
            wanted |= self.scope.readers
        database_id = self.database_.id if self.database_ else None
        if not self.bearer.may(wanted, self.organization.id, database_id):
            raise ForbiddenError(f"this needs one of the accesses {', '.join(sorted(wanted))}")

    def require_own_servers(self, what: str) -> None:
        """Hold that the database's servers are homeworld's to change.

        :param what: that is asked for, such as "keyspaces are made".
        :raises InvalidError: others run them.
        """
        if why := no_servers(self.database.engine, self.database.name, what):
            raise InvalidError(why)

    def require_held(self, given: Iterable[str], database_id: str | None = None) -> None:
        """Hold that the caller has all that somebody is about to be given, on the organization or a database.

        :raises ForbiddenError: not all of it.
        """
        for access in sorted(given):
            if not self.bearer.may([access], self.organization.id, database_id):
                raise ForbiddenError(f"nobody gives what they do not have: {access}")

    def created_database(self, database_id: str) -> None:
        """Let whoever made a database administer it, where they do not already."""
        if self.bearer.accesses.get(self.organization.id, frozenset()) >= DATABASE_ADMIN:
            return
        if self.user_id is not None:
            self.tx.members.own(database_id, self.user_id)
        else:
            self.tx.tokens.grant(self.bearer.id, "database", database_id, DATABASE_ADMIN)

    def audit(self, action: str, kind: str, target_id: str, name: str, **metadata: object) -> None:
        """Write an audit entry with this change."""
        self.tx.journal.audit(
            self.organization.id,
            self.actor_id,
            action,
            (kind, target_id, name),
            audit_id=new_id(),
            remote_ip=self.caller.remote_ip,
            metadata=metadata,
        )

    def api_url(self, *parts: str) -> str:
        """The URL of a resource of this API below its organization."""
        return "/".join([self.caller.base_url, "v1/organizations", self.organization.name, *parts])

    def html_url(self, *parts: str) -> str:
        """The URL of a resource's page."""
        base = self.settings.dashboard_url or self.caller.base_url
        return "/".join([base, self.organization.name, *parts])

    def actors(self, ids: Iterable[str | None]) -> Mapping[str, Actor]:
        """Actors by id, in one query."""
        return self.tx.actors.by_ids(ids)


def _named(found: T | None) -> T:
    if found is None:
        raise AssertionError("the operation's path does not name this")
    return found


class Api:
    """The API's ground: the store, the settings, and how calls begin."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        tell = self.tell_requests if settings.one_of_several else None
        self.limits = Limits(settings.requests_per_minute, settings.failures_per_minute, tell=tell)
        self._noting = threading.Lock()

    @contextmanager
    def read(self, caller: Caller, operation: str, path: Path = Path()) -> Generator[Call]:
        """An authorized call that only reads.

        :raises UnauthorizedError: no valid credentials.
        :raises NotFoundError: the path names something that does not exist for the caller.
        :raises ForbiddenError: the caller lacks the operation's scope.
        :raises TooManyError: the credential, or the address of wrong ones, has asked too often.
        """
        self._count(caller, operation)
        with self.store.read() as tx:
            call = self._begin(tx, caller, operation, path)
            news = call.bearer_ is not None and call.bearer_.use_is_news(call.now)
            yield call
        if news:
            self._note_use(call.bearer)

    @contextmanager
    def write(self, caller: Caller, operation: str, path: Path = Path()) -> Generator[Call]:
        """As ``read``, for a call that changes something: all of it or nothing."""
        self._count(caller, operation)
        with self.store.write() as tx:
            call = self._begin(tx, caller, operation, path)
            if call.bearer.use_is_news(call.now):
                _note_use(tx, call.bearer)
            yield call

    def _count(self, caller: Caller, operation: str) -> None:
        if not SCOPES[operation].public:
            self.limits.request(caller.authorization, caller.remote_ip)

    def tell_requests(self, key: str, more: int, seconds: float) -> tuple[int, float]:
        """Tell all processes of a credential's requests; see :data:`~homeworld.api.limits.Tell`."""
        with self.store.write() as tx:
            total, lasts = tx.sessions.told(f"requests {key}", more, timedelta(seconds=seconds))
        return total, lasts.total_seconds()

    def tell_gateways(self) -> None:
        """Let gateways take what was just stored, before the client is answered."""
        try:
            self.settings.routes_changed()
        except UnavailableError:
            _log.warning("gateways did not take the new routes in time", exc_info=True)

    def _note_use(self, bearer: Bearer) -> None:
        """Told after the answer is known: that it was used must not fail what it was used for."""
        if not self._noting.acquire(blocking=False):
            return
        try:
            with self.store.write() as tx:
                _note_use(tx, bearer)
        except UnavailableError:
            _log.warning("the use of token %s was not noted", bearer.id)
        finally:
            self._noting.release()

    def _begin(self, tx: Transaction, caller: Caller, operation: str, path: Path) -> Call:
        scope = SCOPES[operation]
        call = Call(tx, caller, self.settings, scope)
        if scope.public:
            return call
        try:
            call.bearer_ = authenticate(tx, caller.authorization)
        except UnauthorizedError:
            self.limits.failure(caller.remote_ip)
            raise
        _resolve(call, path)
        if scope.users:
            _require_user(call.bearer)
        elif scope.anywhere:
            if not call.bearer.may_anywhere(scope.accesses):
                raise ForbiddenError
        elif scope.accesses:
            call.require(production=call.branch_ is not None and call.branch.production)
        return call


def authenticate(tx: Transaction, authorization: str) -> Bearer:
    """Whoever an Authorization header names: ``ID:TOKEN`` of a service token, or ``Bearer`` and a token.

    :raises UnauthorizedError: anything else.
    """
    if authorization[:7].lower() == "bearer ":
        bearer = tx.oauth_tokens.authenticate(authorization[7:].strip())
        if bearer is None:
            raise InvalidBearerError
        return bearer
    token_id, _, secret = authorization.strip().partition(":")
    if not _LOOKS_LIKE_A_NAME.fullmatch(token_id):
        raise UnauthorizedError
    return tx.tokens.authenticate(token_id, secret)


def _note_use(tx: Transaction, bearer: Bearer) -> None:
    if bearer.user_id is None:
        tx.tokens.note_use(bearer.id)
    else:
        tx.oauth_tokens.note_use(bearer.id)


def _require_user(bearer: Bearer) -> None:
    if bearer.user_id is None:
        raise ForbiddenError("a service token is no user; log in with `pscale auth login`")
    if bearer.scopes is not None and "user:read_user" not in bearer.scopes:
        raise ForbiddenError("this needs the scope read_user")


def _resolve(call: Call, path: Path) -> None:
    for name in (path.organization, path.database, path.branch, path.keyspace):
        if name is not None and not _LOOKS_LIKE_A_NAME.fullmatch(name):
            raise NotFoundError
    if path.organization is None:
        return
    call.organization_ = call.tx.organizations.by_name(path.organization)
    if call.organization.id not in call.bearer.organization_ids:
        raise NotFoundError
    if path.database is not None:
        call.database_ = call.tx.databases.named(call.organization.id, path.database)
    if path.branch is not None:
        call.branch_ = call.tx.branches.named(call.database.id, path.branch)
    if path.keyspace is not None:
        call.keyspace_ = call.tx.keyspaces.named(call.branch.id, path.keyspace)


async def _api(request: Request) -> Api:
    return cast("Api", request.app.state.api)


async def _caller(request: Request) -> Caller:
    api = cast("Api", request.app.state.api)
    return Caller(
        authorization=request.headers.get("authorization", ""),
        base_url=(api.settings.public_url or str(request.base_url)).rstrip("/"),
        remote_ip=_address(request.client.host) if request.client else "",
        # Not from request.url: a query may hold bytes that are no text.
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
    )


def _address(told: str) -> str:
    # A proxy tells what it was told where it does not know; what is kept and counted are addresses.
    try:
        return str(ipaddress.ip_address(told.partition("%")[0]))
    except ValueError:
        return ""


async def _in_organization(organization: str) -> Path:
    return Path(organization)


async def _in_database(organization: str, database: str) -> Path:
    return Path(organization, database)


async def _in_branch(organization: str, database: str, branch: str) -> Path:
    return Path(organization, database, branch)


async def _in_keyspace(organization: str, database: str, branch: str, keyspace: str) -> Path:
    return Path(organization, database, branch, keyspace)


def _checked(named: str) -> str:
    if not _LOOKS_LIKE_A_NAME.fullmatch(named):
        raise NotFoundError
    return named


async def _id(id: str) -> str:  # noqa: A002 - the published parameter's name
    return _checked(id)


async def _workflow(workflow: str) -> str:
    return _checked(workflow)


async def _uuid(uuid: str) -> str:
    return _checked(uuid)


async def _team(team: str) -> str:
    return _checked(team)


async def _application(application_id: str) -> str:
    return _checked(application_id)


async def _token(token_id: str) -> str:
    return _checked(token_id)


ApiDep = Annotated[Api, Depends(_api)]
CallerDep = Annotated[Caller, Depends(_caller)]
InOrganization = Annotated[Path, Depends(_in_organization)]
InDatabase = Annotated[Path, Depends(_in_database)]
InBranch = Annotated[Path, Depends(_in_branch)]
InKeyspace = Annotated[Path, Depends(_in_keyspace)]
Id = Annotated[str, Depends(_id)]
WorkflowName = Annotated[str, Depends(_workflow)]
Uuid = Annotated[str, Depends(_uuid)]
TeamSlug = Annotated[str, Depends(_team)]
ApplicationId = Annotated[str, Depends(_application)]
TokenId = Annotated[str, Depends(_token)]
