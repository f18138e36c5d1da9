#!/usr/bin/env python3
"""Draw a detector's findings on images and videos, or time it:
python demo.py --cfg FILE --demo PATH [-t image|folder|video|camera|time] [KEY=VALUE ...]"""

import sys

from lib.commands import demo

if __name__ == "__main__":
    sys.exit(demo())
