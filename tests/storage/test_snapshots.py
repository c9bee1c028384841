"""Snapshots: a pinned directory shows one version of one project's files, whatever happens to them meanwhile."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from core.errors import Unavailable
from core.schema import RECORDS
from storage import snapshots as snapshots_module
from storage.snapshots import NO_VERSION, Snapshots
from tests.lakes import A, B, append


def messages(directory: Path) -> list[str]:
    files = sorted(directory.rglob("*.parquet"))
    return sorted(
        str(text)
        for file in files
        for text in pq.read_table(file, columns=["message"], partitioning=None)["message"].to_pylist()
    )


def test_a_pin_holds_exactly_the_projects_files(tmp_path: Path) -> None:
    append(tmp_path / "lake", RECORDS, {"project_id": A, "message": "a"}, {"project_id": B, "message": "b"})
    snapshots = Snapshots(tmp_path / "lake", tmp_path / "run")
    with snapshots.pin("records", A) as pin:
        assert messages(pin.path) == ["a"]
        assert [path.name for path in pin.path.iterdir()] == ["day=2026-11-24"]
    with snapshots.pin("records", "nobody") as pin:
        assert messages(pin.path) == []


def test_a_table_that_does_not_exist_yet_has_no_files(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "lake", tmp_path / "run")
    with snapshots.pin("records", A) as pin:
        assert (pin.version, messages(pin.path)) == (NO_VERSION, [])
    append(tmp_path / "lake", RECORDS, {"project_id": A, "message": "a"})
    with snapshots.pin("records", A) as pin:
        assert messages(pin.path) == ["a"]


def test_a_pin_outlives_the_files_it_shows(tmp_path: Path) -> None:
    append(tmp_path / "lake", RECORDS, {"project_id": A, "message": "old"})
    snapshots = Snapshots(tmp_path / "lake", tmp_path / "run")
    with snapshots.pin("records", A) as before:
        table = DeltaTable(tmp_path / "lake" / "records")
        table.delete()
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        append(tmp_path / "lake", RECORDS, {"project_id": A, "message": "new"})
        with snapshots.pin("records", A) as after:
            assert messages(before.path) == ["old"]
            assert messages(after.path) == ["new"]
            assert after.version > before.version
        old = before.path
    assert not old.exists()


def test_a_directory_is_shared_until_the_files_change(tmp_path: Path) -> None:
    append(tmp_path / "lake", RECORDS, {"project_id": A})
    snapshots = Snapshots(tmp_path / "lake", tmp_path / "run")
    with snapshots.pin("records", A) as first, snapshots.pin("records", A) as second:
        assert first.path == second.path
        append(tmp_path / "lake", RECORDS, {"project_id": B})
        with snapshots.pin("records", A) as third:
            assert third.path == first.path, "another project's rows are none of its business"


def test_a_version_that_is_not_there_yet_is_unavailable(tmp_path: Path) -> None:
    version = append(tmp_path / "lake", RECORDS, {"project_id": A})
    snapshots = Snapshots(tmp_path / "lake", tmp_path / "run")
    with snapshots.pin("records", A, version_min=version) as pin:
        assert pin.version == version
    with pytest.raises(Unavailable, match=f"Version {version + 1}"):
        snapshots.pin("records", A, version_min=version + 1)


def test_what_nobody_asks_for_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "lake", RECORDS, {"project_id": A})
    snapshots = Snapshots(tmp_path / "lake", tmp_path / "run")
    pin = snapshots.pin("records", A)
    monkeypatch.setattr(snapshots_module, "UNPINNED_KEEP_S", -1.0)
    snapshots.sweep()
    assert pin.path.exists(), "pinned"
    pin.release()
    pin.release()
    snapshots.sweep()
    assert not pin.path.exists()
