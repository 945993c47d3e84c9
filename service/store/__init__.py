"""Projects on disk: a directory of joblib files for each, one commit point, one lock."""

from service.store.events import Page
from service.store.snapshot import Part, Snapshot, Stamp
from service.store.store import Store
from service.store.transaction import Transaction

__all__ = ["Page", "Part", "Snapshot", "Stamp", "Store", "Transaction"]
