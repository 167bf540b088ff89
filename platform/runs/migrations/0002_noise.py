from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="run", name=name, field=models.JSONField(blank=True, null=True)
        )
        for name in ("noise", "result", "measuring")
    ]
