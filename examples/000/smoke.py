"""The document's smoke test, against the new version alone: TARGET is where its instances listen."""

import os
import sys
import urllib.request

TARGET = os.environ["TARGET"].rstrip("/")

for path in ("/health", "/health/ready", "/version"):
    with urllib.request.urlopen(TARGET + path, timeout=5) as answer:
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status}")
    print(f"{path}: 200")
