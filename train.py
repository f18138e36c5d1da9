#!/usr/bin/env python3
"""Train, evaluate, test or visualize a detector: python train.py --cfg FILE [--phase PHASES] [KEY=VALUE ...]"""

import sys

from lib.commands import train

if __name__ == "__main__":
    sys.exit(train())
