"""The settings of what is kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The size and the pace of the log."""

    segment_bytes_max: int = 64 << 20
    """Bytes of one file, and so of what can be trimmed at a time; a longer frame has a file of its own."""
    linger_s: float = 0.002
    """Longest wait for the senders of the last group to come again, so that they share an fsync."""
    bytes_max: int = 8 << 30
    """Bytes kept on the disk; beyond it senders are told to wait until the flow has read and trimmed."""


@dataclass(frozen=True, slots=True)
class UpkeepSettings:
    """How often upkeep does its work."""

    interval_s: float = 5.0
    """Pause between rounds."""
    checkpoint_commits: int = 100
    """Commits after which a table gets a checkpoint, and older log entries are dropped."""
    vacuum_interval_s: float = 600.0
    """Time between deletions of files that no version within the last hour needs."""
    orphan_interval_s: float = 86_400.0
    """Time between searches for files that no version ever needed, left by a crash."""
    vacuum_hours: int = 1
    """How long replaced files stay for readers of the tables' files; queries pin theirs."""


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Days of receipt that each table keeps; 0 keeps them for ever."""

    records_days: int = 90
    """Spans, logs, span events and annotations."""
    pending_spans_days: int = 7
    """Started spans."""
    metrics_days: int = 90
    """Metric data points."""
    dead_letters_days: int = 30
    """What could not be decoded."""
