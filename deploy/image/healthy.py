"""Ask what runs in this container whether it serves; for the HEALTHCHECK of the image."""

import os
import sys
from urllib.request import urlopen

try:
    with urlopen(os.environ["PERIJOVE_HEALTH_URL"], timeout=4) as answer:  # noqa: S310 - our own
        sys.exit(answer.status != 200)
except OSError as error:
    sys.exit(str(error))
