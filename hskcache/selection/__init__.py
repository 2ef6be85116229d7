"""The three dimensions of hidden-state knowledge: depth (layers), length (positions) and width (columns) [MUD 3]."""
