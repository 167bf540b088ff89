"""URLs: the runner's door, the people's door."""

from __future__ import annotations

from django.urls import include, path
from proposals.api import api

urlpatterns = [
    path("api/v1/", api.urls),
    path("", include("config.pages")),
]

handler400 = "config.errors.bad_request"
handler403 = "config.errors.forbidden"
handler404 = "config.errors.not_found"
handler500 = "config.errors.server_error"
