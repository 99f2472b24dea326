"""What an OAuth application's code or refresh token is good for, wherever it brings it."""

from __future__ import annotations

from homeworld.store.oauth import Application
from homeworld.store.oauth_tokens import Issued, OAuthTokens


def exchange(
    tokens: OAuthTokens,
    application: Application,
    *,
    code: str | None,
    refresh_token: str | None,
    redirect_uri: str = "",
    verifier: str = "",
) -> Issued | None:
    """The token; None: for nothing. The caller has proven to be the application.

    What was found to be used a second time ends what came of it: the caller's transaction has to commit
    whatever this returns.
    """
    if code is not None:
        return tokens.exchange(code, application.id, application.client_id, redirect_uri, verifier)
    if refresh_token is not None:
        return tokens.refresh(refresh_token, application.client_id)
    return None
