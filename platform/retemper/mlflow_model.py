"""Former place of `retemper.registry.served_model`, which versions registered before name; for one release."""

from retemper.registry.served_model import *  # noqa: F403
from retemper.registry.served_model import _load_pyfunc as _load_pyfunc
