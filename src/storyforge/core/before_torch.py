"""What torch and bitsandbytes read while they load; imported first by what is started as a program.

The one module here whose import changes the process.
"""

import logging
import os

# On import it reports that it found no optional kernel, to people who never asked for 4 bits.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# Threads that spin while they wait, libgomp's default, make two PyTorch programs on two cores ten times
# slower; that sleep at once, a third slower alone (docs/LOG.md). Read once, when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
