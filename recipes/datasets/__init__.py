"""Opens data of each kind, bundled or yours, by the same way in."""
