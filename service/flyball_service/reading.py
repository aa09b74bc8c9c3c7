"""Reading the configuration file: the keys of `flyball_service.keys` over strict YAML.

Every fault is an `InvalidDocument` with its line, its column and what would be right. Reads one file and
opens nothing that it names: whether certificates fit is for `flyball config check` and for a start to say.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import yaml

from flyball_core.addresses import is_loopback, split_address
from flyball_core.errors import Rejected
from flyball_log.opening import is_kafka, parse_kafka
from flyball_policies.strict_yaml import DocumentReader, Parse, compose
from flyball_service.config import (
    Config,
    LaneConfig,
    RoutedEngine,
    ScrapedEngine,
    ScrapedGateway,
    TlsConfig,
    TwinEngineConfig,
)
from flyball_service.forms import Form, OneOf, Within
from flyball_service.keys import Key, Many, keys_of

MAX_BYTES = 256 * 1024
"""Largest file taken."""
MAX_NAME = 200
"""Longest name, in characters."""
MOST_ENTRIES = 4096
"""Most entries of a list."""

_UNIQUE: dict[type, tuple[tuple[str, ...], ...]] = {
    ScrapedEngine: (("engine",),),
    ScrapedGateway: (("gateway", "pool"),),
    RoutedEngine: (("engine",),),
    LaneConfig: (("lane",),),
    TwinEngineConfig: (("engine",), ("listen",)),
}
"""What no two entries of a list may have in common."""
_ANY_PORT = ":0"
_SERVICES = ("controller", "agent", "gateway", "twin")
_PLAINTEXT = "write `tls: none` for plaintext between loopback addresses, or `tls: {folder: FOLDER}`"
_KAFKA = "write `log: kafka://HOST:PORT/PREFIX`, or leave `kafka` out"

Section = TypeVar("Section")


def read_config(file: Path) -> Config:
    """The configuration in `file`, its paths made absolute from the file's folder.

    Raises `InvalidDocument` with the place of the fault, `Rejected` if there is no such file.
    """
    try:
        text = file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Rejected(f"{file}: cannot be read: {error.strerror or error}") from error
    root = compose(text, str(file), MAX_BYTES)
    return ConfigReader(file).config(root)


class ConfigReader(DocumentReader):
    """Reads one file; remembers where addresses stand, because whether they are allowed hangs on `tls`."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._path = file
        self._folder = file.absolute().parent
        self._addresses: list[tuple[yaml.Node, str]] = []

    def config(self, root: yaml.Node) -> Config:
        """The whole file."""
        config = self.build(Config, root, "the file", file=self._path)
        given = {key: value for key, _, value in self.items(root, "the file")}
        if "tls" not in given and any(getattr(config, service) is not None for service in _SERVICES):
            raise self.wrong(root, "the file does not say how connections are secured", _PLAINTEXT)
        if config.tls is None:
            for node, address in self._addresses:
                if not is_loopback(address):
                    hint = "give certificates: `tls: {folder: FOLDER}`"
                    raise self.wrong(node, f"{address} is beyond loopback, where plaintext is refused", hint)
        self._check_kafka(config, given, root)
        return config

    def build(self, section: type[Section], node: yaml.Node, what: str, **fixed: object) -> Section:
        """The section that `node` declares; nothing at all stands for all defaults."""
        of: type = section
        keys = keys_of(of)
        values: dict[str, Any] = {}
        if not _is_null(node):
            parsers = {key.name: (key.field, self._parser(key)) for key in keys}
            values = self.section(node, what, parsers)
        for key in keys:
            if key.field not in values and key.required:
                raise self.wrong(node, f"{what} does not say its {key.name}", f"add `{key.name}: ...` ({key.wanted})")
            if key.field not in values:
                values[key.field] = self._placed(key)
        return section(**fixed, **values)

    def _parser(self, key: Key) -> Parse:
        one = self._one(key)
        if key.many is Many.LIST:
            return lambda node: self._list(node, key, one)
        if key.many is Many.BY_NAME:
            return lambda node: {
                self._name(key_node, key): one(value) for _, key_node, value in self.items(node, key.name)
            }
        return one

    def _one(self, key: Key) -> Parse:
        """A parser for one value of the key."""
        if key.of is TlsConfig:
            return self._tls
        if key.section:
            return lambda node: self.build(key.of, node, key.name)
        if issubclass(key.of, Enum):
            choose, of = self.choice(tuple(str(member.value) for member in key.of)), key.of
            return lambda node: of(choose(node))
        if isinstance(key.mark, OneOf):
            return self.choice(key.mark.options)
        if isinstance(key.mark, Form):
            return self._form(key, key.mark)
        return self._plain(key)

    def _plain(self, key: Key) -> Parse:
        if key.of is Path:
            return lambda node: self._absolute(self._text(node, "a path"))
        if key.of is bool:
            choose = self.choice(("true", "false"))
            return lambda node: choose(node) == "true"
        assert isinstance(key.mark, Within), f"{key.field} has no bounds"
        if key.duration:
            return lambda node: self._duration(node, cast("Within", key.mark))
        return self.number(key.mark.low, key.mark.high, int if key.of is int else float)

    def _form(self, key: Key, form: Form) -> Parse:
        parsers: dict[Form, Callable[[yaml.Node], str]] = {
            Form.NAME: lambda node: self._name(node, key),
            Form.ADDRESS: self._address,
            Form.HTTP_ADDRESS: self._http_address,
            Form.URL: self._url,
            Form.LOG: self._log,
        }
        return parsers[form]

    def _list(self, node: yaml.Node, key: Key, one: Parse) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(node, f"{key.name} is a {key.wanted}", f"write one `- ` per entry, or `{key.name}: [...]`")
        if len(node.value) > MOST_ENTRIES:
            raise self.wrong(node, f"{len(node.value)} entries in {key.name}; at most {MOST_ENTRIES}")
        entries = tuple(one(item) for item in node.value)
        seen: set[object] = set()
        for item, entry in zip(node.value, entries, strict=True):
            for fields in _UNIQUE.get(key.of, ((),)):
                same = tuple(getattr(entry, field) for field in fields) or (entry,)
                said = " of ".join(map(str, same))
                if (fields, same) in seen and not said.endswith(_ANY_PORT):
                    raise self.wrong(item, f"{said} is twice in {key.name}")
                seen.add((fields, same))
        return entries

    def _tls(self, node: yaml.Node) -> TlsConfig | None:
        if isinstance(node, yaml.ScalarNode):
            if node.value != "none":
                raise self.wrong(node, "tls is `none` or a section with a folder", _PLAINTEXT)
            return None
        return self.build(TlsConfig, node, "tls")

    def _text(self, node: yaml.Node, wanted: str) -> str:
        text = self.scalar(node, wanted)
        if not text or not text.isprintable() or text != text.strip():
            raise self.wrong(node, f"{text!r} is not {wanted}", "no control characters, no spaces around it")
        return text

    def _name(self, node: yaml.Node, key: Key) -> str:
        text = self.scalar(node, "a name")
        if not text and key.default == "":
            return text
        if len(text) > MAX_NAME:
            raise self.wrong(node, f"a name has 1 to {MAX_NAME} characters, not {len(text)}")
        return self._text(node, "a name")

    def _address(self, node: yaml.Node) -> str:
        address = self._http_address(node)
        self._addresses.append((node, address))
        return address

    def _http_address(self, node: yaml.Node) -> str:
        text = self.scalar(node, "HOST:PORT")
        with self._placing(node):
            split_address(text)
        return text

    def _url(self, node: yaml.Node) -> str:
        text = self._text(node, "a URL")
        example = "such as http://127.0.0.1:8000/metrics"
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise self.wrong(node, f"{text!r} is not a URL: {error}", example) from None
        if parts.scheme not in ("http", "https") or not host or " " in text or parts.fragment:
            raise self.wrong(node, f"{text!r} is not an http or https URL", example)
        if "@" in parts.netloc:
            raise self.wrong(node, "a URL here carries no user name or password", "no secret stands in this file")
        return text

    def _duration(self, node: yaml.Node, bounds: Within) -> float:
        seconds = self.duration(node)
        if not bounds.low <= seconds <= bounds.high:
            wanted = f"{spell_duration(bounds.low)} and {spell_duration(bounds.high)}"
            raise self.wrong(node, f"{self.scalar(node, 'a duration')} is not between {wanted}")
        return seconds

    def _log(self, node: yaml.Node) -> str:
        text = self._text(node, "a log")
        if "://" in text and not is_kafka(text):
            raise self.wrong(node, f"{text!r} is not a log", f"a {Form.LOG.value}")
        if not is_kafka(text):
            return str(self._absolute(text))
        with self._placing(node):
            parse_kafka(text)
        return text

    def _absolute(self, path: str | Path) -> Path:
        # Not resolved: where a link leads may change while a service runs, as Kubernetes' mounted secrets do.
        return self._folder / path

    def _placed(self, key: Key) -> object:
        """The key's default; paths are relative to the file even if they do not stand in it."""
        if key.mark is Form.LOG:
            return str(self._absolute(key.default))
        return self._absolute(key.default) if isinstance(key.default, Path) else key.default

    def _check_kafka(self, config: Config, given: Mapping[str, yaml.Node], root: yaml.Node) -> None:
        """Hold `log` and `kafka` against each other where they are written."""
        from flyball_service.kafka import kafka_settings

        if config.kafka is not None and not is_kafka(config.log):
            raise self.wrong(given["kafka"], "`kafka` says how to connect, but `log` names no brokers", _KAFKA)
        with self._placing(given.get("kafka", given.get("log", root))):
            kafka_settings(config)

    @contextmanager
    def _placing(self, node: yaml.Node) -> Iterator[None]:
        """Give a `Rejected` of others its place in the file."""
        try:
            yield
        except Rejected as error:
            raise self.wrong(node, str(error)) from None


def spell_duration(seconds: float) -> str:
    """A duration as it is written in the file: `250ms`, `1s`, `24h`."""
    for unit, size_s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size_s and (seconds / size_s).is_integer():
            return f"{seconds / size_s:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1.0 else f"{seconds * 1000.0:g}ms"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
