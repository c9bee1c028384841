"""Every setting of Tailrace, read once: command line > `TAILRACE_…` environment > config file > default.

Nested settings are spelled with two underscores (`TAILRACE_QUERY__WORKERS=4`), or as tables in
`tailrace.toml`. Each part of the server is given its own leaf of this tree, never the tree.
"""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from core.errors import BadSettings
from flight.settings import FlightSettings
from pipelines.settings import FlowSettings
from query.settings import QuerySettings
from storage.settings import LogSettings, RetentionSettings, UpkeepSettings

CONFIG_FILE = "tailrace.toml"
CONFIG_VARIABLE = "TAILRACE_CONFIG"


@dataclass(frozen=True, slots=True)
class DiskSettings:
    """Free disk space below which ingest answers 429 while queries go on, in bytes."""

    log_free_bytes_min: int = 1 << 30
    """On the disk of the log."""
    lake_free_bytes_min: int = 1 << 30
    """On the disk of the tables."""
    ledger_free_bytes_min: int = 256 << 20
    """On the disk of an SQLite ledger."""


class Settings(BaseSettings):
    """The whole tree, frozen."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="TAILRACE_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    data: Path = Path("data")
    """Directory of everything that is kept; must be one file system."""
    host: str = "127.0.0.1"
    """Address every door binds. Anything but a loopback address requires tokens."""
    http_port: int = 8000
    """HTTP: OTLP, query API and page."""
    otlp_http_port: int = 4318
    """The standard OTLP/HTTP port."""
    otlp_grpc_port: int = 4317
    """The standard OTLP/gRPC port."""
    flight_port: int = 32010
    """Arrow Flight SQL."""
    require_tokens: bool = False
    """Refuse requests without a known token even on a loopback address."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names accepted in the Host header beside the loopback ones, when bound to loopback."""
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may send telemetry beside the loopback ones, when bound to loopback."""
    ledger_url: str | None = None
    """SQLAlchemy URL of the ledger; by default an SQLite file in the data directory."""
    drain_s: float = 30.0
    """How long a stop waits for accepted telemetry to reach the tables; the rest is read at the next start."""
    failpoints: str = ""
    """Places where a test makes a process die; see storage/failpoints.py. Never set this in earnest."""

    log: LogSettings = LogSettings()
    disk: DiskSettings = DiskSettings()
    flow: FlowSettings = FlowSettings()
    flight: FlightSettings = FlightSettings()
    query: QuerySettings = QuerySettings()
    retention: RetentionSettings = RetentionSettings()
    upkeep: UpkeepSettings = UpkeepSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then the config file."""
        config = os.environ.get(CONFIG_VARIABLE, CONFIG_FILE)  # noqa: TID251  # settings are read here
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(config))

    @property
    def open_to_all(self) -> bool:
        """Whether a request without a known token is let into the default project."""
        return is_loopback(self.host) and not self.require_tokens

    @property
    def log_directory(self) -> Path:
        """Where the log's segments are."""
        return self.data / "log"

    @property
    def lake_directory(self) -> Path:
        """Where the Delta tables are."""
        return self.data / "lake"

    @property
    def run_directory(self) -> Path:
        """Sockets, snapshots and spill files of the running server; emptied at start."""
        return self.data / "run"

    @property
    def flight_socket(self) -> Path:
        """The flight process's own door, for the other processes."""
        return self.run_directory / "flight.sock"

    @property
    def operator_token_file(self) -> Path:
        """The secret of this start that lets the command line act for any project; mode 0600."""
        return self.run_directory / "operator.token"

    @property
    def health_file(self) -> Path:
        """What the supervisor knows of its processes, for /v1/health."""
        return self.run_directory / "health.json"

    def ledger(self) -> str:
        """The SQLAlchemy URL of the ledger."""
        return self.ledger_url or f"sqlite+aiosqlite:///{(self.data / 'ledger.sqlite3').absolute()}"


def read_settings(**given: Any) -> Settings:
    """The settings of this process; options that are None are left to environment, file and default."""
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadSettings(f"The setting {place!r} is not usable: {first['msg']} (got {first['input']!r})") from error
    except (OSError, ValueError) as error:
        raise BadSettings(f"The config file could not be read: {error}") from error
    return settings.model_copy(update={"data": settings.data.absolute()})


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def ledger_url(data: Path | None) -> str:
    """The ledger's URL for a command that is given nothing but, perhaps, a data directory."""
    return read_settings(data=data).ledger()
