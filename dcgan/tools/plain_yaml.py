"""YAML as people mean it: plain values only, 2e-4 is a number, no key twice, mistakes are reported by line.

Nothing in it can take more memory or time than its text: no anchors, no endless numbers, no endless file.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dcgan import UserError, first_line
from dcgan.tools.files import read_plain

LARGEST_BYTES = 1 << 18  # of a file; those of the lab have about 3,000
LARGEST_INTEGER = 2**63 - 1


class ConfigError(UserError):
    """A user's mistake in an experiment's file or in an override of it."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-4 as a number (YAML 1.2 does, PyYAML's 1.1 does not) and refuses a key twice.

    It also refuses what no experiment needs and what could harm: aliases, which let ten lines stand for gigabytes or
    for a value within itself, numbers beyond 64 bits, and halves of a character (\\ud800).
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            message = f"*{event.anchor} is an alias; write the value out"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        value = super().construct_scalar(node)
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise yaml.constructor.ConstructorError(None, None, f"{value!r} is not Unicode", node.start_mark)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) > LARGEST_INTEGER:
            raise yaml.constructor.ConstructorError(None, None, "a number that is too large", node.start_mark)
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value):  # YAML 1.1 reads 010 as 8, and 1:30 as 90
            message = f"{node.value} is not a plain decimal number"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value:  # YAML 1.1 reads 1:30.5 as 90.5
            message = f"{node.value} is not a plain decimal number"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_yaml_float(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key should be a word", key.start_mark)
            if key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which the loader would read as a number: a fingerprint like 1234567e89012345."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # the loader refuses them


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def dump(record: Mapping[str, Any]) -> str:
    """Return plain values as YAML, in their order."""
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def read(path: Path, *, where: str | None = None) -> dict[str, Any]:
    """Return the mapping in a YAML file, empty for an empty file.

    Raises ConfigError for anything else, naming the line and the file (as `where`, if given).
    """
    where = where or str(path)
    try:
        text = read_plain(path, most=LARGEST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    content = parse(text, where=where)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{where}: should hold `key: value` lines")
    return content


def parse(text: str, *, where: str) -> Any:
    """Parse YAML text. Raises ConfigError, naming `where` and the line, if it isn't valid."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not YAML: {error.problem}") from error
    except Exception as error:  # PyYAML raises many kinds for a tag that does not fit: `!!int ''`
        raise ConfigError(
            f"{where}: a value that does not fit its type ({type(error).__name__}: {first_line(error)})"
        ) from error
