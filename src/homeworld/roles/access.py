"""How an installation lets people and programs in: what its operator chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from homeworld.model.errors import InvalidError

if TYPE_CHECKING:
    from homeworld.api.login_oidc import Oidc

# Wrong credentials from one address, in each process. A mistaken program is told so; a guesser gets nowhere.
FAILURES_PER_MINUTE = 60


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """What was asked for.

    :param requests_per_minute: of each credential; 0: any number.
    :param public_url: how users reach the API; empty: as each request came in.
    :param sso_issuer: the identity provider; empty: none.
    :param sso_client_secret_file: a file with the secret in it, so that it stands in no list of processes.
    :param sso_domains: of email addresses that the provider speaks for.
    """

    requests_per_minute: int = 600
    public_url: str = ""
    sso_issuer: str = ""
    sso_client_id: str = ""
    sso_client_secret_file: Path | None = None
    sso_name: str = "single sign-on"
    sso_domains: tuple[str, ...] = ()

    def oidc(self, organization: str) -> Oidc | None:
        """The identity provider, if there is one. It is not asked yet.

        :param organization: where those belong who come in first.
        :raises InvalidError: something that it needs is missing.
        """
        if not self.sso_issuer:
            return None
        from homeworld.api.login_oidc import Oidc, Provider, checked_provider  # reads much; few need it

        try:
            secret = self.sso_client_secret_file.read_text().strip() if self.sso_client_secret_file else ""
        except (OSError, ValueError) as error:
            raise InvalidError(f"--sso-client-secret-file cannot be read: {error}") from None
        provider = Provider(
            issuer=self.sso_issuer,
            client_id=self.sso_client_id,
            client_secret=secret,
            name=self.sso_name,
            domains=self.sso_domains,
            organization=organization,
        )
        return Oidc(checked_provider(provider))
