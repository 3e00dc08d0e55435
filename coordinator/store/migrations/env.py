"""What alembic runs around a migration: the caller gives the connection and holds the transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
