"""YAML as people mean it: plain values only, 2e-4 is a number, a key stands once, mistakes are told by line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dcgan import UserError


class ConfigError(UserError):
    """A user's mistake in an experiment, told in one line: what is wrong, where, and what would be right."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-4 as a number (YAML 1.2 does, PyYAML's 1.1 does not) and refuses a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key should be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which the loader would take for a number: a fingerprint like 1234567e89012345."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def dump(record: Mapping[str, Any]) -> str:
    """Plain values as YAML in the order given."""
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def read(path: Path, *, where: str | None = None) -> dict[str, Any]:
    """The mapping in a YAML file, empty for an empty file.

    Raises ConfigError for anything else, with the line and the file's name (`where`, if it is told by another).
    """
    where = where or str(path)
    try:
        content = parse(path.read_text(encoding="utf-8"), where=where)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: can't be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{where}: should hold `key: value` lines")
    return content


def parse(text: str, *, where: str) -> Any:
    """The value that a YAML text spells. Raises ConfigError with `where` and the line if it spells none."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not YAML: {error.problem}") from error
    except Exception as error:  # PyYAML itself stumbles, in many ways, over a tag that does not fit: `!!int ''`
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{where}: a value that does not fit its type ({type(error).__name__}: {reason})") from error
