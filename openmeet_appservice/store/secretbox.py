"""Secrets at rest: what must be used again, such as a webhook's secret, is stored encrypted.

Encryption is Fernet (AES-128-CBC with HMAC-SHA256). Several keys may be valid at once, so that a key can
be replaced: the first encrypts, every one decrypts.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from openmeet_appservice import errors


class SecretBox:
    """Encrypts texts for the database, and decrypts them.

    Parameters
    ----------
    keys
        Fernet keys (32 random bytes in URL-safe base64), at least one.

    Raises
    ------
    ConfigError
        There is no key, or one of them is no Fernet key.
    """

    __slots__ = ("_fernet", "_fernets")

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise errors.ConfigError("security.encryption_keys holds no key")
        try:
            self._fernets = [Fernet(key) for key in keys]
        except ValueError:
            # The fault's own words could hold the key.
            raise errors.ConfigError(
                "security.encryption_keys: each must be 32 random bytes in URL-safe base64"
            ) from None
        self._fernet = MultiFernet(self._fernets)

    def seal(self, text: str) -> str:
        """Return *text* encrypted with the first key; twice the same text gives two different ones."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return the text that was sealed.

        Raises
        ------
        SecretUnreadable
            It was sealed with a key that is no longer among ours, or it was changed.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise errors.SecretUnreadable from None

    def key_of(self, sealed: str) -> int | None:
        """Return which key opens *sealed*, 0 for the first; None where none does."""
        for number, fernet in enumerate(self._fernets):
            try:
                fernet.decrypt(sealed.encode())
            except InvalidToken:
                continue
            return number
        return None
