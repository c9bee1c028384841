"""Levels: every name has its number, and every number a name."""

from core.levels import LEVELS, level_name, level_number


def test_names_and_numbers_are_each_others() -> None:
    assert {name: level_name(number) for name, number in LEVELS.items()} == {name: name for name in LEVELS}
    assert [level_number(name) for name in ("WARN", "warning", "verbose")] == [13, 13, None]


def test_numbers_between_two_names_have_the_lower_one() -> None:
    assert [level_name(number) for number in (0, 1, 4, 10, 11, 16, 24, 25)] == [
        None, "trace", "trace", "notice", "info", "warn", "fatal", None,
    ]  # fmt: skip
