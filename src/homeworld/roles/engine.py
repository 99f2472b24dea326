"""``homeworld engine``: the commands of ``cli/engine.py``; ``install`` and ``attach``, which ask no API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeworld.cli.engine import app
from homeworld.engines.vitess import install as building
from homeworld.model.engines import EngineKind
from homeworld.roles.options import DataDir, StoreUrl

__all__ = ["app"]


@app.command()
def attach(
    database: Annotated[str, typer.Argument(help="The new database's name.")],
    vtctld: Annotated[str, typer.Option(metavar="HOST:PORT", help="Its gRPC port.")],
    vtgate: Annotated[str, typer.Option(metavar="HOST:PORT", help="Its MySQL port.")],
    vtgate_http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Its HTTP port.")],
    logins: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help='{"vtgate": {"user": …, "password": …}, "mysql": {…}}: for vtgate, and an administrator of '
            "the tablets' MySQL servers; - reads standard input.",
        ),
    ],
    vtctld_ca: Annotated[Path | None, typer.Option(help="Of vtctld's certificate; without: no TLS.")] = None,
    vtctld_cert: Annotated[Path | None, typer.Option(help="A client's certificate for vtctld.")] = None,
    vtctld_key: Annotated[Path | None, typer.Option(help="The key of that certificate.")] = None,
    vtctld_server_name: Annotated[str, typer.Option(help="What vtctld's certificate names.")] = "",
    in_the_clear: Annotated[
        bool,
        typer.Option(
            "--in-the-clear", help="Reach other machines without TLS: you trust the network between."
        ),
    ] = False,
    default_keyspace: Annotated[str, typer.Option(help="Of statements that name none.")] = "",
    organization: Annotated[str, typer.Option(help="Where the database belongs.")] = "homeworld",
    data_dir: DataDir = Path("~/.homeworld"),
    store: StoreUrl = "",
) -> None:
    """Make a database of a Vitess cluster that others run: gateway, passwords, API and moves in front of it.

    Nothing in the cluster changes. Deleting the database lets go of the cluster and leaves it as it is.
    """
    # The store and its libraries take long to read, and who only asks for help needs none.
    from homeworld.roles.attaching import Wish, attach_cluster

    wish = Wish(
        database, vtctld, vtgate, vtgate_http, logins, vtctld_ca, vtctld_cert, vtctld_key, vtctld_server_name,
        in_the_clear, default_keyspace, organization,
    )  # fmt: skip
    attach_cluster(wish, data_dir, store)


@app.command()
def install(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="vitess")],
) -> None:
    """Build the programs of an engine from source, at the versions that are supported. Needs Go."""
    if engine != EngineKind.VITESS:
        raise typer.BadParameter("only vitess is installed; local is always there")
    try:
        folder = building.install(lambda text: typer.echo(text, err=True))
    except building.NotBuiltError as error:
        typer.echo(f"homeworld: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(str(folder))
