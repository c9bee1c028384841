"""The settings of the dataflow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How the flow groups what it reads into commits."""

    commit_interval_quiet_s: float = 0.25
    """Least time between two commits when few rows wait."""
    commit_interval_loaded_s: float = 1.0
    """Least time between two commits when many rows wait: larger files, less work per row."""
    commit_interval_partition_s: float = 0.01
    """Least time between two commits, for each (project, day) partition the commit touches."""
    loaded_rows: int = 1_000
    """Rows waiting that count as many."""
    epoch_rows_max: int = 100_000
    """Rows of one commit; the flow stops reading until a commit is through."""
    epoch_bytes_max: int = 256 << 20
    """Bytes of the log in one commit; the flow stops reading until a commit is through."""
    read_bytes_max: int = 4 << 20
    """Bytes of the log decoded at a time."""
    record_age_max_s: float = 0.0
    """Records that began longer before their receipt go to dead_letters; 0 takes records of any age."""
