"""`python -m edgeprune_jax` is the command `edgeprune`."""

import sys

from edgeprune_jax.cli.main import main

sys.exit(main())
