"""Migration of the database's schema by Alembic."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from services.audit.store.engine import lock_all
from shared.config.load import SettingsError


def upgrade(engine: Engine) -> None:
    """Migrate the schema to the newest version: all of it or nothing.

    Raises `SettingsError` if another version made it. Replicas that start together take turns, and
    wait for transactions that record events. The transaction is begun explicitly, because SQLite's
    driver begins none for DDL: half a schema would break every later start.
    """
    config = Config()
    config.set_main_option("script_location", "services.audit.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {each.revision for each in scripts.walk_revisions()}:
        raise SettingsError(
            f"this version does not know the database's schema {current}; use the version that "
            "created it, or an empty database, which is filled from the event log"
        )
    with engine.begin() as connection:
        lock_all(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
