"""Reading a configuration: from file and environment to a `Config`, or to the list of all its faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from openmeet_appservice.config import templates
from openmeet_appservice.config.model import (
    AppserviceConfig,
    Config,
    HomeserverConfig,
    OpsConfig,
    ProvisioningConfig,
    RoomsConfig,
    Section,
    UsersConfig,
)
from openmeet_appservice.config.source import (
    Fault,
    Key,
    Keys,
    Source,
    ValuePath,
    did_you_mean,
    overlay,
    read_file,
    read_text,
)
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.domain.durations import duration_text
from openmeet_appservice.errors import ConfigError

MATRIX_ID_BYTES = 255
"""Matrix ids are at most this long, sigil and server name included (spec, "Common Identifier Format")."""

_BYTES_FOR_NAMES = 96
"""What a template must leave free: a tenant id of 64 characters, and a slug cut down to its hash."""

_OWN_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be keys with values, indented below it",
    "int_type": "must be a whole number",
    "invalid_key": "must be text, as all names of keys",
    "list_type": "must be a list",
    "missing": "is missing",
    "model_type": "must be keys with values, indented below it",
    "string_type": "must be text; put it in quotes",
    "tuple_type": "must be a list",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration, or the faults for which there is none."""

    config: Config | None
    faults: tuple[Fault, ...]

    def or_raise(self) -> Config:
        """Return the configuration; raise `ConfigError`, a line for each fault, where there is none."""
        if self.config is None:
            raise ConfigError("\n".join(map(str, self.faults)))
        return self.config


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration in the file at *path* with *environ*'s variables above it.

    Raises
    ------
    ConfigError
        Something is wrong: one line for each fault, all of them at once.
    """
    return check_config(path, environ).or_raise()


def check_config(path: Path, environ: Mapping[str, str]) -> Checked:
    """Read what `load_config` reads, and return the faults instead of raising them."""
    return _check(read_file(path), path.parent, environ)


def config_from_text(
    text: str,
    *,
    name: str = "config.yaml",
    folder: Path = Path(),
    environ: Mapping[str, str] | None = None,
) -> Checked:
    """Check *text* as if it stood in the file *name* in *folder*."""
    return _check(read_text(text, name), folder, environ or {})


def redacted(config: Config) -> dict[str, Any]:
    """Return *config* as plain values for printing, every secret as ``***``."""
    return config.model_dump(mode="json")


def known_keys() -> Keys:
    """Return the names of all sections and of their keys."""
    return {
        name: {key: Key(structured=_is_structured(field)) for key, field in model.model_fields.items()}
        for name, model in _sections()
    }


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, field in Config.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        yield name, model


def _is_structured(field: FieldInfo) -> bool:
    kind = field.annotation
    if isinstance(kind, type):
        return issubclass(kind, Section | bool | int)
    return get_origin(kind) is tuple


def _check(source: Source, folder: Path, environ: Mapping[str, str]) -> Checked:
    faults = source.faults
    if faults:
        return Checked(None, tuple(faults))
    overlay(source, environ, known_keys())
    faults.extend(_unknown_sections(source))
    valid: dict[str, Section] = {}
    for name, model in _sections():
        values = source.tree.get(name)
        try:
            valid[name] = model.model_validate({} if values is None else values, context={"folder": folder})
        except ValidationError as error:
            faults.extend(_fault(source, name, model, one) for one in error.errors())
    for path, message in _between_sections(valid):
        faults.append(Fault(source.where(path), _dotted(path), message))
    if faults:
        return Checked(None, tuple(faults))
    return Checked(Config.model_validate(valid), ())


def _unknown_sections(source: Source) -> Iterator[Fault]:
    names = list(Config.model_fields)
    for name in source.tree:
        if name not in names:
            guess = did_you_mean(str(name), names)
            yield Fault(source.where((name,)), str(name), f"is not a section{guess}")


def _fault(source: Source, name: str, model: type[Section], error: ErrorDetails) -> Fault:
    path: ValuePath = (name, *(part for part in error["loc"] if part != "[key]"))
    return Fault(source.where(path), _dotted(path), _message(model, path, error))


def _dotted(path: ValuePath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _message(model: type[Section], path: ValuePath, error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(model, path)
    if kind == "value_error":
        return str(context["error"])
    if kind == "greater_than_equal":
        return f"must be at least {_text(context['ge'])}"
    if kind == "less_than_equal":
        return f"must be at most {_text(context['le'])}"
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return _PATTERN_WORDS.get(_dotted(path), f"must match {context['pattern']}")
    return _OWN_WORDS.get(kind, error["msg"])


_PATTERN_WORDS = {
    "appservice.id": "must be 1 to 64 letters, digits and . _ -",
    "appservice.bot_localpart": "must be 1 to 64 of a-z, 0-9 and . _ -",
    "rooms.version": "must be 11 or 12, or null for the homeserver's own choice",
}


def _text(value: object) -> str:
    return duration_text(value) if isinstance(value, timedelta) else str(value)


def _unknown_key(model: type[Section], path: ValuePath) -> str:
    name = str(path[-1])
    for part in path[1:-1]:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, Section)
        model = inner
    guess = did_you_mean(name, list(model.model_fields))
    if not guess:
        elsewhere = [f"{section}.{name}" for section, other in _sections() if name in other.model_fields]
        guess = f"; did you mean {elsewhere[0]}?" if elsewhere else ""
    return f"is not a key{guess}"


def _between_sections(valid: Mapping[str, Section]) -> Iterator[tuple[ValuePath, str]]:
    """Yield what is wrong between sections, of those that are right in themselves."""
    yield from _listeners(valid)
    homeserver, users, rooms = valid.get("homeserver"), valid.get("users"), valid.get("rooms")
    appservice = valid.get("appservice")
    if isinstance(users, UsersConfig) and isinstance(appservice, AppserviceConfig):
        pattern = templates.user_pattern(users.puppet_localpart)
        if templates.matches(pattern, appservice.bot_localpart):
            path = ("users", "puppet_localpart")
            yield path, f"could give a puppet the bot's name, {appservice.bot_localpart}"
    if isinstance(homeserver, HomeserverConfig):
        server = homeserver.server_name
        if isinstance(users, UsersConfig):
            yield from _too_long(("users", "puppet_localpart"), users.puppet_localpart, server)
        if isinstance(rooms, RoomsConfig):
            yield from _too_long(("rooms", "alias"), rooms.alias, server)


def _too_long(path: ValuePath, template: str, server: str) -> Iterator[tuple[ValuePath, str]]:
    fixed = templates.literal_length(template) + len(f"@:{server}")
    if fixed > MATRIX_ID_BYTES - _BYTES_FOR_NAMES:
        limit = MATRIX_ID_BYTES - _BYTES_FOR_NAMES
        yield path, f"is too long: with the server name it takes {fixed} bytes of at most {limit}"


def _listeners(valid: Mapping[str, Section]) -> Iterator[tuple[ValuePath, str]]:
    taken: list[tuple[str, Address]] = []
    for name in ("appservice", "provisioning", "ops"):
        section = valid.get(name)
        if not isinstance(section, AppserviceConfig | ProvisioningConfig | OpsConfig):
            continue
        for other, address in taken:
            if _clash(address, section.listen):
                yield (name, "listen"), f"{section.listen} is taken by {other}.listen already"
        taken.append((name, section.listen))


def _clash(one: Address, other: Address) -> bool:
    everywhere = {"0.0.0.0", "::"}  # noqa: S104  -- compared, not bound
    hosts = {one.host, other.host}
    return one.port == other.port and (len(hosts) == 1 or bool(hosts & everywhere))
