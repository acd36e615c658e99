"""Tell our service of a tenant and of the stand-in that receives its webhooks.

The last step of docker-compose-dev.yml: it makes tenant `dev` with the webhook endpoint `main`. The secrets
come from the files that prepare_stack.py wrote. Done again, it changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from openmeet_appservice.config import load_config

POLL_SECONDS = 0.5


def main(arguments: list[str]) -> None:
    """Make the tenant and its endpoint, as *arguments* say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what prepare_stack.py filled")
    parser.add_argument("--api", required=True, help="our provisioning API")
    parser.add_argument("--webhook-url", required=True, help="the stand-in, as our service reaches it")
    parser.add_argument("--tenant", default="dev")
    parser.add_argument("--patience", type=float, default=120, help="seconds until the API must answer")
    options = parser.parse_args(arguments)
    config = load_config(options.folder / "config.yaml", {})
    key = config.provisioning.admin_key.get_secret_value()
    secret = (options.folder / "webhook-secret").read_text("utf-8").strip()
    tenant = f"{options.api}/v1/tenants/{options.tenant}"
    wait_until_up(f"{options.api}/v1/whoami", key, options.patience)
    put(tenant, key, {"name": "For trying things"})
    put(f"{tenant}/webhooks/main", key, {"url": options.webhook_url, "secret": secret})
    print(f"Tenant {options.tenant} is ready; its events go to {options.webhook_url}.")


def wait_until_up(url: str, key: str, patience: float) -> None:
    """Wait until *url* takes the *key*; raises `TimeoutError` after *patience* seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            call("GET", url, key)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
        except OSError:
            pass
        else:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"{url} did not answer within {patience:g} seconds")
        time.sleep(POLL_SECONDS)


def put(url: str, key: str, body: dict[str, Any]) -> None:
    """`PUT` *body*; print what the API says where it refuses, and exit."""
    try:
        call("PUT", url, key, body)
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')}")


def call(method: str, url: str, key: str, body: dict[str, Any] | None = None) -> None:
    """Make one request with the *key*."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        response.read()


if __name__ == "__main__":
    main(sys.argv[1:])
