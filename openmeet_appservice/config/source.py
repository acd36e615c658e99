"""Where the configuration comes from: a YAML file, and the environment above it.

This module knows files, lines and variables; what the keys mean is `model.py`'s. It is the only place that
reads configuration from disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

PREFIX = "OPENMEET_AS_"
FILE_SUFFIX = "_FILE"

ValuePath = tuple[str | int, ...]
"""The way to a value: section, key, then keys or indexes inside it."""

# Kubernetes gives every container such variables for each service of its namespace (Kubernetes documentation,
# "Service environment variables"). A service named openmeet-as makes them begin like ours.
_SERVICE_LINK = re.compile(
    r"(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: *where* (a file with its line, or a variable), at which *key*, and what."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


@dataclass(slots=True)
class Source:
    """What was read: plain values by section and key, where each was written, and what could not be read."""

    name: str
    tree: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    lines: dict[ValuePath, int] = field(default_factory=dict)
    variables: dict[ValuePath, str] = field(default_factory=dict)

    def where(self, path: ValuePath) -> str:
        """Name the place of the value at *path*, or of the nearest thing around it that was written."""
        if path[:2] in self.variables:
            return self.variables[path[:2]]
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


@dataclass(frozen=True, slots=True)
class Key:
    """What has to be known of a key to read it from a variable: is its value *structured* (not a text)?"""

    structured: bool


Keys = Mapping[str, Mapping[str, Key]]
"""The known keys, by section."""


def read_file(path: Path) -> Source:
    """Read the YAML file at *path*; whatever is wrong with it is among the faults."""
    source = Source(name=str(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        message = "there is no such file; `openmeet-appservice init` writes one"
        source.faults.append(Fault(source.name, "", message))
    except OSError as error:
        source.faults.append(Fault(source.name, "", f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError:
        source.faults.append(Fault(source.name, "", "is not a text file in UTF-8"))
    else:
        _read_text(source, text)
    return source


def read_text(text: str, name: str) -> Source:
    """Read the YAML *text* as the file *name* would be read."""
    source = Source(name=name)
    _read_text(source, text)
    return source


def _read_text(source: Source, text: str) -> None:
    try:
        document = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = _line(error)
        written = text.splitlines()[line - 1].partition(":")[0].strip() if line else ""
        message = "is written twice in the same section; keep one"
        source.faults.append(Fault(_place(source.name, line), written, message))
    except MarkedYAMLError as error:
        # The exception's whole text would quote the file, secrets included.
        source.faults.append(Fault(_place(source.name, _line(error)), "", _explain(error)))
    except YAMLError:
        source.faults.append(Fault(source.name, "", "is not YAML (a control character, perhaps)"))
    else:
        if document is None:
            return
        if not isinstance(document, CommentedMap):
            message = "must be sections of keys, such as `homeserver:` with `url: …` below it"
            source.faults.append(Fault(f"{source.name}:1", "", message))
            return
        source.tree = _plain(document, (), source.lines)


def _line(error: MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else None


def _place(name: str, line: int | None) -> str:
    return f"{name}:{line}" if line else name


def _explain(error: MarkedYAMLError) -> str:
    problem = str(error.problem or "")
    if "\\t" in problem or "\t" in problem:
        return "a tab cannot indent YAML; use spaces"
    if "could not find expected ':'" in problem or "mapping values are not allowed" in problem:
        return "is not YAML: look for a missing colon, a missing quote or wrong indentation"
    if "single document" in (error.context or ""):
        return "must be one YAML document; remove the second `---`"
    return "is not YAML: look at this line and the one above it"


def _plain(value: Any, path: ValuePath, lines: dict[ValuePath, int]) -> Any:
    """Turn ruamel's *value* into plain lists, dicts and scalars, noting the line of each (from 1)."""
    if isinstance(value, CommentedMap):
        for key in value:
            mark = value.lc.data.get(key) if value.lc.data else None
            if mark is not None:
                lines[(*path, key)] = mark[0] + 1
        return {key: _plain(inner, (*path, key), lines) for key, inner in value.items()}
    if isinstance(value, CommentedSeq):
        for index in range(len(value)):
            mark = value.lc.data.get(index) if value.lc.data else None
            if mark is not None:
                lines[(*path, index)] = mark[0] + 1
        return [_plain(inner, (*path, index), lines) for index, inner in enumerate(value)]
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return value


def overlay(source: Source, environ: Mapping[str, str], keys: Keys) -> None:
    """Put the values of *environ*'s variables over those of *source*.

    ``OPENMEET_AS_<SECTION>__<KEY>`` holds the value, ``…_FILE`` the path of a file that holds it. Text
    is taken as it stands; lists, maps, numbers and switches are YAML (so JSON too). An empty variable
    is `null`.
    """
    for variable in sorted(environ):
        rest = variable.removeprefix(PREFIX)
        if rest == variable or ("__" not in rest and _SERVICE_LINK.fullmatch(rest)):
            continue
        section, key, from_file = _target(rest, keys)
        if not key:
            message = "names no key; write OPENMEET_AS_<SECTION>__<KEY>" + _nearest(rest, keys)
            source.faults.append(Fault(variable, "", message))
            continue
        if from_file and variable.removesuffix(FILE_SUFFIX) in environ:
            message = f"is given twice: unset this or {variable.removesuffix(FILE_SUFFIX)}"
            source.faults.append(Fault(variable, f"{section}.{key}", message))
            continue
        text = _read_secret(source, variable, environ[variable]) if from_file else environ[variable]
        if text is not None:
            _put(source, variable, (section, key), text, keys[section][key])


def _target(rest: str, keys: Keys) -> tuple[str, str, bool]:
    section, _, key = rest.lower().partition("__")
    known = keys.get(section, {})
    if key in known:
        return section, key, False
    key = key.removesuffix(FILE_SUFFIX.lower())
    return (section, key, True) if key in known and rest.endswith(FILE_SUFFIX) else (section, "", False)


def _nearest(rest: str, keys: Keys) -> str:
    names = [f"{section}__{key}".upper() for section in keys for key in keys[section]]
    bare = rest.removesuffix(FILE_SUFFIX)
    return did_you_mean(bare.upper(), names, before=PREFIX, after=rest[len(bare) :])


def did_you_mean(name: str, known: Sequence[str], *, before: str = "", after: str = "") -> str:
    """Return a half-sentence that suggests the nearest of *known*, or nothing where none is near."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {before}{near[0]}{after}?" if near else ""


def _read_secret(source: Source, variable: str, file: str) -> str | None:
    try:
        # An editor ends the file with a newline that is no part of the secret.
        return Path(file).read_text("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        message = f"the file {file} cannot be read: {error.strerror}"
    except ValueError:
        message = f"the file {file} is not a text file in UTF-8"
    source.faults.append(Fault(variable, "", message))
    return None


def _put(source: Source, variable: str, path: tuple[str, str], text: str, key: Key) -> None:
    value: Any = text or None
    if key.structured and text:
        inner = read_text(f"value:\n{_indented(text)}", variable)
        if inner.faults:
            source.faults.append(Fault(variable, ".".join(path), "is not YAML or JSON"))
            return
        value = inner.tree.get("value")
    section = source.tree.setdefault(path[0], {})
    if section is None:
        section = source.tree[path[0]] = {}
    if isinstance(section, dict):
        section[path[1]] = value
        source.variables[path] = variable


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
