"""The commands ``api``, ``worker`` and ``gateway``, and how any of them runs until it is told to end."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from homeworld.metering.prices import Prices
from homeworld.model.addresses import parse_networks
from homeworld.model.engines import EngineKind
from homeworld.model.errors import HomeworldError
from homeworld.roles.access import AccessOptions
from homeworld.roles.ground import HTTP_PORT, write_private
from homeworld.roles.several import ApiRole, Common, GatewayRole, Role, WorkerRole
from homeworld.workflows.provisioning.ports import Placement

_log = logging.getLogger("homeworld")

DataDir = Annotated[Path, typer.Option(help="Everything homeworld keeps.")]
StoreUrl = Annotated[
    str, typer.Option(envvar="HOMEWORLD_STORE", help="postgresql://user:password@host/name, of all roles.")
]
Mysqld = Annotated[Path | None, typer.Option(help="The mysqld or mariadbd for new servers.")]
Engine = Annotated[
    EngineKind, typer.Option(help="What plans and carries statements of databases that ask for nothing else.")
]
OrganizationName = Annotated[str, typer.Option(help="The organization that is made at the first start.")]
ReadyFile = Annotated[Path | None, typer.Option(help="Written once everything serves.")]
GatewayAddress = Annotated[
    str, typer.Option(help="What clients are told to connect to: a gateway, or what is before several.")
]
WebhookNetworks = Annotated[
    str,
    typer.Option(
        envvar="HOMEWORLD_WEBHOOK_NETWORKS",
        metavar="CIDR,…",
        help="Networks, such as 10.0.0.0/8, that webhooks may be sent to although they are not public.",
    ),
]
PriceList = Annotated[
    str,
    typer.Option(
        envvar="HOMEWORLD_PRICES",
        metavar="NAME=PRICE,…",
        help="What an hour costs: server_hour=0.05,storage_gib_hour=0.0002. Not named: 0.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")]
HttpPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="HTTPS for PlanetScale's own clients; 0 takes a free port.",
        show_default="8443, or a free one where --gateway-port is 0",
    ),
]
HttpPlainPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="The same in the clear; 0 takes a free port.", show_default="none"),
]
RequestsPerMinute = Annotated[
    int,
    typer.Option(
        min=0,
        envvar="HOMEWORLD_REQUESTS_PER_MINUTE",
        help="Of each credential, by all APIs together; 0: any number.",
    ),
]


def _checked_url(given: str) -> str:
    if given and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(?::\d{1,5})?/?", given):
        raise typer.BadParameter("give scheme, host and port only, such as https://db.example.com")
    return given


PublicUrl = Annotated[
    str,
    typer.Option(
        callback=_checked_url,
        envvar="HOMEWORLD_PUBLIC_URL",
        help="How users reach the API and its pages, where a proxy is before it; without a path. The proxy's"
        " X-Forwarded-For is believed then.",
    ),
]
SsoIssuer = Annotated[
    str,
    typer.Option(envvar="HOMEWORLD_SSO_ISSUER", help="An OpenID Connect provider that users may come by."),
]
SsoClientId = Annotated[str, typer.Option(envvar="HOMEWORLD_SSO_CLIENT_ID", help="Homeworld's name there.")]
SsoSecretFile = Annotated[
    Path | None,
    typer.Option(envvar="HOMEWORLD_SSO_CLIENT_SECRET_FILE", help="A file with Homeworld's secret there."),
]
SsoDomains = Annotated[
    str,
    typer.Option(
        envvar="HOMEWORLD_SSO_DOMAINS",
        help="Domains of the email addresses that it speaks for, with commas between them.",
    ),
]
SsoName = Annotated[str, typer.Option(envvar="HOMEWORLD_SSO_NAME", help="For the button on the login page.")]


def access_options(
    requests_per_minute: int,
    public_url: str,
    sso_issuer: str,
    sso_client_id: str,
    sso_client_secret_file: Path | None,
    sso_domains: str,
    sso_name: str,
) -> AccessOptions:
    """What the options of a command say."""
    return AccessOptions(
        requests_per_minute,
        public_url.rstrip("/"),
        sso_issuer,
        sso_client_id,
        sso_client_secret_file,
        sso_name,
        tuple(domain.strip() for domain in sso_domains.split(",") if domain.strip()),
    )


def run(make: Callable[[ExitStack], Role], ready_file: Path | None) -> None:
    """Start a role and look after it until SIGTERM or Ctrl-C; ends the process with 1 where it cannot."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        with ExitStack() as stack:
            role = make(stack)
            ready = {**role.start(), "pid": os.getpid()}
            # What has been made by now stays: the collector need not look at it again and again, while a
            # gateway's clients wait.
            gc.collect()
            gc.freeze()
            _log.info("serving")
            if ready_file is not None:
                write_private(ready_file, json.dumps(ready, indent=2) + "\n")
            while not stopping.wait(0.5):
                role.check()
    except HomeworldError as error:
        typer.echo(f"homeworld: {error.message}", err=True)
        raise typer.Exit(1) from None


def api(
    store: StoreUrl,
    data_dir: DataDir = Path("~/.homeworld"),
    api_port: Port = 8080,
    gateway_address: GatewayAddress = "127.0.0.1:3306",
    http_address: Annotated[
        str, typer.Option(help="The same for clients that speak HTTPS; without a port it is 443.")
    ] = f"127.0.0.1:{HTTP_PORT}",
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Replicas of each primary.")] = 1,
    engine: Engine = EngineKind.LOCAL,
    mysqld: Mysqld = None,
    organization: OrganizationName = "homeworld",
    ready_file: ReadyFile = None,
    webhook_networks: WebhookNetworks = "",
    requests_per_minute: RequestsPerMinute = 600,
    public_url: PublicUrl = "",
    sso_issuer: SsoIssuer = "",
    sso_client_id: SsoClientId = "",
    sso_client_secret_file: SsoSecretFile = None,
    sso_domains: SsoDomains = "",
    sso_name: SsoName = "single sign-on",
) -> None:
    """Run one of any number of APIs."""
    common = Common(data_dir.expanduser().absolute(), store, mysqld, organization)
    access = access_options(
        requests_per_minute, public_url, sso_issuer, sso_client_id, sso_client_secret_file, sso_domains,
        sso_name,
    )  # fmt: skip
    run(
        lambda stack: ApiRole(
            common,
            stack,
            port=api_port,
            gateway_address=gateway_address,
            http_address=http_address,
            replicas=replicas,
            engine=engine,
            webhook_networks=parse_networks(webhook_networks),
            access=access,
        ),
        ready_file,
    )


def worker(
    store: StoreUrl,
    data_dir: DataDir = Path("~/.homeworld"),
    placement: Annotated[
        Placement, typer.Option(help="One server a branch, or one a shard.")
    ] = Placement.SHARED,
    mysqld: Mysqld = None,
    organization: OrganizationName = "homeworld",
    ready_file: ReadyFile = None,
    gateway_address: GatewayAddress = "127.0.0.1:3306",
    api_url: Annotated[
        str, typer.Option(help="Where links in webhooks lead: an API, or what is before several.")
    ] = "http://127.0.0.1:8080",
    webhook_networks: WebhookNetworks = "",
    prices: PriceList = "",
) -> None:
    """Run one of any number of workers; one of them starts and watches the MySQL servers."""
    common = Common(data_dir.expanduser().absolute(), store, mysqld, organization)
    run(
        lambda stack: WorkerRole(
            common,
            stack,
            placement=placement,
            gateway_address=gateway_address,
            api_url=api_url,
            webhook_networks=parse_networks(webhook_networks),
            prices=Prices.parse(prices),
        ),
        ready_file,
    )


def gateway(
    store: StoreUrl,
    data_dir: DataDir = Path("~/.homeworld"),
    gateway_port: Port = 3306,
    http_port: HttpPort = None,
    http_plain_port: HttpPlainPort = None,
    mysqld: Mysqld = None,
    organization: OrganizationName = "homeworld",
    ready_file: ReadyFile = None,
) -> None:
    """Run one of any number of gateways."""
    common = Common(data_dir.expanduser().absolute(), store, mysqld, organization)
    run(
        lambda stack: GatewayRole(
            common, stack, port=gateway_port, http_port=http_port, http_plain_port=http_plain_port
        ),
        ready_file,
    )
