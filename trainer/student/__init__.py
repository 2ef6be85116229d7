"""Students: how they begin and what is added to them for training."""
