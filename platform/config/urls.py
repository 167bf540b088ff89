"""URLs: the runner's door, the people's door."""

from __future__ import annotations

urlpatterns: list[object] = []
