"""What alembic runs to bring a ledger up to date: storage.ledger hands it an open transaction.

Migrations live in versions/, numbered 0001, 0002, …; they only go forward, and a published one is never
edited. On SQLite tables are altered by copying them (batch mode), with foreign keys off.
"""

from alembic import context

from storage.ledger_schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
