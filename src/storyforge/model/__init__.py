"""The base model and its adapter: machine, loading, chat format, tokens, likelihood.

What must be set before torch and bitsandbytes load is set here, since every module of this folder loads them.
"""

import logging
import os

# On import it reports that it found no optional kernel, to people who never asked for 4 bits.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# Threads that spin while they wait, libgomp's default, make two PyTorch programs on two cores ten times
# slower; that sleep at once, a third slower alone (docs/LOG.md). Read once, when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
