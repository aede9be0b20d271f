"""``python -m ssl_lab`` is ``ssl-lab``, for those who start programs by their module, as torchrun does."""

import sys

from ssl_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
