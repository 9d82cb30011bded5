"""Where `backup` and `restore` were before; they are in `seeknal.home.backup`."""

from seeknal.home.backup import BackedUp, Restored, backup, restore

__all__ = ["BackedUp", "Restored", "backup", "restore"]
