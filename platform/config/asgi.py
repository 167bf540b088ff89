"""The ASGI application."""

import os
import warnings

from django.core.asgi import get_asgi_application

# Files (WhiteNoise's, a bundle) are read at once, one small file each: no stream that would wait.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_asgi_application()
