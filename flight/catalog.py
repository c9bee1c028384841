"""What there is: the answers to Flight SQL's questions about catalogs, tables, types and the server.

In:  a command.   Out: a table in the schema that the Flight SQL specification gives for it.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import pyarrow as pa

from flight.messages import (
    Command,
    CommandGetCatalogs,
    CommandGetCrossReference,
    CommandGetDbSchemas,
    CommandGetExportedKeys,
    CommandGetImportedKeys,
    CommandGetPrimaryKeys,
    CommandGetSqlInfo,
    CommandGetTables,
    CommandGetTableTypes,
    CommandGetXdbcTypeInfo,
)

CATALOG = "tailrace"
DB_SCHEMA = "public"
TABLE_TYPE = "VIEW"

_CATALOGS = pa.schema([pa.field("catalog_name", pa.string(), False)])
_DB_SCHEMAS = pa.schema([pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string(), False)])
_TABLES = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), False),
        pa.field("table_type", pa.string(), False),
    ]
)
_TABLE_TYPES = pa.schema([pa.field("table_type", pa.string(), False)])
_PRIMARY_KEYS = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), False),
        pa.field("column_name", pa.string(), False),
        pa.field("key_name", pa.string()),
        pa.field("key_sequence", pa.int32(), False),
    ]
)
_FOREIGN_KEYS = pa.schema(
    [
        pa.field("pk_catalog_name", pa.string()),
        pa.field("pk_db_schema_name", pa.string()),
        pa.field("pk_table_name", pa.string(), False),
        pa.field("pk_column_name", pa.string(), False),
        pa.field("fk_catalog_name", pa.string()),
        pa.field("fk_db_schema_name", pa.string()),
        pa.field("fk_table_name", pa.string(), False),
        pa.field("fk_column_name", pa.string(), False),
        pa.field("key_sequence", pa.int32(), False),
        pa.field("fk_key_name", pa.string()),
        pa.field("pk_key_name", pa.string()),
        pa.field("update_rule", pa.uint8(), False),
        pa.field("delete_rule", pa.uint8(), False),
    ]
)
_XDBC_TYPES = pa.schema(
    [
        pa.field("type_name", pa.string(), False),
        pa.field("data_type", pa.int32(), False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(pa.field("item", pa.string(), False))),
        pa.field("nullable", pa.int32(), False),
        pa.field("case_sensitive", pa.bool_(), False),
        pa.field("searchable", pa.int32(), False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)

NULLABLE = 1
SEARCHABLE = 3  # in every kind of predicate
_SQL_TYPES: Sequence[tuple[str, int, int, str | None, bool | None, int | None, int | None]] = (
    ("BIGINT", -5, 64, None, False, None, 2),
    ("BOOLEAN", -7, 1, None, None, None, None),
    ("BYTEA", -3, 2_147_483_647, "'", None, None, None),
    ("DATE", 91, 10, "'", None, 1, None),
    ("DOUBLE PRECISION", 8, 53, None, False, None, 2),
    ("INTEGER", 4, 32, None, False, None, 2),
    ("INTERVAL", 10, 49, "'", None, None, None),
    ("NUMERIC", 2, 76, None, False, None, 10),
    ("REAL", 7, 24, None, False, None, 2),
    ("SMALLINT", 5, 16, None, False, None, 2),
    ("TEXT", 12, 2_147_483_647, "'", None, None, None),
    ("TIME", 92, 15, "'", None, 2, None),
    ("TIMESTAMP WITH TIME ZONE", 93, 32, "'", None, 3, None),
)
"""Types of SQL: name, XDBC number, size (digits, bits or characters), quote, unsigned, date-time code, radix."""

_INFO: Mapping[int, str | bool | int | tuple[str, ...]] = {
    0: "Tailrace",
    1: version("tailrace-server"),
    2: pa.__version__,  # version of the Arrow format library
    3: True,  # read only
    4: True,  # SQL is understood
    5: False,  # Substrait is not
    8: 0,  # no transactions
    9: True,  # statements can be cancelled
    10: False,  # no bulk ingestion
    11: False,  # nor in transactions
    100: 0,  # timeouts are settings of the server
    101: 0,
    500: False,  # no DDL of catalogs,
    501: False,  # schemas
    502: False,  # and tables
    503: 3,  # names without quotes are folded to lower case
    504: '"',  # quotes an identifier
    505: 1,  # names in quotes keep their case
    506: True,  # every table can be read
    507: 0,  # nulls sort high
    508: ("DISTINCT ON", "FILTER", "ILIKE", "QUALIFY", "WITHIN GROUP"),  # words beyond SQL:2003
    509: ("abs", "ceil", "exp", "floor", "ln", "log", "pow", "round", "sqrt", "trunc"),
    510: ("concat", "left", "length", "lower", "regexp_replace", "replace", "split_part", "substr", "trim", "upper"),
    511: ("current_date", "now"),
    512: ("date_bin", "date_part", "date_trunc", "time_bucket", "to_timestamp"),
}
"""Facts by the specification's SqlInfo numbers."""
_INFO_TYPE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
)
_INFO_CHILDREN = {str: 0, bool: 1, int: 3, tuple: 4}


def describe(command: Command, tables: Mapping[str, pa.Schema]) -> pa.Table | None:
    """The answer to a question about what there is; None when the command is not one."""
    match command:
        case CommandGetCatalogs():
            return _table(_CATALOGS, [CATALOG])
        case CommandGetDbSchemas(catalog, pattern):
            here = catalog in {None, "", CATALOG} and _like(pattern, DB_SCHEMA)
            return _table(_DB_SCHEMAS, *([[CATALOG, DB_SCHEMA]] if here else []))
        case CommandGetTables():
            return _tables(command, tables)
        case CommandGetTableTypes():
            return _table(_TABLE_TYPES, [TABLE_TYPE])
        case CommandGetPrimaryKeys():
            return _PRIMARY_KEYS.empty_table()
        case CommandGetExportedKeys() | CommandGetImportedKeys() | CommandGetCrossReference():
            return _FOREIGN_KEYS.empty_table()
        case CommandGetXdbcTypeInfo(number):
            return _types(number)
        case CommandGetSqlInfo(numbers):
            return _info(numbers)
        case _:
            return None


def _table(schema: pa.Schema, *rows: Sequence[object]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in schema]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _types(number: int | None) -> pa.Table:
    """The SQL types, or the one with an XDBC number."""
    rows = [
        (name, code, size, quote, quote, None, NULLABLE, bool(quote), SEARCHABLE, unsigned, False, False, name, None,
         None, code, subcode, radix, None)
        for name, code, size, quote, unsigned, subcode, radix in _SQL_TYPES
        if number is None or number == code
    ]  # fmt: skip
    return _table(_XDBC_TYPES, *rows)


def _tables(command: CommandGetTables, tables: Mapping[str, pa.Schema]) -> pa.Table:
    here = (
        command.catalog in {None, "", CATALOG}
        and _like(command.db_schema_filter_pattern, DB_SCHEMA)
        and (not command.table_types or TABLE_TYPE in command.table_types)
    )
    names = [name for name in tables if here and _like(command.table_name_filter_pattern, name)]
    found = _table(_TABLES, *([CATALOG, DB_SCHEMA, name, TABLE_TYPE] for name in names))
    if not command.include_schema:
        return found
    schemas = pa.array([tables[name].serialize().to_pybytes() for name in names], pa.binary())
    return found.append_column(pa.field("table_schema", pa.binary(), False), schemas)


def _like(pattern: str | None, name: str) -> bool:
    """SQL's LIKE; a pattern that is not given matches everything."""
    if pattern is None:
        return True
    parts = {"%": ".*", "_": "."}
    return re.fullmatch("".join(parts.get(char, re.escape(char)) for char in pattern), name, re.DOTALL) is not None


def _info(numbers: tuple[int, ...]) -> pa.Table:
    chosen = [number for number in (numbers or sorted(_INFO)) if number in _INFO]
    children: list[list[object]] = [[] for _ in range(_INFO_TYPE.num_fields)]
    types, offsets = list[int](), list[int]()
    for number in chosen:
        value = _INFO[number]
        child = _INFO_CHILDREN[type(value)]
        types.append(child)
        offsets.append(len(children[child]))
        children[child].append(value)
    fields = [_INFO_TYPE.field(index) for index in range(_INFO_TYPE.num_fields)]
    values = pa.UnionArray.from_dense(
        pa.array(types, pa.int8()), pa.array(offsets, pa.int32()),
        [pa.array(items, field.type) for items, field in zip(children, fields, strict=True)],
        [field.name for field in fields],
    )  # fmt: skip
    schema = pa.schema([pa.field("info_name", pa.uint32(), False), pa.field("value", values.type, False)])
    return pa.Table.from_arrays([pa.array(chosen, pa.uint32()), values], schema=schema)
