"""The few parts every recipe stands on. They know no recipe, and import torch alone."""
