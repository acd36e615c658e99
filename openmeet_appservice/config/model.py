"""The sections and keys of `config.yaml`, with their defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from openmeet_appservice.config import templates
from openmeet_appservice.config.values import (
    AccessToken,
    AdminKey,
    DatabaseUrl,
    Duration,
    EncryptionKeys,
    HostName,
    HttpUrl,
    ListenAddress,
    Network,
    Rate,
    RoomVersion,
    ServerName,
    SigningSecrets,
    Token,
)
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.domain.drift import Bans, Drift
from openmeet_appservice.domain.invitations import InvitationPolicy
from openmeet_appservice.domain.kinds import Access, AttendeeStatus, JoinPolicy
from openmeet_appservice.domain.topic import DEFAULT_TEMPLATE, check_template

Level = Annotated[int, Field(strict=True, ge=0, le=100)]
_Milliseconds = timedelta(milliseconds=1)


def _more_than_nothing(value: timedelta) -> timedelta:
    if value < _Milliseconds:
        raise ValueError("must be more than 0")
    return value


def _at_most_five_minutes(value: timedelta) -> timedelta:
    if value > timedelta(minutes=5):
        raise ValueError("must be at most 5m")
    return value


def _at_most_half_a_minute(value: timedelta) -> timedelta:
    # Synapse, and the client behind it, wait meanwhile.
    if value > timedelta(seconds=30):
        raise ValueError("must be at most 30s")
    return value


def _at_least_ten_minutes(value: timedelta) -> timedelta:
    if value < timedelta(minutes=10):
        raise ValueError("must be at least 10m")
    return value


def _at_least_two_days(value: timedelta) -> timedelta:
    if value < timedelta(days=2):
        raise ValueError("must be at least 2d")
    return value


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must hold each value once")
    return values


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("must hold at least 1")
    return values


def _texts(*secrets: SecretStr | None) -> tuple[str, ...]:
    return tuple(secret.get_secret_value() for secret in secrets if secret is not None)


PositiveDuration = Annotated[Duration, AfterValidator(_more_than_nothing)]


class Section(BaseModel):
    """A section of the configuration: read-only, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class HomeserverConfig(Section):
    """The Synapse that this service belongs to."""

    url: HttpUrl
    server_name: ServerName
    admin_token: AccessToken | None = None


class AppserviceConfig(Section):
    """What the registration says, and where Synapse reaches this service."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "openmeet"
    bot_localpart: Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$")] = "openmeet-bot"
    as_token: Token
    hs_token: Token
    as_token_next: Token | None = None
    hs_token_next: Token | None = None
    listen: ListenAddress = Address("127.0.0.1", 29350)
    url: HttpUrl = "http://localhost:29350"

    @property
    def as_tokens(self) -> tuple[str, ...]:
        """The tokens that may open Synapse, the one to try first in front."""
        return _texts(self.as_token, self.as_token_next)

    @property
    def hs_tokens(self) -> tuple[str, ...]:
        """The tokens that Synapse may show."""
        return _texts(self.hs_token, self.hs_token_next)

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        tokens = self.as_tokens + self.hs_tokens
        if len(set(tokens)) < len(tokens):
            raise ValueError("its tokens must all differ")
        return self


class ProvisioningConfig(Section):
    """The API that OpenMeet calls."""

    listen: ListenAddress = Address("127.0.0.1", 29351)
    admin_key: AdminKey


class OpsConfig(Section):
    """Health and metrics."""

    listen: ListenAddress = Address("127.0.0.1", 29352)


class DatabaseConfig(Section):
    """Where everything is kept. `url` is hidden when printed, for it may hold a password."""

    url: Annotated[DatabaseUrl, Field(validate_default=True)] = SecretStr("sqlite:///openmeet-appservice.db")
    auto_migrate: Annotated[bool, Field(strict=True)] = True


class SecurityConfig(Section):
    """Keys for what is encrypted in the database: the first encrypts, every one decrypts."""

    encryption_keys: Annotated[EncryptionKeys, AfterValidator(_some), AfterValidator(_each_once)]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys as Fernet takes them."""
        return _texts(*self.encryption_keys)


class UsersConfig(Section):
    """The puppets."""

    puppet_localpart: Annotated[str, AfterValidator(templates.check_user_template)] = (
        "openmeet_{tenant}_{user}"
    )
    direct_invitations: InvitationPolicy = InvitationPolicy.DECLINE


class PowerLevels(Section):
    """The power level of each role that has more than nothing."""

    host: Level = 100
    owner: Level = 100
    admin: Level = 75
    moderator: Level = 50
    speaker: Level = 25


class DriftConfig(Section):
    """What is done about what others change in a room, field by field."""

    name: Drift = Drift.CORRECT
    topic: Drift = Drift.CORRECT
    avatar: Drift = Drift.CORRECT
    aliases: Drift = Drift.CORRECT
    join_rule: Drift = Drift.CORRECT
    power_levels: Drift = Drift.CORRECT
    bans: Bans = Bans.KEEP


class RoomsConfig(Section):
    """How rooms are made."""

    alias: Annotated[str, AfterValidator(templates.check_alias_template)] = "{kind}-{slug}-{tenant}"
    private_alias: Annotated[bool, Field(strict=True)] = False
    version: Annotated[RoomVersion, Field(pattern=r"^1[12]$")] | None = None
    federate: Annotated[bool, Field(strict=True)] = False
    encrypted: Annotated[bool, Field(strict=True)] = False
    topic: Annotated[str, Field(max_length=10_000), AfterValidator(check_template)] = DEFAULT_TEMPLATE
    access: Access = Access.MEMBERS
    join: JoinPolicy = JoinPolicy.AUTO
    join_auto_limit: Annotated[int, Field(strict=True, ge=0)] = 50
    power_levels: PowerLevels = PowerLevels()
    chat_statuses: Annotated[
        tuple[AttendeeStatus, ...], AfterValidator(_some), AfterValidator(_each_once)
    ] = (
        AttendeeStatus.CONFIRMED,
        AttendeeStatus.ATTENDED,
        AttendeeStatus.CANCELLED,
    )
    drift: DriftConfig = DriftConfig()


class ReconcilerConfig(Section):
    """How often rooms are compared with what OpenMeet wants though nobody said that anything changed."""

    full_check: PositiveDuration | None = timedelta(days=7)
    max_rate: Rate = 2.0


class RepairConfig(Section):
    """How events are found that Synapse did not push."""

    max_age: PositiveDuration = timedelta(hours=24)


class LookupConfig(Section):
    """How OpenMeet is asked about its events, groups and users."""

    url: HttpUrl | None = None
    secrets: Annotated[SigningSecrets, AfterValidator(_each_once)] = ()
    alias_timeout: Annotated[PositiveDuration, AfterValidator(_at_most_half_a_minute)] = timedelta(seconds=3)
    timeout: Annotated[PositiveDuration, AfterValidator(_at_most_five_minutes)] = timedelta(seconds=15)
    resync_interval: Annotated[Duration, AfterValidator(_at_least_ten_minutes)] = timedelta(hours=6)

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        if self.url is not None and not self.secrets:
            raise ValueError("must hold secrets as well as a url: without one nothing can be signed")
        return self


class WebhooksConfig(Section):
    """How events are delivered to OpenMeet."""

    DEFAULT_RETRY: ClassVar = tuple(
        timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    )
    """The waits between the tries that the Standard Webhooks specification recommends."""

    timeout: Annotated[PositiveDuration, AfterValidator(_at_most_five_minutes)] = timedelta(seconds=15)
    allowed_networks: tuple[Network, ...] = ()
    allowed_hosts: tuple[HostName, ...] = ()
    retry: Annotated[tuple[PositiveDuration, ...], AfterValidator(_some)] = DEFAULT_RETRY
    max_batch: Annotated[int, Field(strict=True, ge=1, le=1000)] = 50
    max_batch_bytes: Annotated[int, Field(strict=True, ge=1024, le=16 * 1024 * 1024)] = 65536
    on_exhausted: Literal["park", "skip"] = "park"
    max_backlog: Annotated[int, Field(strict=True, ge=1)] | None = None
    # What the log does not hold any more, gap repair would take for lost and store anew.
    retention: Annotated[Duration, AfterValidator(_at_least_two_days)] = timedelta(days=30)


class LoggingConfig(Section):
    """What is logged, and in which form."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Config(Section):
    """All of `config.yaml`. Made by `load_config`, which also checks what sections owe to one another."""

    homeserver: HomeserverConfig
    appservice: AppserviceConfig
    provisioning: ProvisioningConfig
    ops: OpsConfig = OpsConfig()
    database: DatabaseConfig = Field(default_factory=DatabaseConfig)
    security: SecurityConfig
    users: UsersConfig = UsersConfig()
    rooms: RoomsConfig = RoomsConfig()
    reconciler: ReconcilerConfig = ReconcilerConfig()
    repair: RepairConfig = RepairConfig()
    lookup: LookupConfig = LookupConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    logging: LoggingConfig = LoggingConfig()
