"""Credentials and endpoint of S3 as botocore finds them, which s3fs asks, too, so that all commands mean one account.

That is the environment, the files in ~/.aws with their profiles, and the roles of machines and containers; with what
fsspec's own configuration says of ``s3`` before all of it.
"""

from typing import Any

from hskcache.errors import CacheError

_AWS = "amazonaws.com"


def s3_settings(url: str) -> dict[str, Any]:
    """Settings of obstore's S3: where it is, and who we are.

    Args:
        url: of the cache, for messages.

    Raises:
        CacheError: there are no credentials.
    """
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session
    from fsspec.config import conf

    given = conf.get("s3", {})
    client = dict(given.get("client_kwargs", {}))
    try:
        session = Session(profile=given.get("profile"))
        endpoint = given.get("endpoint_url") or client.get("endpoint_url")
        made = session.create_client("s3", region_name=client.get("region_name"), endpoint_url=endpoint)
        found = session.get_credentials()
    except BotoCoreError as error:
        raise CacheError(f"{url}: {error}; mend the configuration of AWS") from None
    settings: dict[str, Any] = {"region": made.meta.region_name or "us-east-1"}
    if not made.meta.endpoint_url.partition("?")[0].endswith((_AWS, f"{_AWS}.cn")):
        settings["endpoint"] = made.meta.endpoint_url
    if _is_true(given.get("anon")):
        return settings | {"skip_signature": True}
    if given.get("key") and given.get("secret"):
        return settings | {
            "access_key_id": given["key"],
            "secret_access_key": given["secret"],
            "session_token": given.get("token"),
        }
    if found is None:
        raise CacheError(
            f"{url} needs credentials and there are none; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return settings | {"credential_provider": lambda: _frozen(found)}


def _frozen(credentials: Any) -> dict[str, Any]:
    """Credentials as obstore takes them; those of a role are asked for anew before they end."""
    import datetime

    now = credentials.get_frozen_credentials()
    # A role's are renewed by botocore a quarter of an hour before they end.
    again = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    return {
        "access_key_id": now.access_key,
        "secret_access_key": now.secret_key,
        "token": now.token,
        "expires_at": again,
    }


def _is_true(value: Any) -> bool:
    return str(value).lower() in {"1", "true", "yes"}
