"""Run Synapse for trying things, and print an admin's token for it.

This is the start command of the service `matrix` in docker-compose-dev.yml. It uses nothing but Python's
standard library, because it runs in Synapse's own image, where our package is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ADMIN = "admin"
POLL_SECONDS = 0.2


def main(arguments: list[str]) -> int:
    """Run Synapse until it ends or is told to (SIGTERM, SIGINT), and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where prepare_stack.py laid Synapse out")
    parser.add_argument("--url", required=True, help="Synapse, as this script reaches it")
    parser.add_argument("--public-url", required=True, help="Synapse, as you reach it")
    parser.add_argument("--appservice-url", required=True, help="our API, as you reach it")
    parser.add_argument("--patience", type=float, default=120, help="seconds until Synapse must answer")
    options = parser.parse_args(arguments)
    config = options.folder / "homeserver.yaml"
    command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(config)]
    # In a session of its own, so that Ctrl-C in a terminal reaches it once, through this script.
    synapse = subprocess.Popen(command, start_new_session=True)  # noqa: S603 # our own command
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: synapse.terminate())
    try:
        if wait_until_up(synapse, options.url, options.patience):
            user_id, token = admin(options.url, options.folder)
            print(welcome(options.public_url, options.appservice_url, user_id, token), flush=True)
        return synapse.wait()
    finally:
        synapse.terminate()


def wait_until_up(synapse: subprocess.Popen[bytes], url: str, patience: float) -> bool:
    """Wait until Synapse answers; False when it has ended. Raises `TimeoutError` after *patience* seconds."""
    end = time.monotonic() + patience
    while synapse.poll() is None:
        try:
            call(f"{url}/_matrix/client/versions")
        except OSError:
            if time.monotonic() > end:
                raise TimeoutError(f"Synapse did not answer within {patience:g} seconds") from None
            time.sleep(POLL_SECONDS)
        else:
            return True
    return False


def admin(url: str, folder: Path) -> tuple[str, str]:
    """Return the id and a new token of the server admin, whom the first start makes."""
    secret = json.loads((folder / "secrets.json").read_text("utf-8"))["registration_shared_secret"]
    password = (folder / "admin-password").read_text("utf-8").strip()
    try:
        register_admin(url, secret, password)
    except urllib.error.HTTPError as error:
        if json.load(error).get("errcode") != "M_USER_IN_USE":
            raise
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": ADMIN},
        "password": password,
        "device_id": "DEV",
    }
    made = call(f"{url}/_matrix/client/v3/login", login)
    return made["user_id"], made["access_token"]


def register_admin(url: str, secret: str, password: str) -> None:
    """Make the server admin, as Synapse's admin API manual says ("Shared-Secret Registration")."""
    endpoint = f"{url}/_synapse/admin/v1/register"
    nonce = call(endpoint)["nonce"]
    signed = "\0".join((nonce, ADMIN, password, "admin")).encode()
    mac = hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest()
    call(endpoint, {"nonce": nonce, "username": ADMIN, "password": password, "admin": True, "mac": mac})


def call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask *url* (with a POST where there is a *body*) and return the JSON object it answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def welcome(public_url: str, appservice_url: str, user_id: str, token: str) -> str:
    """Say where everything is. Ten lines at most follow the first: guides show it with `grep -A 10`."""
    return f"""
Success! Matrix server initialized
  Server name:      {user_id.partition(":")[2]}
  Homeserver:       {public_url}
  Admin user:       {user_id}
  Admin token:      {token}
  Provisioning API: {appservice_url}
  Try:              curl -H 'Authorization: Bearer {token}' {public_url}/_matrix/client/v3/account/whoami
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
