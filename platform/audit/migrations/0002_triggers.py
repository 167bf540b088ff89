"""The triggers that make the log append-only."""

from typing import Any

from django.db import migrations

from audit import triggers


def install(_apps: Any, schema_editor: Any) -> None:
    triggers.install(schema_editor.connection)


def remove(_apps: Any, schema_editor: Any) -> None:
    triggers.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]
    operations = [migrations.RunPython(install, remove)]
