"""The record of shards that have been read to their last byte, so that each is verified once and not at each resume."""

import json
import logging
from collections.abc import Mapping

from raydream.errors import DocumentError, first_line
from raydream.store.documents import read_json
from raydream.store.folders import Folder, Stamp

log = logging.getLogger(__name__)

FILE = "_verified.json"
"""name of the record beside the shards; readers of data sets skip names that begin with an underscore"""


def read_verified(folder: Folder) -> dict[str, Stamp]:
    """Return the stamps of the files that were verified, by name; empty if there is no readable record.

    A file whose stamp is another by now has changed, and is to be verified again.
    """
    try:
        found = read_json(folder, FILE)
        return {name: (int(size), int(mtime)) for name, (size, mtime) in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, DocumentError, TypeError, ValueError, AttributeError) as error:
        log.warning("the record of verified shards cannot be read, so all are verified (%s)", first_line(error))
        return {}


def write_verified(folder: Folder, verified: Mapping[str, Stamp]) -> None:
    """Write the record. A failure of storage is logged: what it lacks is verified again."""
    try:
        folder.write(FILE, json.dumps(verified).encode())
    except OSError as error:
        log.warning("the record of verified shards was not written: %s", first_line(error))
