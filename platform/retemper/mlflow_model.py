"""The loader that registered versions name in ``MLmodel``: a lasting place for `retemper.registry.served_model`."""

from retemper.registry.served_model import *  # noqa: F403
from retemper.registry.served_model import _load_pyfunc as _load_pyfunc
