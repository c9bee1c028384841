"""The lake: the Delta tables of core.schema, on a directory of their own.

In:  Arrow tables with the app transactions of their commit.   Out: Delta commits; snapshots for readers.
Handles are kept and renewed now and then, since a long-lived one slows down with every commit it sees.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError

from core.errors import Refused
from core.schema import PARTITION_COLUMNS, TABLES, Table

HANDLE_COMMITS_MAX = 100
"""Commits after which a table handle is loaded anew."""
COMPRESSION_LEVEL = 1
"""zstd level of fresh files; upkeep rewrites them at a higher one."""
LOG_RETENTION = "interval 1 hours"
"""How long Delta log entries behind a checkpoint are kept: how far back one can time travel."""
FILE_RETENTION = "interval 1 hours"
"""How long files that no version needs any more are kept for their readers."""

_log = logging.getLogger(__name__)

_WRITER = WriterProperties(compression="ZSTD", compression_level=COMPRESSION_LEVEL)
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)  # upkeep's work


class LakeTable:
    """One Delta table and the app transactions of its commits."""

    def __init__(self, directory: Path, definition: Table) -> None:
        self.definition = definition
        self.directory = directory / definition.name
        self._commits = 0
        self._delta = self._open()

    @property
    def delta(self) -> DeltaTable:
        """The handle, at the version last seen: see `refresh`."""
        return self._delta

    @property
    def version(self) -> int:
        """The Delta version last seen."""
        return self._delta.version()

    def refresh(self) -> None:
        """See what others have committed."""
        self._commits += 1
        if self._commits >= HANDLE_COMMITS_MAX:
            self.reload()
        else:
            self._delta.update_incremental()

    def reload(self) -> None:
        """Load the newest version afresh."""
        self._delta = DeltaTable(self.directory)
        self._commits = 0

    def transaction(self, name: str) -> int | None:
        """The last committed value of an app transaction, as of the version last seen."""
        return self._delta.transaction_version(name)

    def append(self, rows: pa.Table, transactions: Mapping[str, int]) -> None:
        """Commit rows and app transactions in one Delta version; without rows, a version without files.

        Raises deltalake's DeltaError or OSError; the commit may have happened even so: reload and look.
        """
        properties = CommitProperties(
            app_transactions=[Transaction(name, value) for name, value in transactions.items()]
        )
        if rows.num_rows:
            write_deltalake(
                self._delta, rows, mode="append", writer_properties=_WRITER,
                commit_properties=properties, post_commithook_properties=_NO_HOOKS,
            )  # fmt: skip
        else:
            self._delta.create_write_transaction(
                [], "append", self._delta.schema(), list(PARTITION_COLUMNS),
                commit_properties=properties, post_commithook_properties=_NO_HOOKS,
            )  # fmt: skip
        self.refresh()

    def _open(self) -> DeltaTable:
        path = str(self.directory)
        if not DeltaTable.is_deltatable(path):
            _create(path, self.definition)
        table = DeltaTable(path)
        have = {field.name for field in table.schema().fields}
        missing = [column.name for column in self.definition.columns if column.name not in have]
        if missing:
            raise Refused(
                f"The table {self.definition.name!r} in {path} lacks the columns {', '.join(missing)}:"
                " it was made by another version of Tailrace; see docs/operations.md, Upgrade"
            )
        return table


class Lake:
    """All tables of one lake directory; missing ones are created."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.tables = {definition.name: LakeTable(directory, definition) for definition in TABLES}

    def __getitem__(self, name: str) -> LakeTable:
        """The table of that name."""
        return self.tables[name]

    def __iter__(self) -> Iterator[LakeTable]:
        """The tables, the leader of an epoch first."""
        return iter(self.tables.values())

    def versions(self) -> dict[str, int]:
        """The Delta version of each table as last seen."""
        return {name: table.version for name, table in self.tables.items()}


def _create(path: str, definition: Table) -> None:
    try:
        DeltaTable.create(
            path,
            schema=definition.schema,
            mode="ignore",
            partition_by=list(PARTITION_COLUMNS),
            name=definition.name,
            description=definition.description,
            configuration={
                "delta.dataSkippingStatsColumns": ",".join(definition.statistics_columns),
                "delta.logRetentionDuration": LOG_RETENTION,
                "delta.deletedFileRetentionDuration": FILE_RETENTION,
            },
        )
    except DeltaError:
        if not DeltaTable.is_deltatable(path):  # another process may have been first
            raise
    _log.info("created table %s", path)
