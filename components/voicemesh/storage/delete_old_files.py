"""Deletes what nobody has written to for some days: `python3 delete_old_files.py FOLDER DAYS`.

The clean-up job of a `VoiceVolume` runs this file's text, so it needs nothing but Python.
"""

import os
import sys
import time


def delete_old_files(root: str, days: float) -> list[str]:
    """Deletes old files, and empty folders, below `root`; returns what could not be deleted."""
    oldest = time.time() - days * 86_400
    failures = []
    for folder, folders, files in os.walk(root, topdown=False):
        for name in files + folders:
            path = os.path.join(folder, name)
            try:
                if os.lstat(path).st_mtime < oldest:
                    _delete(path)
            except FileNotFoundError:
                pass  # Somebody else deleted it.
            except OSError as error:
                failures.append(str(error))
    return failures


def _delete(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    elif not os.listdir(path):
        os.rmdir(path)


if __name__ == "__main__":
    sys.exit("\n".join(delete_old_files(sys.argv[1], float(sys.argv[2]))) or None)
